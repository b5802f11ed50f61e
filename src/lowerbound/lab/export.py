"""Export: a model as files for other engines, which are kept only if they are proven to do what the model does.

    encode.onnx   raw rows to codes and rates
    decode.onnx   codes to the point of p(x|z) on the raw scale
    facts.onnx    raw rows to codes, rates, reconstruction and error in one pass
    parity.json   how far the files are from the model, on which rows, and their hashes

With the format "torch" the first three are programs of `torch.export`, `.pt2`. Any number of rows can be given; the
sizes of a row are those of the model, whose networks are made for them.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

import lowerbound
from lowerbound.errors import DataError, LowerboundError, NotSupportedError, ParityError
from lowerbound.extras import need
from lowerbound.files import flush_folder, read_json, sha256, write_json
from lowerbound.lab.data.rows import Rows
from lowerbound.lab.facts import Facts
from lowerbound.lab.onnx import OnnxNetwork
from lowerbound.lab.reference import Limit, Reference, make_reference
from lowerbound.lab.run import Run, environment
from lowerbound.model.distributions import tree
from lowerbound.model.families.family import Family
from lowerbound.noise import derive_seed, generator

Format = Literal["onnx", "torch"]
Engine = Callable[..., dict[str, Tensor]]
PARITY = "parity.json"
TOLERANCE = 1e-4  # of the size of an output, at least 1
BATCHES = (1, 7, 32)  # rows at a time
LEVELS = (0.01, 0.001)  # of the limits whose decisions are compared, where the reference has rows enough


class Encode(nn.Module):
    """Raw rows (B, *event), as floats, to the facts that need no decoder: codes, and rates where there are any.

    Args:
        facts: of the model.
    """

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self.facts, self.names = facts, facts.encoded

    def forward(self, raw: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.facts.encode(raw)[name] for name in self.names)


class Decode(nn.Module):
    """Codes, one tensor per group of latents, to the point of p(x|z) on the scale of raw rows.

    Args:
        facts: of the model.
    """

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self.facts, self.names = facts, ("reconstruction",)

    def forward(self, *latents: Tensor) -> tuple[Tensor, ...]:
        model = self.facts.model
        px = model.decode(dict(zip(self.facts.groups, latents, strict=True)))
        return (model.preparation.restore(tree.point(px)),)


class Everything(nn.Module):
    """Raw rows (B, *event), as floats, to all facts.

    Args:
        facts: of the model.
    """

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self.facts, self.names = facts, facts.names

    def forward(self, raw: Tensor) -> tuple[Tensor, ...]:
        found = self.facts(raw)
        return tuple(found[name] for name in self.names)


@dataclass(frozen=True)
class Part:
    """What becomes one file.

    Attributes:
        name: of the file, without its extension.
        module: the function.
        example: its inputs for two rows.
        takes, gives: names of its inputs and outputs.
    """

    name: str
    module: nn.Module
    example: tuple[Tensor, ...]
    takes: tuple[str, ...]
    gives: tuple[str, ...]

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> dict[str, Tensor]:
        """The outputs by name, by the model itself."""
        return dict(zip(self.gives, self.module(*inputs), strict=True))


@dataclass(frozen=True)
class Parity:
    """How far exported files are from the model.

    Attributes:
        format: of the files.
        engine: that ran them, with its version.
        tolerance: that differences stay within, of the size of an output, at least 1.
        batches: rows at a time.
        rows: how many of each set of rows.
        outputs: largest difference of each output, in the same unit, by part and name.
        scores: largest difference of each score.
        limits: whose decisions were compared.
        decisions: how many were compared.
        undecided: how many were not, because the score lies at the limit within the tolerance.
        files: hash of each file.
        environment: where it was proven.
    """

    format: Format
    engine: str
    tolerance: float
    batches: tuple[int, ...]
    rows: dict[str, int]
    outputs: dict[str, float]
    scores: dict[str, float]
    limits: list[dict[str, Any]]
    decisions: int
    undecided: int
    files: dict[str, str]
    environment: dict[str, Any]


def export(
    run: Run | Path | str, out: Path | None = None, formats: Sequence[Format] = ("onnx",), data_dir: Path | None = None
) -> dict[Format, Parity]:
    """Export a finished run, and prove the files on its own held-out rows.

    Args:
        run: the run or its folder.
        out: where to write; by default the folder `export` of the run.
        formats: of the files.
        data_dir: where the run's data lie.

    Raises:
        ParityError: the files do not do what the model does; they are removed.
        NotSupportedError: the model cannot be exported.
        UsageError: the extra "export" is not installed.
    """
    run = run if isinstance(run, Run) else Run(run)
    model = run.model()
    parts_of(model)
    rows = lowerbound.load_data(run.recipe().data, data_dir, run.quarantine_path).validation
    return export_model(model, make_reference(model, rows), held_out(rows), out or run.path / "export", formats)


def held_out(rows: Rows) -> Tensor:
    """As many rows as files are proven on, as floats; repeated where there are fewer."""
    if not len(rows):
        raise DataError("the data have no validation rows, and exported files are proven on them.")
    return rows.take(torch.arange(sum(BATCHES)) % len(rows)).raw.float()


def export_model(
    model: Family, reference: Reference, raw: Tensor, out: Path, formats: Sequence[Format] = ("onnx",)
) -> dict[Format, Parity]:
    """Export a model and prove the files; they take their names when they are proven, `parity.json` last.

    Args:
        model: in evaluation mode, on the processor, without a context.
        reference: of the model, whose limits decide.
        raw: rows to prove it on, as floats, 40 at least.
        out: where to write.
        formats: of the files.

    Raises:
        ParityError, NotSupportedError, UsageError: as for `export`.
    """
    parts = parts_of(model)
    proven: dict[Format, Parity] = {}
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".export.") as draft:
        for format in dict.fromkeys(formats):
            for part in parts:
                write_part(part, Path(draft), format)
            proven[format] = prove(parts, Path(draft), reference, raw, format)
        others = read_json(out / PARITY) if (out / PARITY).exists() else {}
        (out / PARITY).unlink(missing_ok=True)  # until the files are those that it speaks of
        for parity in proven.values():
            for name in parity.files:
                (Path(draft) / name).replace(out / name)
        flush_folder(out)
    write_json(out / PARITY, others | {format: asdict(parity) for format, parity in proven.items()})
    return proven


def parts_of(model: Family) -> list[Part]:
    """The three parts of a model.

    Raises:
        NotSupportedError: the model needs a context, or has no codes.
    """
    if model.data.context and not model.infers_context:
        raise NotSupportedError(
            "this model is conditional, and exported files take rows alone; use it from Python or the command line."
        )
    facts = Facts(model.eval())
    raw = torch.zeros(2, *model.data.event)
    with torch.no_grad():
        codes = Encode(facts)(raw)[: len(facts.groups)]
    return [
        Part("encode", Encode(facts), (raw,), ("raw",), facts.encoded),
        Part("decode", Decode(facts), codes, facts.groups, ("reconstruction",)),
        Part("facts", Everything(facts), (raw,), ("raw",), facts.names),
    ]


def write_part(part: Part, folder: Path, format: Format) -> Path:
    """Write the file of a part.

    Raises:
        NotSupportedError: the part has something that the format cannot say.
        UsageError: the extra "export" is not installed.
    """
    path = folder / f"{part.name}{EXTENSIONS[format]}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows = torch.export.Dim("rows", min=1)
            sizes: Any = tuple({0: rows} for _ in part.example)
            sizes = (sizes,) if part.name == "decode" else sizes
            program = torch.export.export(part.module, part.example, dynamic_shapes=sizes, strict=False)
            WRITERS[format](program, part, path)
    except Exception as error:  # exporters raise kinds of their own, one for each operation that they do not know
        if isinstance(error, (OSError, LowerboundError)):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise NotSupportedError(
            f"this model cannot be written as {format}, because its part `{part.name}` has something that the format "
            f"cannot say ({reason}); use it from Python or the command line."
        ) from error
    return path


def prove(parts: Sequence[Part], folder: Path, reference: Reference, raw: Tensor, format: Format) -> Parity:
    """Compare files with the model: outputs, scores and decisions, at three sizes on three sets of rows.

    Sets: the rows given; the same with the values at each place shuffled among rows; rows of extreme values. A decision
    is whether a score lies beyond a limit of the reference. Codes that are integers must be equal.

    Raises:
        ParityError: something differs; the largest difference is named.
    """
    engines = {part.name: ENGINES[format](folder / f"{part.name}{EXTENSIONS[format]}", part) for part in parts}
    limits = limits_of(reference)
    outputs: dict[str, float] = {}
    scores: dict[str, float] = {}
    compared = undecided = 0
    different: list[str] = []
    sets = row_sets(raw)
    for title, rows in sets.items():
        for batch in rows.split(list(BATCHES)):
            codes = parts[0](batch)
            for part in parts:
                given = [codes[name] for name in part.takes] if part.name == "decode" else [batch]
                ours, theirs = part(*given), engines[part.name](*given)
                for name in part.gives:
                    _raise_to(outputs, f"{part.name}.{name}", difference(ours[name], theirs[name]))
                if part.name != "facts":
                    continue
                exact, found = reference.score(ours), reference.score(theirs)
                for name in exact:
                    _raise_to(scores, name, difference(exact[name], found[name]))
                for limit in (limit for limit in limits if limit.name in exact):
                    clear = ~_at(limit, exact[limit.name])
                    flips = limit.beyond(exact[limit.name]) != limit.beyond(found[limit.name])
                    compared, undecided = compared + int(clear.sum()), undecided + int((~clear).sum())
                    if bool((flips & clear).any()):
                        different.append(f"`{limit.name}` at level {limit.level:g} on {title} rows")
    check(outputs | {f"the score {name}": value for name, value in scores.items()}, different, format)
    return Parity(
        format=format,
        engine=f"onnxruntime {need('onnxruntime', 'export', 'proof').__version__}"
        if format == "onnx"
        else f"torch {torch.__version__}",
        tolerance=TOLERANCE,
        batches=BATCHES,
        rows={title: len(rows) for title, rows in sets.items()},
        outputs=outputs,
        scores=scores,
        limits=[asdict(limit) for limit in limits],
        decisions=compared,
        undecided=undecided,
        files={path.name: sha256(path) for path in (folder / f"{p.name}{EXTENSIONS[format]}" for p in parts)},
        environment=environment(),
    )


def check(differences: dict[str, float], decisions: Sequence[str], format: Format) -> None:
    """Refuse differences beyond the tolerance, and decisions that differ.

    Raises:
        ParityError: there are any.
    """
    worst = max(differences, key=lambda name: differences[name])
    if differences[worst] <= TOLERANCE and not decisions:
        return
    also = f", and {len(decisions)} decisions differ, first {decisions[0]}" if decisions else ""
    raise ParityError(
        f"the {format} files do not do what the model does: the largest difference is {differences[worst]:.3g} of "
        f"`{worst}`, where {TOLERANCE:g} is allowed{also}; the files are removed, use the model from Python."
    )


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference of two outputs, of the larger of 1 and the largest value; infinite where one is none.

    Integers that differ are infinitely far from each other.
    """
    if ours.shape != theirs.shape:
        return float("inf")
    if not ours.is_floating_point():
        return 0.0 if bool((ours == theirs).all()) else float("inf")
    a, b = ours.double(), theirs.double()
    if not torch.equal(a.isfinite(), b.isfinite()):
        return float("inf")
    known = a.isfinite()
    if not bool(known.any()):
        return 0.0
    return float((a - b)[known].abs().max() / a[known].abs().max().clamp_min(1))


def row_sets(raw: Tensor) -> dict[str, Tensor]:
    """Three sets of rows, as many as `BATCHES` take, from rows (N, *event)."""
    rows = raw[torch.arange(sum(BATCHES)) % len(raw)]
    source = generator(derive_seed(0, "parity"))
    order = torch.rand(rows.shape, generator=source).argsort(dim=0)
    missing = rows.isnan()
    low = rows.masked_fill(missing, torch.inf).amin(dim=0, keepdim=True)
    high = rows.masked_fill(missing, -torch.inf).amax(dim=0, keepdim=True)
    low, high = (torch.where(end.isfinite(), end, torch.nan) for end in (low, high))
    share = torch.linspace(0, 1, len(rows)).reshape(-1, *(1,) * (rows.ndim - 1))
    extreme = torch.where(torch.rand(rows.shape, generator=source) < share, high, low)
    return {"held-out": rows, "shuffled": rows.gather(0, order), "extreme": extreme}


def limits_of(reference: Reference) -> list[Limit]:
    """The limits whose decisions are compared: at the usual levels, or the smallest that the reference has rows for."""
    found = []
    for name in ("error", "rate", "norm"):
        if name in reference.scores:
            smallest = reference.smallest_level(name)
            levels = {max(level, smallest) for level in LEVELS}
            found += [reference.limit(name, level) for level in sorted(levels, reverse=True) if level < 1]
    return found


def _at(limit: Limit, values: Tensor) -> Tensor:
    """Which scores lie at an end of the limit, within the tolerance, (B,)."""
    near = torch.zeros_like(values, dtype=torch.bool)
    for end in (limit.low, limit.high):
        if end is not None:
            near |= (values - end).abs() <= TOLERANCE * max(1.0, abs(end))
    return near


def _raise_to(largest: dict[str, float], name: str, value: float) -> None:
    largest[name] = max(largest.get(name, 0.0), value)


def _write_onnx(program: torch.export.ExportedProgram, part: Part, path: Path) -> None:
    need("onnxscript", "export", "ONNX")
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)  # it warns of packages that it does without
    try:
        made = torch.onnx.export(
            program, input_names=list(part.takes), output_names=list(part.gives), dynamo=True, verbose=False
        )
    finally:
        log.setLevel(level)
    assert made is not None
    made.save(str(path))


def _write_torch(program: torch.export.ExportedProgram, part: Part, path: Path) -> None:
    torch.export.save(program, path)


def _run_onnx(path: Path, part: Part) -> Engine:
    return OnnxNetwork(path)


def _run_torch(path: Path, part: Part) -> Engine:
    module = torch.export.load(path).module()

    @torch.no_grad()
    def run(*inputs: Tensor) -> dict[str, Tensor]:
        return dict(zip(part.gives, module(*inputs), strict=True))

    return run


EXTENSIONS: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2"}
WRITERS: dict[Format, Callable[[torch.export.ExportedProgram, Part, Path], None]] = {
    "onnx": _write_onnx,
    "torch": _write_torch,
}
ENGINES: dict[Format, Callable[[Path, Part], Engine]] = {"onnx": _run_onnx, "torch": _run_torch}

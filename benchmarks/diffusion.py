"""Figures of diffusion models: samplers, guidance, students, second stages, and the schedulers of diffusers.

    python benchmarks/diffusion.py samplers RUN [SEEDS]
    python benchmarks/diffusion.py guidance RUN
    python benchmarks/diffusion.py students RUN STUDENT...
    python benchmarks/diffusion.py latents RUN [DATA_DIR]
    python benchmarks/diffusion.py peers

Made rows are compared with all rows of the run's data, equally many: by the accuracy of a classifier of the two (0.5
where it cannot tell) and by the kernel distance. Seconds are for 1,000 rows on one thread.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import lowerbound
from lowerbound.lab.data.rows import Dataset, Rows
from lowerbound.lab.evaluation.distances import kernel_distance
from lowerbound.lab.evaluation.quality import neighbourhoods, two_sample_test
from lowerbound.lab.run import Run
from lowerbound.model.distributions import tree
from lowerbound.model.distributions.diffusing import samplers
from lowerbound.model.distributions.diffusing.levels import CLEAN, Guess, Level
from lowerbound.model.distributions.diffusing.predictions import PredictNoise
from lowerbound.model.distributions.diffusing.schedules import LinearBeta
from lowerbound.model.distributions.diffusing.spacings import EvenTime
from lowerbound.model.families.family import Family
from lowerbound.model.families.stack import Stack
from lowerbound.model.spec import Context, DataSpec
from lowerbound.noise import BatchNoise, generator

MOST, CHUNK, TIMED = 10_000, 250, 1000
Z95 = 1.645  # one-sided
WAYS: tuple[tuple[str, int], ...] = (
    ("ancestral", 1000), ("ancestral", 100), ("ancestral", 20),
    ("ddim", 100), ("ddim", 20), ("ddim", 10),
    ("dpm-solver", 50), ("dpm-solver", 20), ("dpm-solver", 10), ("dpm-solver", 5),
    ("edm-heun", 20), ("edm-heun", 10), ("heun", 20), ("heun", 10), ("euler", 20),
)  # fmt: skip


def everything(rows: Rows) -> Tensor:
    return rows.take(torch.arange(len(rows))).raw.float()


def real_rows(data: Dataset) -> Tensor:
    """Rows of all splits, in an order that is drawn once, at most 10,000."""
    rows = torch.cat([everything(data.split(name)) for name in ("train", "validation", "test")])
    return rows[torch.randperm(len(rows), generator=generator(0))[:MOST]].flatten(1) / unit(data.spec)


def unit(spec: DataSpec) -> float:
    """What raw values are divided by, so that whole levels lie in [0, 1]."""
    return 1.0 if spec.levels is None else float(spec.levels - 1)


@torch.no_grad()
def made_rows(model: Family, count: int, seed: int, context: Context | None = None) -> Tensor:
    """Rows drawn a chunk at a time, (count, D)."""
    parts = []
    for number, start in enumerate(range(0, count, CHUNK)):
        rows = min(CHUNK, count - start)
        known = None if context is None else context.select(slice(start, start + rows))
        px = model.sample(BatchNoise(seed, number, rows), known)
        parts.append(model.preparation.restore(tree.point(px)).flatten(1) / unit(model.data))
    return torch.cat(parts)


def seconds(model: Family, context: Context | None = None) -> float:
    """For 1,000 rows, the better of two."""
    known = None if context is None else context.select(torch.arange(TIMED) % len(context.present))
    found = []
    for _ in range(2):
        begun = time.perf_counter()
        made_rows(model, TIMED, 9, known)
        found.append(time.perf_counter() - begun)
    return min(found)


def accuracy(real: Tensor, draw: Callable[[int], Tensor], seeds: int) -> tuple[float, float, float]:
    """Mean accuracy of classifiers of real against made, its standard error, and the mean kernel distance."""
    tests, kernels = [], []
    for seed in range(seeds):
        made = draw(seed)
        tests.append(two_sample_test(real, made, seed)["two_sample_accuracy"])
        kernels.append(kernel_distance(real, made).value)
    mean = sum(float(test.value) for test in tests) / seeds  # type: ignore[arg-type]
    error = math.sqrt(sum(float(test.stderr or 0) ** 2 for test in tests)) / seeds
    return mean, error, sum(kernels) / seeds  # type: ignore[arg-type]


def compare_samplers(path: str, seeds: int) -> None:
    """The table steps x sampler, and DPM-Solver++ at 20 steps against DDPM at 1,000."""
    run = Run(path)
    real = real_rows(lowerbound.load_data(run.recipe().data))
    print(f"{len(real)} rows of each kind, {seeds} seeds")
    print("| sampler | steps | calls | accuracy | kernel distance | seconds |\n| --- | --- | --- | --- | --- | --- |")
    found = {}
    for kind, steps in WAYS:
        model = run.model(use=[f"sampler.kind={kind}", f"steps={steps}"])
        sampler = model.density.process.sampler  # type: ignore[union-attr]
        mean, error, kernel = accuracy(real, lambda seed: made_rows(model, len(real), seed), seeds)  # noqa: B023
        found[kind, steps] = mean, error
        calls = sampler.calls * steps - (sampler.calls - 1)  # type: ignore[union-attr]
        quality = f"{mean:.4f} +- {error:.4f} | {kernel:.5f}"
        print(
            f"| {kind} | {steps} | {calls} | {quality} | {seconds(model):.2f} |",
            flush=True,
        )
    (fast, own), (slow, other) = found["dpm-solver", 20], found["ancestral", 1000]
    ratio = fast / slow
    limit = ratio * (1 + Z95 * math.hypot(own / fast, other / slow))
    print(f"dpm-solver at 20 over ancestral at 1,000: {ratio:.4f}, below {limit:.4f} with 95 %")


def compare_guidance(path: str) -> None:
    """Fidelity and diversity by guidance."""
    run = Run(path)
    data = lowerbound.load_data(run.recipe().data)
    real, classes = real_rows(data), data.spec.context
    labels = torch.arange(len(real)) % classes
    judge = classifier(data)
    print("| guidance | label right | precision | recall | coverage | kernel distance |")
    print("| --- | --- | --- | --- | --- | --- |")
    for scale in (0.0, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0):
        made = made_rows(run.model(use=[f"guidance={scale}"]), len(real), 0, Context.labels(labels, classes))
        near = {name: result.value for name, result in neighbourhoods(real, made).items()}
        right = float((judge(made) == labels).double().mean())
        shown = " | ".join(f"{near[name]:.3f}" for name in ("precision", "recall", "coverage"))
        print(f"| {scale:g} | {right:.3f} | {shown} | {kernel_distance(real, made).value:.5f} |", flush=True)


def classifier(data: Dataset) -> Callable[[Tensor], Tensor]:
    """A small network that learned labels from training rows, with its accuracy on test rows."""
    rows = {name: data.split(name).take(torch.arange(len(data.split(name)))) for name in ("train", "test")}
    x = {name: batch.raw.flatten(1).float() / unit(data.spec) for name, batch in rows.items()}
    y = {name: batch.context.vector.argmax(dim=1) for name, batch in rows.items()}  # type: ignore[union-attr]
    scale = x["train"].std()
    torch.manual_seed(0)
    sizes = x["train"].shape[1], 128, data.spec.context
    network = nn.Sequential(nn.Linear(*sizes[:2]), nn.ReLU(), nn.Dropout(0.2), nn.Linear(*sizes[1:]))
    optimizer = torch.optim.Adam(network.parameters(), 1e-3, weight_decay=1e-4)
    for _ in range(60):
        for index in torch.randperm(len(y["train"])).split(64):
            loss = nn.functional.cross_entropy(network(x["train"][index] / scale), y["train"][index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    network.eval()

    def judge(rows: Tensor) -> Tensor:
        with torch.no_grad():
            return network(rows / scale).argmax(dim=1)

    print(f"accuracy on real test rows: {float((judge(x['test']) == y['test']).double().mean()):.3f}")
    return judge


def compare_students(path: str, students: Sequence[str]) -> None:
    """Students of few steps beside DPM-Solver++ at 20 steps of their teacher."""
    run = Run(path)
    real = real_rows(lowerbound.load_data(run.recipe().data))
    best = run.model(use=["sampler.kind=dpm-solver", "steps=20"])
    models: dict[str, Family] = {"teacher, dpm-solver, 20 steps": best}
    for student in students:
        kind = Run(student).recipe().model["lesson"]["kind"]
        choices = (1, 2) if kind == "consistency" else (Run(student).recipe().model["lesson"]["steps"],)
        models |= {f"{kind}, {steps} steps": Run(student).model(use=[f"lesson.steps={steps}"]) for steps in choices}
    models |= {f"teacher, ddim, {n} steps": run.model(use=["sampler.kind=ddim", f"steps={n}"]) for n in (8, 4, 2)}
    print("| model | accuracy | kernel distance | seconds | times faster |\n| --- | --- | --- | --- | --- |")
    slow = 0.0
    for name, model in models.items():
        mean, error, kernel = accuracy(real, lambda seed: made_rows(model, len(real), seed), 3)  # noqa: B023
        own = seconds(model)
        slow = slow or own
        print(f"| {name} | {mean:.4f} +- {error:.4f} | {kernel:.5f} | {own:.3f} | {slow / own:.1f} |", flush=True)


def compare_latents(path: str, data_dir: str | None) -> None:
    """A second stage beside the prior of its first, with the same decoder: kernel distance to held-out rows.

    Test rows are shuffled, for distances are means over blocks, and MNIST's first half is another one than its second.
    """
    run = Run(path)
    first = Run(run.recipe().data["run"])
    data = lowerbound.load_data(first.recipe().data, None if data_dir is None else Path(data_dir))
    count = len(data.test)
    test, known = (
        rows.take(torch.randperm(len(rows), generator=generator(seed))[:count]).raw
        for seed, rows in enumerate((data.test, data.train))
    )
    below, classes = first.model(), run.data_spec().context
    features: dict[str, Callable[[Tensor], Tensor]] = {
        "pixels": lambda rows: rows.float().flatten(1) / unit(data.spec),
        "codes": lambda rows: lowerbound.encode(below, rows)["z"].flatten(1),
    }
    context = Context.labels(torch.arange(count) % classes, classes) if classes else None
    print("| rows | kernel distance of pixels | of codes |\n| --- | --- | --- |")

    def show(name: str, rows: Tensor) -> None:
        found = [kernel_distance(see(test), see(rows)) for see in features.values()]
        print(f"| {name} | " + " | ".join(f"{one.value:.5f} ± {one.stderr:.5f}" for one in found) + " |", flush=True)

    def made(model: Family, context: Context | None) -> Tensor:
        return made_rows(model, count, 0, context).unflatten(1, data.spec.event) * unit(data.spec)

    show("training rows", known)
    show("training rows, reconstructed", lowerbound.reconstruct(below, known))
    show("the first stage's own prior", made(below, None))
    for scale in (1.0, 1.5) if classes else (1.0,):
        second = run.model(use=[f"guidance={scale}"] if classes else ())
        show(f"second stage, guidance {scale:g}", made(Stack(below, second).eval(), context))


def compare_peers() -> None:
    """Our samplers and the schedulers of diffusers on one network: the difference of the rows, and seconds."""
    import diffusers

    torch.manual_seed(0)
    units, rows, steps = 64, 256, 28
    network = nn.Sequential(nn.Linear(units + 1, 128), nn.SiLU(), nn.Linear(128, units)).requires_grad_(False)
    schedule, start = LinearBeta(), torch.randn(rows, units, generator=generator(0))

    def call(z: Tensor, t: Tensor) -> Tensor:
        return network(torch.cat([z.float(), t.float().expand(len(z))[:, None]], dim=1))

    def denoise(z: Tensor, level: Level) -> Guess:
        return PredictNoise().guess(call(z, level.t), z, level)

    def ours(sampler: samplers.Sampler) -> Tensor:
        source, levels = generator(7), [*EvenTime()(schedule, steps), CLEAN]
        fresh = lambda name: torch.randn(rows, units, generator=source)  # noqa: E731
        return sampler.walk(start, levels, samplers.Tools(denoise, schedule, fresh))

    def theirs(scheduler: object, **settings: object) -> Tensor:
        scheduler.set_timesteps(timesteps=list(range(999, -1, -37)))  # type: ignore[attr-defined]
        z = start.clone()
        for t in scheduler.timesteps:  # type: ignore[attr-defined]
            z = scheduler.step(call(z, torch.as_tensor(t) / 999), t, z, return_dict=False, **settings)[0]  # type: ignore[attr-defined]
        return z

    pairs: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {
        "DDPM": (
            lambda: ours(samplers.Ancestral()),
            lambda: theirs(diffusers.DDPMScheduler(clip_sample=False), generator=generator(7)),
        ),
        "DPM-Solver++ 2M": (
            lambda: ours(samplers.DPMSolver()),
            lambda: theirs(diffusers.DPMSolverMultistepScheduler()),
        ),
    }
    print(
        "| algorithm | largest difference, deviations of a row | ours, ms | diffusers, ms |\n| --- | --- | --- | --- |"
    )
    for name, (own, other) in pairs.items():
        difference = float((own() - other()).abs().max() / own().std())
        times = [min(_timed(make) for _ in range(20)) * 1000 for make in (own, other)]
        print(f"| {name} | {difference:.1e} | {times[0]:.1f} | {times[1]:.1f} |")


def _timed(make: Callable[[], Tensor]) -> float:
    begun = time.perf_counter()
    make()
    return time.perf_counter() - begun


def main() -> None:
    torch.set_num_threads(1)
    what, given = sys.argv[1], sys.argv[2:]
    if what == "samplers":
        compare_samplers(given[0], int(given[1]) if len(given) > 1 else 3)
    elif what == "guidance":
        compare_guidance(given[0])
    elif what == "students":
        compare_students(given[0], given[1:])
    elif what == "latents":
        compare_latents(given[0], given[1] if len(given) > 1 else None)
    else:
        compare_peers()


main()

"""What is known of a row by one pass through a model: the same numbers for calibration, for export and in service.

Nothing is random: codes are the points of the posterior, reconstructions those of p(x|z), and rates are closed forms,
or log q(z|x) - log p(z) at the point where there is none.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, Normal

from lowerbound.errors import NotSupportedError
from lowerbound.lab.generation.use import device_of, fitting_context
from lowerbound.model.distributions import tree
from lowerbound.model.distributions.codes import Codes
from lowerbound.model.evidence import Evidence, Latent
from lowerbound.model.families.family import Family
from lowerbound.model.spec import Context

CHUNK_ROWS = 256


class Facts(nn.Module):
    """Raw rows (B, *event), as floats, to what is known of them, by name:

        the code of each group of latents, (B, *latent); integers where it is discrete
        rates           of each unit, all groups side by side, (B, D), nats; absent where units are not independent
        rate            of all units together, (B,), nats
        variances       of each continuous unit's posterior, all groups side by side, (B, P); of Gaussians only
        reconstruction  on the raw scale, (B, *event)
        error           mean squared error of it, (B,), on the raw scale; of categories and tokens the share that differ

    Rates are absent where they are the same for every row (codes that are certain under a uniform prior) and where the
    model has none (deterministic codes, a prior that is known by estimates only). Values that are missing in a row of a
    table do not count in its error.

    Args:
        model: in evaluation mode.

    Attributes:
        groups: names of the groups of codes.
        names: of what it gives, in order.
        encoded: those of them that need no decoder.

    Raises:
        NotSupportedError: the model has no codes.
    """

    kinds: Tensor

    def __init__(self, model: Family) -> None:
        super().__init__()
        if not model.latents:
            raise NotSupportedError("this model has no latents, so there are no facts of a row; ask it to score.")
        self.model = model
        self.register_buffer("kinds", _categories(model), persistent=False)
        self.rates = _kind_of_rates(model)
        self.groups = tuple(name for name in model.latents if not name.startswith("second_"))
        self.spread = _continuous_gaussians(model)
        given = {"units": ("rates", "rate"), "total": ("rate",), "": ()}[self.rates]
        self.encoded = (*self.groups, *given, *(("variances",) if self.spread else ()))
        self.names = (*self.encoded, "reconstruction", "error")

    def forward(self, raw: Tensor, context: Context | None = None) -> dict[str, Tensor]:
        """All facts."""
        found = self.encode(raw, context)
        groups = {name: found[name] for name in self.groups}
        restored = self.model.preparation.restore(tree.point(self.model.decode(groups, context)))
        return {**found, "reconstruction": restored, "error": self._error(restored, raw)}

    def encode(self, raw: Tensor, context: Context | None = None) -> dict[str, Tensor]:
        """Those that need no decoder."""
        x = self.model.preparation.prepare(raw, None)
        latents = self.model.at_point(x, context)
        if not latents:
            return dict(self.model.encode(x, context))
        found = {name: latent.z[0] for name, latent in latents.items()}
        evidence = Evidence(x, context, None, latents)
        if self.rates == "units":
            units = evidence.rates_per_unit()
            found["rates"] = torch.cat([units[name][0].flatten(1) for name in latents], dim=1)
            found["rate"] = found["rates"].sum(dim=1)
        elif self.rates == "total":
            found["rate"] = evidence.rate()[0]
        if self.spread:
            found["variances"] = torch.cat([latents[name].q.variance.flatten(1) for name in self.spread], dim=1)
        return found

    def _error(self, restored: Tensor, raw: Tensor) -> Tensor:
        apart = torch.where(self.kinds, (restored != raw).to(raw.dtype), (restored - raw).square())
        if not self.model.data.columns:
            return apart.flatten(1).mean(dim=1)
        there = ~raw.isnan()
        return torch.where(there, apart, 0).sum(dim=1) / there.sum(dim=1).clamp_min(1)


@torch.no_grad()
def facts_of(facts: Facts, raw: Tensor, context: Context | None = None) -> dict[str, Tensor]:
    """The facts of raw rows (N, *event), a chunk at a time, on the CPU.

    Raises:
        ShapeError, DataError: rows that are none of the model's.
    """
    facts.model.check(raw)
    context, parts = fitting_context(facts.model, context, len(raw)), []
    device = device_of(facts.model)
    for start in range(0, len(raw), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        known = None if context is None else context.select(rows)
        parts.append(facts(raw[rows].to(device).float(), known))
    return {name: torch.cat([part[name].cpu() for part in parts]) for name in facts.names}


@torch.no_grad()
def _kind_of_rates(model: Family) -> str:
    """ "units" where each unit has a rate, "total" where only all together have one, "" where there is none."""
    x, context = _blank(model)
    latents = model.at_point(x, context)
    if not latents or all(_is_constant(latent) for latent in latents.values()):
        return ""
    if not all(tree.is_exact(latent.p) for latent in latents.values()):
        return ""
    evidence = Evidence(x, context, None, latents)
    for kind, rate in (("units", evidence.rates_per_unit), ("total", evidence.rate)):
        try:
            rate()
        except NotSupportedError:
            continue
        return kind
    return ""


@torch.no_grad()
def _continuous_gaussians(model: Family) -> tuple[str, ...]:
    """Groups of continuous codes, where the posteriors of all of them are Gaussians with independent units."""
    latents = model.at_point(*_blank(model)) or {}
    groups = {name: latent for name, latent in latents.items() if not name.startswith("second_")}
    continuous = {name: latent.q for name, latent in groups.items() if latent.z.is_floating_point()}
    known = (isinstance(q, Independent) and isinstance(q.base_dist, Normal) for q in continuous.values())
    return tuple(continuous) if all(known) else ()


def _blank(model: Family) -> tuple[Tensor, Context | None]:
    """One row of zeros, prepared, with a context that is absent."""
    data, device = model.data, device_of(model)
    absent = torch.zeros(1, data.context, device=device)
    context = Context(absent, absent.new_zeros(1, dtype=torch.bool)) if data.context else None
    return model.preparation.prepare(torch.zeros(1, *data.event, device=device), None), context


def _is_constant(latent: Latent) -> bool:
    """Whether the rate is the same for every row: a code that is certain, under a uniform prior."""
    p = latent.p
    if not isinstance(latent.q, Codes) or not isinstance(p, Independent) or not isinstance(p.base_dist, Categorical):
        return False
    logits = p.base_dist.logits
    return bool((logits == logits.flatten()[0]).all())


def _categories(model: Family) -> Tensor:
    """Which values of a row are kinds and not numbers, (*event)."""
    if model.preparation.vocabulary is not None:
        return torch.ones(model.data.event, dtype=torch.bool)
    columns = model.data.columns
    if columns:
        return torch.tensor([column.kind == "category" for column in columns])
    return torch.zeros(model.data.event, dtype=torch.bool)

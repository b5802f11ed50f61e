"""Several codes at every position, each for what those before it left."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lowerbound.errors import RecipeError
from lowerbound.kinds import Part
from lowerbound.model.networks.quantizers.ema import EMACodebook
from lowerbound.model.networks.quantizers.passing import Passing, StraightThrough
from lowerbound.model.networks.quantizers.quantizer import Quantized, Quantizer, full_precision
from lowerbound.model.spec import Count
from lowerbound.noise import Noise


class ResidualQuantizer(Quantizer):
    """Stages of quantisers; each takes the error that is left, and the vectors add up (Zeghidour et al. 2021, alg. 1).

    The gradient passes once, from the sum to the encoder. (If each stage passes its own, the encoder gets it as many
    times as there are stages.) Penalties of the stages add up by name.

    Args:
        depth: number of stages.
        stage: the quantiser of each; with a codebook, and codes that are certain.
        passing: how the gradient passes.
    """

    def __init__(
        self,
        *,
        depth: Count = 4,
        stage: Part[Quantizer] = Part(EMACodebook),
        passing: Part[Passing] = Part(StraightThrough),
    ) -> None:
        super().__init__()
        stages = [stage() for _ in range(depth)]
        first = stages[0]
        if not first.certain or first.depth is not None or first.inputs != first.dimension:
            raise RecipeError(
                "a stage of a residual quantiser has one code for each position and is certain of it; choose `ema`, "
                "`gradient`, `sim-vq`, `fsq` or `lfq`."
            )
        self.stages, self.passing, self.depth = nn.ModuleList(stages), passing(), depth
        self.size, self.inputs, self.dimension = first.size, first.inputs, first.dimension

    def forward(self, h: Tensor, noise: Noise | None, samples: int = 1) -> Quantized:
        codes: list[Tensor] = []
        penalties: dict[str, Tensor] = {}
        statistics: dict[str, Tensor] = {}
        with full_precision(h):
            h = h if h.dtype == torch.float64 else h.float()
            rest, total = h, torch.zeros_like(h)
            for number, stage in enumerate(self.stages):
                found = stage(rest, None if noise is None else noise.child(str(number)))
                vectors = found.vectors.detach()
                rest, total = rest - vectors, total + vectors
                codes.append(found.codes)
                for name, penalty in found.penalties.items():
                    penalties[name] = penalties[name] + penalty if name in penalties else penalty
                statistics |= {f"{number}.{name}": value for name, value in found.statistics.items()}
            return Quantized(self.passing(h, total), torch.stack(codes, dim=1), None, penalties, statistics)

    def lookup(self, codes: Tensor) -> Tensor:
        return torch.stack([stage.lookup(codes[:, number]) for number, stage in enumerate(self._all())]).sum(dim=0)

    def absorb(self, statistics: dict[str, Tensor]) -> None:
        for number, stage in enumerate(self._all()):
            own = f"{number}."
            stage.absorb({name.removeprefix(own): v for name, v in statistics.items() if name.startswith(own)})

    def vitals(self) -> dict[str, Tensor]:
        every = enumerate(self._all(), 1)
        return {f"{name}_{number}": value for number, stage in every for name, value in stage.vitals().items()}

    def _all(self) -> list[Quantizer]:
        return [stage for stage in self.stages if isinstance(stage, Quantizer)]

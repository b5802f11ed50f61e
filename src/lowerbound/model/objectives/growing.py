"""Growing images: an objective of rows sees them coarse first, and finer as training goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from lowerbound.kinds import Part
from lowerbound.model.evidence import Evidence
from lowerbound.model.networks.convolutional import grid_shape, halved
from lowerbound.model.objectives.adversarial_samples import AdversarialSamples
from lowerbound.model.objectives.objective import Loss, Needs, Objective
from lowerbound.model.spec import Count, Settings
from lowerbound.noise import Noise

POOLS: dict[int, Callable[..., Tensor]] = {
    1: functional.adaptive_avg_pool1d,
    2: functional.adaptive_avg_pool2d,
    3: functional.adaptive_avg_pool3d,
}


class Growing(Objective):
    """Another objective of made and real images, at a size that doubles (Karras et al. 2018, section 2 and figure 2).

    At each size there are as many steps of settling as of fading in. We differ in that networks are whole from the
    start and what grows is the detail that they are judged by: images are averaged down to the size of now and repeated
    up again, real ones and made ones alike. So coarse structure is learned first, and no step is cheaper than the last.

    Args:
        settings: from the assembly.
        objective: the other one.
        doublings: how often the size doubles until it is that of the images.
        steps: between two doublings.

    Raises:
        ShapeError: the rows are no images, signals or videos.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        objective: Part[Objective] = Part(AdversarialSamples),
        doublings: Count = 2,
        steps: Count = 1000,
    ) -> None:
        super().__init__()
        self.grid = grid_shape(settings.data.event, "data")[1]
        self.inner = objective(settings)
        self.needs, self.players = self.inner.needs, self.inner.players
        self.doublings, self.steps = doublings, steps

    def needs_at(self, step: int) -> Needs:
        return self.inner.needs_at(step)

    def forward(self, evidence: Evidence, step: int, player: str, noise: Noise) -> Loss:
        made = None if evidence.generated is None else self.seen(evidence.generated, step)
        loss: Loss = self.inner(replace(evidence, x=self.seen(evidence.x, step), generated=made), step, player, noise)
        share = torch.tensor(min(1.0, step / (self.doublings * self.steps)))
        return replace(loss, parts=loss.parts | {"grown_share": share})

    def absorb(self, statistics: dict[str, Tensor]) -> None:
        self.inner.absorb(statistics)

    def seen(self, rows: Tensor, step: int) -> Tensor:
        """Images (N, C, *grid) with the detail of a step."""
        stage, within = divmod(step, self.steps)
        left = self.doublings - stage
        if left <= 0:
            return rows
        faded = max(0.0, 2 * within / self.steps - 1)  # of the next size: none in the first half of a stage
        coarse, fine = self._at(rows, left), self._at(rows, left - 1)
        return torch.lerp(coarse, fine, faded)

    def _at(self, rows: Tensor, halvings: int) -> Tensor:
        """Images averaged down by so many halvings, and repeated up again."""
        small = [halved(size, halvings) for size in self.grid]
        return functional.interpolate(POOLS[len(self.grid)](rows, small), self.grid)

"""A diffusion model that needs few steps, taught by one that needs many."""

from __future__ import annotations

from typing import ClassVar, Self

from torch import Tensor
from torch.distributions import Distribution

from lowerbound.kinds import Part
from lowerbound.model.conditionals.preparation import Preparation, Scaling
from lowerbound.model.distributions.diffusing.lessons import Class, Consistency, Lesson
from lowerbound.model.distributions.diffusing.predictions import Prediction, PredictV
from lowerbound.model.distributions.diffusing.schedules import LogLinear, NoiseSchedule
from lowerbound.model.evidence import Evidence
from lowerbound.model.families.diffusion import Diffusion
from lowerbound.model.families.family import Family, Latents
from lowerbound.model.networks.mlp import MLP
from lowerbound.model.networks.network import Network
from lowerbound.model.spec import Context, Count, DataSpec, Shape
from lowerbound.noise import Noise


class Distilled(Family):
    """A student and its frozen teacher, of one make, that start as the same trained diffusion model.

    The student has samples and no bound: what it says of noisy rows is no longer their mean. The penalty `distillation`
    is its error, for the objective `penalties`.

    Args:
        student, teacher: diffusion models of the same parts.
        lesson: what is taught.
    """

    roles = {"prior": ("student",)}  # noqa: RUF012
    needs_start = True
    of_use: ClassVar = ("lesson",)

    def __init__(self, student: Diffusion, teacher: Diffusion, lesson: Lesson) -> None:
        super().__init__()
        latents: dict[str, Shape] = {}
        self.data, self.latents = student.data, latents
        self.student, self.teacher, self.lesson = student, teacher.requires_grad_(False), lesson

    @classmethod
    def assemble(
        cls,
        data: DataSpec,
        *,
        lesson: Lesson = Consistency(),
        network: Part[Network] = Part(MLP, widths=[256, 256, 256]),
        schedule: NoiseSchedule = LogLinear(),
        prediction: Prediction = PredictV(),
        frequencies: Count = 6,
        scaling: Scaling = "standard",
    ) -> Self:
        """Give the parts their shapes; those of the network and what it sees must be those of the run to start from.

        Args:
            data: facts about the data.
            lesson: what is taught.
            network: of teacher and student.
            schedule: of the noise.
            prediction: what the networks predict.
            frequencies: number of Fourier frequencies of time.
            scaling: "none", or "standard" for the mean and scale per channel that the teacher learned.
        """
        student, teacher = (
            Diffusion.assemble(
                data,
                network=network,
                schedule=schedule,
                prediction=prediction,
                sampler=lesson.sampler,
                steps=lesson.steps,
                frequencies=frequencies,
                scaling=scaling,
            )
            for _ in range(2)
        )
        return cls(student, teacher, lesson)

    @property
    def preparation(self) -> Preparation:
        return self.student.preparation

    def begin(self, other: Family) -> None:
        source = other.student if isinstance(other, Distilled) else other
        self.student.begin(source)
        self.teacher.begin(source)

    def evidence(self, x: Tensor, context: Context | None, noise: Noise, samples: int = 1) -> Evidence:
        rows, batch = x.repeat(samples, *(1,) * (x.ndim - 1)), (samples, len(x))
        student, teacher = (part.density(None, context) for part in (self.student, self.teacher))
        given = Class(
            x=rows,
            eps=noise.child("noise").normal(samples, self.data.event).reshape(rows.shape).to(x.dtype),
            uniform=noise.child("time").uniform(samples).flatten(),
            student=student.denoise(batch),
            teacher=teacher.denoise(batch),
            schedule=self.student.density.process.schedule,
        )
        error = self.lesson.error(given).reshape(batch)
        return Evidence(x=x, context=context, distortion=None, penalties={"distillation": error})

    def encode(self, x: Tensor, context: Context | None = None, noise: Noise | None = None) -> Latents:
        return self.student.encode(x, context, noise)

    def decode(self, latents: Latents, context: Context | None = None) -> Distribution:
        return self.student.decode(latents, context)

    def sample(self, noise: Noise, context: Context | None = None) -> Distribution:
        return self.student.sample(noise, context)

"""Teachers and students: on Gaussian data, where the way of a row is known, and as runs that start from runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import lowerbound
from lowerbound.errors import RecipeError, ShapeError
from lowerbound.model.build import build_model
from lowerbound.model.distributions.diffusing.lessons import Class, Consistency, Progressive
from lowerbound.model.distributions.diffusing.levels import CLEAN, Guess, Level
from lowerbound.model.distributions.diffusing.schedules import Cosine
from lowerbound.model.distributions.diffusing.spacings import Trailing
from lowerbound.model.families.distilled import Distilled
from lowerbound.model.spec import DataSpec
from lowerbound.noise import BatchNoise

SPREAD, MEAN, SCHEDULE = 0.6, 0.7, Cosine()


def expected(z: Tensor, level: Level) -> Guess:
    """The mean of the row and of the noise in noisy N(MEAN, SPREAD^2) data."""
    total = (level.alpha * SPREAD) ** 2 + level.sigma**2
    eps = level.sigma * (z - level.alpha * MEAN) / total
    return Guess((z * level.alpha * SPREAD**2 + level.sigma**2 * MEAN) / total, eps)


def end_of_way(z: Tensor, level: Level) -> Guess:
    """Where the deterministic way from a noisy row ends: what a perfect student says."""
    spread = ((level.alpha * SPREAD) ** 2 + level.sigma**2).sqrt()
    x = MEAN + SPREAD / spread * (z - level.alpha * MEAN)
    return Guess(x, (z - level.alpha * x) / level.sigma)


def lesson_of(student: Callable[[Tensor, Level], Guess], rows: int = 500) -> Class:
    noise = BatchNoise(0, 0, rows, dtype=torch.float64)
    x = MEAN + SPREAD * noise.child("x").normal(1, (3,))[0]
    return Class(x, noise.child("eps").normal(1, (3,))[0], noise.child("u").uniform()[0], student, expected, SCHEDULE)


def test_a_perfect_student_is_consistent_the_more_so_the_more_levels_there_are() -> None:
    errors = [float(Consistency(levels=levels).error(lesson_of(end_of_way)).mean()) for levels in (20, 80, 320)]
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    assert errors[2] < 1e-3
    wrong = float(Consistency(levels=320).error(lesson_of(expected)).mean())
    assert wrong > 5 * errors[2], "the mean is no end of a way"


def test_a_step_of_the_student_ends_where_two_of_the_teacher_do() -> None:
    """Whoever says the teacher's aim has no error, and a step of DDIM with it ends at the same place."""
    steps = 4
    fine = [*Trailing()(SCHEDULE, 2 * steps), CLEAN]
    z = torch.randn(6, 3, dtype=torch.float64)

    def two_steps(z: Tensor, place: int) -> Tensor:
        for now, after in ((fine[place], fine[place + 1]), (fine[place + 1], fine[place + 2])):
            z = after.noised(expected(z, now).x, expected(z, now).eps)
        return z

    def student(z: Tensor, level: Level) -> Guess:
        """The row that makes one step of DDIM end where two of the teacher do."""
        x = torch.empty_like(z)
        for row in range(len(z)):
            place = int(torch.stack([fine[k].t - level.t[row] for k in range(0, 2 * steps, 2)]).abs().argmin()) * 2
            now, after = fine[place], fine[place + 2]
            reached, shrunk = two_steps(z[row], place), after.sigma / now.sigma
            x[row] = (reached - shrunk * z[row]) / (after.alpha - shrunk * now.alpha)
        return Guess(x, (z - level.alpha * x) / level.sigma)

    assert float(Progressive(steps=steps).error(lesson_of(student, 40)).abs().max()) < 1e-12
    assert float(Progressive(steps=steps).error(lesson_of(expected, 40)).mean()) > 1e-3
    level = Level(fine[2].t.expand(6), fine[2].alpha, fine[2].sigma)
    guess = student(z, level)
    torch.testing.assert_close(fine[4].noised(guess.x, guess.eps), two_steps(z, 2))


def test_levels_are_chosen_evenly_and_belong_together() -> None:
    given = lesson_of(expected, 4000)
    levels = [*Trailing()(SCHEDULE, 8), CLEAN]
    now, between, after = given.some(levels, stride=2)
    assert sorted(set(now.t.tolist())) == pytest.approx([0.25, 0.5, 0.75, 1.0])
    torch.testing.assert_close(now.t - between.t, torch.full((4000,), 0.125, dtype=torch.float64))
    torch.testing.assert_close(now.t - after.t, torch.full((4000,), 0.25, dtype=torch.float64))
    assert bool(((after.t == 0) == (after.sigma.flatten() == 0)).all())


@pytest.mark.parametrize("lesson", ["progressive", "consistency"])
def test_only_the_student_learns(lesson: str) -> None:
    table = {"kind": "distilled", "lesson": {"kind": lesson}, "network": {"kind": "mlp", "widths": [8]}}
    model = build_model(table, DataSpec((3,)), 0)
    evidence = model.evidence(torch.randn(6, 3), None, BatchNoise(0, 0, 6), 2)
    assert evidence.penalties["distillation"].shape == (2, 6)
    evidence.penalties["distillation"].mean().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == name.startswith("student"), name


def test_students_start_as_their_teacher_and_teach_in_turn(tmp_path: Path) -> None:
    quick = ["training.batch_size=8", "training.warmup_steps=0"]
    first = lowerbound.train(
        lowerbound.read_recipe("digits-diffusion", [*quick, "training.steps=2"]), tmp_path / "digits-diffusion"
    )
    before = first.path
    for name in ("digits-progressive-8", "digits-progressive-4"):
        recipe = lowerbound.read_recipe(name, [*quick, "training.steps=1", f'start="{before}"'])
        loop = lowerbound.make_loop(recipe, lowerbound.load_data(recipe.data))
        assert isinstance(loop.model, Distilled)
        teacher = lowerbound.load(before)
        known = (teacher.student if isinstance(teacher, Distilled) else teacher).state_dict()
        for part in (loop.model.student, loop.model.teacher):
            assert all(torch.equal(part.state_dict()[key], value) for key, value in known.items())
        before = lowerbound.train(recipe, tmp_path / name).path
    student = lowerbound.load(before)
    assert isinstance(student, Distilled)
    assert student.student.density.process.steps == 4
    with pytest.raises(RecipeError, match="`start`"):
        lowerbound.train(recipe.model_copy(update={"start": None}), tmp_path / "alone")
    other = lowerbound.read_recipe("digits-consistency", [*quick, "model.network.width=8", f'start="{first.path}"'])
    with pytest.raises(ShapeError, match="another one"):
        lowerbound.train(other, tmp_path / "narrow")

"""Clips of which some frames are given, and what clips are compared by."""

from __future__ import annotations

import pytest
import torch

from lowerbound.errors import NotSupportedError, RecipeError, ShapeError
from lowerbound.lab.data.given import given
from lowerbound.lab.data.load import load_data
from lowerbound.lab.evaluation.clips import centres, motion
from lowerbound.lab.evaluation.features import make_extractor
from lowerbound.model.build import build_model
from lowerbound.model.networks.clips import ClipAttention, ClipDown, ClipTransformer, ClipUp
from lowerbound.model.networks.network import Ports
from lowerbound.model.spec import DataSpec
from lowerbound.noise import BatchNoise

CLIPS = {
    "kind": "moving-mnist", "source": "scikit-learn", "count": 20, "frames": 4, "size": 12, "side": 8, "digits": 1,
}  # fmt: skip
CHOICES = [[], [0], [0, -1]]


def test_each_clip_comes_with_each_choice_and_its_context_holds_nothing_else() -> None:
    plain, data = load_data(CLIPS), load_data({"kind": "given-frames", "data": CLIPS, "frames": CHOICES})
    assert (len(data.train), len(data.test)) == (60, 6)
    assert data.spec.context == 4 * 12 * 12 + 4
    batch = data.train.take(torch.tensor([0, 1, 2, 5, 58]))
    clips = plain.train.take(torch.tensor([0, 0, 0, 1, 19])).raw
    assert torch.equal(batch.raw, clips)
    assert batch.context is not None
    values, flags = batch.context.vector.split([4 * 12 * 12, 4], dim=1)
    assert flags.tolist() == [[0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 1], [1, 0, 0, 1], [1, 0, 0, 0]]
    shown = values.unflatten(1, (1, 4, 12, 12))
    for row, mask in enumerate(flags.bool()):
        assert torch.equal(shown[row][:, mask], clips[row][:, mask].float())
        assert shown[row][:, ~mask].abs().sum() == 0
    assert torch.equal(given(clips[3:4], [0, -1]).vector, batch.context.vector[3:4])
    assert data.train.name(5) == "train clip 1, given [0, -1]"


def test_what_cannot_be_given_is_refused() -> None:
    with pytest.raises(ShapeError, match="frame 4"):
        load_data({"kind": "given-frames", "data": CLIPS, "frames": [[4]]})
    with pytest.raises(ShapeError, match="clips"):
        load_data({"kind": "given-frames", "data": {"kind": "digits"}})
    with pytest.raises(RecipeError, match="context"):
        load_data({"kind": "given-frames", "data": {"kind": "digits", "context": "label"}})
    with pytest.raises(RecipeError, match="one choice"):
        load_data({"kind": "given-frames", "data": CLIPS, "frames": []})
    for network in (ClipAttention, ClipTransformer):
        with pytest.raises(ShapeError, match="given-frames"):
            network(Ports((1, 4, 2, 2), (1, 4, 2, 2), 5), given=True)
    with pytest.raises(ShapeError, match="patches of 2 x 2"):
        ClipTransformer(Ports((1, 4, 2, 3), (1, 4, 2, 3)))
    with pytest.raises(ShapeError, match="clips"):
        ClipDown(Ports((1, 8, 8), (2, 4, 4)))
    with pytest.raises(ShapeError, match="latents of that size"):
        ClipUp(Ports((2, 4, 4, 4), (1, 4, 12, 12)))


def test_digits_of_another_side_are_enlarged_or_reduced() -> None:
    for side in (6, 8, 10):
        clips = load_data({**CLIPS, "side": side}).train.take(torch.arange(5)).raw
        lit = (clips > 0).flatten(2, 2).amax(dim=(0, 1, 2))
        assert lit.any()
        height = (clips[0, 0, 0] > 0).any(dim=1).sum()
        assert 0.6 * side <= height <= side
    with pytest.raises(RecipeError, match="12 pixels"):
        load_data({**CLIPS, "side": 12})


def test_frames_know_nothing_of_one_another_where_they_are_coded_alone() -> None:
    torch.manual_seed(0)
    clips = torch.randn(2, 1, 4, 8, 8)
    changed = clips.clone()
    changed[:, :, 2] += 1
    for reach, reaches in ((1, [False, False, True, False]), (3, [True, True, True, True])):
        network = ClipDown(Ports((1, 4, 8, 8), (2, 4, 2, 2)), widths=[4, 4], reach=reach)
        moved = (network(clips, None) - network(changed, None)).abs().amax(dim=(0, 1, 3, 4)) > 1e-6
        assert moved.tolist() == reaches, reach


@pytest.mark.parametrize("kind", [ClipAttention, ClipTransformer])
def test_attention_sees_all_times_and_given_frames_reach_all_of_them(
    kind: type[ClipAttention] | type[ClipTransformer],
) -> None:
    torch.manual_seed(0)
    event = (2, 4, 2, 2)
    network = kind(Ports(event, event, 3 + 32 + 4 + 1), width=8, given=True)
    clips, time = torch.randn(3, *event), torch.randn(3, 3)

    def context(frames: list[int]) -> torch.Tensor:
        return torch.cat([time, given(clips, frames).features()], dim=1)

    noisy = torch.randn(3, *event)
    without, first = network(noisy, context([])), network(noisy, context([0]))
    assert ((without - first).abs().amax(dim=(0, 1, 3, 4)) > 1e-4).all()
    moved = noisy.clone()
    moved[:, :, 3] += 1
    assert ((network(moved, context([])) - without).abs().amax(dim=(0, 1, 3, 4)) > 1e-5).all()


def test_a_transformer_sees_every_place_of_a_clip_from_every_other_one() -> None:
    torch.manual_seed(0)
    network = ClipTransformer(Ports((1, 3, 4, 4), (1, 3, 4, 4)), width=8, depth=1)
    clips = torch.randn(2, 1, 3, 4, 4)
    moved = clips.clone()
    moved[:, :, 0, 0, 0] += 1
    assert ((network(clips, None) - network(moved, None)).abs().amax(dim=(0, 1)) > 1e-6).all()


def test_a_diffusion_model_of_clips_is_told_its_frames() -> None:
    data = load_data({"kind": "given-frames", "data": CLIPS, "frames": CHOICES})
    network = {"kind": "clip-attention", "width": 8, "depth": 1, "given": True}
    model = build_model({"kind": "density", "density": {"kind": "diffusion", "network": network}}, data.spec, 0)
    batch, noise = data.train.take(torch.arange(6)), BatchNoise(0, 0, 6)
    x = model.preparation.prepare(batch.raw, noise.child("prepare"))
    told = model.evidence(x, batch.context, noise.child("evidence")).reconstruction()
    other = model.evidence(x, data.train.take(torch.arange(6).roll(1)).context, noise.child("evidence"))
    assert torch.isfinite(told).all()
    assert not torch.allclose(told, other.reconstruction())


def test_centres_and_motion_of_a_dot_are_known() -> None:
    clips = torch.zeros(1, 1, 3, 8, 8)
    for time, (top, left) in enumerate([(1, 2), (2, 4), (5, 4)]):
        clips[0, 0, time, top, left] = 9
    assert centres(clips)[0].tolist() == [[1, 2], [2, 4], [5, 4]]
    found = motion(clips, DataSpec((1, 3, 8, 8)))[0]
    expected = torch.tensor([1.0, 2.0, 3.0, 0.0, 5**0.5, 3.0, 2.0, -2.0])
    torch.testing.assert_close(found, expected)
    assert centres(torch.zeros(1, 1, 2, 8, 8)).unique().tolist() == [3.5]
    with pytest.raises(NotSupportedError, match="clips"):
        make_extractor("motion", DataSpec((1, 8, 8)))(torch.zeros(60, 1, 8, 8))

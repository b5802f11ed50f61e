"""What and where of clips, apart."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lowerbound.errors import ShapeError
from lowerbound.model.networks.glimpses import ClipGlimpse, ClipSprite, centre, ground_of, hats
from lowerbound.model.networks.network import Ports

SIZE = (12, 15)


def clip(thing: Tensor, corners: list[tuple[int, int]], ground: float = 0.0) -> Tensor:
    """The thing (C, h, w) at each of the corners in turn, (1, C, T, *SIZE)."""
    frames = torch.full((1, len(thing), len(corners), *SIZE), ground)
    for time, (top, left) in enumerate(corners):
        frames[0, :, time, top : top + thing.shape[1], left : left + thing.shape[2]] = thing
    return frames


@pytest.mark.parametrize("ground", [0.0, 0.9])
@pytest.mark.parametrize("side", [5, 6])
def test_the_same_thing_elsewhere_has_the_same_code_but_for_its_place(ground: float, side: int) -> None:
    torch.manual_seed(0)
    corners = [(1, 2), (4, 2), (5, 9), (0, 0)]
    network = ClipGlimpse(Ports((2, 4, *SIZE), (6, 4, 1, 1)), side=side)
    code = network(clip(torch.rand(2, 5, 4), corners, ground), None)[0, :, :, 0, 0]
    torch.testing.assert_close(code[2:], code[2:, :1].expand(-1, 4))
    moved = torch.tensor(corners, dtype=torch.float32).T
    torch.testing.assert_close(code[:2] - code[:2, :1], moved - moved[:, :1])
    assert (
        network(clip(torch.rand(2, 5, 4), corners, ground), None)[0, 2:, 0].sub(code[2:, 0, None, None]).abs().max()
        > 0.01
    )


@pytest.mark.parametrize("side", [7, 8])
def test_what_a_glimpse_reads_is_where_a_sprite_puts_it(side: int) -> None:
    torch.manual_seed(0)
    frame = clip(torch.rand(1, 5, 5) + 0.1, [(3, 7)])[:, :, 0]
    place = centre(frame)
    for axis in (0, 1):  # the square's pixels are the frame's
        shift = 0.5 * ((SIZE[axis] - side) % 2)
        place[:, axis] = (place[:, axis] + shift).round() - shift
    rows, columns = (hats(place[:, axis], side, SIZE[axis]) for axis in (0, 1))
    square = torch.einsum("nih,nchw,njw->ncij", rows, frame, columns)
    assert square.sum() == pytest.approx(float(frame.sum()), rel=1e-6)
    torch.testing.assert_close(torch.einsum("nih,ncij,njw->nchw", rows, square, columns), frame)


def test_a_sprite_moves_with_its_place_and_lies_between_pixels_in_between() -> None:
    torch.manual_seed(0)
    network = ClipSprite(Ports((5, 3, 1, 1), (2, 3, 12, 16)), side=4)
    codes = torch.randn(1, 5, 1, 1, 1).repeat(1, 1, 3, 1, 1)
    codes[0, :2, :, 0, 0] = torch.tensor([[0.0, 0.0], [2.0, -3.0], [0.0, 0.5]]).T
    still, moved, between = network(codes, None)[0].unbind(dim=1)
    assert still[:, 4:8, 6:10].abs().min() > 0
    assert still.count_nonzero() == 2 * 4 * 4
    torch.testing.assert_close(moved, still.roll((2, -3), (1, 2)))
    torch.testing.assert_close(between, 0.5 * (still + still.roll(1, 2)))


def test_an_even_frame_has_its_middle_as_the_place_and_frames_know_nothing_of_one_another() -> None:
    torch.manual_seed(0)
    even = torch.full((2, 3, 6, 7), 0.3)
    assert centre(even - ground_of(even)).abs().max() == 0
    network = ClipGlimpse(Ports((1, 3, 8, 8), (4, 3, 1, 1)), side=4)
    clips = torch.rand(2, 1, 3, 8, 8)
    changed = clips.clone()
    changed[:, :, 1] = torch.rand(2, 1, 8, 8)
    moved = (network(clips, None) - network(changed, None)).abs().amax(dim=(0, 1, 3, 4)) > 1e-6
    assert moved.tolist() == [False, True, False]


def test_codes_without_room_for_a_place_are_refused() -> None:
    for code in ((2, 3, 1, 1), (4, 3, 2, 2), (4, 2, 1, 1), (4,)):
        with pytest.raises(ShapeError, match="what and where"):
            ClipGlimpse(Ports((1, 3, 8, 8), code))
        with pytest.raises(ShapeError, match="what and where"):
            ClipSprite(Ports(code, (1, 3, 8, 8)))
    with pytest.raises(ShapeError, match="T, 1, 1"):
        ClipGlimpse(Ports((1, 8, 8), (4, 1, 1, 1)))

"""What and where of clips, apart."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lowerbound.errors import ShapeError
from lowerbound.model.networks.glimpses import ClipGlimpse, ClipSprite, Places, centre, ground_of
from lowerbound.model.networks.network import Ports

SIZE = (12, 15)
WHERE = 20  # numbers that say where, of 5 octaves


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
    network = ClipGlimpse(Ports((2, 4, *SIZE), (WHERE + 4, 4, 1, 1)), side=side)
    first, second = (network(clip(torch.rand(2, 5, 4), corners, ground), None)[0, :, :, 0, 0] for _ in range(2))
    torch.testing.assert_close(first[WHERE:], first[WHERE:, :1].expand(-1, 4))
    assert (first[:WHERE, :, None] - first[:WHERE, None]).norm(dim=0).fill_diagonal_(9).min() > 1
    assert (first[WHERE:] - second[WHERE:]).abs().max() > 0.01


@pytest.mark.parametrize("side", [7, 8])
def test_what_a_glimpse_reads_is_where_a_sprite_puts_it(side: int) -> None:
    torch.manual_seed(0)
    frame = clip(torch.rand(1, 5, 5) + 0.1, [(3, 7)])[:, :, 0]
    places = Places((1, 1, *SIZE), (WHERE + 1, 1, 1, 1), side)
    rows, columns = places.weights(places.written(centre(frame)))
    square = torch.einsum("nih,nchw,njw->ncij", rows, frame, columns)
    assert square.sum() == pytest.approx(float(frame.sum()), rel=1e-4)
    back = torch.einsum("nih,ncij,njw->nchw", rows, square, columns)
    torch.testing.assert_close(back, frame, atol=1e-3, rtol=0)


def test_places_are_read_as_they_were_written_and_the_nearest_one_if_they_are_off_by_a_little() -> None:
    torch.manual_seed(0)
    places = Places((1, 3, 16, 9), (WHERE + 1, 3, 1, 1), 4)
    down, right = (places.lattice(axis) for axis in (0, 1))
    assert down.tolist() == list(range(-8, 9))
    assert right.tolist() == [number - 0.5 for number in range(-4, 5)]
    every = torch.cartesian_prod(down, right)
    written = places.written(every + 0.8 * torch.rand(len(every), 2) - 0.4)  # the nearest of the lattice is written
    torch.testing.assert_close(written, places.written(every))
    for code in (written, written + 0.2 * torch.randn_like(written)):
        for axis, weights in enumerate(places.weights(code)):
            pixels = torch.arange(weights.shape[2]) - 0.5 * (weights.shape[2] - 1)
            first = weights.argmax(dim=2)[:, 2]  # the pixel that the third of the square's four lies on
            seen = weights[:, 2].sum(dim=1) > 0.5  # within the frame
            torch.testing.assert_close(pixels[first][seen], every[seen, axis] + 0.5)
            assert seen.float().mean() > 0.8


def test_a_sprite_moves_with_its_place() -> None:
    torch.manual_seed(0)
    network = ClipSprite(Ports((WHERE + 3, 2, 1, 1), (2, 2, 12, 16)), side=4)
    codes = torch.randn(1, WHERE + 3, 1, 1, 1).repeat(1, 1, 2, 1, 1)
    codes[0, :WHERE, :, 0, 0] = network.places.written(torch.tensor([[0.0, 0.0], [2.0, -3.0]])).T
    still, moved = network(codes, None)[0].unbind(dim=1)
    assert (still.abs() > 1e-3).sum() >= 2 * 4 * 4 - 2
    assert still[:, 4:8, 6:10].abs().sum() > 0.99 * still.abs().sum()
    torch.testing.assert_close(moved, still.roll((2, -3), (1, 2)), atol=1e-3, rtol=0)


def test_an_even_frame_has_its_middle_as_the_place_and_frames_know_nothing_of_one_another() -> None:
    torch.manual_seed(0)
    even = torch.full((2, 3, 6, 7), 0.3)
    assert centre(even - ground_of(even)).abs().max() == 0
    network = ClipGlimpse(Ports((1, 3, 8, 8), (18, 3, 1, 1)), side=4)
    clips = torch.rand(2, 1, 3, 8, 8)
    changed = clips.clone()
    changed[:, :, 1] = torch.rand(2, 1, 8, 8)
    moved = (network(clips, None) - network(changed, None)).abs().amax(dim=(0, 1, 3, 4)) > 1e-6
    assert moved.tolist() == [False, True, False]


def test_codes_without_room_for_a_place_are_refused() -> None:
    for code in ((16, 3, 1, 1), (20, 3, 2, 2), (20, 2, 1, 1), (20,)):
        with pytest.raises(ShapeError, match="what and where"):
            ClipGlimpse(Ports((1, 3, 8, 8), code))
        with pytest.raises(ShapeError, match="what and where"):
            ClipSprite(Ports(code, (1, 3, 8, 8)))
    with pytest.raises(ShapeError, match="what and where"):
        ClipGlimpse(Ports((1, 8, 8), (20, 1, 1, 1)))

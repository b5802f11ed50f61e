"""What a latent diffusion model of clips is worth: the figures of docs/video.md.

python benchmarks/clips.py [--first moving-digits] [--runs runs] [--pictures docs/images]

It takes the runs FIRST, of the recipe moving-digits or moving-sprites, and FIRST-diffusion.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import lowerbound
from lowerbound.lab.data.given import given
from lowerbound.lab.evaluation.clips import centres
from lowerbound.lab.evaluation.features import make_extractor
from lowerbound.lab.evaluation.quality import two_sample_test
from lowerbound.noise import generator

ROWS, SEEDS = 400, (1, 2, 3)


def compared(real: Tensor, made: Callable[[int], Tensor]) -> str:
    """Accuracy of a classifier of real against made rows, for several seeds, and the p-values."""
    found = [two_sample_test(real, made(seed), seed) for seed in SEEDS]
    accuracy, chance = ([result[f"two_sample_{name}"].value for result in found] for name in ("accuracy", "p_value"))
    values = " ".join(f"{value:.3f}" for value in accuracy)
    return f"{sum(accuracy) / len(found):.3f} ({values}; p {' '.join(f'{value:.2g}' for value in chance)})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first", default="moving-digits", help="or moving-sprites")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--pictures", type=Path)
    chosen = parser.parse_args()
    run = chosen.runs / chosen.first
    first, second = lowerbound.load(run), lowerbound.load(chosen.runs / f"{chosen.first}-diffusion")
    data = lowerbound.load_data(lowerbound.Run(run).recipe().data)
    raw = data.test.take(torch.arange(ROWS)).raw
    codes = lowerbound.encode(first, raw)["z"]
    frames = raw.shape[2]

    def made(frames: list[int], seed: int) -> Tensor:
        drawn = lowerbound.sample(second, ROWS, seed, given(codes, frames))
        return lowerbound.decode(first, {"z": drawn}).clamp(0, 255)

    from_nothing = {seed: made([], seed) for seed in SEEDS}

    def others(seed: int) -> Tensor:
        return data.train.take(torch.randperm(len(data.train), generator=generator(seed))[:ROWS]).raw

    def frame(clips: Tensor) -> Tensor:
        """One frame of each clip, another one for each, in 4 levels: no autoencoder makes a black that is exactly 0."""
        return (clips[torch.arange(ROWS), 0, torch.arange(ROWS) % frames].flatten(1) / 85).round()

    def back(seed: int) -> Tensor:
        return lowerbound.reconstruct(first, others(seed)).clamp(0, 255)

    same = lowerbound.reconstruct(first, raw).clamp(0, 255)
    print(f"autoencoder: mean absolute error {float((same - raw).abs().mean()):.2f} of 255, ", end="")
    print(f"centres off by {float((centres(same) - centres(raw)).norm(dim=2).mean()):.3f} pixels")

    def judged(name: str, look: Callable[[Tensor], Tensor]) -> None:
        """Two-sample tests by some features."""
        print(f"two-sample accuracy, {name}, {ROWS} clips")
        print("  real against other real clips          ", compared(look(raw), lambda seed: look(others(seed))))
        print("  real against reconstructions of others ", compared(look(raw), lambda seed: look(back(seed))))
        print("  real against made clips                ", compared(look(raw), lambda seed: look(from_nothing[seed])))
        print("  reconstructions against made clips     ", compared(look(same), lambda seed: look(from_nothing[seed])))

    judged("frames", frame)
    judged("motion", make_extractor("motion", data.spec))
    truth = centres(raw)
    share = torch.arange(frames, dtype=torch.float64)[:, None] / (frames - 1)
    straight = truth[:, :1] + share * (truth[:, -1:] - truth[:, :1])
    print("centre of the digit in the frames between the first and the last, mean distance from the truth, pixels")
    ways = {
        "nothing given": from_nothing[1],
        "the first given": made([0], 1),
        "both ends given": made([0, frames - 1], 1),
    }
    placed = {name: centres(clips) for name, clips in ways.items()}
    for name, found in {**placed, "a straight line between the true ends": straight}.items():
        off = (found - truth)[:, 1:-1].norm(dim=2).mean(dim=1)
        print(f"  {name:40s} {off.mean():.2f} +- {off.std() / ROWS**0.5:.2f}")
    if chosen.pictures is not None:
        few = {"true": raw, "first": ways["the first given"], "ends": ways["both ends given"]}
        shown = {name: clips[:4].float() for name, clips in few.items()}
        lowerbound.write_stack(chosen.pictures / "clips-given.png", shown, data.spec)
        lowerbound.write_rows(chosen.pictures / "clips.gif", from_nothing[1][:16], data.spec)


if __name__ == "__main__":
    main()

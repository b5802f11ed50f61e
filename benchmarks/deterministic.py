"""Why deterministic autoencoders fall short: a plain one, a regularised one and a VAE of the digits, measured.

    python benchmarks/deterministic.py --out DIR [--seeds 3] [--write]

Trains each (a run that is there is used again), measures prior samples, interpolations, overfitting of noise and what
happens to data of another kind, and prints a table; --write puts it into docs/deterministic.md, with a picture.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import cross_val_score
from torch import Tensor

import lowerbound
from lowerbound.app.report.pictures import table
from lowerbound.lab.data.rows import Dataset, InMemory
from lowerbound.lab.generation.paths import random_pairs
from lowerbound.model.families.family import Family
from lowerbound.noise import generator

RECIPES = {
    "digits-autoencoder": "plain autoencoder",
    "digits-regularised": "regularised autoencoder",
    "digits": "VAE",
}
DOCS = Path(__file__).parents[1] / "docs"
COMPONENTS = 10  # of the mixture that is fitted to codes afterwards (Ghosh et al. 2020, section 4)
NOISE_ROWS = 300
SHOWN = 12

Numbers = dict[str, float]

PAGE = """# Deterministic autoencoders beside the VAE

{count} trainings of each on the handwritten digits that come with scikit-learn, by

```bash
python benchmarks/deterministic.py --out runs/deterministic --seeds {count} --write
```

All three have the same networks, 16 latents, the same Bernoulli likelihood and the same number of steps. The plain
autoencoder minimises the distortion alone (`digits-autoencoder`). The regularised one adds the length of the codes and
the slope of the decoder (`digits-regularised`; Ghosh et al. 2020). The VAE is `digits`. Numbers are means over
trainings, ± their standard deviation.

{table}

![samples of the three](images/deterministic.png)

The lines of the picture: draws of N(0, I) decoded by the plain autoencoder, the regularised one and the VAE.

![half-way images](images/deterministic-paths.png)

Ways between pairs of held-out digits, straight lines between their codes, in the same order of models.

## What is measured

* **Distortion of held-out rows**: -log p(x given z) at the code's point. The plain autoencoder is asked for nothing
  else.
* **Prior samples told apart**: the accuracy of a random forest, in five folds, at telling decoded draws of N(0, I) from
  decoded codes of as many held-out rows (draws of their posterior, where it has a density). 0.5 is chance: then codes
  of the prior are like codes of data. Both sides went through the decoder, so blur is no clue. Below it the same with
  codes drawn from a mixture of {components} Gaussians that was fitted to the codes of the training rows afterwards.
* **Confidence half-way**: the largest probability that a classifier of real digits gives to images half-way between two
  random held-out rows, on average; and, for comparison, to reconstructions. A digit of no kind gets little.
* **Overfitting of noise**: trained on {noise} images whose pixels were shuffled in each image anew, there is nothing to
  learn but the rows themselves. The number is the distortion of fresh rows of that kind less that of the training rows,
  in nats: what was memorised.
* **Data of another kind**: the area under the ROC curve where the distortion is used to tell held-out digits from
  turned ones (by 90 degrees), shifted ones (by two pixels) and two digits that overlie one another. 1 is perfect, 0.5
  is chance. For the VAE a row uses minus its ELBO instead, which deterministic codes do not have.

## What follows

{findings}
"""


def main() -> None:
    """Train, measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args()
    found = {name: [measure(name, seed, chosen.out) for seed in range(chosen.seeds)] for name in RECIPES}
    rows = markdown(found)
    print(rows)
    if chosen.write:
        page = PAGE.format(
            count=chosen.seeds, table=rows, components=COMPONENTS, noise=NOISE_ROWS, findings=findings(found)
        )
        (DOCS / "deterministic.md").write_text(page, encoding="utf-8")
        draw(chosen.out, DOCS / "images")


def measure(name: str, seed: int, out: Path) -> Numbers:
    """All numbers of one training."""
    recipe = lowerbound.read_recipe(name, [f"seed={seed}"])
    data = lowerbound.load_data(recipe.data)
    model = lowerbound.train(recipe, out / f"{name}-{seed}", resume=True).model()
    held = torch.cat([data.test.raw, data.validation.raw])
    back, decoded = lowerbound.reconstruct(model, held), lowerbound.decode(model, {"z": encode_draws(model, held)})
    return {
        "distortion of held-out rows, nats": float(distortion(model, held).mean()),
        "prior samples told apart": told_apart(lowerbound.sample(model, len(held), seed), decoded),
        "samples of a mixture fitted afterwards told apart": told_apart(
            fitted_afterwards(model, data, len(held)), decoded
        ),
        **confidences(model, data, held, back),
        "overfitting of noise, nats": noise_gap(recipe, out / f"{name}-{seed}-noise", seed),
        **other_kinds(model, held),
    }


def distortion(model: Family, raw: Tensor) -> Tensor:
    """-log p(x|z) at the point of the code, for the expected x, nats, (N,)."""
    x = model.preparation.prepare(raw, None)
    with torch.no_grad():
        return -model.decode(model.encode(x)).log_prob(x)


def told_apart(some: Tensor, others: Tensor) -> float:
    """The accuracy of a random forest, in five folds, at telling two sets of as many rows apart."""
    x = torch.cat([some, others]).flatten(1).numpy()
    y = np.repeat([0, 1], [len(some), len(others)])
    order = np.random.default_rng(0).permutation(len(y))
    forest = RandomForestClassifier(300, random_state=0)
    return float(cross_val_score(forest, x[order], y[order], cv=5).mean())


def fitted_afterwards(model: Family, data: Dataset, count: int) -> Tensor:
    """Decoded draws of a Gaussian mixture that is fitted to the codes of the training rows."""
    codes = encode_draws(model, data.train.raw)
    mixture = GaussianMixture(COMPONENTS, random_state=0, reg_covar=1e-5).fit(codes.double().numpy())
    draws = torch.from_numpy(mixture.sample(count)[0]).float()
    return lowerbound.decode(model, {"z": draws[torch.randperm(count, generator=generator(0))]})


def encode_draws(model: Family, raw: Tensor) -> Tensor:
    """A draw of each row's posterior; its point where it is deterministic."""
    x = model.preparation.prepare(raw, None)
    with torch.no_grad():
        return model.encode(x, None, lowerbound.BatchNoise(0, 0, len(raw)))["z"]


def confidences(model: Family, data: Dataset, held: Tensor, back: Tensor) -> Numbers:
    """How sure a classifier of real digits is of images half-way, and of reconstructions."""
    judge = LogisticRegression(max_iter=2000, C=0.01).fit(data.train.raw.flatten(1).float().numpy(), data.train.labels)
    pairs = random_pairs(len(held) // 2, len(held))
    middle = lowerbound.interpolate(model, held[pairs[:, 0]], held[pairs[:, 1]], 3)[:, 1]

    def sure(rows: Tensor) -> float:
        return float(judge.predict_proba(rows.flatten(1).numpy()).max(axis=1).mean())

    return {"confidence half-way": sure(middle), "confidence in reconstructions": sure(back)}


def noise_gap(recipe: lowerbound.Recipe, path: Path, seed: int) -> float:
    """What a model memorises of rows without structure, nats."""
    data = lowerbound.load_data(recipe.data)
    train, fresh = (shuffled(data.train.raw[part], seed) for part in (slice(NOISE_ROWS), slice(NOISE_ROWS, None)))
    noise = Dataset("noise", data.spec, InMemory(train), InMemory(fresh), InMemory(fresh))
    run = lowerbound.train(recipe, path, resume=True, data=noise)
    model = run.model()
    return float(distortion(model, fresh).mean() - distortion(model, train).mean())


def shuffled(raw: Tensor, seed: int) -> Tensor:
    """Rows with the pixels of each in an order of its own."""
    order = torch.rand(raw.flatten(1).shape, generator=generator(seed)).argsort(dim=1)
    return raw.flatten(1).gather(1, order).reshape(raw.shape)


def other_kinds(model: Family, held: Tensor) -> Numbers:
    """The area under the ROC curve of the distortion, and of minus the ELBO, for three kinds of other data."""
    kinds: dict[str, Callable[[Tensor], Tensor]] = {
        "turned": lambda raw: raw.rot90(dims=(2, 3)),
        "shifted": lambda raw: raw.roll(2, dims=3),
        "overlaid": lambda raw: torch.maximum(raw, raw.flip(0)),
    }
    scores: dict[str, Callable[[Family, Tensor], Tensor]] = {"distortion": distortion, "minus the ELBO": minus_elbo}
    found = {}
    for score, function in scores.items():
        if score == "minus the ELBO" and not has_bound(model):
            continue
        usual = function(model, held)
        for kind, change in kinds.items():
            other = function(model, change(held))
            y = np.repeat([0, 1], [len(usual), len(other)])
            found[f"{kind} digits known by {score}"] = float(roc_auc_score(y, torch.cat([usual, other]).numpy()))
    return found


def minus_elbo(model: Family, raw: Tensor) -> Tensor:
    """Minus the ELBO of the expected x, 20 draws, nats, (N,)."""
    x = model.preparation.prepare(raw, None)
    with torch.no_grad():
        return -model.evidence(x, None, lowerbound.BatchNoise(0, 0, len(raw)), 20).elbo()


def has_bound(model: Family) -> bool:
    """Whether the codes have a density."""
    return type(model.get_submodule("posterior")).__name__ != "Deterministic"


def markdown(found: dict[str, list[Numbers]]) -> str:
    """The table of all numbers."""
    lines = [f"| | {' | '.join(RECIPES.values())} |", f"| --- |{' ---: |' * len(RECIPES)}"]
    for number in dict.fromkeys(key for runs in found.values() for run in runs for key in run):
        cells = [cell([run[number] for run in runs if number in run]) for runs in found.values()]
        lines.append(f"| {number} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(values: list[float]) -> str:
    """Mean and standard deviation over trainings."""
    if not values:
        return "none"
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def findings(found: dict[str, list[Numbers]]) -> str:
    """The comparison in words."""
    plain, regular, vae = (
        {key: statistics.mean(run[key] for run in runs) for key in runs[0]} for runs in found.values()
    )
    told, fitted = "prior samples told apart", "samples of a mixture fitted afterwards told apart"
    noise, half = "overfitting of noise, nats", "confidence half-way"
    held, overlaid = "distortion of held-out rows, nats", "overlaid digits known by distortion"
    return f"""* Draws of N(0, I) are told from decoded codes with an accuracy of {plain[told]:.2f} (plain),
  {regular[told]:.2f} (regularised) and {vae[told]:.2f} (VAE); with a mixture fitted afterwards {plain[fitted]:.2f},
  {regular[fitted]:.2f} and {vae[fitted]:.2f}.
* On images without structure the models memorise {plain[noise]:.1f}, {regular[noise]:.1f} and {vae[noise]:.1f} nats a
  row: a VAE's rate makes it pay for each row that it tells apart.
* Who may memorise does worse on new rows: held-out digits cost {plain[held]:.1f}, {regular[held]:.1f} and
  {vae[held]:.1f} nats of distortion.
* Half-way between two digits the classifier is sure of {plain[half]:.2f}, {regular[half]:.2f} and {vae[half]:.2f}: no
  difference here.
* Two digits that overlie one another are known by their distortion with an area of {plain[overlaid]:.2f},
  {regular[overlaid]:.2f} and {vae[overlaid]:.2f}: on these digits the VAE is no better at telling other data."""


def draw(out: Path, pictures: Path) -> None:
    """Draws of N(0, I) and ways between digits, a line for each model."""
    models = [lowerbound.load(out / f"{name}-0") for name in RECIPES]
    held = lowerbound.load_data(lowerbound.read_recipe("digits").data).test.raw[:4]
    draws = torch.stack([lowerbound.sample(model, SHOWN, 1) for model in models])
    ways = torch.cat([lowerbound.interpolate(model, held[:2], held[2:], SHOWN) for model in models])
    for name, rows in (("deterministic", draws), ("deterministic-paths", ways)):
        table(rows, models[0].data).save(pictures / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()

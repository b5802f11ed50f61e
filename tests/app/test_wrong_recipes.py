"""A recipe that is wrong gives one sentence and exit code 2, wherever the mistake is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from harness import SMALL, Cli, Result


def dry(cli: Cli, *overrides: str, recipe: object = "digits") -> Result:
    """A dry run of a recipe with overrides."""
    return cli("train", recipe, "--dry-run", *(word for text in overrides for word in ("--set", text)))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("traning.steps=3", ["`traning`", "did you mean `training`?"]),
        ("training.stepz=3", ["`training.stepz`", "did you mean `steps`?"]),
        ("model.encodr={kind='mlp'}", ["model (vae)", "`encodr`", "did you mean `encoder`?"]),
        ("model.encoder.width=[3]", ["model.encoder (mlp)", "`width`", "did you mean `widths`?"]),
        ("objective.bet=1", ["objective (elbo)", "`bet`", "did you mean `beta`?"]),
        ("objective.beta.en=1", ["objective.beta (linear)", "`en`", "did you mean `end`?"]),
        ("data.lables=3", ["data (digits)", "`lables`", "did you mean `labelled`?"]),
        ("evaluation.sample=3", ["`evaluation.sample`", "did you mean `samples`?"]),
        ("kind=3", ["no setting `kind`"]),
    ],
)
def test_a_misspelt_key_is_named_with_the_right_one(cli: Cli, override: str, words: list[str]) -> None:
    dry(cli, override).refused(2, *words)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.kind=vea", ["`model.kind` is 'vea'", "did you mean `vae`?"]),
        ("model.encoder.kind=mpl", ["`model.encoder.kind` is 'mpl'", "did you mean `mlp`?"]),
        ("objective.beta.kind=linaer", ["`objective.beta.kind`", "did you mean `linear`?"]),
        ("data.kind=mnis", ["`data.kind` is 'mnis'", "did you mean `mnist`?"]),
        ("data.kind=7", ["`data` must be a table with a `kind`", "gmm2d"]),
        ("model.prior=standard", ["`model.prior` must be a table with a `kind`", "mixture"]),
        ("objective.beta={kind='constant'}", ["needs a setting `value`"]),
        ("objective.kind=geco", ["objective (geco)", "needs a setting `target`"]),
    ],
)
def test_an_unknown_or_incomplete_kind_is_named_with_what_there_is(cli: Cli, override: str, words: list[str]) -> None:
    dry(cli, override).refused(2, *words)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.steps=true", ["`training.steps`", "integer", "true was given"]),
        ("training.steps.x=1", ["`training.steps`", "integer"]),
        ("training=3", ["`training`", "a table", "3 was given"]),
        ("training.batch_size=1e3", ["`training.batch_size`", "integer"]),
        ("training.optimizer=sgd", ["`training.optimizer`", "'adam'", '"sgd" was given']),
        ("training.learning_rates={encodr=1.0}", ["`training.learning_rates.encodr`", "'encoder'"]),
        ("seed=1.5", ["`seed`", "integer"]),
        ("name=3", ["`name`", "string"]),
        ("data=3", ["`data`", "a table"]),
        ("model.latent=2.5", ["`model.latent`", "integer", "2.5 was given"]),
        ("model.latent=true", ["`model.latent`", "integer"]),
        ("model.encoder.widths=64", ["`model.encoder.widths`", "a list", "64 was given"]),
        ("model.encoder.widths=['a']", ["`model.encoder.widths.0`", "integer"]),
        ("model.encoder.activation=rellu", ["`model.encoder.activation`", "'relu'"]),
        ("objective.beta=high", ["`objective.beta.value`", "number"]),
        ("data.context=labels", ["`data.context`", "'label'"]),
    ],
)
def test_a_wrong_type_is_named_with_the_right_one(cli: Cli, override: str, words: list[str]) -> None:
    dry(cli, override).refused(2, *words)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.steps=0", ["`training.steps`", "greater than 0"]),
        ("training.batch_size=-1", ["`training.batch_size`", "greater than 0"]),
        ("training.epochs=nan", ["`training.epochs`", "finite"]),
        ("training.learning_rate=inf", ["`training.learning_rate`", "finite"]),
        ("training.learning_rates={encoder=-1.0}", ["`training.learning_rates.encoder`", "greater than 0"]),
        ("training.betas=[0.9]", ["`training.betas`", "2 items"]),
        ("training.betas=[0.9,1.5]", ["`training.betas.1`", "less than 1"]),
        ("training.ema=1.0", ["`training.ema`", "less than 1"]),
        ("training.clip=0", ["`training.clip`", "greater than 0"]),
        ("seed=-1", ["`seed`", "greater than or equal to 0"]),
        ("seed=99999999999999999999", ["`seed`", "9223372036854775807"]),
        ("evaluation.samples=0", ["`evaluation.samples`", "greater than 0"]),
        ("evaluation.split=tst", ["`evaluation.split`", "'test'"]),
        ("model.latent=0", ["`model.latent`", "greater than 0", "0 was given"]),
        ("model.latent=[2,0]", ["`model.latent.1`", "greater than 0"]),
        ("model.latent=[]", ["`model.latent`", "[] was given"]),
        ("model.encoder.widths=[0]", ["`model.encoder.widths.0`", "greater than 0"]),
        ("model.encoder={kind='convolutional-down',widths=[]}", ["`model.encoder.widths`", "at least 1 item"]),
        ("model.prior={kind='mixture',components=0}", ["`model.prior.components`", "greater than 0"]),
        ("objective.beta=nan", ["`objective.beta.value`", "finite"]),
        ("data.labelled=0", ["`data.labelled`", "greater than 0"]),
        ("data.labelled=100", ["`data.labelled` is 100", "label"]),
    ],
)
def test_a_value_out_of_range_is_named_with_the_range(cli: Cli, override: str, words: list[str]) -> None:
    dry(cli, override).refused(2, *words)


def test_labelled_rows_must_be_shared_equally_by_the_classes(cli: Cli) -> None:
    dry(cli, "data.context=label", "data.labelled=15").refused(2, "15", "multiple of the 10 classes")
    assert dry(cli, "data.context=label", "data.labelled=20").code == 0


@pytest.mark.parametrize(
    ("recipe", "overrides", "words"),
    [
        ("gmm2d", ["model.encoder={kind='convolutional-down'}"], ["convolutional", "[2]", "mlp"]),
        ("gmm2d", ["model.decoder={kind='convolutional-up'}"], ["convolutional", "[2]", "mlp"]),
        ("digits", ["model.encoder={kind='convolutional-up'}"], ["convolutional", "[32]", "mlp"]),
        ("digits", ["model.prior={kind='context'}"], ["context", "labels", "standard"]),
        ("digits", ["model.encoder={kind='tokens'}"], ["token", "[1, 8, 8]"]),
        ("gmm2d", ["model.likelihood={kind='tokens'}"], ["tokens", "vocabulary"]),
        ("digits", ["model.likelihood={kind='tokens'}"], ["tokens", "sequences", "[1, 8, 8]"]),
    ],
)
def test_parts_that_do_not_fit_say_which_shape_was_given(
    cli: Cli, recipe: str, overrides: list[str], words: list[str]
) -> None:
    dry(cli, *overrides, recipe=recipe).refused(2, *words)


def test_a_latent_with_a_shape_fits_convolutional_networks(cli: Cli) -> None:
    encoder, decoder = "model.encoder={kind='convolutional-down'}", "model.decoder={kind='convolutional-up'}"
    result = dry(cli, "model.latent=[2,4,4]", encoder, decoder)
    assert result.code == 0, result
    assert "Conv2d" in result.out


def test_batches_that_do_not_divide_are_refused(cli: Cli, tmp_path: Path) -> None:
    sets = ("--set", "training.batch_size=10", "--set", "training.accumulate=3")
    cli("train", "gmm2d", *sets, "--out", tmp_path / "run").refused(2, "training.batch_size is 10", "multiple of 3")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.steps", ["`--set training.steps`", "a.b=value"]),
        ("=3", ["`--set =3`", "a.b=value"]),
        ("training..steps=3", ["a.b=value"]),
        ("training.steps=", ["is not a TOML value"]),
        ("training.steps=[1", ["'[1' is not a TOML value"]),
        ("training.steps=1 2", ["'1 2' is not a TOML value"]),
        ("description=two words", ["'two words' is not a TOML value", '"text"']),
    ],
)
def test_an_override_that_cannot_be_read_shows_the_form(cli: Cli, override: str, words: list[str]) -> None:
    dry(cli, override).refused(2, *words)


def test_an_override_cannot_smuggle_in_a_second_key(cli: Cli) -> None:
    result = dry(cli, "training.steps=3\nother=1")
    assert result.code == 2
    assert "is not a TOML value" in result.err


def test_steps_and_epochs_exclude_each_other(cli: Cli, tmp_path: Path) -> None:
    dry(cli, "training.steps=3", "training.epochs=3").refused(2, "exactly one of `steps` and `epochs`", "both")
    neither = tmp_path / "neither.toml"
    neither.write_text('name = "x"\n[data]\nkind = "digits"\n[model]\nkind = "vae"\n[training]\nbatch_size = 3\n')
    dry(cli, recipe=neither).refused(2, "exactly one of `steps` and `epochs`", "neither")
    assert dry(cli, "training.steps=3").code == 0, "one replaces the recipe's other"


WRONG_FILES = {
    "empty.toml": (b"", ["`name` is missing", "3 more"]),
    "syntax.toml": (b"name = \n", ["is not valid TOML", "line 1"]),
    "binary.toml": (bytes(range(256)), ["is not valid TOML"]),
    "utf16.toml": ('name = "x"'.encode("utf-16"), ["is not valid TOML"]),
    "twice.toml": (b'name = "a"\nname = "b"\n', ["is not valid TOML"]),
    "list.json": (b"[1, 2]", ["holds no table"]),
    "torn.json": (b'{"name":', ["is not valid JSON"]),
    "schema.toml": (b'base = "digits"\nschema = 7\n', ["schema 7", "update lowerbound"]),
    "base.toml": (b'base = "digts"\n', ["`", "digts", "the base of", "did you mean `digits`?"]),
    "number.toml": (b"base = 3\n", ["`base` is 3", "name of one recipe"]),
    "itself.toml": (b'base = "itself.toml"\n', ["is its own base", "itself.toml -> "]),
    "model.toml": (b'base = "digits"\nmodel = 3\n', ["`model`", "a table"]),
    "date.toml": (b'base = "digits"\nname = 2020-01-01\n', ["`name`", "string", "2020-01-01"]),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_a_recipe_file_that_is_wrong_is_named(cli: Cli, tmp_path: Path, name: str) -> None:
    content, words = WRONG_FILES[name]
    (tmp_path / name).write_bytes(content)
    dry(cli, recipe=tmp_path / name).refused(2, name, *words)


def test_bases_in_a_circle_are_shown(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('base = "b.toml"\n')
    (tmp_path / "b.toml").write_text('base = "a.toml"\n')
    dry(cli, recipe=tmp_path / "a.toml").refused(2, "its own base", "b.toml -> ")


def test_a_base_lies_beside_the_recipe_that_names_it(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "below.toml").write_text('base = "gmm2d"\n[training]\nsteps = 7\n')
    (tmp_path / "above.toml").write_text('base = "below.toml"\nname = "above"\n')
    result = cli("recipes", tmp_path / "above.toml")
    assert result.code == 0, result
    assert '"steps": 7' in result.out
    assert '"name": "above"' in result.out


def test_a_recipe_that_is_no_file(cli: Cli, tmp_path: Path) -> None:
    dry(cli, recipe="digts").refused(2, "no recipe `digts`", "did you mean `digits`?")
    dry(cli, recipe=tmp_path / "none.toml").refused(2, "no recipe", "there are: ", "gmm2d")
    dry(cli, recipe=tmp_path).refused(2, "cannot be read", "directory")


@pytest.mark.skipif(os.geteuid() == 0, reason="everything may be read by root")
def test_a_recipe_that_may_not_be_read(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "secret.toml"
    path.write_text('base = "digits"\n')
    path.chmod(0)
    dry(cli, recipe=path).refused(2, "cannot be read", "Permission denied")


def test_the_recipe_of_a_run_is_a_recipe(cli: Cli, gmm2d: Path, tmp_path: Path) -> None:
    result = cli("train", gmm2d / "recipe.json", "--set", "training.steps=1", "--out", tmp_path / "again")
    assert result.code == 0, result


def test_overrides_of_one_table_belong_together(cli: Cli) -> None:
    widths = "model.encoder.widths=[4]"
    for order in ([widths, "model.encoder.kind=convolutional-down"], ["model.encoder.kind=convolutional-down", widths]):
        result = dry(cli, *order)
        assert result.code == 0, result
        assert "Conv2d" in result.out
        assert "[4, 4, 4]" in result.out


def test_a_wrong_recipe_leaves_no_folder_behind(cli: Cli, tmp_path: Path) -> None:
    cli("train", "digits", *SMALL, "--set", "model.latent=0", "--out", tmp_path / "run").refused(2, "`model.latent`")
    assert not (tmp_path / "run").exists()

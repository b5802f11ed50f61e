"""Coloured shapes with captions, and texts as contexts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import lowerbound
from lowerbound.errors import DataError, RecipeError, ShapeError, UsageError
from lowerbound.lab.data import shapes
from lowerbound.lab.data.captions import Pretrained, Words, split_words
from lowerbound.lab.data.rows import InMemory

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

SMALL = {"kind": "captioned-shapes", "count": 300}
TEXTS = ["a red circle at the left", "in the middle there is a big blue box"]


def test_shapes_are_a_function_of_the_seed_and_their_attributes_can_be_read() -> None:
    data, again = (lowerbound.load_data(SMALL) for _ in range(2))
    assert data.spec.event == (3, 16, 16)
    assert isinstance(data.train, InMemory)
    assert isinstance(again.train, InMemory)
    assert torch.equal(data.train.raw, again.train.raw)
    assert data.train.labels is not None
    assert (shapes.read_attributes(data.train.raw) == data.train.labels[:, :3]).double().mean() > 0.995
    assert all(len(data.train.labels[:, k].unique()) == n for k, n in enumerate((4, 4, 5, 2)))


def test_captions_say_shape_colour_and_place_in_several_wordings() -> None:
    data = lowerbound.load_data(SMALL)
    assert data.train.labels is not None
    captions = [data.train.name(row).split("(")[1].rstrip(")") for row in range(300)]
    firsts = {caption.split()[0] for caption in captions}
    assert firsts == {"a", "one", "at", "on", "in"}
    names = list(shapes.ATTRIBUTES.values())
    for caption, (shape, colour, place, size) in zip(captions, data.train.labels.tolist(), strict=True):
        assert any(word in caption for word in shapes.SHAPES[names[0][shape]])
        assert names[1][colour] in caption
        assert any(phrase in caption for phrase in shapes.PLACES[names[2][place]])
        others = shapes.SIZES[names[3][1 - size]]
        assert not set(others) & set(split_words(caption))
    unsaid = [not set(split_words(caption)) & {"small", "little", "large", "big"} for caption in captions]
    assert 0.2 < sum(unsaid) / 300 < 0.4


def test_a_caption_becomes_the_numbers_of_its_words() -> None:
    data = lowerbound.load_data(SMALL)
    assert data.train.take(torch.tensor([3])).context is not None
    context = data.train.take(torch.arange(300)).context
    assert context is not None
    for row in (0, 7, 299):
        words = [data.spec.words[int(number)] for number in context.vector[row] if number]
        assert " ".join(words) in data.train.name(row).replace(",", "")


def test_words_that_are_unknown_are_named() -> None:
    reading = Words(shapes.vocabulary(), shapes.LONGEST)
    assert reading.read(["A RED circle, at the left!"]).vector.equal(reading.read(TEXTS[:1]).vector)
    with pytest.raises(UsageError, match="the word 'crimson'"):
        reading.read(["a crimson circle"])
    with pytest.raises(UsageError, match="the word '3'"):
        reading.read(["3 circles"])
    with pytest.raises(UsageError, match="has 0 words"):
        reading.read(["..."])
    with pytest.raises(UsageError, match="has 13 words"):
        reading.read(["a " * 13])


def test_texts_need_a_family_that_reads_them() -> None:
    spec = lowerbound.load_data(SMALL).spec
    with pytest.raises(ShapeError, match="described"):
        lowerbound.build_model({"kind": "vae"}, spec, 0)
    with pytest.raises(ShapeError, match="these have none"):
        lowerbound.build_model(
            {"kind": "described", "inner": {"kind": "vae"}}, lowerbound.DataSpec((1, 8, 8), 17, 10), 0
        )


def test_codes_keep_the_texts_of_their_rows(tmp_path: Path) -> None:
    overrides = ["training.steps=2", "training.batch_size=8", "data.kind='captioned-shapes'", "data.count=40"]
    overrides += ["data.context='none'", "model.positions=[2, 2]", "model.likelihood={kind='gaussian-optimal'}"]
    run = lowerbound.train(lowerbound.read_recipe("digits-codes", overrides), tmp_path / "first")
    codes = lowerbound.load_data({"kind": "latents", "run": str(run.path), "context": "text"})
    rows = lowerbound.load_data({**run.recipe().data, "context": "text"})
    every = torch.arange(40)
    found, expected = codes.train.take(every).context, rows.train.take(every).context
    assert found is not None
    assert expected is not None
    assert found.vector.equal(expected.vector)
    assert codes.spec.words == rows.spec.words


# ------------------------------------------------------------------------------------------- encoders of others


def write_tokenizer(folder: Path) -> None:
    """A tokenizer of the captions' words, as files."""
    words = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[EOS]", *shapes.vocabulary()[1:]])}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    whole = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]", eos_token="[EOS]"
    )
    whole.save_pretrained(folder)


def write_clip(folder: Path) -> Path:
    config = transformers.CLIPTextConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    transformers.CLIPTextModel(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_t5(folder: Path) -> Path:
    config = transformers.T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    torch.manual_seed(0)
    transformers.T5EncoderModel(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


@pytest.mark.parametrize("write", [write_clip, write_t5])
def test_a_text_encoder_is_read_from_local_files(write, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    reading = Pretrained((), 0, path=str(write(tmp_path / "encoder")), tokens=12)
    context = reading.read(TEXTS)
    assert context.vector.shape == (2, 12 * 16)
    assert not torch.equal(context.vector[0], context.vector[1])
    assert context.vector[0].unflatten(0, (12, 16))[6:].abs().sum() == 0  # padding
    torch.testing.assert_close(reading.read(TEXTS[1:]).vector, context.vector[1:], rtol=1e-5, atol=1e-5)


def test_data_and_samples_take_features_of_a_text_encoder(tmp_path: Path) -> None:
    folder = write_clip(tmp_path / "encoder")
    text = {"kind": "pretrained", "path": str(folder), "tokens": 12}
    overrides = ["training.steps=3", "training.batch_size=8", "data.count=40", "model.latent=2"]
    recipe = lowerbound.read_recipe("digits-conditional", overrides)
    recipe = recipe.model_copy(update={"data": {"kind": "captioned-shapes", "count": 40, "text": text}})
    run = lowerbound.train(recipe, tmp_path / "run")
    assert run.data_spec().context == 12 * 16
    context = lowerbound.text_context(run.path, TEXTS[0], 3)
    assert lowerbound.sample(run.model(), 3, context=context).shape == (3, 3, 16, 16)


def test_files_that_are_no_text_encoder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"config\.json"):
        Pretrained((), 0, path=str(tmp_path)).read(TEXTS)
    transformers.BertConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1).save_pretrained(
        tmp_path / "bert"
    )
    with pytest.raises(DataError, match=r"'bert'; give one of CLIP or T5"):
        Pretrained((), 0, path=str(tmp_path / "bert")).read(TEXTS)
    folder = write_t5(tmp_path / "t5")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="safetensors"):
        Pretrained((), 0, path=str(folder)).read(TEXTS)
    with pytest.raises(RecipeError, match="path"):
        lowerbound.load_data({**SMALL, "text": {"kind": "pretrained"}})

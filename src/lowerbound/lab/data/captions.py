"""Texts as contexts: from a caption to the numbers that a model is conditioned on."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lowerbound.errors import DataError, UsageError
from lowerbound.extras import need
from lowerbound.model.spec import Context, Count
from lowerbound.recipe import suggest

BATCH = 64  # captions that are read together


class Reading(ABC):
    """How captions become contexts.

    A constructor takes from the data the words that their captions have, none first, and the most of them in a caption;
    its keyword arguments are the recipe's settings.

    Attributes:
        words: what the numbers of a context stand for, where they are words; the first is none. Empty for features.
    """

    words: tuple[str, ...]

    @abstractmethod
    def read(self, captions: Sequence[str]) -> Context:
        """The context of each caption.

        Raises:
            UsageError: a caption that cannot be read, with the reason.
        """


class Words(Reading):
    """Numbers of words, for a model with a text encoder of its own (the family `described`)."""

    def __init__(self, words: Sequence[str], length: int) -> None:
        self.words, self.length = tuple(words), length
        self._number = {word: number for number, word in enumerate(words)}

    def read(self, captions: Sequence[str]) -> Context:
        rows = torch.zeros(len(captions), self.length)
        for row, caption in enumerate(captions):
            found = [self._known(word, caption) for word in split_words(caption)]
            if not found or len(found) > self.length:
                raise UsageError(
                    f"the text {caption!r} has {len(found)} words; this model reads 1 to {self.length} of them."
                )
            rows[row, : len(found)] = torch.tensor(found, dtype=rows.dtype)
        return Context.of(rows)

    def _known(self, word: str, caption: str) -> int:
        number = self._number.get(word)
        if not number:
            raise UsageError(
                f"the word {word!r} of the text {caption!r} is unknown to this model{suggest(word, self.words[1:])}"
            )
        return number


class Pretrained(Reading):
    """Features of a text encoder from local files (CLIP or T5), computed once: no model is trained or downloaded.

    The features of every position are standardised over themselves, padding is 0, and a context has tokens * width
    numbers. Weights are read from safetensors only.

    Args:
        words, length: of the data's captions; not used, for the files know words of their own.
        path: folder with the files that `save_pretrained` of transformers writes for a model and its tokenizer.
        tokens: positions of a context; what is beyond is cut off.
    """

    def __init__(self, words: Sequence[str], length: int, *, path: str, tokens: Count = 16) -> None:
        self.words, self.path, self.tokens = (), path, tokens

    def read(self, captions: Sequence[str]) -> Context:
        tokenizer, model = self._load()
        parts: list[Tensor] = []
        for start in range(0, len(captions), BATCH):
            given = tokenizer(
                list(captions[start : start + BATCH]),
                padding="max_length",
                truncation=True,
                max_length=self.tokens,
                return_tensors="pt",
            )
            with torch.no_grad():
                found = model(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).last_hidden_state
            scaled = torch.nn.functional.layer_norm(found.float(), found.shape[-1:])
            parts.append((scaled * given["attention_mask"].unsqueeze(-1)).flatten(1))
        return Context.of(torch.cat(parts))

    def _load(self) -> tuple[Any, Any]:
        transformers = need("transformers", "transformers", "A pretrained text encoder")
        folder = Path(self.path)
        if not (folder / "config.json").is_file():
            raise DataError(
                f"{folder} holds no config.json; give a folder that `save_pretrained` of transformers wrote."
            )
        local = {"local_files_only": True, "trust_remote_code": False}
        try:
            config = transformers.AutoConfig.from_pretrained(folder, **local)
            kinds = {"clip": "CLIPTextModel", "clip_text_model": "CLIPTextModel", "t5": "T5EncoderModel"}
            kind = kinds.get(config.model_type)
            if kind is None:
                raise DataError(f"{folder} is a model of kind {config.model_type!r}; give one of CLIP or T5.")
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **local)
            model = getattr(transformers, kind).from_pretrained(folder, use_safetensors=True, **local)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(
                f"{folder} cannot be read as a text encoder with weights in safetensors ({reason})."
            ) from None
        return tokenizer, model.eval()


def split_words(caption: str) -> list[str]:
    """Words of a text in lower case; punctuation is left out."""
    return re.findall(r"[^\W_]+", caption.lower())

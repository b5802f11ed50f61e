"""What a page is made of: figures with captions, in sections, rendered into one file that opens offline."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure
from PIL import Image

from lowerbound.app.report.pictures import to_image
from lowerbound.files import write_bytes


@dataclass(frozen=True)
class Drawn:
    """A figure of a page.

    Attributes:
        file: its name in `figures/`.
        title, caption: above it, and below it: what to look for.
        alt: what it shows, for who cannot see it.
        png: the picture.
        narrow: another one for narrow screens, if it is not the same.
    """

    file: str
    title: str
    caption: str
    alt: str
    png: bytes
    narrow: bytes | None = None

    @property
    def data(self) -> str:
        """The picture inside the page."""
        return base64.b64encode(self.png).decode()

    @property
    def narrow_data(self) -> str:
        """That for narrow screens; empty where there is none."""
        return "" if self.narrow is None else base64.b64encode(self.narrow).decode()


@dataclass(frozen=True)
class Still:
    """A small picture with a word below it, one of a strip."""

    label: str
    png: bytes

    @property
    def data(self) -> str:
        """The picture inside the page."""
        return base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class Strip:
    """Small pictures in a line, left to right."""

    title: str
    caption: str
    alt: str
    stills: list[Still]


@dataclass(frozen=True)
class Section:
    """A part of a page: a heading, a sentence, and what can be seen."""

    name: str
    title: str
    lead: str
    figures: list[Drawn] = field(default_factory=list)
    strips: list[Strip] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether there is nothing in it."""
        return not self.figures and not self.strips


@dataclass(frozen=True)
class Tile:
    """A number at the top of a page."""

    label: str
    value: str
    error: str
    note: str


def chart(file: str, title: str, caption: str, alt: str, draw: Callable[[bool], Figure]) -> Drawn:
    """A chart, drawn wide and narrow: `draw(narrow)`."""
    wide, narrow = (png(to_image(draw(is_narrow))) for is_narrow in (False, True))
    return Drawn(file, title, caption, alt, wide, narrow)


def picture(
    file: str, title: str, caption: str, alt: str, wide: Image.Image, narrow: Image.Image | None = None
) -> Drawn:
    """A picture of rows."""
    return Drawn(file, title, caption, alt, png(wide), None if narrow is None else png(narrow))


def png(image: Image.Image) -> bytes:
    """An image as the content of a file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def render(template: str, values: Mapping[str, Any]) -> str:
    """A page of the package's templates, everything escaped."""
    folder = resources.files("lowerbound.app.report")
    loader = jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8"))
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, loader=loader, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(values)


def save_figures(folder: Path, sections: list[Section]) -> None:
    """Write each figure of a page under its own name."""
    for section in sections:
        for figure in section.figures:
            write_bytes(folder / figure.file, figure.png)

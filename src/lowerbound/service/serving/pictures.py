"""Pictures of clients: what they say of themselves is checked before anything is decoded."""

from __future__ import annotations

import io
import re
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from lowerbound.service.serving.payload import Array
from lowerbound.service.serving.problems import RefusedError

FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}
MOST_PIXELS = 16_000_000
MOST_SCANS = 64  # of one JPEG: each costs a pass over all pixels, whatever its length
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd8\xff]")  # of a JPEG; within a scan, others are data
# What of a PNG may be unpacked to more than it is, and is not needed.
PACKED = (b"zTXt", b"iTXt", b"iCCP")


@dataclass(frozen=True, slots=True)
class Header:
    """What a picture says of itself."""

    format: str
    width: int
    height: int


def read_picture(body: bytes, content_type: str, event: tuple[int, ...], most_pixels: int = MOST_PIXELS) -> Array:
    """The pixels of one picture, (C, H, W), uint8.

    Its structure and size are read first, without decoding: a picture of another size than the model's is never
    unpacked. The checksums of a PNG are verified. JPEG and WebP have none.

    Args:
        body: the file.
        content_type: that it is said to have.
        event: (C, H, W) of the model.
        most_pixels: once decoded.

    Raises:
        RefusedError: it is damaged, of another type, or does not fit the model.
    """
    header = inspect(body, content_type)
    channels, height, width = event
    if header.width * header.height > most_pixels:
        raise RefusedError(
            "too-many-pixels",
            f"The picture has {header.width} x {header.height} pixels; at most {most_pixels:,} are read.",
        )
    turned = header.format != "PNG" and (header.width, header.height) == (height, width)
    if (header.width, header.height) != (width, height) and not turned:
        raise RefusedError(
            "wrong-size",
            f"The picture has {header.width} x {header.height} pixels; this model needs {width} x {height}.",
        )
    pixels = _decode(body, header.format, channels)
    if pixels.shape[1:] != (height, width):
        raise RefusedError("wrong-size", f"The picture is turned; this model needs {width} x {height} pixels.")
    return pixels


def inspect(body: bytes, content_type: str) -> Header:
    """What a picture says of itself.

    Raises:
        RefusedError: it is damaged, or not of the type that it is said to be.
    """
    if body.startswith(PNG_MAGIC):
        found = _png(body)
    elif body.startswith(b"\xff\xd8\xff"):
        found = _jpeg(body)
    elif body[:4] == b"RIFF" and body[8:12] == b"WEBP":
        found = _webp(body)
    else:
        raise RefusedError("type-mismatch", f"The body is said to be {content_type}, and is no PNG, JPEG or WebP.")
    if FORMATS.get(content_type) != found.format:
        raise RefusedError("type-mismatch", f"The body is said to be {content_type}, and is a {found.format} picture.")
    if not found.width or not found.height:
        raise RefusedError("bad-picture", "The picture has no pixels.")
    return found


def write_png(pixels: Array) -> bytes:
    """A PNG of (H, W, C) or (H, W), uint8."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def tiled(pixels: Array, columns: int) -> Array:
    """Pictures (N, C, H, W), uint8, as one, (H', W') or (H', W', 3); empty places are black."""
    count, channels, height, width = pixels.shape
    lines = -(-count // columns)
    filled = np.zeros((lines * columns, channels, height, width), np.uint8)
    filled[:count] = pixels
    grid = filled.reshape(lines, columns, channels, height, width).transpose(0, 3, 1, 4, 2)
    joined = grid.reshape(lines * height, columns * width, channels)
    return joined[..., 0] if channels == 1 else joined


def _png(body: bytes) -> Header:
    at, end, kinds, size = len(PNG_MAGIC), len(body), 0, (0, 0)
    view = memoryview(body)
    while True:
        if at + 12 > end:
            raise RefusedError("truncated-picture", "The PNG ends before its last chunk.")
        length = int.from_bytes(view[at : at + 4], "big")
        kind, stop = body[at + 4 : at + 8], at + 12 + length
        if stop > end:
            raise RefusedError("truncated-picture", "The PNG ends within a chunk.")
        if zlib.crc32(view[at + 4 : stop - 4]) != int.from_bytes(view[stop - 4 : stop], "big"):
            raise RefusedError("bad-picture", "A checksum of the PNG is wrong.")
        if (kinds == 0) != (kind == b"IHDR") or (kind == b"IHDR" and length != 13):
            raise RefusedError("bad-picture", "The PNG does not begin with one header.")
        if kind == b"IHDR":
            size = (int.from_bytes(view[at + 8 : at + 12], "big"), int.from_bytes(view[at + 12 : at + 16], "big"))
            if body[at + 16] > 8:
                raise RefusedError("wrong-channels", "The PNG has 16 bits per channel; this server reads 8.")
        if kind == b"acTL":
            raise RefusedError("animated-picture", "The PNG is animated; give one picture.")
        kinds += 1
        at = stop
        if kind == b"IEND":
            break
    if at != end:
        raise RefusedError("trailing-bytes", f"{end - at} bytes follow the end of the PNG.")
    return Header("PNG", *size)


def _jpeg(body: bytes) -> Header:
    at, scans, size = 2, 0, None
    while True:
        found = MARKER.search(body, at) if scans else MARKER.match(body, at)
        if found is None:
            cut = scans or len(body) - at < 4
            raise RefusedError(
                "truncated-picture" if cut else "bad-picture", "The JPEG has no end." if cut else "The JPEG is damaged."
            )
        marker, at = body[found.end() - 1], found.end()
        if marker == 0xD9:
            break
        if at + 7 > len(body):
            raise RefusedError("truncated-picture", "The JPEG ends within its headers.")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", body, at + 3)
            size = (width, height)
        scans += marker == 0xDA
        at += int.from_bytes(body[at : at + 2], "big")
    if size is None or not scans:
        raise RefusedError("bad-picture", "The JPEG has no picture.")
    if at != len(body):
        raise RefusedError("trailing-bytes", f"{len(body) - at} bytes follow the end of the JPEG.")
    if scans > MOST_SCANS:
        raise RefusedError("bad-picture", f"The JPEG has more than {MOST_SCANS} scans.")
    return Header("JPEG", *size)


def _webp(body: bytes) -> Header:
    stated = int.from_bytes(body[4:8], "little") + 8
    if stated + stated % 2 < len(body):
        raise RefusedError("trailing-bytes", f"{len(body) - stated} bytes follow the end of the WebP picture.")
    if stated > len(body) or len(body) < 30:
        raise RefusedError("truncated-picture", "The WebP picture ends too early.")
    kind = body[12:16]
    if kind == b"VP8X":
        if body[20] & 2:
            raise RefusedError("animated-picture", "The WebP picture is animated; give one picture.")
        width, height = (1 + int.from_bytes(body[at : at + 3], "little") for at in (24, 27))
        inner = _webp_frame(body)
        if inner not in (None, (width, height)):
            raise RefusedError("bad-picture", "The sizes within the WebP picture differ.")
        return Header("WEBP", width, height)
    size = _webp_size(body, 12)
    if size is None:
        raise RefusedError("bad-picture", "The WebP picture holds no frame.")
    return Header("WEBP", *size)


def _webp_frame(body: bytes) -> tuple[int, int] | None:
    """The size of the frame within an extended WebP picture."""
    at = 30
    while at + 8 <= len(body):
        if body[at : at + 4] in (b"VP8 ", b"VP8L"):
            return _webp_size(body, at)
        length = int.from_bytes(body[at + 4 : at + 8], "little")
        at += 8 + length + length % 2
    return None


def _webp_size(body: bytes, at: int) -> tuple[int, int] | None:
    """The size that a chunk at a place says."""
    if body[at : at + 4] == b"VP8 " and body[at + 11 : at + 14] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", body, at + 14)
        return width & 0x3FFF, height & 0x3FFF
    if body[at : at + 4] == b"VP8L" and body[at + 8 : at + 9] == b"\x2f" and at + 13 <= len(body):
        bits = int.from_bytes(body[at + 9 : at + 13], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None


def _decode(body: bytes, name: str, channels: int) -> Array:
    try:
        with Image.open(io.BytesIO(_lean(body) if name == "PNG" else body), formats=[name]) as image:
            image.load()
            upright = image if name == "PNG" else ImageOps.exif_transpose(image)
            pixels = _channels(upright, channels)
    except RefusedError:
        raise
    except Exception as error:  # decoders raise many kinds, some of them their own mistakes on damaged bytes
        code = "truncated-picture" if "truncated" in str(error) else "bad-picture"
        raise RefusedError(code, f"The {name} picture cannot be decoded ({type(error).__name__}).") from None
    return pixels


def _lean(body: bytes) -> bytes:
    """A PNG without what could be unpacked to more than it is."""
    if not any(kind in body for kind in PACKED):
        return body
    kept, at = [PNG_MAGIC], len(PNG_MAGIC)
    while at < len(body):
        stop = at + 12 + int.from_bytes(body[at : at + 4], "big")
        if body[at + 4 : at + 8] not in PACKED:
            kept.append(body[at:stop])
        at = stop
    return b"".join(kept)


def _channels(image: Image.Image, channels: int) -> Array:
    """The pixels (C, H, W); a coloured picture whose channels are equal is a grey one."""
    if image.mode in ("1", "L"):
        grey = np.asarray(image.convert("L"))
        return np.broadcast_to(grey, (channels, *grey.shape)) if channels == 1 else _wrong(image.mode, channels)
    if image.mode == "P" and "transparency" not in image.info:
        image = image.convert("RGB")
    if image.mode != "RGB" or channels not in (1, 3):
        return _wrong(image.mode, channels)
    pixels = np.asarray(image).transpose(2, 0, 1)
    if channels == 3:
        return pixels
    if (pixels[0] != pixels[1]).any() or (pixels[0] != pixels[2]).any():
        return _wrong("RGB", channels)
    return pixels[:1]


def _wrong(mode: str, channels: int) -> Array:
    needed = {1: "a grey one", 3: "one in RGB without transparency"}.get(channels, f"one of {channels} channels")
    raise RefusedError("wrong-channels", f"The picture is of mode {mode}; this model needs {needed}.")

"""A contact sheet: many stamps in one picture, each with its label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from pstamp_core.files import written
from pstamp_core.stamps.image import Box, Image
from pstamp_core.stamps.products import jpeg

if TYPE_CHECKING:
    from PIL import Image as Pictures

_TILE = 180
_GAP = 12
_LINE = 16
_INK = (220, 220, 220)
_PAPER = (32, 34, 38)
_FRAME = (80, 84, 92)


def contact_sheet(entries: Sequence[tuple[str, Path]], out: Path) -> None:
    """Write a PNG with all stamps in a grid, each enlarged or reduced to the same size, with its label below.

    Parameters
    ----------
    entries : sequence of (label, path)
        The label may have several lines; the path is that of a FITS image.
    out : Path
        The PNG; it is replaced when there is one.

    Raises
    ------
    FinalError
        25: a file is missing, or not a FITS image.
    """
    from PIL import Image as Pictures
    from PIL import ImageDraw, ImageFont

    font = ImageFont.load_default(13)
    columns = max(math.ceil(math.sqrt(len(entries) * 1.5)), 1)
    lines = max((len(_wrapped(label, font)) for label, _ in entries), default=0)
    width, height = _TILE + _GAP, _TILE + _GAP + lines * _LINE + 4
    rows = math.ceil(len(entries) / columns)
    sheet = Pictures.new("RGB", (columns * width + _GAP, max(rows, 1) * height + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (label, path) in enumerate(entries):
        x, y = _GAP + number % columns * width, _GAP + number // columns * height
        draw.rectangle((x - 1, y - 1, x + _TILE, y + _TILE), outline=_FRAME)
        picture = _picture(path)
        sheet.paste(picture, (x + (_TILE - picture.width) // 2, y + (_TILE - picture.height) // 2))
        for line, text in enumerate(_wrapped(label, font)):
            draw.text((x, y + _TILE + 4 + line * _LINE), text, fill=_INK, font=font)
    with written(out) as private:
        sheet.save(private, "PNG")


def _picture(path: Path) -> Pictures.Image:
    """Return a stamp as a picture that fits into a tile; small stamps keep their pixels visible."""
    from PIL import Image as Pictures

    with Image(path) as image:
        pixels = image.physical(image.read(Box(0, 0, image.nx, image.ny)))
    picture = Pictures.open(BytesIO(jpeg(pixels)))
    scale = _TILE / max(picture.size)
    size = tuple(max(round(side * scale), 1) for side in picture.size)
    return picture.resize(size, Pictures.Resampling.NEAREST if scale > 1 else Pictures.Resampling.LANCZOS)  # type: ignore[arg-type]


def _wrapped(label: str, font: object) -> list[str]:
    """Return the lines of a label, broken where a tile ends."""
    lines = []
    for line in label.splitlines():
        rest = line
        while rest:
            fits = len(rest)
            while fits > 1 and font.getlength(rest[:fits]) > _TILE:  # type: ignore[attr-defined]
                fits -= 1
            at = rest.rfind(" ", 0, fits + 1) if fits < len(rest) else fits
            at = at if at > 0 else fits
            lines.append(rest[:at])
            rest = rest[at:].lstrip()
    return lines

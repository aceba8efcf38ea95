"""Headers of products: the input's cards, byte for byte, but for those that no longer hold.

Cards are kept as the 80 bytes that they are. So CONTINUE, HIERARCH, NaN, odd formats and repeated COMMENT and HISTORY
come out as they went in, and nothing is spent on parsing a hundred cards for each stamp.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from pstamp_core.stamps.image import BLOCK, CARD, PRINTABLE, Box

if TYPE_CHECKING:
    from pstamp_core.stamps.image import Image

Cards = Iterable[tuple[str, Any, str]]

_GONE = re.compile(
    # What describes the file's own layout (FITS standard 4.4.1, 7.3, 10) or its sums, and goes with it.
    rb"(SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|PCOUNT|GCOUNT|TFIELDS|THEAP|GROUPS|CHECKSUM|DATASUM|INHERIT|END"
    rb"|T(TYPE|FORM|UNIT|DIM|NULL|SCAL|ZERO|DISP)\d+|ZHECKSUM|ZDATASUM|ZIMAGE|ZCMPTYPE|ZBITPIX|ZNAXIS\d*|ZTILE\d+"
    rb"|ZNAME\d+|ZVAL\d+|ZMASKCMP|ZQUANTIZ|ZDITHER0|ZBLANK|ZSCALE|ZZERO|ZSIMPLE|ZTENSION|ZEXTEND|ZPCOUNT|ZGCOUNT"
    rb"|ZBLOCKED|FZ(ALGOR|TILE|QVALUE|QMETHD|DTHRSD|INT2F|HSCALE)"
    # Regions in the pixels of the whole image; BLANK is set anew where it is needed.
    rb"|DATASEC|TRIMSEC|BIASSEC|CCDSEC|BLANK) *(=|$)|EXTNAME = 'COMPRESSED_IMAGE'"
)
_SCALING = re.compile(rb"(BSCALE|BZERO) *=")
_MOVING = re.compile(rb"(?:CRPIX|LTV)([12])[A-Z]? *=")


def format_cards(cards: Cards) -> bytes:
    """Return cards as they stand in a file; NaN and infinity, which FITS can't say, become undefined values."""
    return b"".join(_card(name, value, comment) for name, value, comment in cards)


@lru_cache(maxsize=1024, typed=True)  # most cards are the same for all stamps, and one takes 30 microseconds
def _card(name: str, value: Any, comment: str) -> bytes:
    from astropy.io.fits import Card
    from astropy.io.fits.verify import VerifyWarning

    if isinstance(value, float) and not math.isfinite(value):
        value = None
    elif isinstance(value, str):
        value = _printable(value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VerifyWarning)  # a comment that does not fit is cut
        return str(Card(name, value, _printable(comment))).encode("ascii")


def _printable(text: str) -> str:
    return text.encode("ascii", "replace").translate(PRINTABLE).decode("ascii")


def padded(header: bytes) -> bytes:
    """Return cards with END, filled up to whole blocks of 2880 bytes."""
    header += b"END".ljust(CARD)
    return header + b" " * (-len(header) % BLOCK)


class HeaderTemplate:
    """What the stamps of one image have in their headers.

    Parameters
    ----------
    image : Image
        Whose header it is. With INHERIT = T (FITS standard, appendix K) the primary header counts as well.
    """

    def __init__(self, image: Image) -> None:
        groups = _groups(image.cards)
        if image.value("INHERIT") is True:
            own = {group[:8] for group in groups} | {b"COMMENT ", b"HISTORY ", b" " * 8}
            groups += [group for group in _groups(image.primary_cards) if group[:8] not in own]
        self._groups = [(group, _moving(group)) for group in groups if not _GONE.match(group)]
        # A reference pixel that is not said is 0 (FITS standard 8.1), which a shift makes wrong.
        names = {group[:8] for group, _ in self._groups}
        self._unsaid = [n for n in (1, 2) if b"CTYPE%d  " % n in names and b"CRPIX%d  " % n not in names]

    def cards(self, box: Box, own: Cards, scaled: bool) -> bytes:
        """Return the cards of the stamp `box`, without those of the structure.

        Parameters
        ----------
        box : Box
            In pixels of the image; reference pixels move by its first column and row.
        own : iterable of (name, value, comment)
            Further cards; they replace those of the image that have the same name.
        scaled : bool
            Whether the stamp holds stored numbers, to which BSCALE and BZERO apply.
        """
        own = list(own)
        names = {name.upper().ljust(8).encode() for name, _, _ in own} - {b"COMMENT ", b"HISTORY "}
        offset = {1: box.x0, 2: box.y0}
        kept = []
        for group, moving in self._groups:
            if group[:8] in names or (not scaled and _SCALING.match(group)):
                continue
            if moving is not None and offset[moving.axis]:
                group = _card(moving.name, moving.value - offset[moving.axis], moving.comment)
            kept.append(group)
        own += [(f"CRPIX{n}", float(-offset[n]), "reference pixel") for n in self._unsaid]
        return b"".join(kept) + format_cards(own)


class _Moving(NamedTuple):
    """A card with a number that moves with the pixels of an axis."""

    name: str
    value: float
    comment: str
    axis: int


def _moving(card: bytes) -> _Moving | None:
    """Return what a card says if it moves; one that can't be read stays as it is."""
    from astropy.io.fits import Card, VerifyError

    matched = _MOVING.match(card)
    if matched:
        with suppress(VerifyError):
            parsed = Card.fromstring(card)
            if isinstance(parsed.value, (int, float)):
                return _Moving(card[:8].decode().strip(), parsed.value, parsed.comment, int(matched[1]))
    return None


def _groups(cards: Iterable[bytes]) -> list[bytes]:
    """Return cards, each with the CONTINUE cards that belong to it."""
    groups: list[bytes] = []
    for card in cards:
        if card.startswith(b"CONTINUE  ") and groups:
            groups[-1] += card
        else:
            groups.append(card)
    return groups

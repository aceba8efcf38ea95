"""One image of a FITS file: its header as raw cards, its WCS, and its stored numbers, read through cfitsio.

The stored numbers are handed out as they are, so that a stamp can keep them; `Image.physical` scales them as astropy
does, which cfitsio does neither to the last bit nor with regard to BLANK.
"""

from __future__ import annotations

import errno
import itertools
import math
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pstamp_core.faults import FinalError, PstampError, RetryableError
from pstamp_core.files import open_unpacked

if TYPE_CHECKING:
    import numpy as np
    from astropy.wcs import WCS
    from numpy.typing import NDArray

CARD = 80
BLOCK = 2880
MAX_HEADER = 2**24
"""Headers above 16 MB are refused: 200,000 cards are no header."""
MAX_TILE = 2**27
"""Compressed tiles above so many pixels are refused: cfitsio takes the memory of a whole tile."""
WINDOW = 2**24
"""How many pixels of one plane are held at once, unless a single stamp is larger."""
READ_AHEAD = 512
"""How many rows are read in one go when several stamps share them."""
PRINTABLE = bytes(c if 32 <= c < 127 else ord("?") for c in range(256))
"""Translation of bytes to those that a FITS header may hold."""

_WCS_CARD = re.compile(
    rb"(CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA)[12] |(CD|PC)[12]_[12] |P[VS][12]_\d+ |PC00[12]00[12]"
    rb"|[AB]P?_(ORDER|DMAX|\d_\d) |LONPOLE|LATPOLE|RADE?[CS]|EQUINOX|EPOCH  |WCSAXES|NAXIS[12]? |DP[12]|CPDIS|D2IM"
)


class Box(NamedTuple):
    """Columns `x0` to ``x0 + nx`` and rows `y0` to ``y0 + ny`` of an image, 0-based, upper end exclusive."""

    x0: int
    y0: int
    nx: int
    ny: int

    @property
    def x1(self) -> int:
        """The column after the last."""
        return self.x0 + self.nx

    @property
    def y1(self) -> int:
        """The row after the last."""
        return self.y0 + self.ny

    def clipped(self, nx: int, ny: int) -> Box:
        """Return the part on an image of `nx` by `ny` pixels; its size is 0 where there is none."""
        x0, y0 = max(self.x0, 0), max(self.y0, 0)
        return Box(x0, y0, max(min(self.x1, nx) - x0, 0), max(min(self.y1, ny) - y0, 0))

    def union(self, other: Box) -> Box:
        """Return the smallest box around both."""
        x0, y0 = min(self.x0, other.x0), min(self.y0, other.y0)
        return Box(x0, y0, max(self.x1, other.x1) - x0, max(self.y1, other.y1) - y0)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong while `path` is read into one of our errors.

    A missing or damaged file is final (25): trying again can't mend it. A failing disk or a permission is ours (2).
    cfitsio tells neither from the other, so after its errors the file is read once more without it.
    """
    try:
        yield
    except PstampError:
        raise
    except (OSError, ValueError, KeyError, IndexError, TypeError, RuntimeError, OverflowError) as error:
        cause: Exception = error
        if getattr(error, "errno", None) is None:
            _drain_messages()
            try:
                with path.open("rb") as stream:
                    while stream.read(2**20):
                        pass
            except OSError as found:
                cause = found
        if isinstance(cause, OSError) and cause.errno is not None:
            if cause.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
                raise FinalError(f"{path}: no such file") from cause
            raise RetryableError(f"{path}: {os.strerror(cause.errno)}") from cause
        text = "" if isinstance(cause, UnicodeDecodeError) else str(cause).strip()
        raise FinalError(f"{path}: damaged: {text.splitlines()[0] if text else 'no FITS structure'}") from cause


def _drain_messages() -> None:
    """Empty cfitsio's stack of messages.

    fitsio takes off about a dozen at each error. What a damaged file left there, bytes that are no text among it, would
    come up in the errors of the next file, even in those that fitsio itself expects when it looks for a further HDU.
    """
    import fitsio

    for _ in range(4):
        with suppress(OSError, ValueError):
            fitsio.FITS(os.devnull)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep astropy from saying what it repairs or finds odd in a header: it is another's, and stays as it is."""
    from astropy import log
    from astropy.utils.exceptions import AstropyWarning

    before, log.disabled = log.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            yield
    finally:
        log.disabled = before


class Image:
    """A 2-d image in a FITS file, compressed, gzipped or neither, open for reading; use it in a ``with`` block.

    Parameters
    ----------
    path : Path
        The file.
    hdu : int
        Number of the HDU, 0 the primary; -1 the first one that is a 2-d image.

    Attributes
    ----------
    nx, ny : int
        Size in pixels.
    cards : list of bytes
        The header as 80-byte cards, without END.
    bscale, bzero, blank : float, float, int or None
        As in the FITS standard, section 4.4.2; `blank` for integers only.
    tile : tuple of int
        Width and height of what has to be read at once: a tile when compressed, else one pixel.

    Raises
    ------
    FinalError
        25: missing, not FITS, damaged, truncated, or without such an image.
    RetryableError
        2: the file can't be read now.
    """

    def __init__(self, path: Path, hdu: int = -1) -> None:
        import fitsio

        self.path = path
        with reading(path):
            stream = open_unpacked(path)
        self._stream = stream
        try:
            with reading(path):
                if stream.read(6) != b"SIMPLE":
                    raise FinalError(f"{path}: not a FITS file (it does not begin with SIMPLE)")
                # By its descriptor, because cfitsio gives a meaning to brackets, ! and :// in names.
                self._fits = fitsio.FITS(f"/dev/fd/{stream.fileno()}")
                self.hdu = self._find(hdu)
                self._hdu = self._fits[self.hdu]
                self._describe()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if hasattr(self, "_fits"):
            self._fits.close()
        self._stream.close()

    def _find(self, hdu: int) -> int:
        """Return the number of the HDU to use."""
        for number in itertools.count() if hdu < 0 else (hdu,):
            try:
                found = self._fits[number]
            except (IndexError, OSError) as error:
                if isinstance(error, OSError) and "extension not found" not in str(error):
                    raise
                what = "no readable 2-d image in it" if hdu < 0 else f"no HDU {hdu}"
                raise FinalError(f"{self.path}: {what}") from None
            if found.get_exttype() == "IMAGE_HDU" and len(found.get_dims()) == 2 and all(found.get_dims()):
                return number
        raise FinalError(f"{self.path}: HDU {hdu} is not a 2-d image")

    def _describe(self) -> None:
        """Read the header, and refuse what can't be read without harm."""
        info = self._hdu.get_info()
        size = os.fstat(self._stream.fileno()).st_size
        if info["data_end"] > size:
            raise FinalError(f"{self.path}: truncated: {size} bytes, but HDU {self.hdu} ends at {info['data_end']}")
        length = info["data_start"] - info["header_start"]
        if length > MAX_HEADER:
            raise FinalError(
                f"{self.path}: the header of HDU {self.hdu} has {length} bytes; expected at most {MAX_HEADER}"
            )
        self.cards = self._read_cards(info["header_start"], length)
        self.ny, self.nx = (int(n) for n in info["dims"])
        self.bscale, self.bzero, self.blank, self.tile = 1.0, 0.0, None, (1, 1)
        if self._hdu.is_compressed():
            self.tile = int(self.value("ZTILE1") or self.nx), int(self.value("ZTILE2") or 1)
            if math.prod(self.tile) > MAX_TILE:
                raise FinalError(
                    f"{self.path}: HDU {self.hdu} is packed in tiles of {self.tile[0]} x {self.tile[1]}; "
                    f"expected at most {MAX_TILE} pixels in one"
                )
        self.bitpix = int(self.value("ZBITPIX" if self._hdu.is_compressed() else "BITPIX"))
        self._hdu.ignore_scaling = True
        self.bscale = float(self.value("BSCALE", 1.0))
        self.bzero = float(self.value("BZERO", 0.0))
        if self.bitpix > 0:
            blank = self.value("ZBLANK", self.value("BLANK"))
            self.blank = None if blank is None else int(blank)

    def _read_cards(self, start: int, length: int) -> list[bytes]:
        # What is no printable ASCII makes a header illegal, and some readers refuse it.
        self._stream.seek(start)
        text = self._stream.read(length).translate(PRINTABLE)
        cards = [text[i : i + CARD] for i in range(0, len(text), CARD)]
        if (end := b"END".ljust(CARD)) not in cards:
            raise FinalError(f"{self.path}: damaged: a header without END")
        return cards[: cards.index(end)]

    @cached_property
    def primary_cards(self) -> list[bytes]:
        """The cards of the primary header, of which an extension with INHERIT = T is meant to have a share."""
        with reading(self.path):
            info = self._fits[0].get_info()
            return self._read_cards(0, min(info["data_start"], MAX_HEADER))

    def value(self, name: str, default: Any = None) -> Any:
        """Return the value of the first card `name`, or `default` where there is none or it is undefined."""
        from astropy.io.fits import Card, VerifyError

        start = name.ljust(8).encode() + b"= "
        for card in self.cards:
            if card.startswith(start):
                try:
                    value = Card.fromstring(card).value
                except VerifyError:
                    raise FinalError(f"{self.path}: damaged: card {card.decode().strip()!r} can't be read") from None
                return default if not isinstance(value, (str, int, float)) else value
        return default

    @cached_property
    def wcs(self) -> WCS:
        """The celestial WCS of the header.

        Raises
        ------
        FinalError
            25: there is none, or it can't be used.
        """
        import numpy as np
        from astropy.wcs import WCS
        from astropy.wcs.utils import wcs_to_celestial_frame

        why = "no celestial WCS"
        try:
            with _quiet():
                wcs = WCS(b"".join(card for card in self.cards if _WCS_CARD.match(card)))
                wcs.wcs.set()
                if wcs.wcs.lng >= 0 and wcs.wcs.lat >= 0:
                    wcs = wcs if wcs.naxis == 2 else wcs.celestial
                    wcs_to_celestial_frame(wcs)
                    if np.linalg.det(wcs.pixel_scale_matrix) == 0:
                        raise ValueError("its matrix is singular")
                    return wcs
        except Exception as error:  # WCSLIB and its wrapper raise nearly everything on a bad header
            why = f"its WCS can't be used ({str(error).strip().splitlines()[-1]})"
        raise FinalError(f"{self.path}: HDU {self.hdu}: {why}; a centre and size in pixels do without")

    def read(self, box: Box) -> NDArray[Any]:
        """Return the stored numbers of `box`, shape (ny, nx), which must lie on the image."""
        with reading(self.path):
            pixels: NDArray[Any] = self._hdu[box.y0 : box.y1, box.x0 : box.x1]
            return pixels

    def verify(self) -> None:
        """Read all pixels, and compare the checksums that the HDU carries, if it does.

        Raises
        ------
        FinalError
            25: damaged.
        RetryableError
            2: the file can't be read now.
        """
        rows = max(1, min(READ_AHEAD, WINDOW // self.nx))
        for y in range(0, self.ny, rows):
            self.read(Box(0, y, self.nx, min(rows, self.ny - y)))
        with reading(self.path):
            # -1 is wrong, 0 not there; its public way takes both for the same
            sums = self._hdu._FITS.verify_checksum(self.hdu + 1)
            if -1 in sums.values():
                raise FinalError(f"{self.path}: damaged: HDU {self.hdu} has another checksum than its header says")

    def physical(self, stored: NDArray[Any]) -> NDArray[np.floating[Any]]:
        """Return stored numbers as floats, scaled as astropy does, and NaN for BLANK.

        Integers of up to 16 bits become float32, longer ones float64 (exact up to 2**53).
        """
        import numpy as np

        if stored.dtype.kind == "f" and self.bscale == 1 and self.bzero == 0:
            return stored
        floats = stored.astype(stored.dtype if stored.dtype.kind == "f" else "f4" if stored.itemsize <= 2 else "f8")
        if self.bscale != 1:
            np.multiply(floats, self.bscale, floats)
        if self.bzero != 0:
            floats += self.bzero
        if self.blank is not None and not self._is_pseudo_unsigned:
            floats[stored == self.blank] = np.nan
        return floats

    @property
    def _is_pseudo_unsigned(self) -> bool:
        # FITS standard 4.4.2.5: BZERO turns signed into unsigned integers; astropy then reads integers without BLANK.
        return self.bscale == 1 and self.bzero == {8: -128, 16: 2**15, 32: 2**31, 64: 2**63}.get(self.bitpix)

    def stored(self, value: float) -> float | int | None:
        """Return the stored number that reads as `value`, or None if no number does (an integer without BLANK)."""
        if self.bitpix < 0:
            return value if math.isnan(value) or (self.bscale == 1 and self.bzero == 0) else None
        if math.isnan(value):
            # astropy takes BLANK = 0 for no BLANK.
            return None if self._is_pseudo_unsigned else self.blank or None
        number = (value - self.bzero) / self.bscale
        low, high = (0, 255) if self.bitpix == 8 else (-(2 ** (self.bitpix - 1)), 2 ** (self.bitpix - 1) - 1)
        return int(number) if number == int(number) and low <= number <= high else None


class Window:
    """Boxes of one image, read in order of their first row so that rows which they share are read once.

    Parameters
    ----------
    image : Image
        What is read.
    boxes : sequence of Box
        All boxes that will be asked for, on the image, sorted by `y0`.

    Notes
    -----
    Neighbours are merged into a band when that does not make cfitsio unpack more: always for overlapping rows of an
    image with one tile a row, as fpack makes them. Of a band, only the rows from the first still needed to a few
    hundred ahead are held, and never more than `WINDOW` pixels unless one box is larger.
    """

    def __init__(self, image: Image, boxes: Sequence[Box]) -> None:
        self._image = image
        self._bands: dict[Box, Box] = {}
        self._band: Box | None = None
        self._rows: NDArray[Any] | None = None
        self._first = self._next = 0  # the first row that is held, and the first that is not read yet
        members: list[Box] = []
        around, height = Box(0, 0, 0, 0), 0
        for box in boxes:
            merged, height = around.union(box), max(height, box.ny)
            more = self._cost(merged) > self._cost(around) + self._cost(box)
            if not members or more or (height + READ_AHEAD) * merged.nx > WINDOW:
                members, merged, height = [], box, box.ny
            members.append(box)
            around = merged
            self._bands.update(dict.fromkeys(members, around))

    def _cost(self, box: Box) -> int:
        """Return how many pixels cfitsio unpacks to read `box`: those of all tiles that it touches."""
        width, height = self._image.tile
        columns = (box.x1 - 1) // width - box.x0 // width + 1
        rows = (box.y1 - 1) // height - box.y0 // height + 1
        return columns * rows * width * height

    def take(self, box: Box) -> NDArray[Any]:
        """Return the stored numbers of `box`, shape (ny, nx).

        Raises
        ------
        FinalError, RetryableError
            The rows of this box can't be read; damage elsewhere in its band does not matter.
        """
        band = self._bands[box]
        if band is not self._band:
            self._band, self._rows, self._next = band, None, box.y0
        try:
            held = self._advance(band, box)
        except PstampError:
            self._band = None
            return self._image.read(box)
        return held[box.y0 - self._first : box.y1 - self._first, box.x0 - band.x0 : box.x1 - band.x0]

    def _advance(self, band: Box, box: Box) -> NDArray[Any]:
        """Return the rows held, after reading on until `box` is among them and dropping the rows before it."""
        import numpy as np

        if self._rows is not None and box.y1 <= self._next:
            return self._rows
        start = max(self._next, box.y0)
        stop = max(box.y1, start + READ_AHEAD)
        stop = min(stop + -stop % min(self._image.tile[1], READ_AHEAD), band.y1)
        rows = self._image.read(Box(band.x0, start, band.nx, stop - start))
        if self._rows is not None and box.y0 < self._next:
            rows = np.concatenate([self._rows[box.y0 - self._first :], rows])
        self._rows, self._first, self._next = rows, box.y0, stop
        return rows

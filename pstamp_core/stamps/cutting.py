"""Cutting: all stamps that are wanted of one image, in one pass over it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pstamp_core import __version__
from pstamp_core.faults import Fault, FinalError, PstampError, RetryableError
from pstamp_core.files import StoredFile
from pstamp_core.stamps.header import HeaderTemplate
from pstamp_core.stamps.image import Box, Image, Window
from pstamp_core.stamps.products import Products, SourceTable, fits_blocks, jpeg
from pstamp_core.stamps.region import Option, Region, StampRequest, find_regions, is_whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BLANK_MASK = 0x0008
"""The mask bit ``BLANK``: no input pixel (`masks.16bit.config`)."""


@dataclass(frozen=True)
class InputFiles:
    """The files of one image; None is a file that the image database does not know.

    Attributes
    ----------
    image : Path
        The image.
    hdu : int
        HDU of the image, 0 the primary; -1 the first that is a 2-d image. Holds for all planes.
    mask, variance, exposure, number : Path or None
        Further planes, of the same size in pixels.
    sources : Path or None
        Table of sources, see `SourceTable`.
    psf, backmdl : Path or None
        Delivered as they are.
    """

    image: Path
    hdu: int = -1
    mask: Path | None = None
    variance: Path | None = None
    sources: Path | None = None
    psf: Path | None = None
    backmdl: Path | None = None
    exposure: Path | None = None
    number: Path | None = None


@dataclass(frozen=True)
class Stamp:
    """What came of one request.

    Attributes
    ----------
    job_id : int
        Key of the job.
    products : tuple of StoredFile
        The files; ``path`` is the private path, ``name`` the public name.
    ra, dec : float or None
        Centre in degrees (ICRS); None for an image without a WCS.
    box : Box
        Asked for, in 0-based pixels of the image.
    on_image : Box
        The part of it on the image.
    fraction_on_image, fraction_finite : float
        Share of the stamp's pixels that are on the image, and that hold a finite number.
    missing : tuple of str
        Products asked for that the image database knows no file of.
    """

    job_id: int
    products: tuple[StoredFile, ...]
    ra: float | None
    dec: float | None
    box: Box
    on_image: Box
    fraction_on_image: float
    fraction_finite: float
    missing: tuple[str, ...]


@dataclass(frozen=True)
class _PlaneKind:
    """How a plane of pixels is delivered."""

    option: Option
    suffix: str
    padding: float
    stages: tuple[str, ...]
    integer: bool = False


_ALL = ("raw", "chip", "warp", "diff", "stack")
_PLANES = {
    "image": _PlaneKind(Option.IMAGE, ".fits", float("nan"), _ALL),
    "mask": _PlaneKind(Option.MASK, ".mk.fits", BLANK_MASK, _ALL[1:], integer=True),
    "variance": _PlaneKind(Option.VARIANCE, ".wt.fits", float("nan"), _ALL[1:]),
    "exposure": _PlaneKind(Option.EXPOSURE, ".exp.fits", 0, ("stack",)),
    "number": _PlaneKind(Option.NUMBER, ".num.fits", 0, ("stack",)),
}
_COPIES = {"psf": Option.PSF, "backmdl": Option.BACKMDL}


def cut(
    files: InputFiles, requests: Sequence[StampRequest], *, token: str, max_pixels: int, quantise: float = 0
) -> Iterator[Stamp | tuple[int, PstampError]]:
    """Cut all stamps that are wanted of one image, and yield each as it is done.

    Headers and WCS are read once, and so is every row that several stamps share. A request that fails does not hurt
    the others, and leaves no file. Products lie under private names: the caller publishes or removes them.

    Parameters
    ----------
    files : InputFiles
        The files of the image.
    requests : sequence of StampRequest
        In any order; results come in order of rows, those that fail at once first.
    token : str
        Goes into the private names.
    max_pixels : int
        A stamp with more pixels is refused.
    quantise : float
        If not 0, float images and variances are compressed with loss at this level of cfitsio (RICE, 4 is common).

    Yields
    ------
    Stamp or (int, PstampError)
        The stamp, or the job and why there is none. 21: malformed; 25: a file of the image is missing or damaged, or it
        has no WCS though one is needed; 28: not on the image; 30: no finite pixel; 31: background restoration;
        2: a disk failed.

    Notes
    -----
    Numbers are those of the input. Integers stay the integers they are, with BSCALE, BZERO and BLANK, and are packed
    without loss (RICE). An integer image without BLANK has no way to say "no data" and becomes floating point. Floats
    are stored plainly: packing the noise of a sky without loss saves an eighth of the bytes for ten times the time.
    Maps are smooth, and packed (GZIP_2).
    """
    with ExitStack() as stack:
        try:
            image = stack.enter_context(Image(files.image, files.hdu))
            regions = find_regions(image, requests, max_pixels)
        except PstampError as error:
            yield from ((request.job_id, error) for request in requests)
            return
        todo = []
        for request, region in zip(requests, regions, strict=True):
            if isinstance(region, PstampError):
                yield request.job_id, region
            else:
                todo.append((request, region))
        todo.sort(key=lambda pair: pair[1].on_image[1::-1])
        planes = {}
        for name, kind in _PLANES.items():
            boxes = [region.on_image for request, region in todo if _wants(request, kind)]
            planes[name] = _Plane(stack, getattr(files, name), image, files.hdu, boxes)
        sources = SourceTable(files.sources) if files.sources else None
        for request, region in todo:
            result: Stamp | tuple[int, PstampError]
            try:
                result = _cut_one(files, image, request, region, planes, sources, token, quantise)
            except PstampError as error:
                result = request.job_id, error
            except MemoryError:
                result = (
                    request.job_id,
                    RetryableError(
                        f"{files.image}: not enough memory for a stamp of {region.box.nx} x {region.box.ny} pixels"
                    ),
                )
            yield result


def _wants(request: StampRequest, kind: _PlaneKind) -> bool:
    """Tell whether a plane is to be delivered; the image always is (`pstampparse.pl`)."""
    return request.stage in kind.stages and bool((request.options | Option.IMAGE) & kind.option)


class _Plane:
    """One plane of the image's files, opened when a stamp first needs it."""

    def __init__(self, stack: ExitStack, path: Path | None, image: Image, hdu: int, boxes: Sequence[Box]) -> None:
        self.path = path
        self._stack = stack
        self._first = image
        self._hdu = hdu
        self._boxes = boxes

    @cached_property
    def _opened(self) -> tuple[Image, Window, HeaderTemplate]:
        image, first = self._first, self._first
        if self.path is not None and self.path != first.path:
            image = self._stack.enter_context(Image(self.path, self._hdu))
        if (image.nx, image.ny) != (first.nx, first.ny):
            raise FinalError(
                f"{image.path}: {image.nx} x {image.ny} pixels, but {first.path.name} has {first.nx} x {first.ny}"
            )
        return image, Window(image, self._boxes), HeaderTemplate(image)

    def take(self, region: Region, kind: _PlaneKind) -> _Cutout:
        """Return the pixels of a stamp, padded to the size asked for."""
        import numpy as np

        image, window, template = self._opened
        if kind.integer and image.bitpix < 0:
            raise FinalError(f"{image.path}: BITPIX {image.bitpix}; expected integers, because it is a mask")
        pixels = window.take(region.on_image)
        padding = image.stored(kind.padding)
        as_stored = padding is not None
        if padding is None:
            pixels, padding = image.physical(pixels), kind.padding
        box, on_image = region.box, region.on_image
        if on_image != box:
            padded = np.full((box.ny, box.nx), padding, pixels.dtype)
            rows = slice(on_image.y0 - box.y0, on_image.y1 - box.y0)
            padded[rows, on_image.x0 - box.x0 : on_image.x1 - box.x0] = pixels
            pixels = padded
        return _Cutout(image, template, pixels, as_stored)


@dataclass(frozen=True)
class _Cutout:
    """The pixels of one plane of a stamp: stored numbers of the image, or physical values."""

    image: Image
    template: HeaderTemplate
    pixels: NDArray[Any]
    as_stored: bool

    def physical(self) -> NDArray[np.floating[Any]]:
        """Return physical values."""
        return self.image.physical(self.pixels) if self.as_stored else self.pixels

    def finite(self) -> int:
        """Return how many pixels hold a finite number."""
        import numpy as np

        integer = self.pixels.dtype.kind != "f"
        return int(np.count_nonzero(self.pixels != self.image.blank if integer else np.isfinite(self.pixels)))

    def blocks(self, region: Region, own: list[tuple[str, Any, str]], compression: str | None, quantise: float) -> Any:
        """Return the blocks of the FITS file."""
        if self.as_stored and self.image.blank is not None:
            own = [*own, ("BLANK", self.image.blank, "stored number of a pixel without data")]
        cards = self.template.cards(region.box, own, self.as_stored)
        return fits_blocks(self.pixels, cards, compression, quantise)


def _cut_one(
    files: InputFiles,
    image: Image,
    request: StampRequest,
    region: Region,
    planes: dict[str, _Plane],
    sources: SourceTable | None,
    token: str,
    quantise: float,
) -> Stamp:
    """Make all products of one request."""
    box, options = region.box, Option(request.options)
    missing = []
    fraction_finite = 0.0
    with Products(request.base, token) as products:
        own = [*_provenance(image, region), *request.header]
        for name, kind in _PLANES.items():
            if not _wants(request, kind):
                continue
            if planes[name].path is None:
                missing.append(name)
                continue
            cutout = planes[name].take(region, kind)
            if name == "image":
                fraction_finite = cutout.finite() / (box.nx * box.ny)
                if not fraction_finite:
                    raise FinalError(
                        f"{files.image.name}: no pixel of {_section(box)} holds a number", Fault.PSTAMP_NO_VALID_PIXELS
                    )
            compression = None if options & Option.UNCOMPRESSED else _compression(cutout.pixels, kind, quantise)
            products.write(kind.suffix, cutout.blocks(region, own, compression, quantise))
            if name == "image" and options & Option.JPEG:
                products.write(".jpg", [jpeg(cutout.physical(), both_signs=request.stage == "diff")])
        if options & Option.SOURCES:
            if sources is None:
                missing.append("sources")
            else:
                products.write(".cmf", sources.blocks(None if is_whole(request) else box, own))
        for name, option in _COPIES.items():
            if options & option and request.stage != "raw":
                source: Path | None = getattr(files, name)
                if source is None:
                    missing.append(name)
                else:
                    products.copy(source)
    on_image = region.on_image
    return Stamp(
        request.job_id,
        tuple(products.stored),
        region.ra,
        region.dec,
        box,
        on_image,
        on_image.nx * on_image.ny / (box.nx * box.ny),
        fraction_finite,
        tuple(missing),
    )


def _compression(pixels: NDArray[Any], kind: _PlaneKind, quantise: float) -> str | None:
    """Return the algorithm for a product, None for plain."""
    import numpy as np

    if pixels.dtype.kind != "f":
        return "RICE"
    if kind.padding == 0:
        # Packed by cfitsio, infinity would come back as NaN.
        return None if np.isinf(pixels).any() else "GZIP_2"
    return "RICE" if quantise else None


def _provenance(image: Image, region: Region) -> list[tuple[str, Any, str]]:
    """Return the cards that say where a stamp comes from, sections being FITS ones of the input."""
    cards: list[tuple[str, Any, str]] = []
    if region.ra is not None:
        cards += [("RA_DEG", region.ra, "[deg] centre (ICRS)"), ("DEC_DEG", region.dec, "[deg] centre (ICRS)")]
    return [
        *cards,
        ("PSTAMP", f"pstamp {__version__}", "software that cut this stamp"),
        ("PSFILE", image.path.name, "image it is from"),
        ("PSHDU", image.hdu, "HDU of that image, 0 is the primary"),
        ("PSBOX", _section(region.box), "asked for, in pixels of the image"),
        ("PSONIMG", _section(region.on_image), "of it on the image"),
    ]


def _section(box: Box) -> str:
    return f"[{box.x0 + 1}:{box.x1},{box.y0 + 1}:{box.y1}]"

"""A user's own images: any FITS image with a celestial WCS goes into an image database as a stack.

Only headers are read, through the same library that later reads the pixels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pstamp_core.database import unit_of_work
from pstamp_core.faults import UserError
from pstamp_core.files import open_unpacked
from pstamp_core.imagedb.dates import tai_of
from pstamp_core.imagedb.footprints import footprint, store_footprints
from pstamp_core.imagedb.tables import PATH_LENGTH, TABLES, pstampImage, stackRun, stackSumSkyfile

if TYPE_CHECKING:
    from astropy.io.fits import Header

    from pstamp_core.imagedb.database import ImageDB

NAME_LENGTH = 64
MAX_HEADER = 2**24
"""Headers above 16 MB are refused, as the reader of pixels does."""

_SIDE_PLANES = ("DQ", "MASK", "MSK", "WHT", "WEIGHT", "WGT", "ERR", "ERROR", "VAR", "IVAR", "VARIANCE", "WT", "MK")
_FILTERS = ("FILTER", "FILTER1", "FILTER2", "FILTNAM", "FILTNAM1", "BAND")
_SUFFIXES = (".gz", ".fz", ".fits", ".fit", ".fts")
_SHELLS = {b"\x1f\x9d": "compress", b"BZ": "bzip2", b"PK": "zip"}


@dataclass(frozen=True)
class Added:
    """One image that was registered.

    Attributes
    ----------
    path, hdu : Path, int
        The file, and the HDU in it, from 0.
    stack_id : int
        Its number, for byid.
    skycell_id : str
        The name of the file without its ending, for byskycell and COMPONENT.
    filter : str or None
        As the header has it.
    mjd_obs : float or None
        TAI, days.
    """

    path: Path
    hdu: int
    stack_id: int
    skycell_id: str
    filter: str | None
    mjd_obs: float | None


@dataclass(frozen=True)
class Refused:
    """One file that was not registered, and why."""

    path: Path
    reason: str


def add_images(
    db: ImageDB,
    files: Sequence[str | os.PathLike[str]],
    *,
    camera: str = "local",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Added], list[Refused]]:
    """Register the images in FITS files, so that requests find them as IMG_TYPE ``stack``.

    Each two-dimensional image with a celestial WCS becomes a stack of its own; extensions called as masks or weights
    are (``DQ``, ``WHT``, ``ERR`` ...) are left out. A file that is registered already is brought up to date.

    Parameters
    ----------
    db : ImageDB
        Where to.
    files : sequence of path
        FITS files, with or without tile compression.
    camera : str
        Becomes the TESS_ID and the DATA_GROUP of the images.
    progress : callable, optional
        Called with the number of files done and the number of all, after each file.

    Returns
    -------
    added : list of Added
        The images that went in.
    refused : list of Refused
        The files that did not, each with the reason; one never stands in the way of another.

    Raises
    ------
    RetryableError
        Fault 2: the database does not answer; the files before are in.
    """
    added: list[Added] = []
    refused: list[Refused] = []
    for done, name in enumerate(files, 1):
        path = Path(name)
        try:
            images = _read(path)
        except UserError as error:
            refused.append(Refused(path, str(error)))
        except OSError as error:
            refused.append(Refused(path, error.strerror or str(error)))
        else:
            added += unit_of_work(db.db, TABLES, lambda images=images: _store(images, camera))  # type: ignore[misc]
        if progress is not None:
            progress(done, len(files))
    return added, refused


@dataclass(frozen=True)
class _Found:
    path: str
    hdu: int
    name: str
    filter: str | None
    mjd_obs: float | None
    footprint: dict[str, Any]


def _read(path: Path) -> list[_Found]:
    """Return the images of a file, at least one.

    Raises
    ------
    UserError
        The reason why the file can't be used.
    """
    name = path.name
    for suffix in _SUFFIXES:
        name = name[: -len(suffix)] if name.lower().endswith(suffix) else name
    place = str(path.resolve())
    if not name or len(name) > NAME_LENGTH:
        raise UserError(f"a name of {len(name)} characters without its ending; expected 1 to {NAME_LENGTH}")
    if len(place) > PATH_LENGTH or not place.isprintable():
        raise UserError(f"path too long or not printable; expected at most {PATH_LENGTH} characters")
    if not path.is_file():
        raise UserError("not a file" if path.exists() else "no such file")
    with open_unpacked(path) as stream:
        start = stream.read(6)
        for magic, program in _SHELLS.items():
            if start.startswith(magic):
                raise UserError(f"compressed as a whole ({program}); unpack it, or use fpack, which leaves it readable")
        if start != b"SIMPLE":
            raise UserError("not a FITS file (it does not begin with SIMPLE)")
        primary, images = _headers(stream)
    if not images:
        raise UserError("no image of two dimensions in it")
    science = [image for image in images if not _is_side_plane(image[1])]
    found, reasons = [], []
    for hdu, header, (naxis1, naxis2) in science:
        try:
            shape = footprint(header, naxis1, naxis2)
        except UserError as error:
            reasons.append(f"HDU {hdu}: {error}")
            continue
        found.append(_Found(place, hdu, name, _filter(header, primary), _mjd_obs(header, primary), shape))
    if not found:
        raise UserError("; ".join(reasons[:3]) or "only masks or weights in it")
    return found


def _headers(stream: BinaryIO) -> tuple[Header, list[tuple[int, Header, tuple[int, int]]]]:
    """Return the primary header of an open FITS file, and number, header, and (columns, rows) of each 2-d image."""
    import fitsio

    size = os.fstat(stream.fileno()).st_size
    primary: Header | None = None
    images: list[tuple[int, Header, tuple[int, int]]] = []
    try:
        # By its descriptor, because cfitsio gives a meaning to brackets, ! and :// in names.
        with fitsio.FITS(f"/dev/fd/{stream.fileno()}") as fits:
            for number, hdu in enumerate(fits):
                info = hdu.get_info()
                if info["data_end"] > size:
                    raise UserError(f"truncated: {size} bytes, but HDU {number} ends at {info['data_end']}")
                shape = info.get("dims", ()) if hdu.get_exttype() == "IMAGE_HDU" else ()
                flat = len(shape) == 2 and all(shape)
                if primary is None or flat:
                    header = _header(stream, info["header_start"], info["data_start"])
                    primary = header if primary is None else primary
                if flat:
                    rows, columns = (int(side) for side in shape)
                    images.append((number, header, (columns, rows)))
            stream.seek(info["data_end"])
            if stream.read(8) == b"XTENSION":  # cfitsio takes an HDU that it can't read for the end of the file
                raise UserError(f"damaged: HDU {number + 1} can't be read")
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"damaged: {str(error).strip().splitlines()[0]}") from error
    if primary is None:
        raise UserError("no HDU in it")
    return primary, images


def _header(stream: BinaryIO, start: int, end: int) -> Header:
    from astropy.io.fits import Header

    if end - start > MAX_HEADER:
        raise UserError(f"a header of {end - start} bytes; expected at most {MAX_HEADER}")
    stream.seek(start)
    text = stream.read(end - start).decode("ascii", "replace").replace("\ufffd", "?")
    return Header.fromstring(text)


def _value(header: Header, keyword: str, default: Any = None) -> Any:
    """Return the value of a keyword; a card that can't be understood counts as missing."""
    from astropy.io.fits import VerifyError

    try:
        return header.get(keyword, default)
    except VerifyError:
        return default


def _is_side_plane(header: Header) -> bool:
    return str(_value(header, "EXTNAME", "")).strip().upper() in _SIDE_PLANES


def _filter(header: Header, primary: Header) -> str | None:
    for keywords in (header, primary):
        for keyword in _FILTERS:
            name = str(_value(keywords, keyword, "")).strip()
            if name and not name.upper().startswith("CLEAR"):
                return name[:NAME_LENGTH]
    return None


def _mjd_obs(header: Header, primary: Header) -> float | None:
    """Return the start of the exposure, TAI days: of MJD-OBS, else of DATE-OBS (FITS standard, section 9)."""
    for keywords in (header, primary):
        scale = str(_value(keywords, "TIMESYS", "UTC"))
        date, time = (str(_value(keywords, keyword, "")).strip() for keyword in ("DATE-OBS", "TIME-OBS"))
        for value in (_value(keywords, "MJD-OBS"), f"{date}T{time}" if time and "T" not in date else date):
            with suppress(ValueError):
                return tai_of(float(value) if type(value) is int else value, scale)
    return None


def _store(images: list[_Found], camera: str) -> list[Added]:
    """Bring the database up to date with one file; part of a unit of work."""
    query: Any = pstampImage.select(pstampImage.hdu, pstampImage.stage_id)
    stack_ids: dict[int, int] = dict(query.where(pstampImage.path == images[0].path).tuples())
    gone = [stack_ids[hdu] for hdu in stack_ids.keys() - {image.hdu for image in images}]
    for table in (stackRun, stackSumSkyfile):
        table.delete().where(table.stack_id.in_(gone)).execute()
    pstampImage.delete().where((pstampImage.stage == "stack") & pstampImage.stage_id.in_(gone)).execute()
    added = []
    for image in images:
        run = {
            "state": "full", "label": camera, "data_group": camera, "skycell_id": image.name, "tess_id": camera,
            "filter": image.filter,
        }  # fmt: skip
        stack_id = stack_ids.get(image.hdu)
        if stack_id is None:
            stack_id = int(stackRun.insert(run).execute())
            stackSumSkyfile.insert(stack_id=stack_id, mjd_obs=image.mjd_obs).execute()
        else:
            stackRun.update(run).where(stackRun.stack_id == stack_id).execute()
            stackSumSkyfile.update(mjd_obs=image.mjd_obs).where(stackSumSkyfile.stack_id == stack_id).execute()
        added.append(Added(Path(image.path), image.hdu, stack_id, image.name, image.filter, image.mjd_obs))
    places = [
        {
            "stage": "stack", "stage_id": new.stack_id, "component": new.skycell_id, "path": image.path,
            "hdu": image.hdu, "digest": image.footprint["digest"],
        }
        for new, image in zip(added, images, strict=True)
    ]  # fmt: skip
    store_footprints([image.footprint for image in images], places)
    return added

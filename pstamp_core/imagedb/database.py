"""An image database: selection of images, a look at one component, and the footprints by which both are found."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pstamp_core.database import connect, create_tables, session, unit_of_work
from pstamp_core.faults import FinalError, UserError
from pstamp_core.files import inside
from pstamp_core.imagedb.dates import tai
from pstamp_core.imagedb.footprints import footprint, store_footprints
from pstamp_core.imagedb.images import ALWAYS, INVERSE, Image, Selection, Spot, file_names
from pstamp_core.imagedb.select import Row, component_rows, pixels_of, select_rows
from pstamp_core.imagedb.tables import TABLES, pstampFootprint

if TYPE_CHECKING:
    from astropy.io.fits import Header

_SAME = ("stage", "stage_id", "component", "tess_id", "exp_id", "exp_name", "filter", "exp_time", "camera",
         "data_group", "diff_mode", "run_state", "data_state", "fault", "quality", "magicked", "hdu")  # fmt: skip


@dataclass(frozen=True)
class OnSky:
    """Where one image lies: what `ImageDB.add_footprints` takes.

    Attributes
    ----------
    stage, stage_id, component : str, int, str
        Which image.
    header : Header
        With its WCS.
    naxis1, naxis2 : int
        Its size in pixels.
    path, hdu : str, int
        File (absolute) and HDU (from 0) of an image that the rules of the camera do not name.
    """

    stage: str
    stage_id: int
    component: str
    header: Header
    naxis1: int
    naxis2: int
    path: str | None = None
    hdu: int | None = None


@dataclass(frozen=True)
class Products:
    """What making a component again has to write.

    Attributes
    ----------
    path_base : str
        What the names begin with.
    files : tuple of Path
        Image, mask and variance; of a difference that was made both ways, those of its inverse, too.
    size : (int, int) or None
        Columns and rows of each, as far as they are known.
    """

    path_base: str
    files: tuple[Path, ...]
    size: tuple[int, int] | None


class ImageDB:
    """One image database (gpc1 or its like).

    Parameters
    ----------
    address : str
        As `pstamp_core.database.connect` takes it.
    root : Path, optional
        Image paths in the database that are relative lie below it; without it there are none such.
    """

    def __init__(self, address: str, root: Path | None = None) -> None:
        self.db = connect(address)
        self.root = root
        self.has_update_tables = False
        """Whether it is known that the database has `UPDATE_TABLES`; `updates` sees to it."""

    def session(self) -> AbstractContextManager[None]:
        """Keep one connection for all calls within the block, instead of opening one for each."""
        return session(self.db, TABLES)

    def create(self) -> None:
        """Make the tables that are not there yet."""
        with self.session():
            create_tables(self.db, TABLES)

    def select(self, wanted: Selection) -> list[Image]:
        """Return the images that match, at least one: by exposure, newest run first, then by component.

        Raises
        ------
        FinalError
            With a sentence that says what excluded the images: 23 nothing matches, 28 the position is on none of the
            images, 25 it is not known where they lie, 11 REQ_TYPE and IMG_TYPE don't go together here.
        UserError
            21: a value is none, or more images match than one row may have.
        RetryableError
            The database does not answer.
        """
        with self.session():
            rows = select_rows(wanted)
            images, problems = self._images(rows, wanted.options)
        if not images:
            raise FinalError(f"{rows[0]['stage']} {rows[0]['stage_id']} {rows[0]['component']}: {problems[0]}")
        return images

    def spots(
        self, stage: str, position: tuple[float, float], *, reqfilt: str | None = None, mjd_max: float = 0.0
    ) -> list[Spot]:
        """Return where a position lies on the images of a stage that a row of REQ_TYPE bycoord would match.

        Parameters
        ----------
        stage : str
            IMG_TYPE.
        position : tuple[float, float]
            RA and Dec, degrees.
        reqfilt, mjd_max : str, float
            As those of `Selection`.

        Raises
        ------
        FinalError, UserError, RetryableError
            As `select`.
        """
        wanted = Selection(req_type="bycoord", img_type=stage, position=position, reqfilt=reqfilt, mjd_max=mjd_max)
        with self.session():
            rows = select_rows(wanted)
            pixels = pixels_of(position, {row["footprint_id"] for row in rows})
        dates = tai([row["dateobs"] for row in rows])
        names = ("stage", "stage_id", "component", "tess_id", "exp_name", "filter")
        return [
            Spot(
                **{name: row[name] for name in names}, mjd_obs=row["mjd"] if date is None else date,
                x=pixels[row["footprint_id"]][0], y=pixels[row["footprint_id"]][1],
            )
            for row, date in zip(rows, dates, strict=True)
        ]  # fmt: skip

    def component(self, stage: str, stage_id: int, component: str, options: int = 0) -> Image | None:
        """Return one component as it is now, in any state; None if there is none, or no file name for it."""
        with self.session():
            rows = component_rows(stage, stage_id, component, options)
            found, _ = self._images([row for row in rows if row["path"] or row["path_base"]], options)
        return found[0] if found else None

    def products(self, stage: str, stage_id: int, component: str) -> Products | None:
        """Return what making a component again has to write; None if there is no such component, or no file name.

        Raises
        ------
        UserError
            21: its files would lie outside of the root.
        RetryableError
            The database does not answer.
        """
        with self.session():
            rows = [row for row in component_rows(stage, stage_id, component, 0) if row["path_base"]]
            if not rows:
                return None
            row, base = rows[0], self._path_base(rows[0])
            names = [file_names(stage, base, 0, bothways=False)]
            if row["bothways"]:
                names.append(file_names(stage, base, INVERSE, bothways=True))
            shape: Any = pstampFootprint.get_or_none(pstampFootprint.footprint_id == row["footprint_id"])
        return Products(
            base, tuple(Path(files[product]) for files in names for product in ALWAYS),
            (shape.naxis1, shape.naxis2) if shape else None,
        )  # fmt: skip

    def add_footprint(
        self,
        stage: str,
        stage_id: int,
        component: str,
        header: Header,
        naxis1: int,
        naxis2: int,
        *,
        path: str | None = None,
        hdu: int | None = None,
    ) -> None:
        """Store where one image lies on the sky, in place of what was known of it; see `add_footprints`."""
        self.add_footprints([OnSky(stage, stage_id, component, header, naxis1, naxis2, path, hdu)])

    def add_footprints(self, images: Iterable[OnSky]) -> None:
        """Store where images lie on the sky, in place of what was known of them, all or none.

        Raises
        ------
        UserError
            21: one of them has no usable WCS; the sentence names it.
        """
        shapes: dict[str, Row] = {}
        places: list[Row] = []
        for image in images:
            try:
                shape = footprint(image.header, image.naxis1, image.naxis2)
            except UserError as error:
                raise UserError(f"{image.stage} {image.stage_id} {image.component}: {error}") from error
            shapes[shape["digest"]] = shape
            places.append({
                "stage": image.stage, "stage_id": image.stage_id, "component": image.component, "path": image.path,
                "hdu": image.hdu, "digest": shape["digest"],
            })  # fmt: skip
        unit_of_work(self.db, TABLES, lambda: store_footprints(list(shapes.values()), places))

    def _images(self, rows: list[Row], options: int) -> tuple[list[Image], list[UserError]]:
        """Return images, and what is wrong with the file names of those that are left out."""
        images: list[Image] = []
        problems: list[UserError] = []
        for row, date in zip(rows, tai([row["dateobs"] for row in rows]), strict=True):
            try:
                images.append(self._image(row, row["mjd"] if date is None else date, options))
            except UserError as error:
                problems.append(error)
        return images, problems

    def _image(self, row: Row, mjd_obs: float | None, options: int) -> Image:
        if row["path"]:
            files: dict[str, Path | None] = {"image": Path(row["path"])}
        else:
            files = self._files(row, options)
        products = ("image", "mask", "variance", "sources", "psf", "backmdl", "exposure", "number")
        values: dict[str, Any] = {product: files.get(product) for product in products}
        values |= {name: row[name] for name in _SAME} | {"mjd_obs": mjd_obs}
        for name, column in (("ra_obs", "ra"), ("dec_obs", "decl")):
            values[name] = None if row[column] is None else math.degrees(row[column])
        return Image(**values)

    def _files(self, row: Row, options: int) -> dict[str, Path | None]:
        base = self._path_base(row)
        if row["stage"] == "raw":
            return {"image": Path(base)}
        names = file_names(row["stage"], base, options, bothways=bool(row["bothways"]))
        paths = {product: Path(name) for product, name in names.items()}
        return {product: path for product, path in paths.items() if product in ALWAYS or path.is_file()}

    def _path_base(self, row: Row) -> str:
        base: str = row["path_base"]
        return base if self.root is None or Path(base).is_absolute() else str(inside(self.root, base))

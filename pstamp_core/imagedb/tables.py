"""The tables of an image database (gpc1 and its like), with the columns that the stamp server relies on.

Names and types are those of IPP's `dbconfig/{raw,chip,cam,warp,diff,stack,magic,skycell}.md`; positions of exposures
are in radians there, and stay so. A real gpc1 has many more columns, which are not read. Five tables are ours:
`pstampFootprint` and `pstampImage`, where each image lies on the sky, `pstampUpdate`, `pstampRunLabel` and
`pstampLease`, what is made again.
"""

from __future__ import annotations

from peewee import (
    AutoField,
    BigIntegerField,
    BooleanField,
    CompositeKey,
    DoubleField,
    IntegerField,
    Model,
    SmallIntegerField,
    TextField,
)

from pstamp_core.database import NameField, Table, UtcDateTimeField

PATH_LENGTH = 700  # the longest path that MySQL can keep unique together with an HDU number


class rawExp(Table):
    """An exposure, as the telescope delivered it."""

    exp_id = AutoField()
    exp_name = NameField(index=True)
    camera = NameField(default="")
    telescope = NameField(default="")
    dateobs = UtcDateTimeField(null=True, index=True)
    exp_type = NameField(default="object")
    state = NameField(default="full")
    tess_id = NameField(null=True)
    filter = NameField(null=True)
    object = NameField(null=True)
    comment = NameField(80, null=True)
    ra = DoubleField(default=0.0)
    decl = DoubleField(default=0.0)
    exp_time = DoubleField(default=0.0)
    fault = SmallIntegerField(default=0)
    magicked = BigIntegerField(default=0)


class rawImfile(Table):
    """One chip of a raw exposure; `raw_imfile_id` is the file-level id a requester may use."""

    raw_imfile_id = AutoField()
    exp_id = BigIntegerField(index=True)
    class_id = NameField()
    uri = NameField(255, null=True)
    data_state = NameField(default="full")
    filter = NameField(null=True)
    dateobs = UtcDateTimeField(null=True)
    ra = DoubleField(default=0.0)
    decl = DoubleField(default=0.0)
    exp_time = DoubleField(default=0.0)
    ignored = BooleanField(default=False)
    fault = SmallIntegerField(default=0)
    quality = SmallIntegerField(default=0)
    magicked = BigIntegerField(default=0)


class chipRun(Table):
    """A run of the chip stage over one exposure."""

    chip_id = AutoField()
    exp_id = BigIntegerField(index=True)
    state = NameField(index=True)
    workdir = NameField(255, null=True)
    label = NameField(null=True)
    data_group = NameField(null=True)
    dist_group = NameField(null=True)
    reduction = NameField(null=True)
    tess_id = NameField(null=True)
    magicked = BigIntegerField(default=0)
    update_mode = SmallIntegerField(default=0)


class chipImfile(Table):
    """The file-level id of one chip of a run."""

    chip_imfile_id = AutoField()
    chip_id = BigIntegerField(index=True)
    class_id = NameField()


class chipProcessedImfile(Table):
    """One processed chip: a component of a `chipRun`."""

    chip_id = BigIntegerField()
    exp_id = BigIntegerField(index=True)
    class_id = NameField()
    data_state = NameField()
    uri = NameField(255, null=True)
    path_base = NameField(255, null=True)
    fault = SmallIntegerField(default=0)
    quality = SmallIntegerField(default=0)
    magicked = BigIntegerField(default=0)

    class Meta:
        """A chip is known by its run, exposure and class."""

        primary_key = CompositeKey("chip_id", "exp_id", "class_id")


class camRun(Table):
    """A run of the camera stage: the astrometry of an exposure."""

    cam_id = AutoField()
    chip_id = BigIntegerField(index=True)
    state = NameField(index=True)
    label = NameField(null=True)
    data_group = NameField(null=True)
    reduction = NameField(null=True)
    tess_id = NameField(null=True)
    workdir = NameField(255, null=True)
    magicked = BigIntegerField(default=0)


class camProcessedExp(Table):
    """The product of a camera run: the astrometry catalogue `<path_base>.smf`."""

    cam_id = BigIntegerField(primary_key=True)
    uri = NameField(255, null=True)
    path_base = NameField(255, null=True)
    fault = SmallIntegerField(default=0)
    quality = SmallIntegerField(default=0)
    zpt_obs = DoubleField(null=True)
    fwhm_major = DoubleField(null=True)


class fakeRun(Table):
    """Stands between camera and warp."""

    fake_id = AutoField()
    cam_id = BigIntegerField(index=True)
    state = NameField(default="full")


class warpRun(Table):
    """A run of the warp stage: an exposure resampled to skycells."""

    warp_id = AutoField()
    fake_id = BigIntegerField(index=True)
    mode = NameField(default="warp")
    state = NameField(index=True)
    label = NameField(null=True)
    data_group = NameField(null=True)
    dist_group = NameField(null=True)
    tess_id = NameField(null=True)
    reduction = NameField(null=True)
    workdir = NameField(255, null=True)
    registered = UtcDateTimeField(null=True)
    magicked = BigIntegerField(default=0)


class warpSkyCellMap(Table):
    """Which chips feed which skycell of a warp."""

    warp_id = BigIntegerField()
    skycell_id = NameField()
    tess_id = NameField()
    class_id = NameField()
    fault = SmallIntegerField(default=0)

    class Meta:
        """One row for each chip under a skycell."""

        primary_key = CompositeKey("warp_id", "skycell_id", "tess_id", "class_id")


class warpImfile(Table):
    """The file-level id of one skycell of a warp."""

    warp_skyfile_id = AutoField()
    warp_id = BigIntegerField(index=True)
    skycell_id = NameField()


class warpSkyfile(Table):
    """One skycell of a warp: a component of a `warpRun`."""

    warp_id = BigIntegerField()
    skycell_id = NameField(index=True)
    tess_id = NameField()
    uri = NameField(255, null=True)
    path_base = NameField(255, null=True)
    data_state = NameField()
    good_frac = DoubleField(null=True)
    fault = SmallIntegerField(default=0)
    quality = SmallIntegerField(default=0)
    magicked = BigIntegerField(default=0)

    class Meta:
        """A skycell is known by its run, name and tessellation."""

        primary_key = CompositeKey("warp_id", "skycell_id", "tess_id")


class diffRun(Table):
    """A run of the difference stage; `diff_mode` is 1 warp-warp, 2 warp-stack, 3 stack-warp, 4 stack-stack."""

    diff_id = AutoField()
    state = NameField(index=True)
    label = NameField(null=True)
    data_group = NameField(null=True)
    dist_group = NameField(null=True)
    reduction = NameField(null=True)
    tess_id = NameField(null=True)
    workdir = NameField(255, null=True)
    registered = UtcDateTimeField(null=True)
    bothways = BooleanField(default=False)
    exposure = BooleanField(default=False)
    magicked = BigIntegerField(default=0)
    diff_mode = SmallIntegerField(default=1)


class diffInputSkyfile(Table):
    """The inputs of one difference skycell: input (warp1 or stack1) minus template (warp2 or stack2)."""

    diff_skyfile_id = AutoField()
    diff_id = BigIntegerField(index=True)
    skycell_id = NameField(index=True)
    tess_id = NameField()
    warp1 = BigIntegerField(null=True, index=True)
    stack1 = BigIntegerField(null=True)
    warp2 = BigIntegerField(null=True, index=True)
    stack2 = BigIntegerField(null=True)


class diffSkyfile(Table):
    """One skycell of a difference: a component of a `diffRun`."""

    diff_id = BigIntegerField()
    skycell_id = NameField(index=True)
    path_base = NameField(255, null=True)
    data_state = NameField()
    fault = SmallIntegerField(default=0)
    quality = SmallIntegerField(default=0)
    magicked = BigIntegerField(default=0)
    good_frac = DoubleField(null=True)

    class Meta:
        """A skycell is known by its run and name."""

        primary_key = CompositeKey("diff_id", "skycell_id")


class stackRun(Table):
    """A stack of many warps on one skycell; it has one component, so its state is the data's."""

    stack_id = AutoField()
    state = NameField(index=True)
    label = NameField(null=True)
    data_group = NameField(null=True)
    dist_group = NameField(null=True)
    reduction = NameField(null=True)
    skycell_id = NameField(index=True)
    tess_id = NameField()
    filter = NameField(null=True)
    workdir = NameField(255, null=True)
    registered = UtcDateTimeField(null=True)


class stackInputSkyfile(Table):
    """Which warps went into a stack."""

    stack_id = BigIntegerField()
    warp_id = BigIntegerField()

    class Meta:
        """One row for each input."""

        primary_key = CompositeKey("stack_id", "warp_id")


class stackSumSkyfile(Table):
    """The product of a stack run; `mjd_obs` is the mean epoch of the inputs (d)."""

    stack_id = BigIntegerField(primary_key=True)
    uri = NameField(255, null=True)
    path_base = NameField(255, null=True)
    mjd_obs = DoubleField(null=True)
    good_frac = DoubleField(null=True)
    fault = SmallIntegerField(default=0)
    quality = SmallIntegerField(default=0)


class magicDSRun(Table):
    """A run that removes satellite streaks from the components of another run, in place if `re_place`."""

    magic_ds_id = AutoField()
    magic_id = BigIntegerField(null=True)
    state = NameField(index=True)
    stage = NameField()
    stage_id = BigIntegerField(index=True)
    label = NameField(null=True)
    data_group = NameField(null=True)
    re_place = BooleanField(default=True)
    fault = SmallIntegerField(default=0)


class magicDSFile(Table):
    """One component of a `magicDSRun`; made by the first destreaking."""

    magic_ds_id = BigIntegerField()
    component = NameField()
    data_state = NameField()
    fault = SmallIntegerField(default=0)

    class Meta:
        """A file is known by its run and component."""

        primary_key = CompositeKey("magic_ds_id", "component")


class skycell(Table):
    """A cell of a tessellation: centre and size in degrees."""

    tess_id = NameField()
    skycell_id = NameField()
    radeg = DoubleField()
    decdeg = DoubleField()
    width = DoubleField()
    height = DoubleField()

    class Meta:
        """A cell is known by its tessellation and name."""

        primary_key = CompositeKey("tess_id", "skycell_id")


class pstampFootprint(Table):
    """Ours: a piece of sky, as one image or many images on the same pixels cover it.

    Warps, differences and stacks of one skycell share a footprint. ``x y z`` is the unit vector of its centre (ICRS),
    ``chord`` the length of the straight line from there to its farthest point, ``cell`` the HEALPix cell of the
    centre as a UNIQ number (4 * 4**order + pixel, nested) at the finest order whose cells are wider than that, 0 for
    a footprint wider than any cell. ``corners`` is a JSON list of four [RA, Dec] in degrees, first pixel first and
    along the edge; ``wcs`` holds the cards of the header that astrometry depends on, a line each.
    """

    footprint_id = AutoField()
    digest = NameField(32, unique=True)
    cell = BigIntegerField(index=True)
    x = DoubleField()
    y = DoubleField()
    z = DoubleField()
    chord = DoubleField()
    naxis1 = IntegerField()
    naxis2 = IntegerField()
    corners = TextField()
    wcs = TextField()


class pstampImage(Table):
    """Ours: the footprint of each image, that is of each component of a run.

    ``path`` (absolute) and ``hdu`` (from 0) are set for images whose file the rules of the camera do not name: a
    user's own images.
    """

    stage = NameField(8)
    stage_id = BigIntegerField()
    component = NameField()
    footprint_id = BigIntegerField()
    path = NameField(PATH_LENGTH, null=True)
    hdu = IntegerField(null=True)

    class Meta:
        """One footprint for each image; one image for each HDU of a named file."""

        primary_key = CompositeKey("stage", "stage_id", "component")
        indexes = ((("footprint_id", "stage"), False), (("path", "hdu"), True))


class pstampUpdate(Table):
    """Ours: the work of making a component again, or of destreaking it (``stage`` ``destreak``, with `magic_ds_id`).

    ``attempts`` failed since it was last there, ``cause`` is what the last of them failed with, ``fault`` the fault
    that was last seen at the component, so that none is counted twice, ``reason`` what the program said that failed
    with ``cause``, where it was one of our update server. ``retry_at`` is when the next try may begin,
    after the last one the end of the cool-down; ``queued_at`` when it was put into `update`, ``made_at`` when it was
    found there again, 0 until then: microseconds since 1970 UTC, by the clock of the server's database.
    """

    stage = NameField(8)
    stage_id = BigIntegerField()
    component = NameField()
    attempts = IntegerField(default=0)
    fault = SmallIntegerField(default=0)
    cause = SmallIntegerField(default=0)
    reason = TextField(default="")
    retry_at = BigIntegerField(default=0)
    queued_at = BigIntegerField(default=0)
    made_at = BigIntegerField(default=0)

    class Meta:
        """One row for each component."""

        primary_key = CompositeKey("stage", "stage_id", "component")


class pstampRunLabel(Table):
    """Ours: the own label of a run that has an update label for a while, and the priority of the latter."""

    stage = NameField(8)
    stage_id = BigIntegerField()
    label = NameField(null=True)
    priority = IntegerField()

    class Meta:
        """One row for each run."""

        primary_key = CompositeKey("stage", "stage_id")


class pstampLease(Table):
    """Ours: a component that an update server of ours works on; times as in `pstampUpdate`."""

    stage = NameField(8)
    stage_id = BigIntegerField()
    component = NameField()
    owner = NameField()
    since = BigIntegerField()
    until = BigIntegerField()

    class Meta:
        """One row for each component: it is made, or destreaked, by one server at a time."""

        primary_key = CompositeKey("stage", "stage_id", "component")


UPDATE_TABLES: tuple[type[Model], ...] = (magicDSRun, magicDSFile, pstampUpdate, pstampRunLabel, pstampLease)
"""What an image database may lack until something in it is made again."""

TABLES: tuple[type[Model], ...] = (
    rawExp, rawImfile, chipRun, chipImfile, chipProcessedImfile, camRun, camProcessedExp, fakeRun, warpRun,
    warpSkyCellMap, warpImfile, warpSkyfile, diffRun, diffInputSkyfile, diffSkyfile, stackRun, stackInputSkyfile,
    stackSumSkyfile, skycell, pstampFootprint, pstampImage, *UPDATE_TABLES,
)  # fmt: skip

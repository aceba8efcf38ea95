"""The simulated survey: what it claims about its sky is measured again on its files."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace

import fitsio
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from pstamp_core.database import connect, session
from pstamp_core.faults import FinalError, RetryableError, UserError
from pstamp_core.imagedb import ImageDB, Selection
from pstamp_core.imagedb import tables as t
from simtest.components import STAGES
from simtest.images import BLANK, CR, DETECTOR, FULL_WELL, GHOST, SAT, SPIKE
from simtest.sky import GALAXY, MOVING, SATURATED, VARIABLE, make_sky, variable_change
from simtest.survey import restore, restore_all, simulate, survey_of

SIZE, SEED, EXPOSURES = 140, 1, 6
PIXELS = {
    "chip": (".ch.fits", ".ch.mk.fits", ".ch.wt.fits"),
    "warp": (".fits", ".mask.fits", ".wt.fits"),
    "diff": (".fits", ".mask.fits", ".wt.fits"),
    "stack": (".fits", ".mask.fits", ".wt.fits", ".unconv.fits", ".unconv.mask.fits", ".unconv.wt.fits",
              ".unconv.exp.fits", ".unconv.num.fits"),
}  # fmt: skip
SMALL = {
    "chip": (".cmf", ".psf", ".mdl.fits"),
    "warp": (".cmf", ".psf"),
    "diff": (".cmf", ".psf"),
    "stack": (".cmf", ".target.psf"),
}


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def survey(tmp_path_factory, told):
    folder = tmp_path_factory.mktemp("simtest") / "survey"
    return simulate(folder, seed=SEED, size=SIZE, exposures=EXPOSURES, progress=lambda *news: told.append(news))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("small") / "survey", seed=1, size=80, exposures=5)


@pytest.fixture
def copy(survey, tmp_path):
    shutil.copytree(survey.folder, tmp_path / "copy")
    return replace(survey, folder=tmp_path / "copy", database=tmp_path / "copy" / "simtest.db")


def md5s(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def rows(survey, table):
    with session(connect(str(survey.database)), t.TABLES):
        return list(table.select().dicts())


def components(survey):
    """Return (stage, run state, data_state, path_base, id, component) of every component."""
    found = []
    for stage, run, part, name in (
        ("chip", t.chipRun, t.chipProcessedImfile, "class_id"),
        ("warp", t.warpRun, t.warpSkyfile, "skycell_id"),
        ("diff", t.diffRun, t.diffSkyfile, "skycell_id"),
    ):
        states = {row[f"{stage}_id"]: row["state"] for row in rows(survey, run)}
        found += [
            (stage, states[row[f"{stage}_id"]], row["data_state"], row["path_base"], row[f"{stage}_id"], row[name])
            for row in rows(survey, part)
        ]
    runs = {row["stack_id"]: row for row in rows(survey, t.stackRun)}
    for row in rows(survey, t.stackSumSkyfile):
        run = runs[row["stack_id"]]
        found.append(("stack", run["state"], run["state"], row["path_base"], row["stack_id"], run["skycell_id"]))
    return found


def full(survey, stage):
    return [base for name, _, state, base, *_ in components(survey) if name == stage and state == "full"]


def read(path):
    """Return the pixels, NaN where the file says BLANK, and the header."""
    with fits.open(path) as hdus:
        return np.array(hdus[1].data), hdus[1].header


def wcs_of(path):
    """Return the WCS of the image that a catalogue belongs to."""
    header = fits.getheader(path)
    del header["NAXIS"]  # there is no image, as astropy would warn
    return WCS(header)


def planes(survey, base, suffixes):
    return [read(survey.folder / (base + suffix))[0] for suffix in suffixes]


def quiet_stars(image, header, mask):
    """Return truth and pixel (from 0) of stars that stand alone, well inside, unmasked, bright, and not saturated."""
    sky, wcs = make_sky(SEED, SIZE), WCS(header)
    magnitude = sky.mag[header["FILTERID"]]
    x, y = wcs.all_world2pix(sky.ra, sky.dec, 0, quiet=True)
    stars = []
    for i in np.flatnonzero((sky.axis == 0) & (magnitude < 19.5) & (magnitude > 15.8)):
        other = np.hypot(x - x[i], y - y[i])[(magnitude < magnitude[i] + 3.5) & (np.arange(len(x)) != i)]
        column, row = round(float(x[i])), round(float(y[i]))
        inside = 10 <= column < image.shape[1] - 10 and 10 <= row < image.shape[0] - 10
        if i in (MOVING, VARIABLE, SATURATED) or not inside or other.min() < 20:
            continue
        box = np.s_[row - 10 : row + 11, column - 10 : column + 11]
        if not mask[box].any():
            stars.append((i, x[i], y[i], box))
    return stars


def centroid(image, x, y):
    """Return the centre of light near x, y, by a Gaussian weight that follows it."""
    rows_, columns = np.indices(image.shape)
    for _ in range(20):
        weight = image * np.exp(-((columns - x) ** 2 + (rows_ - y) ** 2) / (2 * 2.5**2))
        new_x, new_y = (weight * columns).sum() / weight.sum(), (weight * rows_).sum() / weight.sum()
        x, y = x + 2 * (new_x - x), y + 2 * (new_y - y)  # a weight as wide as the star halves the step
    return x, y


def away_from_sources(header, shape, moving):
    """Return which pixels are further than ten pixels from any source, and twenty from the brighter ones."""
    sky, wcs, away = make_sky(SEED, SIZE), WCS(header), np.ones(shape, bool)
    ra, dec = (np.append(one, two) for one, two in zip((sky.ra, sky.dec), zip(*moving, strict=True), strict=True))
    x, y = wcs.all_world2pix(ra, dec, 0, quiet=True)
    reach = np.where(np.append(sky.mag["r.00000"], np.full(len(moving), 18)) < 20, 20, 10)
    rows_, columns = np.ogrid[: shape[0], : shape[1]]
    for source in np.flatnonzero((abs(x) < 1000) & (abs(y) < 1000)):
        away &= (columns - x[source]) ** 2 + (rows_ - y[source]) ** 2 > reach[source] ** 2
    return away


def scatter(values):
    low, high = np.percentile(values, (16, 84))
    return (high - low) / 2


def test_same_seed_same_bytes(survey, tmp_path):
    again = simulate(tmp_path / "again", seed=SEED, size=SIZE, exposures=EXPOSURES)
    first, second = md5s(survey.folder), md5s(again.folder)
    database = "simtest.db"
    assert first.pop(database)
    assert second.pop(database)
    assert len(first) > 300
    assert first == second
    for table in t.TABLES:
        assert rows(survey, table) == rows(again, table), table.__name__


def test_another_seed_another_sky(small, tmp_path):
    other = simulate(tmp_path / "other", seed=2, size=80, exposures=5)
    assert other.exposures == small.exposures
    ours, theirs = md5s(small.folder), md5s(other.folder)
    assert ours.keys() == theirs.keys()
    assert not [name for name in ours if ours[name] == theirs[name] and not name.endswith(".mdl.fits")]


def test_the_folder_holds_what_the_database_says_and_nothing_else(survey):
    expected = {"simtest.db", "simtest.json"}
    expected |= {f"detrend/{chip}.{kind}.fits" for chip in survey.chips for kind in ("bias", "flat", "mask")}
    expected |= {row["uri"] for row in rows(survey, t.rawImfile)} | {
        row["uri"] for row in rows(survey, t.camProcessedExp)
    }
    for stage, _, state, base, *_ in components(survey):
        expected |= {base + suffix for suffix in PIXELS[stage] if state == "full"}
        expected |= {base + suffix for suffix in SMALL[stage] if state != "purged"}
    assert set(md5s(survey.folder)) == expected


def test_images_are_stored_as_ipp_does(survey):
    paths = [survey.folder / row["uri"] for row in rows(survey, t.rawImfile)]
    for stage in PIXELS:
        paths += [survey.folder / (base + suffix) for base in full(survey, stage) for suffix in PIXELS[stage]]
    assert len(paths) == 24 + 3 * (20 + 16 + 24) + 8 * 8
    for path in paths:
        with fits.open(path, disable_image_compression=True) as hdus:
            header = hdus[1].header
        assert (header["ZCMPTYPE"], header["ZTILE1"], header["ZTILE2"]) == ("RICE_1", header["ZNAXIS1"], 1), path
        assert header["ZBITPIX"] == 16
        assert "DATE" not in header
        pixels = fitsio.read(path)
        assert pixels.shape == ((147, 140) if "raw" in path.parts or "chip" in path.parts else (181, 175))
        if ".mask." in path.name or ".mk." in path.name:
            assert pixels.dtype == np.uint16


def test_small_files_are_read(survey):
    for stage in SMALL:
        for base in full(survey, stage):
            name = base.rpartition(".")[2] + ".psf" if stage == "chip" else "SkyChip.psf"
            with fits.open(survey.folder / f"{base}.cmf") as hdus:
                assert [hdu.name for hdu in hdus] == ["PRIMARY", name]
            psf = fitsio.read(survey.folder / (base + SMALL[stage][1]))
            assert psf.shape == (31, 31)
            assert psf.sum() == pytest.approx(1, abs=1e-5)
            assert psf.argmax() == 31 * 15 + 15
    base = full(survey, "chip")[0]
    model, raw = fitsio.read(survey.folder / f"{base}.mdl.fits"), rows(survey, t.rawImfile)[0]["uri"]
    level = np.median(read(survey.folder / raw)[0].astype(float)) - np.nanmedian(planes(survey, base, (".ch.fits",))[0])
    assert model.shape == (13, 13)
    assert model.mean() == pytest.approx(level - 1000, abs=2)
    variance = planes(survey, base, (".ch.wt.fits",))[0]
    assert np.nanpercentile(variance, 20) == pytest.approx(model.mean() + 25, rel=0.05)  # photons and read-out noise


def test_the_steps_of_stored_values_are_finer_than_the_noise(survey):
    for stage in ("chip", "warp", "stack", "diff"):
        for base in full(survey, stage):
            image, _ = read(survey.folder / (base + PIXELS[stage][0]))
            step = fitsio.read_header(survey.folder / (base + PIXELS[stage][0]), ext=1)["BSCALE"]
            assert 0 < step < scatter(image[np.isfinite(image)]) / 3


def test_the_camera_stage_holds_the_catalogues_of_its_chips(survey):
    for row in rows(survey, t.camProcessedExp):
        chip = row["cam_id"] - 20001
        with fits.open(survey.folder / (row["path_base"] + ".smf")) as hdus:
            assert [hdu.name for hdu in hdus[1:]] == [f"{name}.psf" for name in survey.chips]
            for hdu, name in zip(hdus[1:], survey.chips, strict=True):
                base = next(
                    one["path_base"] for one in rows(survey, t.chipProcessedImfile)
                    if one["chip_id"] == survey.chip_ids[chip] and one["class_id"] == name
                )  # fmt: skip
                assert (hdu.data == fits.getdata(survey.folder / f"{base}.cmf")).all()


@pytest.mark.parametrize("stage", ["chip", "warp", "stack"])
def test_stars_are_where_the_wcs_says_and_as_bright_as_the_zero_point_says(survey, stage):
    offsets, magnitudes, where = [], [], set()
    suffixes = (".unconv.fits", ".unconv.mask.fits") if stage == "stack" else PIXELS[stage][:2]
    for base in full(survey, stage):
        image, header = read(survey.folder / (base + suffixes[0]))
        mask, _ = read(survey.folder / (base + suffixes[1]))
        for source, x, y, box in quiet_stars(image, header, mask):
            cut = image[box]
            here = centroid(cut, x - box[1].start, y - box[0].start)
            offsets.append((here[0] + box[1].start - x, here[1] + box[0].start - y))
            truth = make_sky(SEED, SIZE).mag[header["FILTERID"]][source]
            where.add(header["IMAGEID"])
            magnitudes.append(header["ZPT_OBS"] - 2.5 * np.log10(cut.sum()) - truth)
    assert len(offsets) >= 5
    assert len(where) >= 3
    offsets = np.array(offsets)
    assert np.abs(offsets).max() < 0.2
    assert np.abs(np.median(offsets, axis=0)).max() < 0.03
    assert np.median(magnitudes) == pytest.approx(0.02, abs=0.02)  # the wings outside the box
    assert np.abs(magnitudes).max() < 0.3


@pytest.mark.parametrize("stage", ["chip", "warp", "stack", "diff"])
def test_catalogues_agree_with_the_pixels_and_the_sky(survey, stage):
    sky, matched, seen = make_sky(SEED, SIZE), 0, 0
    for base in full(survey, stage):
        image, header = read(survey.folder / (base + PIXELS[stage][0]))
        table = fits.getdata(survey.folder / f"{base}.cmf")
        assert (table["PSF_INST_FLUX"] > 0).all()
        assert ((table["X_PSF"] > 0) & (table["X_PSF"] < image.shape[1] + 1)).all()
        ra, dec = WCS(header).all_pix2world(table["X_PSF"], table["Y_PSF"], 1)
        assert np.allclose(ra, table["RA_PSF"], rtol=0, atol=1e-8)
        assert np.allclose(dec, table["DEC_PSF"], rtol=0, atol=1e-8)
        assert np.allclose(table["CAL_PSF_MAG"], table["PSF_INST_MAG"] + header["ZPT_OBS"], rtol=0, atol=1e-4)
        places = [*zip(sky.ra, sky.dec, strict=True), *survey.moving]
        for row in table:
            apart = [np.hypot((row["RA_PSF"] - a) * np.cos(np.radians(d)), row["DEC_PSF"] - d) for a, d in places]
            matched += min(apart) * 3600 < max(0.15, 5 * row["X_PSF_SIG"] * 0.256)
            seen += 1
    assert seen > (3 if stage == "diff" else 50)
    assert matched == seen


@pytest.mark.parametrize("stage", ["chip", "warp", "stack", "diff"])
def test_variance_is_that_of_the_noise(survey, stage):
    suffixes = (".unconv.fits", ".unconv.mask.fits", ".unconv.wt.fits") if stage == "stack" else PIXELS[stage]
    ratios = []
    for base in full(survey, stage):
        image, mask, variance = planes(survey, base, suffixes)
        header = read(survey.folder / (base + suffixes[0]))[1]
        assert np.nanmin(variance) > 0
        dark = (mask == 0) & away_from_sources(header, image.shape, survey.moving)
        noise = image[dark] / np.sqrt(variance[dark])
        if len(noise) > 2000:
            ratios.append(scatter(noise))
    assert len(ratios) > 4
    assert np.mean(ratios) == pytest.approx(1, abs=0.03)


def test_a_stack_is_less_noisy_than_its_warps_and_a_convolved_one_smoother(survey):
    base, stacks = full(survey, "warp")[0], rows(survey, t.stackSumSkyfile)
    cell = rows(survey, t.warpSkyfile)[0]["skycell_id"]
    stack = next(row["path_base"] for row in stacks if row["stack_id"] == survey.stack_ids["g.00000", cell])
    warp, mask = planes(survey, base, PIXELS["warp"][:2])
    deep, smooth, number = planes(survey, stack, (".unconv.fits", ".fits", ".unconv.num.fits"))
    both = (number == 3) & (mask == 0)
    assert scatter(deep[both]) == pytest.approx(scatter(warp[both]) / np.sqrt(3), rel=0.1)
    assert scatter(smooth[both]) < 0.5 * scatter(deep[both])
    steps = [np.nanmedian(np.abs(np.diff(one, axis=0))) for one in (deep, smooth)]
    assert steps[1] < 0.3 * steps[0]


def test_variance_of_a_bright_star_is_that_of_its_photons(survey):
    for base in full(survey, "chip"):
        image, mask, variance = planes(survey, base, PIXELS["chip"])
        bright = (image > 2000) & (image < 0.9 * FULL_WELL) & (mask == 0)
        if bright.sum() > 20:
            assert np.median(variance[bright] / image[bright]) == pytest.approx(1, abs=0.1)
            return
    pytest.fail("no bright star on any chip")


def test_masks_say_why_there_is_no_value(survey):
    seen = 0
    for base in full(survey, "chip"):
        image, mask, variance = planes(survey, base, PIXELS["chip"])
        assert (np.isnan(image) == (mask & (DETECTOR | BLANK) > 0)).all()
        assert (np.isnan(image) == np.isnan(variance)).all()
        seen |= int(np.bitwise_or.reduce(mask, axis=None))
        rays = (mask & CR > 0) & np.isfinite(image)
        assert np.median(image[rays]) > 250
        assert np.allclose(image[(mask & SAT > 0) & ~np.isnan(image)], FULL_WELL, rtol=0.03)  # a flat
    assert seen == DETECTOR | BLANK | SAT | CR | SPIKE | GHOST
    for base in full(survey, "warp") + full(survey, "diff"):
        image, mask, variance = planes(survey, base, PIXELS["warp"])
        assert (np.isnan(image) <= (mask & (DETECTOR | BLANK | SAT | CR) > 0)).all()
        assert (np.isnan(image) == np.isnan(variance)).all()
        if base.startswith("warp"):
            assert (np.isnan(image) >= (mask & (DETECTOR | BLANK | SAT | CR) > 0)).all()


def test_masks_of_warps_are_those_of_the_chips_below(survey):
    names = {one[4:]: one[3] for one in components(survey) if one[2] == "full"}
    checked = 0
    for class_id in survey.chips:
        chip, header = read(survey.folder / (names[survey.chip_ids[0], class_id] + ".ch.mk.fits"))
        for cell in survey.skycells:
            warp, cell_header = read(survey.folder / (names[survey.warp_ids[0], cell] + ".mask.fits"))
            for bit in (CR, DETECTOR, SAT, SPIKE, GHOST):
                y, x = np.nonzero(chip & bit)
                sky = WCS(header).all_pix2world(x, y, 0)
                column, row = (np.rint(one).astype(int) for one in WCS(cell_header).all_world2pix(*sky, 0))
                inside = (column >= 1) & (column < 174) & (row >= 1) & (row < 180)
                around = [warp[row[inside] + i, column[inside] + j] & bit for i in (-1, 0, 1) for j in (-1, 0, 1)]
                assert np.any(around, axis=0).all()
                exact = (around[4] > 0).mean() if inside.any() else 1
                assert exact > 0.5, (class_id, cell, bit)
                checked += inside.sum()
    assert checked > 1000


def test_the_maps_count_the_inputs(survey):
    most = 0
    for base in full(survey, "stack"):
        image, number, seconds = planes(survey, base, (".unconv.fits", ".unconv.num.fits", ".unconv.exp.fits"))
        header = fitsio.read_header(survey.folder / f"{base}.unconv.fits", ext=1)
        assert ((number == 0) == np.isnan(image)).all()
        assert (seconds == number * header["EXPTIME"] / 3).all()
        assert header["NINPUTS"] == 3
        most = max(most, number.max())
    assert most == 3


def test_the_saturated_star_and_the_galaxy_are_where_they_are_said_to_be(survey):
    sky = make_sky(SEED, SIZE)
    assert survey.saturated == (sky.ra[SATURATED], sky.dec[SATURATED])
    assert survey.galaxy == (sky.ra[GALAXY], sky.dec[GALAXY])
    saturated = 0
    for base in full(survey, "chip"):
        mask, header = read(survey.folder / f"{base}.ch.mk.fits")
        x, y = WCS(header).all_world2pix(*survey.saturated, 0, quiet=True)
        if 0 <= x < 139 and 0 <= y < 146:
            saturated += bool(mask[round(float(y)), round(float(x))] & (SAT | BLANK))
            assert saturated
    assert saturated >= 4
    widths = []
    for base in full(survey, "stack"):
        image, header = read(survey.folder / f"{base}.unconv.fits")
        x, y = (round(float(one)) for one in WCS(header).all_world2pix(*survey.galaxy, 0))
        if 8 <= x < 167 and 8 <= y < 173 and np.isfinite(image[y - 8 : y + 9, x - 8 : x + 9]).all():
            widths.append(image[y - 1 : y + 2, x - 1 : x + 2].sum() / image[y - 8 : y + 9, x - 8 : x + 9].sum())
    assert widths
    assert 0.05 < max(widths) < 0.35  # a star of this seeing has 0.4 of its light there


def diff_flux(survey, exposure, place):
    """Return flux over noise at a place in the difference of an exposure; None where there is no value."""
    for row in rows(survey, t.diffSkyfile):
        if row["diff_id"] == survey.diff_ids[exposure] and row["data_state"] == "full":
            image, header = read(survey.folder / (row["path_base"] + ".fits"))
            variance, _ = read(survey.folder / (row["path_base"] + ".wt.fits"))
            x, y = (round(float(one)) for one in WCS(header).all_world2pix(*place, 0))
            box = np.s_[y - 2 : y + 3, x - 2 : x + 3]
            if 2 <= x < 173 and 2 <= y < 179 and np.isfinite(image[box]).all():
                return image[box].sum() / np.sqrt(variance[box].sum())
    return None


def test_the_moving_source_moves(survey):
    there = [diff_flux(survey, i, survey.moving[i]) for i in range(EXPOSURES)]
    elsewhere = [diff_flux(survey, i, survey.moving[i - 1]) for i in range(EXPOSURES)]
    assert sum(one is not None for one in there) >= 3
    assert min(one for one in there if one is not None) > 15
    assert max(abs(one) for one in elsewhere if one is not None) < 5
    assert len(set(survey.moving)) == EXPOSURES


def test_the_variable_source_varies_as_it_is_said_to(survey):
    days = [mjd - 59001 for mjd in survey.mjd]
    checked = 0
    for filter_index in (0, 1):
        group = range(filter_index, EXPOSURES, 2)
        mean = np.mean([variable_change(days[i]) for i in group])
        for i in group:
            flux, change = diff_flux(survey, i, survey.variable), variable_change(days[i]) - mean
            if flux is not None and abs(change) > 0.1:
                assert np.sign(flux) == np.sign(change)
                assert abs(flux) > 5
                checked += 1
    assert checked >= 2


def test_states(survey):
    states = {(stage, number): {run, data} for stage, run, data, _, number, _ in components(survey)}
    special = {key: value for key, value in states.items() if value != {"full"}}
    assert special == {
        ("warp", survey.cleaned_warp): {"cleaned"},
        ("warp", survey.lost_warp): {"error_cleaned"},
        ("chip", survey.cleaned_chip): {"cleaned"},
        ("diff", survey.purged_diff): {"purged"},
    }
    exposures = [survey.warp_ids.index(survey.cleaned_warp), survey.warp_ids.index(survey.lost_warp),
                 survey.chip_ids.index(survey.cleaned_chip), survey.diff_ids.index(survey.purged_diff)]  # fmt: skip
    assert len(set(exposures)) == 4


def test_the_rows_lead_from_a_difference_to_its_exposure(survey):
    runs = {row["warp_id"]: row["fake_id"] for row in rows(survey, t.warpRun)}
    cams = {row["fake_id"]: row["cam_id"] for row in rows(survey, t.fakeRun)}
    chips = {row["cam_id"]: row["chip_id"] for row in rows(survey, t.camRun)}
    exps = {row["chip_id"]: row["exp_id"] for row in rows(survey, t.chipRun)}
    names = {row["exp_id"]: row for row in rows(survey, t.rawExp)}
    stacks = {row["stack_id"]: row for row in rows(survey, t.stackRun)}
    inputs = {(row["stack_id"], row["warp_id"]) for row in rows(survey, t.stackInputSkyfile)}
    found = [row for row in rows(survey, t.diffInputSkyfile) if row["diff_id"] != survey.warp_diff]
    assert len(found) == EXPOSURES * 4
    for row in found:
        exposure = names[exps[chips[cams[runs[row["warp1"]]]]]]
        assert exposure["exp_id"] == survey.exp_ids[survey.diff_ids.index(row["diff_id"])]
        assert stacks[row["stack2"]]["skycell_id"] == row["skycell_id"]
        assert stacks[row["stack2"]]["filter"] == exposure["filter"]
        assert (row["stack2"], row["warp1"]) in inputs
        assert (row["stack1"], row["warp2"]) == (None, None)
    modes = {row["diff_id"]: row["diff_mode"] for row in rows(survey, t.diffRun)}
    assert modes == {**dict.fromkeys(survey.diff_ids, 2), survey.warp_diff: 1}
    pairs = {
        (row["warp1"], row["stack1"], row["warp2"], row["stack2"])
        for row in rows(survey, t.diffInputSkyfile) if row["diff_id"] == survey.warp_diff
    }  # fmt: skip
    assert pairs == {(survey.warp_ids[0], None, survey.warp_ids[4], None)}
    assert tuple(row["exp_name"] for row in names.values()) == survey.exposures
    assert len(inputs) == 8 * 3


def test_exposures_say_when_and_where(survey):
    for row, mjd in zip(rows(survey, t.rawExp), survey.mjd, strict=True):
        header = fitsio.read_header(survey.folder / f"raw/{row['exp_name']}/{row['exp_name']}.XY33.fits", ext=1)
        assert header["MJD-OBS"] == pytest.approx(mjd, abs=1e-9)
        assert row["dateobs"].strftime("%Y-%m-%dT%H:%M:%S") == header["DATE-OBS"]
        assert (row["dateobs"].timestamp() / 86400 + 40587) == pytest.approx(mjd, abs=1e-9)
        assert np.degrees(row["ra"]) == pytest.approx(header["CRVAL1"], abs=1e-9)
        assert np.degrees(row["decl"]) == pytest.approx(header["CRVAL2"], abs=1e-9)
        assert int(row["exp_name"][1:5]) == int(mjd) - 50000
    assert survey.mjd[-1] - survey.mjd[0] > 20


def test_the_skycell_map_names_the_chips_below(survey):
    found = {(row["warp_id"], row["skycell_id"], row["class_id"]) for row in rows(survey, t.warpSkyCellMap)}
    wcses = {}
    for _, _, _, base, number, name in (one for one in components(survey) if one[0] == "chip"):
        wcses[number - 10001, name] = wcs_of(survey.folder / f"{base}.cmf")
    cells = {one[5]: wcs_of(survey.folder / f"{one[3]}.cmf") for one in components(survey) if one[0] == "stack"}
    x, y = (one.ravel() for one in np.meshgrid(np.arange(0, 140, 3), np.arange(0, 147, 3)))
    certain = set()
    for (exposure, class_id), wcs in wcses.items():
        sky = wcs.all_pix2world(x, y, 0)
        for cell, cell_wcs in cells.items():
            cx, cy = cell_wcs.all_world2pix(*sky, 0)
            if ((cx > -0.5) & (cx < 174.5) & (cy > -0.5) & (cy < 180.5)).any():
                certain.add((survey.warp_ids[exposure], cell, class_id))
    assert len(certain) > EXPOSURES * 4
    assert certain <= found
    assert len(found - certain) <= 2  # what a corner of less than three pixels touches


def test_skycells_are_where_the_table_says(survey):
    for row in rows(survey, t.skycell):
        base = next(one[3] for one in components(survey) if one[0] == "stack" and one[5] == row["skycell_id"])
        x, y = wcs_of(survey.folder / f"{base}.cmf").all_world2pix(row["radeg"], row["decdeg"], 1)
        assert (float(x), float(y)) == pytest.approx((88, 91), abs=1e-6)
        assert (row["width"] * 3600, row["height"] * 3600) == pytest.approx((175 * 0.25, 181 * 0.25))


def test_the_images_are_found_by_position(survey):
    images = ImageDB(str(survey.database), survey.folder)

    def count(img_type, position, **more):
        return len(images.select(Selection(req_type="bycoord", img_type=img_type, position=position, **more)))

    assert count("stack", survey.centre, tess_id=survey.tess_id) == 8
    assert count("stack", survey.saturated, tess_id=survey.tess_id) == 2
    assert count("warp", survey.centre, tess_id=survey.tess_id, reqfilt="g") == 12
    assert count("chip", survey.centre) == EXPOSURES
    found = images.select(Selection(req_type="byid", img_type="chip", id=str(survey.chip_ids[0]), component="XY34"))
    assert [image.image.is_file() for image in found] == [True]


def test_footprints_have_the_sizes_of_the_images(survey):
    sizes = {row["footprint_id"]: (row["naxis1"], row["naxis2"]) for row in rows(survey, t.pstampFootprint)}
    images = rows(survey, t.pstampImage)
    assert len(images) == 4 * (4 * EXPOSURES + 1) + 8
    for row in images:
        assert sizes[row["footprint_id"]] == ((140, 147) if row["stage"] in ("raw", "chip") else (175, 181))


def test_around_the_centre_stacks_have_values(survey):
    for base in full(survey, "stack"):
        image, header = read(survey.folder / f"{base}.unconv.fits")
        x, y = (round(float(one)) for one in WCS(header).all_world2pix(*survey.centre, 0))
        box = image[max(0, y - 10) : y + 11, max(0, x - 10) : x + 11]
        assert np.isfinite(box).mean() > 0.9


def test_names_leave_room_in_the_names_of_products(survey):
    for stage, _, _, base, *_ in components(survey):
        name = base.rpartition("/")[2] + {"chip": ".ch", "stack": ".unconv"}.get(stage, "")
        assert len(f"1000_100_g_{name}.mk.fits") <= 64


def test_progress_is_told(told):
    assert {news[0]: news[1:] for news in told} == {
        "chip": (24, 24),
        "warp": (24, 24),
        "stack": (8, 8),
        "diff": (28, 28),
    }
    assert len(told) == 24 + 24 + 8 + 28


def test_a_survey_is_read_back(survey):
    assert survey_of(survey.folder) == survey


def test_restore_a_warp(copy):
    cell = copy.skycells[0]
    bases = {one[5]: one[3] for one in components(copy) if one[0] == "warp" and one[4] == copy.cleaned_warp}
    assert not (copy.folder / f"{bases[cell]}.fits").exists()
    for done, name in enumerate(copy.skycells):
        restore(copy.folder, "warp", copy.cleaned_warp, name)
        states = {one[5]: one[1:3] for one in components(copy) if one[0] == "warp" and one[4] == copy.cleaned_warp}
        run = "full" if done == 3 else "update"
        data = {one: "full" if copy.skycells.index(one) <= done else "cleaned" for one in copy.skycells}
        assert states == {one: (run, data[one]) for one in copy.skycells}
    image, mask, _ = planes(copy, bases[cell], PIXELS["warp"])
    stack = next(one[3] for one in components(copy) if one[4] == copy.stack_ids["r.00000", cell])
    deep, number = planes(copy, stack, (".unconv.fits", ".unconv.num.fits"))
    both = (number == 3) & (mask == 0)
    assert np.corrcoef(image[both], deep[both])[0, 1] > 0.7


@pytest.mark.parametrize("stage", ["chip", "warp", "diff"])
def test_restored_pixels_are_the_same_bytes(copy, stage):
    _, _, _, base, number, component = next(one for one in components(copy) if one[0] == stage)
    run, part = STAGES[stage].run, STAGES[stage].part
    before = md5s(copy.folder)
    with session(connect(str(copy.database)), t.TABLES):
        run.update(state="cleaned").where(getattr(run, f"{stage}_id") == number).execute()
        part.update(data_state="cleaned", fault=2).where(part.path_base == base).execute()
    for suffix in PIXELS[stage]:
        (copy.folder / (base + suffix)).unlink()
    restore(copy.folder, stage, number, component)
    after = md5s(copy.folder)
    assert before.pop("simtest.db")
    assert after.pop("simtest.db")
    assert before == after
    assert {one[1:3] for one in components(copy) if one[0] == stage and one[4] == number} == {("full", "full")}
    assert {row["fault"] for row in rows(copy, part)} == {0}


def test_restore_all(copy):
    assert restore_all(copy.folder) == 8
    states = {(one[0], one[4]): set(one[1:3]) for one in components(copy)}
    assert {key: value for key, value in states.items() if value != {"full"}} == {
        ("warp", copy.lost_warp): {"error_cleaned"},
        ("diff", copy.purged_diff): {"purged"},
    }
    assert restore_all(copy.folder) == 0
    for base in full(copy, "chip") + full(copy, "warp"):
        stage = base.partition("/")[0]
        assert all((copy.folder / (base + suffix)).is_file() for suffix in PIXELS[stage])


@pytest.mark.parametrize(
    ("stage", "number", "component", "sentence"),
    [
        ("warp", 40003, "skycell.1234.044", "its run is error_cleaned and it is error_cleaned; expected cleaned or update"),  # noqa: E501
        ("warp", 40001, "skycell.1234.044", "its run is full and it is full; expected cleaned or update"),
        ("chip", 10004, "XY99", "there is no such component"),
        ("chip", 99999, "XY33", "there is no such component"),
        ("diff", 50005, "skycell.1234.044", "its run is purged and it is purged; expected cleaned or update"),
        ("stack", 60001, "skycell.1234.044", "only a chip, a warp or a difference can be made again"),
    ],
)  # fmt: skip
def test_what_can_not_be_restored(survey, stage, number, component, sentence):
    before = md5s(survey.folder)
    with pytest.raises(FinalError) as caught:
        restore(survey.folder, stage, number, component)
    assert (str(caught.value), caught.value.fault) == (f"restore {stage} {number} {component}: {sentence}", 25)
    assert {k: v for k, v in md5s(survey.folder).items() if k != "simtest.db"} == {
        k: v for k, v in before.items() if k != "simtest.db"
    }


def test_no_survey(tmp_path):
    with pytest.raises(RetryableError, match=r"^folder .* holds no simulated survey: .*No such file"):
        survey_of(tmp_path)
    with pytest.raises(RetryableError, match="holds no simulated survey"):
        restore(tmp_path, "warp", 40002, "skycell.1234.044")
    with pytest.raises(RetryableError, match="no such file"):
        restore_all(tmp_path)
    (tmp_path / "simtest.json").write_text('{"seed": 1}')
    with pytest.raises(RetryableError, match="holds no simulated survey"):
        survey_of(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"), [("size", 79), ("size", 2001), ("exposures", 4), ("exposures", 100), ("seed", -1)]
)
def test_numbers_out_of_range(tmp_path, name, value):
    with pytest.raises(UserError, match=f"^simulated survey: {name} is {value}; expected "):
        simulate(tmp_path / "survey", **{name: value})
    assert not list(tmp_path.iterdir())


def test_a_survey_is_not_overwritten(survey):
    before = md5s(survey.folder)
    with pytest.raises(UserError, match=r"holds a simulated survey already; remove it, or name another folder$"):
        simulate(survey.folder)
    assert md5s(survey.folder) == before


def test_a_folder_that_can_not_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RetryableError, match=r"^simulated survey .*file/survey: .*Not a directory"):
        simulate(tmp_path / "file" / "survey")


def test_a_half_made_survey_is_made_again(small, tmp_path):
    def stop(stage, done, total):
        if stage == "warp":
            raise KeyboardInterrupt

    folder = tmp_path / "survey"
    with pytest.raises(KeyboardInterrupt):
        simulate(folder, size=80, exposures=5, progress=stop)
    assert not (folder / "simtest.db").exists()
    simulate(folder, size=80, exposures=5)
    ours, other = md5s(folder), md5s(small.folder)
    assert ours.keys() == other.keys()
    assert {k for k in ours if ours[k] != other[k]} <= {"simtest.db"}

"""TAI days, as requests and results count, and UTC moments, as image databases store, with all leap seconds.

The original took 33 or 34 seconds for the difference, which was wrong from 2012 on.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any


def utc(mjd: float) -> datetime:
    """Return the moment of a Modified Julian Date in TAI."""
    with _quiet():
        moment: datetime = _time(mjd, format="mjd", scale="tai").utc.to_datetime(leap_second_strict="silent")
    return moment.replace(tzinfo=UTC)


def tai(moments: Sequence[datetime | None]) -> list[float | None]:
    """Return the Modified Julian Dates in TAI of UTC moments."""
    known = [moment.astimezone(UTC).replace(tzinfo=None) for moment in moments if moment is not None]
    with _quiet():
        days = iter(_time(known, format="datetime", scale="utc").tai.mjd.tolist() if known else ())
    return [None if moment is None else next(days) for moment in moments]


_SCALES = {
    "UTC": "utc", "UT": "utc", "UT1": "utc", "GMT": "utc", "TAI": "tai", "IAT": "tai", "TT": "tt", "TDT": "tt",
    "ET": "tt", "TDB": "tdb", "TCG": "tcg", "TCB": "tcb",
}  # fmt: skip
# FITS standard, section 9.2.1; UT1 is within a second of UTC, and what lies between them would be asked of the network


def tai_of(value: object, timesys: str) -> float:
    """Return the Modified Julian Date in TAI of a header's MJD (a float) or ISO date (a string).

    Raises
    ------
    ValueError
        It is neither, or the time scale TIMESYS is unknown.
    """
    scale = _SCALES.get(timesys.strip().upper())
    if scale is None or not (isinstance(value, float) or (isinstance(value, str) and value)):
        raise ValueError(f"{value!r} {timesys}: expected an MJD or a date in one of {', '.join(_SCALES)}")
    with _quiet():
        return float(_time(value, format="mjd" if isinstance(value, float) else "isot", scale=scale).tai.mjd)


def _time(value: Any, **how: Any) -> Any:
    from astropy.time import Time

    return Time(value, **how)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep quiet about years for which no leap seconds are announced yet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

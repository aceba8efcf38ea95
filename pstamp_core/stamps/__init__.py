"""Pixels: the region of a stamp, reading an image once for many stamps, cutting, writing products."""

from pstamp_core.stamps.cutting import InputFiles, Stamp, cut
from pstamp_core.stamps.picture import STRETCHES, picture
from pstamp_core.stamps.region import Option, StampRequest
from pstamp_core.stamps.sheet import contact_sheet

__all__ = ["STRETCHES", "InputFiles", "Option", "Stamp", "StampRequest", "contact_sheet", "cut", "picture"]

"""Image databases: which images match a row, where they lie on the sky, and whether their pixels can be had."""

from pstamp_core.imagedb.components import Component, Facts, Verdict, classify, needs_magic
from pstamp_core.imagedb.database import ImageDB, OnSky
from pstamp_core.imagedb.images import Image, Selection
from pstamp_core.imagedb.register import Added, Refused, add_images

__all__ = [
    "Added",
    "Component",
    "Facts",
    "Image",
    "ImageDB",
    "OnSky",
    "Refused",
    "Selection",
    "Verdict",
    "add_images",
    "classify",
    "needs_magic",
]

"""Image databases: which images match a row, where they lie on the sky, and whether their pixels can be had."""

from pstamp_core.imagedb.availability import Availability, Component, availability
from pstamp_core.imagedb.database import ImageDB, OnSky
from pstamp_core.imagedb.images import Image, Selection
from pstamp_core.imagedb.register import Added, Refused, add_images

__all__ = [
    "Added",
    "Availability",
    "Component",
    "Image",
    "ImageDB",
    "OnSky",
    "Refused",
    "Selection",
    "add_images",
    "availability",
]

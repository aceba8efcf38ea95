"""Image databases: which images match a row, where they lie on the sky, and whether their pixels can be had."""

from pstamp_core.imagedb.components import Component, Facts, Verdict, classify, needs_magic
from pstamp_core.imagedb.database import ImageDB, OnSky, Products
from pstamp_core.imagedb.images import Image, Selection, Spot
from pstamp_core.imagedb.leases import Lease, claim, finish, give_back, lease_holders
from pstamp_core.imagedb.putaway import made_again, put_away
from pstamp_core.imagedb.register import Added, Refused, add_images
from pstamp_core.imagedb.survey import Effort, Key, Link, Policy, Survey
from pstamp_core.imagedb.updates import (
    Waiter,
    Work,
    forget_failures,
    look,
    pending,
    restore_labels,
    set_destreaked,
    set_fault,
    set_full,
    survey_of,
)

__all__ = [
    "Added",
    "Component",
    "Effort",
    "Facts",
    "Image",
    "ImageDB",
    "Key",
    "Lease",
    "Link",
    "OnSky",
    "Policy",
    "Products",
    "Refused",
    "Selection",
    "Spot",
    "Survey",
    "Verdict",
    "Waiter",
    "Work",
    "add_images",
    "claim",
    "classify",
    "finish",
    "forget_failures",
    "give_back",
    "lease_holders",
    "look",
    "made_again",
    "needs_magic",
    "pending",
    "put_away",
    "restore_labels",
    "set_destreaked",
    "set_fault",
    "set_full",
    "survey_of",
]

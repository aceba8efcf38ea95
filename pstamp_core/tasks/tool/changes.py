"""The modes of `pstamptool` that change something (`pstamptool.c`): one function each, of the mode's name.

A function takes the server, and the options that were given as keywords without their dash. It is one unit of work: all
rows that it selects are changed, or none is; to select none is no error. It returns the number to print, or None.
An option counts as given when it is there, also with the value 0.
"""

from pstamp_core.tasks.tool.dependents import getdependent, revertdependent, stopdependentjob, updatedependent
from pstamp_core.tasks.tool.jobs import addjob, revertjob, updatejob
from pstamp_core.tasks.tool.records import (
    addaccesslevel,
    adddatastore,
    adddomain,
    addfile,
    addproject,
    adduser,
    deletefile,
    getwebrequestnum,
    moddatastore,
    modproject,
    updateaccesslevel,
    updatedomain,
    updateuser,
)
from pstamp_core.tasks.tool.requests import addreq, revertreq, updatereq

__all__ = [
    "addaccesslevel",
    "adddatastore",
    "adddomain",
    "addfile",
    "addjob",
    "addproject",
    "addreq",
    "adduser",
    "deletefile",
    "getdependent",
    "getwebrequestnum",
    "moddatastore",
    "modproject",
    "revertdependent",
    "revertjob",
    "revertreq",
    "stopdependentjob",
    "updateaccesslevel",
    "updatedependent",
    "updatedomain",
    "updatejob",
    "updatereq",
    "updateuser",
]

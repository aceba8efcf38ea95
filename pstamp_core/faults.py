"""Fault codes, and the exceptions that carry them.

One number space serves requests, jobs, dependents and exit statuses: 0 is success, 1-9 are ours and may go away by
themselves (`psExit` of psLib), 10 and up are answers for the user and final (`pstamp.h`, `RequestFile.pm`).

::

    PstampError                 carries a fault code and one readable line
     +-- UserError              the request asks for what can't be: 10 and up, final
     |    +-- FinalError        the request is fine, but the answer is no: 10 and up, final
     +-- RetryableError         passing trouble of ours: 1-9
     |    +-- LeaseLost         the row is no longer ours; throw the result away
     |    +-- Stale             the row was changed since it was read; read it again
     +-- Bug                    an impossible state: 4, also retryable, but somebody should look
          +-- IllegalTransition an event that the machine does not allow: 5, since most often somebody asked for it
"""

from __future__ import annotations

from enum import IntEnum
from typing import Self


class Fault(IntEnum):
    """Every code that a request, job or dependent can carry.

    The names are those of `RequestFile.pm` and `psExit.h`; 31 has no name there, and 32 is ours.
    """

    sentence: str

    def __new__(cls, code: int, sentence: str) -> Self:
        """Make a member that is its number and knows its sentence."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.sentence = sentence
        return member

    PSTAMP_SUCCESS = 0, "The product was delivered."
    PS_EXIT_UNKNOWN_ERROR = 1, "The server failed in an unknown way."
    PS_EXIT_SYS_ERROR = 2, "A disk, network or system call failed."
    PS_EXIT_CONFIG_ERROR = 3, "The server is set up wrongly; its operators must look."
    PS_EXIT_PROG_ERROR = 4, "The server met a state that should not occur; its operators must look."
    PS_EXIT_DATA_ERROR = 5, "A file or value was damaged."
    PS_EXIT_TIMEOUT_ERROR = 6, "The work was lost or took too long."
    PSTAMP_SYSTEM_ERROR = 10, "The server failed for good on this item."
    PSTAMP_NOT_IMPLEMENTED = 11, "This combination of REQ_TYPE and IMG_TYPE is not implemented."
    PSTAMP_UNKNOWN_ERROR = 12, "The item failed for good for an unknown reason."
    PSTAMP_DUP_REQUEST = 20, "REQ_NAME is already in use; send the request again under another name."
    PSTAMP_INVALID_REQUEST = 21, "The row or the file is malformed."
    PSTAMP_UNKNOWN_PROJECT = 22, "There is no project of this name."
    PSTAMP_NO_IMAGE_MATCH = 23, "No image matches the row."
    PSTAMP_NOT_DESTREAKED = 24, "The image has not been cleared of satellite streaks."
    PSTAMP_NOT_AVAILABLE = 25, "The image exists, but can't be had now."
    PSTAMP_GONE = 26, "The image was deleted for good."
    PSTAMP_NO_JOBS_QUEUED = 27, "The request led to no jobs."
    PSTAMP_NO_OVERLAP = 28, "The position is not on the image."
    PSTAMP_NOT_AUTHORIZED = 29, "The access level of the user does not allow this."
    PSTAMP_NO_VALID_PIXELS = 30, "The region has no valid pixel."
    PSTAMP_BG_RESTORE_NOT_AVAILABLE = 31, "The background can't be restored for this image."
    PSTAMP_CANCELLED = 32, "The request or job was cancelled."


_BY_CODE = {int(member): member for member in Fault}

FIRST_FINAL = 10
"""The first final code; everything below it except 0 is retryable."""

RETRYABLE = range(1, FIRST_FINAL)


def is_retryable(fault: int) -> bool:
    """Tell whether `fault` is ours and may go away: 1-9."""
    return fault in RETRYABLE


def is_final(fault: int) -> bool:
    """Tell whether `fault` is a final answer for the user: 10 and up."""
    return fault >= FIRST_FINAL


def fault_name(fault: int) -> str:
    """Return the name of a code, or ``unknown`` for a number that has none (sub-programs can exit with any)."""
    return _BY_CODE[fault].name if fault in _BY_CODE else "unknown"


def fault_sentence(fault: int) -> str:
    """Return what a code tells the user."""
    return _BY_CODE[fault].sentence if fault in _BY_CODE else f"Code {fault} has no meaning of its own."


class PstampError(Exception):
    """Base of all exceptions of pstamp.

    Parameters
    ----------
    message : str
        One readable line: what is wrong, where, and what to do.
    fault : int, optional
        The code it ends in; each class has its own default.
    """

    default_fault: int = Fault.PS_EXIT_UNKNOWN_ERROR

    def __init__(self, message: str, fault: int | None = None) -> None:
        super().__init__(message)
        self.fault = int(self.default_fault if fault is None else fault)

    def __reduce__(self) -> tuple[type[PstampError], tuple[str, int]]:
        """Survive the way back from a worker process."""
        return type(self), (str(self), self.fault)


class UserError(PstampError):
    """The request asks for what can't be; the code (10 and up) is the user's answer."""

    default_fault = Fault.PSTAMP_INVALID_REQUEST


class FinalError(UserError):
    """The request is fine, but the answer is no, for good: no overlap, gone, not available."""

    default_fault = Fault.PSTAMP_NOT_AVAILABLE


class RetryableError(PstampError):
    """Passing trouble of ours (1-9): a disk, a network, a database."""

    default_fault = Fault.PS_EXIT_SYS_ERROR


class LeaseLost(RetryableError):  # noqa: N818 (an outcome, as `StopIteration` is)
    """The row was taken over, changed or closed by somebody else: stop, and throw the result away."""

    default_fault = Fault.PS_EXIT_TIMEOUT_ERROR


class Stale(RetryableError):  # noqa: N818 (an outcome)
    """A row was changed by somebody else since it was read: read again, decide again (a unit of work does so)."""


class Bug(PstampError):  # noqa: N818 (its name is its meaning)
    """An impossible state; fault 4."""

    default_fault = Fault.PS_EXIT_PROG_ERROR


class IllegalTransition(Bug):
    """An event that the machine does not allow in this state; the message lists the legal ways on."""

    default_fault = Fault.PS_EXIT_DATA_ERROR

"""What `pstamptool` and `labeltool` do: a function for each mode, named as the mode.

`lists` holds those that print rows, and needs the store alone; `changes` holds the others. Options come as keyword
arguments, by their names without the dash: those that were given, whatever their value, and those with a default.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from pstamp_core.faults import Fault, RetryableError
from pstamp_core.store import Store

if TYPE_CHECKING:
    from pstamp_core.settings import Settings


@contextmanager
def opened(settings: Settings) -> Iterator[Store]:
    """Use the server's database, through one connection, after making sure that it answers and has our tables.

    Raises
    ------
    RetryableError
        Fault 3 (`pxerrors.c`: no database is a wrong configuration); the message says how another one is named. Fault
        2: it went away meanwhile.
    """
    from pstamp_core.database import must_exist
    from pstamp_core.store.migrations import check_version

    with ExitStack() as stack:
        try:
            must_exist(settings.address)
            store = Store(settings.address)
            stack.enter_context(store.reading())
            check_version(store)
        except RetryableError as error:
            how = "is it the right one? -dbname, -dbserver, PSTAMP_DB or the home (-home, PSTAMP_HOME) names another"
            raise RetryableError(f"{error}; {how}", Fault.PS_EXIT_CONFIG_ERROR) from error
        yield store

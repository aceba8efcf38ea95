"""The safeguards of the store, each to be switched off: a pytest plugin.

``PSTAMP_MUTANT=fence pytest -p mutants ...`` runs tests without the fence; they ought to fail.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import pytest

from pstamp_core.machines import Event, Guard, machine
from pstamp_core.store import Store, fire, store
from pstamp_core.tasks import jobs

fire_module = sys.modules[fire.__module__]


def _guards_that_hold(*guards: Guard) -> Any:
    return mock.patch.dict(machine._TESTS, dict.fromkeys(guards, mock.Mock(return_value=True)))


def _update_without(*columns: str) -> Any:
    """The UPDATE does not look whether these columns are as they were seen."""
    seen = fire_module._seen

    def blind(*args: Any) -> dict[str, Any]:
        return {name: value for name, value in seen(*args).items() if name not in columns}

    return mock.patch.object(fire_module, "_seen", blind)


@contextmanager
def fence() -> Iterator[None]:
    with _update_without("attempt", "lease_owner"), _guards_that_hold(Guard.HELD):
        yield


@contextmanager
def history_in_the_transaction() -> Iterator[None]:
    """The lines are written after the rows, in a transaction of their own."""
    record, work, late = fire_module._record, Store.work, []

    def work_then_record(self: Store, unit: Callable[[], Any]) -> Any:
        result = work(self, unit)
        if not self.db.in_transaction():
            lines, late[:] = late[:], []
            work(self, lambda: [record(*line) for line in lines])
        return result

    with (
        mock.patch.object(fire_module, "_record", lambda *line: late.append(line)),
        mock.patch.object(Store, "work", work_then_record),
    ):
        yield


def lease_check_before_the_rename() -> Any:
    def unchecked(rows: Any, event: Event, *args: Any, **kwargs: Any) -> Any:
        return rows if event is Event.HEARTBEAT else fire(rows, event, *args, **kwargs)

    return mock.patch.object(jobs, "fire", unchecked)


FIRE, MACHINES = "tests/test_store_fire.py::", "tests/test_machines.py::"
OVERTAKEN = f"{FIRE}test_a_worker_that_was_overtaken_gets_lease_lost"

MUTANTS: dict[str, tuple[Callable[[], Any], str]] = {
    "fence": (fence, "tests/test_store_properties.py::test_a_late_finish_is_refused"),
    "attempt in the UPDATE": (lambda: _update_without("attempt"), OVERTAKEN),
    "owner in the UPDATE": (lambda: _update_without("lease_owner"), OVERTAKEN),
    "guard of the lease": (lambda: _guards_that_hold(Guard.HELD), f"{MACHINES}test_a_guard_refuses"),
    "source state in the UPDATE": (lambda: _update_without("state"), OVERTAKEN),
    "guards": (lambda: _guards_that_hold(*Guard), f"{MACHINES}test_a_guard_refuses"),
    "history in the transaction": (
        history_in_the_transaction, f"{FIRE}test_without_its_line_of_history_no_row_changes",
    ),
    "triggers": (
        lambda: mock.patch.object(store, "triggers", return_value=()),
        "tests/test_store_properties.py::test_what_no_machine_allows_is_refused_by_hand_too",
    ),
    "lease check before the rename": (
        lease_check_before_the_rename, "tests/test_tasks_demo.py::test_a_late_worker_publishes_nothing",
    ),
}  # fmt: skip
"""How a safeguard is switched off, and the test that notices."""

_off = ExitStack()


def pytest_configure(config: pytest.Config) -> None:
    if name := os.environ.get("PSTAMP_MUTANT"):
        switch, _ = MUTANTS[name]
        _off.enter_context(switch())


def pytest_unconfigure(config: pytest.Config) -> None:
    _off.close()

"""Faults ordered in advance: what is to go wrong when a component of a simulated survey is made again.

The orders are a small JSON file in the survey's folder; whoever reads or changes it is alone there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from pstamp_core.faults import Fault, RetryableError, UserError
from pstamp_core.files import write_text

_FILE = "orders.json"
_STAGES = ("chip", "warp", "diff", "destreak")


class What(Enum):
    """What goes wrong."""

    FAIL = "fail"
    """It ends with a fault."""

    HANG = "hang"
    """It sleeps until it is killed."""

    VANISH = "vanish"
    """The files of its inputs are deleted, so that it fails for want of them."""

    PURGE = "purge"
    """Its run and component are set `purged` in the database while it is made."""

    NOTHING = "nothing"
    """An earlier order is taken back."""


@dataclass(frozen=True)
class Order:
    """One order.

    Attributes
    ----------
    what : What
    times : int
        In how many runs; 0: in all.
    fault : int
        What a failing one ends with.
    """

    what: What
    times: int = 0
    fault: int = int(Fault.PS_EXIT_SYS_ERROR)


def place(folder: Path, stage: str, stage_id: int, component: str, order: Order) -> None:
    """Order what the next runs of `simtest.process` for a component do, instead of an earlier order.

    Raises
    ------
    UserError
        Fault 21: no such stage or component, or a number is out of range.
    RetryableError
        Fault 2: no survey, or the orders can't be written.
    """
    if stage not in _STAGES:
        raise UserError(f"order for {stage}: expected one of {', '.join(_STAGES)}")
    if not 0 <= order.times <= 999:
        raise UserError(f"order for {order.times} runs: expected 1 to 999, or 0 for all")
    if not 1 <= order.fault <= 99:
        raise UserError(f"order of fault {order.fault}: expected 1 to 99")
    from simtest.components import in_database, plan_of, states

    plan_of(folder)
    of = "chip" if stage == "destreak" else stage
    if in_database(folder, lambda: states(of, stage_id, component)) is None:
        raise UserError(f"order for {stage} {stage_id} {component}: there is no such component")
    with _orders(folder) as orders:
        _set(orders, f"{stage} {stage_id} {component}", order)


def take(folder: Path, stage: str, stage_id: int, component: str) -> Order | None:
    """Return what is ordered for this run for a component, if anything, and count it."""
    key = f"{stage} {stage_id} {component}"
    with _orders(folder) as orders:
        if key not in orders:
            return None
        found = dict(orders[key])
        order = Order(What(found.pop("what")), **found)
        if order.times:
            left = Order(order.what, order.times - 1, order.fault)
            _set(orders, key, left if left.times else Order(What.NOTHING))
        return order


def _set(orders: dict[str, dict[str, Any]], key: str, order: Order) -> None:
    orders.pop(key, None)
    if order.what is not What.NOTHING:
        orders[key] = {**asdict(order), "what": order.what.value}


@contextmanager
def _orders(folder: Path) -> Iterator[dict[str, dict[str, Any]]]:
    """Give the orders of a survey, and write them back if they were changed."""
    from simtest.making import alone

    path = folder / _FILE
    try:
        with alone(folder):
            text = path.read_text(encoding="utf-8") if path.exists() else "{}"
            orders = json.loads(text)
            yield orders
            if not orders:
                path.unlink(missing_ok=True)
            elif (new := json.dumps(orders, indent=1)) != text:
                write_text(path, new)
    except (OSError, ValueError) as error:
        raise RetryableError(f"orders {path}: {error}") from error

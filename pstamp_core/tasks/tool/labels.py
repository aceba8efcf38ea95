"""What `labeltool` does: a function for each mode, named as the mode (`labeltool.c`).

Names of labels compare without regard to case, as in IPP's tables, so that there is one spelling of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peewee import fn

from pstamp_core.faults import Fault, PstampError
from pstamp_core.store import Label, Store
from pstamp_core.tasks.tool.filters import Compare, Filter, conditions, values_of, wrong_usage
from pstamp_core.tasks.tool.rows import Rows

_COLUMNS = (("label", "STR"), ("priority", "S32"), ("active", "BOOL"), ("comment", "STR"))
_TEXTS = {"label": Label.label, "comment": Label.comment, "priority": Label.priority}


def definelabel(store: Store, *, inactive: bool = False, **options: Any) -> Rows:
    """Add a label; it is active unless `inactive`. Returns its row.

    Raises
    ------
    PstampError
        Fault 1: it is there already. Fault 3: a text is too long, or the name is empty.
    """
    values = values_of(options, _TEXTS)

    def work() -> None:
        if found := _find(values["label"]):
            raise PstampError(f"-definelabel: there is a label {found.label} already", Fault.PS_EXIT_UNKNOWN_ERROR)
        Label.create(**values, active=not inactive)

    store.work(work)
    with store.reading():
        return _rows([Label.label == values["label"]], [], 0)


def updatelabel(store: Store, *, label: str, active: bool = False, inactive: bool = False, **options: Any) -> None:
    """Change priority, comment, or whether a label is active.

    Raises
    ------
    PstampError
        Fault 1: nothing to change. Fault 3: both `active` and `inactive`, or a text is too long. Fault 5: there is no
        such label.
    """
    if active and inactive:
        raise wrong_usage("-updatelabel: -active and -inactive exclude each other")
    values = values_of(options, _TEXTS)
    if active or inactive:
        values["active"] = active
    if not values:
        raise PstampError(
            "-updatelabel: nothing to change; give one of -priority, -active, -inactive, -comment",
            Fault.PS_EXIT_UNKNOWN_ERROR,
        )
    store.work(lambda: Label.update(values).where(Label.label == _must_find("updatelabel", label).label).execute())


def deletelabel(store: Store, *, label: str) -> None:
    """Remove a label: what has it goes on with the default priority.

    Raises
    ------
    PstampError
        Fault 5: there is no such label.
    """
    store.work(lambda: Label.delete().where(Label.label == _must_find("deletelabel", label).label).execute())


def listlabel(
    store: Store,
    *,
    active: bool = False,
    inactive: bool = False,
    highest_first: bool = False,
    lowest_first: bool = False,
    limit: int = 0,
    **options: Any,
) -> Rows:
    """List labels, by name or by priority.

    Raises
    ------
    PstampError
        Fault 3: two options exclude each other.
    """
    for one, two, names in (
        (active, inactive, "-active and -inactive"),
        (highest_first, lowest_first, "-highest_first and -lowest_first"),
    ):
        if one and two:
            raise wrong_usage(f"-listlabel: {names} exclude each other")
    wanted = conditions(options, [Filter("label", Label.label, Compare.LIKE)])
    if active or inactive:
        wanted.append(Label.active == active)
    by_priority = [Label.priority.desc()] if highest_first else [Label.priority] if lowest_first else []
    with store.reading():
        return _rows(wanted, by_priority, limit)


def _rows(wanted: Sequence[Any], order: Sequence[Any], limit: int) -> Rows:
    labels = Label.select(*(getattr(Label, name) for name, _ in _COLUMNS))
    if wanted:
        labels = labels.where(*wanted)
    found: Any = labels.order_by(*order, Label.label).limit(limit or None).tuples()
    return Rows("Label", _COLUMNS, list(found))


def _find(name: str) -> Label | None:
    found: Label | None = Label.get_or_none(fn.LOWER(Label.label) == fn.LOWER(name))
    return found


def _must_find(mode: str, name: str) -> Label:
    found = _find(name)
    if found is None:
        raise PstampError(f"-{mode}: there is no label {name}", Fault.PS_EXIT_DATA_ERROR)
    return found

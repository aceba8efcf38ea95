"""Options of `pstamptool` as conditions by which rows are selected, and as values of columns.

Values are bound. All conditions must hold; only the values of one option that is repeated are alternatives (in IPP all
that was said of one column was, `psDB.c`). Text compares without regard to case, as in IPP's latin1 tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from functools import reduce
from operator import eq, ge, le, ne, or_
from typing import Any, NamedTuple

from peewee import SQL, CharField, NodeList, TextField, Value, fn

from pstamp_core.faults import Fault, PstampError
from pstamp_core.store.tables import StateField


class Compare(Enum):
    """How a column is compared with the value of an option."""

    EQUAL = "="
    UNEQUAL = "!="
    LIKE = "LIKE"
    """``%`` stands for any run of characters, ``_`` for any one, ``\\`` before one of them for itself."""
    AT_LEAST = ">="
    AT_MOST = "<="


_OPERATORS = {Compare.EQUAL: eq, Compare.UNEQUAL: ne, Compare.AT_LEAST: ge, Compare.AT_MOST: le}


class Filter(NamedTuple):
    """An option by which rows are selected.

    Attributes
    ----------
    option : str
        Its name, without the dash.
    column : peewee.Field
        What it is compared with.
    compare : Compare
        How.
    """

    option: str
    column: Any
    compare: Compare = Compare.EQUAL

    def condition(self, given: Any) -> Any:
        """Return the condition for the value of the option, or for any of several.

        Raises
        ------
        PstampError
            Fault 3: there is no such state.
        """
        return reduce(or_, [self._one(value) for value in (given if isinstance(given, list) else [given])])

    def _one(self, value: Any) -> Any:
        column = self.column
        if value == "":
            return column.is_null()
        if isinstance(column, StateField):
            return column == state_of(self.option, column, value)
        if not isinstance(column, (CharField, TextField)):
            return _OPERATORS[self.compare](column, value)
        if self.compare is Compare.LIKE:
            # Each engine on its own has another escape character, and another idea of case.
            pattern = NodeList((fn.LOWER(value), SQL("ESCAPE"), Value("\\")))
            return NodeList((fn.LOWER(column), SQL("LIKE"), pattern), parens=True)
        return _OPERATORS[self.compare](fn.LOWER(column), fn.LOWER(value))


def conditions(options: Mapping[str, Any], filters: Sequence[Filter]) -> list[Any]:
    """Return the conditions for those of `filters` whose option was given, whatever its value.

    Parameters
    ----------
    options : mapping of str to Any
        What the command line says, by name without the dash; a value is a list where an option may be repeated. An
        empty text stands for NULL.
    filters : sequence of Filter
        What the mode knows.

    Raises
    ------
    PstampError
        Fault 3: there is no such state.
    """
    return [each.condition(options[each.option]) for each in filters if each.option in options]


def values_of(options: Mapping[str, Any], columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the columns whose option was given, by the names of the columns.

    Parameters
    ----------
    options : mapping of str to Any
        What the command line says, by name without the dash; an empty text stands for NULL.
    columns : mapping of str to peewee.Field
        The column of each option that the mode knows.

    Raises
    ------
    PstampError
        Fault 3: a text that is too long for its column, or empty where it may not be.
    """
    return {
        column.name: _checked(option, column, options[option])
        for option, column in columns.items()
        if option in options
    }  # fmt: skip


def _checked(option: str, column: Any, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if len(value) > column.max_length:  # SQLite would keep it all
        raise wrong_usage(f"-{option}: {len(value)} characters; expected at most {column.max_length}")
    if not value and not column.null:
        raise wrong_usage(f"-{option}: expected a text that is not empty")
    return value or None


def wrong_usage(message: str) -> PstampError:
    """Return the error of a command line that makes no sense; fault 3, as in `pxerrors.c`."""
    return PstampError(message, Fault.PS_EXIT_CONFIG_ERROR)


def state_of(option: str, column: StateField, value: str) -> Enum:
    """Return the state that the value of an option names.

    Raises
    ------
    PstampError
        Fault 3: there is none of this name.
    """
    try:
        return column.states(value.lower())
    except ValueError:
        known = ", ".join(each.value for each in column.states)
        raise wrong_usage(f"-{option} {value}: expected one of {known}") from None

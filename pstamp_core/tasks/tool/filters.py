"""What the modes of `pstamptool` select rows by: options of the command line become conditions with bound values.

All conditions must hold; only the values of one option that is repeated are alternatives (`pxtools.h`, where other
conditions on one column were alternatives, too). Text compares without regard to case, as in IPP's latin1 tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import reduce
from operator import eq, ge, le, ne, or_
from typing import Any

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


@dataclass(frozen=True)
class Filter:
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
            Fault 3: a state that does not exist, or a negative fault.
        """
        return reduce(or_, [self._one(value) for value in (given if isinstance(given, list) else [given])])

    def _one(self, value: Any) -> Any:
        column = self.column
        if value == "":
            return column.is_null()
        if isinstance(column, StateField):
            return column == state_of(self.option, column, value)
        if not isinstance(column, (CharField, TextField)):
            if column.name == "fault":
                must_be_a_fault(self.option, value)
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
        Fault 3: a state that does not exist, or a negative fault.
    """
    return [each.condition(options[each.option]) for each in filters if each.option in options]


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


def must_be_a_fault(option: str, value: int) -> None:
    """Raise unless `value` can be a fault (IPP's SMALLINT, which took negative ones).

    Raises
    ------
    PstampError
        Fault 3: it is negative or too large.
    """
    if not 0 <= value < 2**15:
        raise wrong_usage(f"-{option} {value}: expected a fault, 0 to 32767")

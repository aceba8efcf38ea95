"""`labeltool`: the table Label, which says how urgent the work under a label is, and whether it is handed out.

The modes do what IPP's `labeltool` does; the spelling of its options was not at hand, so that it is ours.

Exit status: 0 done; 1 nothing to change, or the label is there already; 2 the database failed while at work; 3 wrong
command line, wrong configuration, no such database; 5 there is no such label.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runners.ippargs import FLAG, Program, run

if TYPE_CHECKING:
    from pstamp_core.settings import Settings
    from pstamp_core.tasks.tool.rows import Rows

MODES = {
    "definelabel": ("add a label; prints its row", "label!3 priority!3 inactive comment simple"),
    "updatelabel": ("change a label", "label!3 priority active inactive comment"),
    "deletelabel": ("remove a label: what has it goes on with priority 10000", "label!3"),
    "listlabel": ("list the labels", "label* active inactive highest_first lowest_first limit=0 simple"),
}
LABELTOOL = Program(
    "labeltool",
    __doc__.partition("\n\n")[2].strip(),
    MODES,
    {
        "priority": (-(2**31), 2**31 - 1),
        "limit": (0, 2**63 - 1),
        **dict.fromkeys(("simple", "active", "inactive", "highest_first", "lowest_first"), FLAG),
    },
)


def call(mode: str, settings: Settings, options: dict[str, Any]) -> Rows | None:
    """Do what a mode does."""
    from pstamp_core.tasks.tool import labels, opened

    with opened(settings) as store:
        found: Rows | None = getattr(labels, mode)(store, **options)
        return found


def main() -> None:
    """Run `labeltool`."""
    run(LABELTOOL, call)

"""Every task, killed by SIGKILL at every statement, commit and file operation: afterwards all ends as if it had lived.

A process is forked for each point and dies there. What it leaves is looked at first: nothing half-done is public, and
no row promises what is not there. Then everything goes on, and the end is that of an undisturbed run: rows, and files
byte for byte; times and attempts aside. PSTAMP_OVERNIGHT=1 takes all points on both engines. Without it, MariaDB gets
every third, and the long tasks leave out statements that leave nothing by themselves (`killed_at`, `every`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count

import mariadb
import pytest
from conftest import check_history
from worlds import World

from pstamp_core.faults import UserError
from pstamp_core.machines import Event
from pstamp_core.store import MACHINES, fire, pstampDependent, pstampJob, pstampRequest
from pstamp_core.tasks.clean import clean_requests
from pstamp_core.tasks.dependents import check_dependents
from pstamp_core.tasks.finish import finish_requests
from pstamp_core.tasks.jobs import run_jobs
from pstamp_core.tasks.operate import expire
from pstamp_core.tasks.parse import parse_requests
from pstamp_core.tasks.retry import give_up, reap, revert
from pstamp_core.tasks.server import Server
from pstamp_core.tasks.submit import submit
from pstamp_core.testing.killpoints import killed_at

OVERNIGHT = os.environ.get("PSTAMP_OVERNIGHT") == "1"
STRIDE = {"sqlite": 1, "mysql": 1 if OVERNIGHT else 3}

# a fork of pytest's own process, which may have threads that wait
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


# -- before each task


def nothing(world: World) -> None:
    pass


def submitted(world: World) -> None:
    with world.serving() as server:
        submit(server, world.request)


def parsed(world: World) -> None:
    submitted(world)
    with world.serving() as server:
        parse_requests(server, 100)


def made_again(world: World) -> None:
    parsed(world)
    world.set_warp("full")


def purged(world: World) -> None:
    parsed(world)
    world.set_warp("purged")


def all_cut(world: World) -> None:
    made_again(world)
    with world.serving() as server:
        check_dependents(server, 100)
        cut_all(server)


def expired(world: World) -> None:
    """Published, and no more wanted."""
    all_cut(world)
    with world.serving() as server:
        finish_requests(server, 100)
        expire(server, 1, "ana")


def leased(world: World) -> None:
    """The request, two jobs and the dependent belong to workers who will not come back."""
    parsed(world)
    take(world)
    world.clock.forward(601)


def faulted(world: World) -> None:
    """The same have failed, and may be tried again."""
    parsed(world)
    take(world, fault=2)
    world.clock.forward(60)


def used_up(world: World) -> None:
    """Two jobs and the dependent have failed too often."""
    parsed(world)
    for _ in range(3):
        take(world, pstampJob, pstampDependent, fault=2)
        world.clock.forward(60)
        if _ < 2:
            with world.serving() as server:
                revert(server)


def unreadable(world: World) -> None:
    """The request has failed too often to be parsed."""
    submitted(world)
    for _ in range(3):
        take(world, pstampRequest, fault=2)
        world.clock.forward(60)
        if _ < 2:
            with world.serving() as server:
                revert(server)


def take(world: World, *tables: type, fault: int = 0) -> None:
    """Claim the first rows of each table, and fail with them."""
    with world.serving() as server, server.store.reading():
        for table in tables or (pstampRequest, pstampJob, pstampDependent):
            rows = list(table.select().where(table.state.in_(MACHINES[table].sources(Event.CLAIM))).limit(2))

            def work(rows: list = rows) -> None:
                claimed = fire(rows, Event.CLAIM, server.args())
                if fault:
                    fire(claimed, Event.FAULT, server.args(fault=fault), note="for the test")

            server.store.work(work)


# -- the tasks


def send(server: Server, world: World) -> None:
    submit(server, world.request)


def parse(server: Server, world: World) -> None:
    parse_requests(server, 100)


def cut_all(server: Server, world: World | None = None) -> None:
    while run_jobs(server, 100):
        pass


def check(server: Server, world: World) -> None:
    check_dependents(server, 100)


def finish(server: Server, world: World) -> None:
    finish_requests(server, 100)


def clean(server: Server, world: World) -> None:
    clean_requests(server, 100)


def try_again(server: Server, world: World) -> None:
    revert(server)


def end_it(server: Server, world: World) -> None:
    give_up(server)


def find_lost(server: Server, world: World) -> None:
    reap(server)


TASKS: dict[str, tuple[Callable[[World], None], Callable[[Server, World], None], int]] = {
    "submit": (nothing, send, 10),
    "parse": (submitted, parse, 12),
    "run jobs": (parsed, cut_all, 18),
    "check, still deleted": (parsed, check, 5),
    "check, made again": (made_again, check, 5),
    "check, gone": (purged, check, 5),
    "finish": (all_cut, finish, 50),
    "clean": (expired, clean, 15),
    "revert": (faulted, try_again, 8),
    "give up": (used_up, end_it, 8),
    "give up parsing": (unreadable, end_it, 5),
    "reap": (leased, find_lost, 8),
}
"""What leads to each task, the task, and how many points it has at least."""

LONG = ("submit", "parse", "run jobs", "finish", "clean")


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[dict[str, World]]:
    """A world on each engine."""
    with mariadb.database(request.getfixturevalue("mysql_server")) as address:
        yield {
            "sqlite": World(tmp_path_factory.mktemp("sqlite")),
            "mysql": World(tmp_path_factory.mktemp("mysql"), address),
        }


@pytest.mark.parametrize("task", TASKS)
def test_a_death_anywhere_changes_nothing_of_the_end(worlds: dict[str, World], engine: str, task: str) -> None:
    world = worlds[engine]
    prepare, act, least = TASKS[task]

    def action() -> None:
        with world.serving() as server:
            act(server, world)

    def go_on() -> None:
        if task == "submit":
            submit_again(world)
        world.recover()

    world.begin()
    prepare(world)
    world.save(task)
    action()
    go_on()
    end = world.state()
    assert [row[0].value for row in end["pstampRequest"]] == ["cleaned" if task == "clean" else "stop"]
    assert not [name for name in end if name.endswith(".tmp")]
    for point in count(1, STRIDE[engine]):
        world.restore(task)
        died = killed_at(point, action, every=OVERNIGHT or task not in LONG)
        if died is None:
            break
        world.look()
        go_on()
        state = world.state()
        different = {name: (state.get(name), end.get(name)) for name in state | end if state.get(name) != end.get(name)}
        assert not different, (point, died)
        with world.serving() as server, server.store.reading():
            for table in MACHINES:
                check_history(table)
    assert point > least


def submit_again(world: World) -> None:
    """What a user does who was told no number: sends the file again."""
    world.reuse_numbers()
    with world.serving() as server, suppress(UserError):  # the name is in use, by its own request
        submit(server, world.request)

"""Requests that come from an account: whose they are, how many, what may be seen; and files as old programs write them.

What touches the database runs on both engines; what needs images, on the simulated survey.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Barrier, BrokenBarrierError, Thread
from typing import Any

import pytest
from astropy.io import fits
from conftest import Rows
from servers import codes, row, sentences

from pstamp_core.faults import Fault, UserError
from pstamp_core.formats import Finding, parse_text, write_request
from pstamp_core.machines import RequestState
from pstamp_core.settings import Settings
from pstamp_core.store import (
    Store,
    pstampAccessLevel,
    pstampHistory,
    pstampJob,
    pstampProject,
    pstampRequest,
    pstampSender,
    pstampUser,
    pstampUserDomain,
)
from pstamp_core.tasks import submit as submitting
from pstamp_core.tasks.accounts import Account, add_account
from pstamp_core.tasks.parse import look_up_user, parse_requests
from pstamp_core.tasks.run import run
from pstamp_core.tasks.server import Server
from pstamp_core.tasks.submit import check_file, insert_request, submit, web_request
from simtest.survey import Survey

PASSWORD = "correct horse battery"
A_ROW = "{} 150.12 2.21 60 60 0 stamp 65 {} null null bycoord stack null null null null i 0 0 null 0 0"


def write(path: Path, *rows: str, name: str = "", email: str = "null") -> Path:
    """Write a request file named after its request."""
    lines = [f"{name or path.stem} 2 PROCESS {email}", *(rows or (A_ROW.format(1, "gpc1"),))]
    write_request(path, parse_text("\n".join(lines))[0])
    return path


def many(number: int) -> list[str]:
    return [A_ROW.format(n, "gpc1") for n in range(1, number + 1)]


def refusal(act: Callable[..., object], *args: Any, fault: Fault = Fault.PSTAMP_NOT_AUTHORIZED, **values: Any) -> str:
    with pytest.raises(UserError) as caught:
        act(*args, **values)
    assert caught.value.fault == fault
    return str(caught.value)


def columns_of(server: Server, number: int) -> dict[str, Any]:
    with server.store.reading():
        found: dict[str, Any] = pstampRequest.get_by_id(number).__data__
    return found


@pytest.fixture
def plain(store: Store, tmp_path: Path) -> Server:
    """A server on either engine, without projects."""
    return Server(Settings(tmp_path / "home", max_open_rows=10), store)


@pytest.fixture
def ana(plain: Server) -> Account:
    return add_account(plain, "ana@obs.edu", PASSWORD)


def files(server: Server) -> list[str]:
    return sorted(path.name for path in server.settings.work.glob("webreq/*/*/*/*"))


# -- whose it is


def test_a_request_is_its_senders(plain: Server, ana: Account, tmp_path: Path) -> None:
    numbers = [
        submit(plain, write(tmp_path / "a.fits"), sender=ana),
        insert_request(plain, write(tmp_path / "b.fits", *many(2), email="Ana@OBS.edu"), sender=ana)[0],
        web_request(plain, lambda name, file: write(file, *many(3), name=name), sender=ana, username="bob")[0],
        submit(plain, write(tmp_path / "d.fits", email="ana@obs.edu")),
        insert_request(plain, write(tmp_path / "e.fits", email="bob@obs.edu"))[0],
        web_request(plain, lambda name, file: write(file, name=name), username="bob")[0],
    ]
    found = [
        (columns_of(plain, number or 0)["username"], columns_of(plain, number or 0)["label"]) for number in numbers
    ]
    assert found == [
        ("ana@obs.edu", "LOCAL"), ("ana@obs.edu", "WEB.UP"), ("ana@obs.edu", "WEB"), (None, "LOCAL"), (None, "WEB.UP"),
        ("bob", "WEB"),
    ]  # fmt: skip
    sent = [(row.req_id, row.account, row.num_rows) for row in pstampSender.select().order_by(pstampSender.req_id)]
    assert sent == [(numbers[0], ana.account_id, 1), (numbers[1], ana.account_id, 2), (numbers[2], ana.account_id, 3)]
    makers = {row.row_id: row.who for row in pstampHistory.select()}
    assert (makers[numbers[0]], makers[numbers[3]], makers[numbers[5]]) == ("ana@obs.edu", plain.worker, "bob")


def test_a_file_of_somebody_else_is_refused(plain: Server, ana: Account, tmp_path: Path) -> None:
    file = write(tmp_path / "a.fits", email="Bob@obs.edu")
    said = "EMAIL is 'Bob@obs.edu'; it is not that of ana@obs.edu, who sends it: put that into the file, or none (null)"
    assert refusal(submit, plain, file, sender=ana) == f"a.fits: {said}"
    assert refusal(insert_request, plain, file, sender=ana) == f"a.fits: {said}"

    def make(name: str, file: Path) -> object:
        return write(file, name=name, email="Bob@obs.edu")

    assert refusal(web_request, plain, make, sender=ana) == f"web_1.fits: {said}"
    assert pstampRequest.select().count() == pstampSender.select().count() == 0
    assert files(plain) == []


# -- quotas


def test_open_rows_are_counted(plain: Server, ana: Account, tmp_path: Path) -> None:
    bob = add_account(plain, "bob@obs.edu", PASSWORD)
    submit(plain, write(tmp_path / "a.fits", *many(7)), sender=ana)
    too_many = write(tmp_path / "b.fits", *many(4))
    said = (
        "b.fits: the number of rows is 4; your requests that are not finished have 7, and a user may have 10 at a "
        "time; wait until some are finished, cancel some, or send fewer rows"
    )
    assert refusal(submit, plain, too_many, sender=ana) == said
    assert refusal(insert_request, plain, too_many, sender=ana) == said
    made = refusal(web_request, plain, lambda name, file: write(file, *many(4), name=name), sender=ana)
    assert made == said.replace("b.fits", "web_4.fits")
    assert files(plain) == ["web_1.fits"]
    submit(plain, write(tmp_path / "c.fits", *many(3)), sender=ana)
    assert "the number of rows is 1; your requests that are not finished have 10" in refusal(
        submit, plain, write(tmp_path / "d.fits"), sender=ana
    )
    submit(plain, too_many, sender=bob)
    submit(plain, write(tmp_path / "e.fits", *many(20)))  # nobody's


def test_rows_count_while_their_request_is_not_done(plain: Server, ana: Account, tmp_path: Path, rows: Rows) -> None:
    file = write(tmp_path / "a.fits", *many(3))
    counted = {}
    for state in RequestState:
        pstampSender.delete().execute()
        pstampSender.create(req_id=rows.request(state).req_id, account_id=ana.account_id, num_rows=8)
        counted[state] = [each.sentence for each in check_file(plain, file, ana) if each.column == "the number of rows"]
    assert {state for state, said in counted.items() if said} == {
        RequestState.NEW, RequestState.PARSED, RequestState.RUN,
    }  # fmt: skip


@pytest.mark.parametrize(("limit", "groups"), [(0, []), (10, ["operators"])])
def test_no_limit_and_operators(plain: Server, tmp_path: Path, limit: int, groups: list[str]) -> None:
    plain.settings = replace(plain.settings, max_open_rows=limit)
    joe = add_account(plain, "joe@obs.edu", PASSWORD, groups)
    for number in range(2):
        submit(plain, write(tmp_path / f"{number}.fits", *many(8)), sender=joe)
    assert [row.num_rows for row in pstampSender.select()] == [8, 8]


def test_a_file_of_too_many_rows_is_refused(plain: Server, ana: Account, tmp_path: Path) -> None:
    plain.settings = replace(plain.settings, max_rows=3)
    said = "a.fits: the table has 4 rows (NAXIS2); expected at most 3, so send it in parts"
    file = write(tmp_path / "a.fits", *many(4))
    for sender in (ana, None):
        assert refusal(insert_request, plain, file, sender=sender, fault=Fault.PSTAMP_INVALID_REQUEST) == said
        assert [each.sentence for each in check_file(plain, file, sender)] == [said]


def test_two_that_come_at_the_same_time_do_not_share_a_place(
    plain: Server, ana: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits, after the rows were counted, for the other to count them, too, for a while."""
    meeting, count = Barrier(2), submitting._over_quota

    def counted(*args: Any) -> Any:
        found = count(*args)
        try:
            meeting.wait(0.5)
        except BrokenBarrierError:
            meeting.abort()
        return found

    monkeypatch.setattr(submitting, "_over_quota", counted)
    told: list[object] = []

    def send(file: Path) -> None:
        try:
            told.append(submit(plain, file, sender=ana))
        except UserError as error:
            told.append(error.fault)
        finally:
            plain.store.db.close()

    threads = [Thread(target=send, args=(write(tmp_path / f"{n}.fits", *many(6)),)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told, key=str) == [1, Fault.PSTAMP_NOT_AUTHORIZED]
    assert [row.num_rows for row in pstampSender.select()] == [6]


def test_an_answer_of_the_database_that_was_lost_counts_nothing_twice(
    plain: Server, ana: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction was stored, and its work is done again."""
    work = plain.store.work

    def twice(act: Callable[[], Any]) -> Any:
        assert work(act) is not None
        return work(act)

    monkeypatch.setattr(plain.store, "work", twice)
    number = submit(plain, write(tmp_path / "a.fits", *many(6)), sender=ana)
    assert [(row.req_id, row.num_rows) for row in pstampSender.select()] == [(number, 6)]


# -- who may see what (on the survey)


@pytest.fixture
def restricted(server: Server, survey: Survey) -> Server:
    """A domain of level 2 with product and label, level 1 up to a date in the middle, and level 3 without access."""

    def work() -> None:
        project = pstampProject.get(pstampProject.name == "gpc1")
        middle = sorted(survey.mjd)[2] + 1.0
        of_level = pstampAccessLevel.accessLevel == 1
        pstampAccessLevel.update(mjd_max=middle).where((pstampAccessLevel.proj_id == project) & of_level).execute()
        pstampAccessLevel.create(proj_id=project.proj_id, accessLevel=2)
        pstampAccessLevel.create(proj_id=project.proj_id, accessLevel=3, mjd_max=-1.0)
        pstampUserDomain.create(domainName="rich.edu", accessLevel=2, defaultProduct="rich_p", defaultLabel="RICH")
        pstampUser.create(userName="poor", domainName="rich.edu", accessLevel=3)
        pstampUser.create(userName="out", domainName="rich.edu", accessLevel=-1)

    server.store.work(work)
    return server


def chip(number: int, survey: Survey, exposure: int, **other: Any) -> str:
    """A row for a chip of one exposure."""
    x, y = survey.galaxy
    return row(number, survey, req="byexp", img="chip", id=survey.exposures[exposure], filter="null", x=x, y=y, **other)


def test_access_product_and_label_are_the_senders(restricted: Server, survey: Survey, tmp_path: Path) -> None:
    rows = [chip(1, survey, 0), chip(2, survey, 5)]
    rich, other = (add_account(restricted, email, PASSWORD) for email in ("ann@rich.edu", "ann@obs.edu"))
    numbers = {
        "rich": insert_request(restricted, write(tmp_path / "a.fits", *rows), sender=rich)[0],
        "other": insert_request(restricted, write(tmp_path / "b.fits", *rows), sender=other)[0],
        "nobody": insert_request(restricted, write(tmp_path / "c.fits", *rows, email="Ann@Rich.edu"))[0],
        "none": insert_request(restricted, write(tmp_path / "d.fits", *rows))[0],
    }
    run(restricted, workers=1)
    assert {who: codes(restricted, number) for who, number in numbers.items()} == {
        "rich": {1: [0], 2: [0]}, "other": {1: [0], 2: [29]}, "nobody": {1: [0], 2: [0]}, "none": {0: [29]},
    }  # fmt: skip
    found = {who: columns_of(restricted, number) for who, number in numbers.items()}
    assert {who: (each["username"], each["label"], each["outProduct"]) for who, each in found.items()} == {
        "rich": ("ann@rich.edu", "RICH", "rich_p"), "other": ("ann@obs.edu", "WEB.UP", "pstamp_results"),
        "nobody": ("ann@rich.edu", "RICH", "rich_p"), "none": (None, "WEB.UP", "pstamp_results"),
    }  # fmt: skip
    assert sentences(restricted, numbers["other"])[2] == (
        f"row 2: {survey.exposures[5]} is of MJD {survey.mjd[5]:.3f}; your access level may see nothing later than MJD "
        f"{sorted(survey.mjd)[2] + 1.0:.3f}"
    )


def test_a_file_that_is_changed_after_it_was_taken_gains_nothing(
    restricted: Server, survey: Survey, tmp_path: Path
) -> None:
    """Also a revert parses it again for its sender."""
    ann = add_account(restricted, "ann@obs.edu", PASSWORD)
    number, _ = insert_request(restricted, write(tmp_path / "a.fits", chip(1, survey, 5)), sender=ann)
    uri = Path(columns_of(restricted, number)["uri"])
    write(uri, chip(1, survey, 5), name="a", email="ann@rich.edu")
    run(restricted, workers=1)
    assert codes(restricted, number) == {1: [29]}
    assert columns_of(restricted, number)["username"] == "ann@obs.edu"


def test_a_limit_is_no_less_for_who_asks_for_less(restricted: Server, survey: Survey, tmp_path: Path) -> None:
    """Dates of one's own, positive and negative, do not lead past the limits of a level (P21)."""
    ann, poor, out = (
        add_account(restricted, email, PASSWORD) for email in ("ann@obs.edu", "poor@rich.edu", "out@rich.edu")
    )
    early = sorted(survey.mjd)[0] + 0.5
    late_diff = survey.diff_ids[-1]
    rows = [
        chip(1, survey, 5, max=early), chip(2, survey, 0, max=sorted(survey.mjd)[5]), chip(3, survey, 5, max=-5.0),
        row(4, survey, req="byid", img="diff", id=late_diff, component=survey.skycells[0], filter="null", max=early),
        row(5, survey, req="byid", img="diff", id=late_diff, component=survey.skycells[0], filter="null"),
        row(6, survey, img="stack"),
    ]  # fmt: skip
    numbers = [
        insert_request(restricted, write(tmp_path / f"{who.email[:3]}.fits", *rows), sender=who)[0]
        for who in (ann, poor, out)
    ]
    run(restricted, workers=1)
    limited, none, refused = (codes(restricted, number) for number in numbers)
    assert {number: set(each) for number, each in limited.items()} == {
        1: {23}, 2: {0}, 3: {23}, 4: {23}, 5: {29}, 6: {0},
    }  # fmt: skip
    assert {number: set(each) for number, each in none.items()} == {number: {29} for number in range(1, 7)}
    assert refused == {0: [29]}


def test_an_image_without_a_date_is_not_for_a_limited_level(
    restricted: Server, survey: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pstamp_core.imagedb import ImageDB

    select = ImageDB.select

    def without_dates(self: ImageDB, *args: Any) -> Any:
        return [replace(image, mjd_obs=None) for image in select(self, *args)]

    monkeypatch.setattr(ImageDB, "select", without_dates)
    ann, rich = (add_account(restricted, email, PASSWORD) for email in ("ann@obs.edu", "ann@rich.edu"))
    rows = [chip(1, survey, 0), row(2, survey)]
    numbers = [
        submit(restricted, write(tmp_path / f"{n}.fits", *rows), sender=who) for n, who in enumerate((ann, rich))
    ]
    while parse_requests(restricted, 10):
        pass
    with restricted.store.reading():
        found = [
            {(job.rownum, job.fault) for job in pstampJob.select().where(pstampJob.req_id == number)}
            for number in numbers
        ]
        (refused,) = pstampJob.select().where((pstampJob.req_id == numbers[0]) & (pstampJob.fault == 29))
    assert found == [{("1", 29), ("2", 0)}, {("1", 0), ("2", 0)}]
    assert refused.sentence.startswith(f"row 1: {survey.exposures[0]} has no date; your access level may see nothing")


@pytest.mark.parametrize(
    ("email", "found"),
    [
        ("Ann@RICH.edu", (2, "rich_p", "RICH")),
        ("poor@rich.edu", (3, "rich_p", "RICH")),  # what the user has not, is the domain's
        ("out@rich.edu", (-1, "rich_p", "RICH")),
        ("ann@poor.edu", (1, None, None)),
    ],
)
def test_a_user_goes_before_the_domain(restricted: Server, email: str, found: tuple[int, str, str]) -> None:
    user = look_up_user(restricted, email)
    assert (user.name, user.level, user.product, user.label) == (email.lower(), *found)


# -- what is wrong with a file


def test_a_file_is_checked_before_it_is_sent(restricted: Server, survey: Survey, tmp_path: Path) -> None:
    ann = add_account(restricted, "ann@obs.edu", PASSWORD)
    good = write(tmp_path / "good.fits", row(1, survey))
    assert check_file(restricted, good, ann) == []
    number = submit(restricted, good, sender=ann)
    assert [(each.position, each.column, each.value, each.reason) for each in check_file(restricted, good, ann)] == [
        (0, "REQ_NAME", "'good'", f"it is in use by request {number} (new); send it under another name"),
    ]  # fmt: skip
    bad = write(
        tmp_path / "bad.fits", row(4, survey, w=-9000), row(7, survey, project="nix", w=0), row(5, survey),
        row(6, survey, req="byname", img="x"), email="bob@obs.edu",
    )  # fmt: skip
    found = check_file(restricted, bad, ann)
    assert [(each.position, each.rownum, each.fault, each.column, each.value, each.reason) for each in found] == [
        (0, 0, 29, "EMAIL", "'bob@obs.edu'",
         "it is not that of ann@obs.edu, who sends it: put that into the file, or none (null)"),
        (1, 4, 21, "WIDTH", "-9000", "expected at most 8000 pixels"),
        (2, 7, 22, "PROJECT", "'nix'", "there is no project of this name"),
        (2, 7, 21, "WIDTH", "0", "expected a size, or WIDTH and HEIGHT both 0 for the whole file"),
        (4, 6, 21, "REQ_TYPE", "'byname'", "expected byid, byexp, bydiff, bycoord or byskycell"),
        (4, 6, 21, "IMG_TYPE", "'x'", "expected raw, chip, warp, diff, stack or stack_summary"),
    ]  # fmt: skip
    assert found[1].sentence == "bad.fits, row 4: WIDTH is -9000; expected at most 8000 pixels"
    assert found[0].sentence == (
        "bad.fits: EMAIL is 'bob@obs.edu'; it is not that of ann@obs.edu, who sends it: put that into the file, "
        "or none (null)"
    )


def test_what_is_told_is_what_is_done(restricted: Server, survey: Survey, tmp_path: Path) -> None:
    """The rows that are found to be wrong are answered with these codes, the others served."""
    for email in ("ann@obs.edu", "poor@rich.edu", "out@rich.edu"):
        who = add_account(restricted, email, PASSWORD)
        file = write(
            tmp_path / f"{email[:3]}.fits", row(1, survey), row(2, survey, coord=1), row(3, survey, project="nix"),
            row(4, survey, job="list_uri"),
        )  # fmt: skip
        told = check_file(restricted, file, who)
        number = submit(restricted, file, sender=who)
        run(restricted, workers=1)
        done = codes(restricted, number)
        if told and not told[0].position:
            assert done == {0: [told[0].fault]}
            assert told[0].sentence == "out.fits: EMAIL is 'out@rich.edu'; it has no access here"
            continue
        first = {each.rownum: [each.fault] for each in reversed(told)}
        assert first == {number: each for number, each in done.items() if each[0]}
        assert set(done) == {1, 2, 3, 4}


def test_a_file_without_an_address_is_nobodys_business_but_its_senders(restricted: Server, tmp_path: Path) -> None:
    file = write(tmp_path / "a.fits")
    (found,) = check_file(restricted, file)
    assert found == Finding(
        0, 0, 29, "EMAIL", "not given", "expected user@domain", "a.fits: EMAIL is not given; expected user@domain"
    )
    assert check_file(restricted, file, add_account(restricted, "ann@obs.edu", PASSWORD)) == []


def test_what_is_no_request_is_one_finding(restricted: Server, tmp_path: Path) -> None:
    (tmp_path / "x.fits").write_bytes(b"hello")
    said = "x.fits: this is not a FITS file; expected a file that begins with SIMPLE, not compressed"
    assert check_file(restricted, tmp_path / "x.fits") == [Finding(0, 0, 21, "", "", said, said)]
    write(tmp_path / "e.fits")
    with fits.open(tmp_path / "e.fits") as hdus:
        hdus[1].data = hdus[1].data[:0]
        hdus.writeto(tmp_path / "none.fits")
    ann = add_account(restricted, "ann@obs.edu", PASSWORD)
    found = [(each.column, each.value, each.reason) for each in check_file(restricted, tmp_path / "none.fits", ann)]
    assert found == [("", "no rows", "expected at least one")]


# -- files as programs in use write them


def old_table(survey: Survey, **keywords: Any) -> fits.BinTableHDU:
    """A table as a program of 2012 writes it: no column that has a default, two rows, the second byid."""
    number = str(survey.stack_ids["r.00000", survey.skycells[0]])
    (x, y), texts = survey.centre, {"IMG_TYPE": "stack", "REQFILT": "r", "PROJECT": "gpc1", "JOB_TYPE": "stamp"}
    columns = [
        ("ROWNUM", "J", [1, 2]), ("CENTER_X", "D", [x, x]), ("CENTER_Y", "D", [y, y]), ("WIDTH", "D", [30, 30]),
        ("HEIGHT", "D", [30, 30]), ("COORD_MASK", "J", [2, 2]), ("OPTION_MASK", "J", [1, 1]),
        ("REQ_TYPE", "16A", ["bycoord", "byid"]), ("ID", keywords.pop("id_form", "16A"), ["null", number]),
        ("TESS_ID", "64A", [survey.tess_id] * 2),
        *((name, "16A", [keywords.pop(name, text)] * 2) for name, text in texts.items()),
    ]  # fmt: skip
    hdu = fits.BinTableHDU.from_columns([fits.Column(name, form, array=values) for name, form, values in columns])
    header = {"EXTNAME": "PS1_PS_REQUEST", "EXTVER": "2", "REQ_NAME": "old", "ACTION": "PROCESS", "EMAIL": "null"}
    hdu.header.update({**header, **keywords})
    return hdu


def with_card(file: Path, start: bytes, keyword: str, value: int) -> None:
    """Put another value into the header that begins so."""
    content = file.read_bytes()
    at = content.index(f"{keyword:8}=".encode(), content.index(start))
    file.write_bytes(content[:at] + f"{keyword:8}= {value:20}".ljust(80).encode() + content[at + 80 :])


@pytest.mark.parametrize(
    "habit",
    [
        {"EXTVER": "2"}, {"EXTVER": 2}, {"EXTVER": "2  "}, {"PROJECT": "GPC1"}, {"JOB_TYPE": "STAMP"},
        {"JOB_TYPE": "Stamp"}, {"id_form": "16A"}, {"id_form": "64A"},
    ],
    ids=str,
)  # fmt: skip
def test_old_habits(server: Server, survey: Survey, tmp_path: Path, habit: dict[str, Any]) -> None:
    file = tmp_path / "old.fits"
    old_table(survey, **habit).writeto(file)
    _is_served(server, file)


@pytest.mark.parametrize(
    ("start", "keyword", "value"),
    [
        (b"SIMPLE", "NAXIS", 2), (b"XTENSION", "NAXIS", 0), (b"XTENSION", "NAXIS", 3), (b"XTENSION", "TFIELDS", 12),
        (b"XTENSION", "TFIELDS", 24), (b"XTENSION", "TFIELDS", 0),
    ],
)  # fmt: skip
def test_a_header_with_the_counts_of_another_table(
    server: Server, survey: Survey, tmp_path: Path, start: bytes, keyword: str, value: int
) -> None:
    file = tmp_path / "old.fits"
    old_table(survey).writeto(file)
    with_card(file, start, keyword, value)
    _is_served(server, file)


def test_a_primary_header_that_was_copied_from_a_table(server: Server, survey: Survey, tmp_path: Path) -> None:
    """It claims data that are not there, and later cards of the table claim what an earlier one had."""
    file, table = tmp_path / "old.fits", old_table(survey, MINE=1, YOURS=2)
    primary = fits.PrimaryHDU()
    primary.header.update({"HERS1": 306, "HERS2": 5})
    fits.HDUList([primary, table]).writeto(file)
    content = file.read_bytes()
    for ours, theirs in (
        (b"HERS1 ", b"NAXIS1"),
        (b"HERS2 ", b"NAXIS2"),
        (b"MINE   ", b"NAXIS  "),
        (b"YOURS  ", b"TFIELDS"),
    ):
        assert content.count(ours) == 1
        content = content.replace(ours, theirs)
    file.write_bytes(content)
    with_card(file, b"SIMPLE", "NAXIS", 2)
    _is_served(server, file)


def _is_served(server: Server, file: Path) -> None:
    """Upload a file, and have it parsed: both rows lead to jobs that can run."""
    sender = add_account(server, "ana@obs.edu", PASSWORD)
    assert check_file(server, file, sender) == []
    number, name = insert_request(server, file, sender=sender)
    assert name == "old"
    parse_requests(server, 1)
    with server.store.reading():
        jobs = list(pstampJob.select().where(pstampJob.req_id == number).order_by(pstampJob.rownum))
        assert columns_of(server, number)["state"] is RequestState.RUN
    assert {(job.rownum, job.state.value, job.fault, job.jobType) for job in jobs} == {
        ("1", "run", 0, "stamp"), ("2", "run", 0, "stamp"),
    }  # fmt: skip


def test_a_column_left_over_from_another_table_is_none(server: Server, survey: Survey, tmp_path: Path) -> None:
    """TFIELDS that is right counts, whatever columns an old header still describes after these."""
    file, table = tmp_path / "old.fits", old_table(survey)
    number = table.header["TFIELDS"] + 1
    table.header.update({"LEFTA": "DATA_GROUP", "LEFTB": "64A"})
    table.writeto(file)
    content = file.read_bytes()
    for ours, theirs in (("LEFTA", f"TTYPE{number}"), ("LEFTB", f"TFORM{number}")):
        content = content.replace(f"{ours:8}=".encode(), f"{theirs:8}=".encode())
    file.write_bytes(content)
    _is_served(server, file)

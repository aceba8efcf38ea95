"""``pstamp.toml``."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields, replace
from pathlib import Path

import pytest

from pstamp_core.faults import RetryableError
from pstamp_core.settings import Settings, default_settings_text, in_force, load_settings

EVERY = "{stage} {stage_id} {component} {path_base} {root} {database} {{}}"
"""An argument with all that is replaced."""


def load(home: Path, text: str, database: str | None = None) -> Settings:
    (home / "pstamp.toml").write_text(text, encoding="utf-8")
    return load_settings(home, database)


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "") == Settings(tmp_path.resolve())


def test_values_of_the_file_are_taken(tmp_path: Path) -> None:
    text = 'label = "WEB"\nserve_v1 = true\nmax_rows = 7\nlease_seconds = 30\nretry_seconds = 0.5\n'
    text += f'update_chip = ["chip_imfile.pl", "", "{EVERY}"]\nupdate_warp = []\n'
    text += 'poll_hosts = ["DS.obs.example.edu", "ipp_1:8080", "[fd00::1]:80"]\n'
    assert load(tmp_path, text) == replace(
        Settings(tmp_path.resolve()), label="WEB", serve_v1=True, max_rows=7, lease_seconds=30, retry_seconds=0.5,
        update_chip=("chip_imfile.pl", "", EVERY), poll_hosts=("DS.obs.example.edu", "ipp_1:8080", "[fd00::1]:80"),
    )  # fmt: skip


def test_values_are_shown_as_they_are_written(tmp_path: Path) -> None:
    shown = {
        name: (value, source) for name, value, source in in_force(load(tmp_path, 'update_chip = ["a", "b c"]'), {})
    }
    assert shown["update_chip"] == ('["a", "b c"]', "pstamp.toml line 1")
    assert shown["update_warp"] == ("[]", "default")
    assert shown["update_timeout"] == ("1200.0", "default")


def test_the_default_text_names_every_key_with_its_default(tmp_path: Path) -> None:
    text = default_settings_text()
    assert load(tmp_path, text) == Settings(tmp_path.resolve())
    lines = [line.removeprefix("# ") for line in text.splitlines() if " = " in line]
    assert [line.split(" = ")[0] for line in lines] == [each.name for each in fields(Settings) if each.name != "home"]
    assert load(tmp_path, "\n".join(lines)) == Settings(tmp_path.resolve())


def test_every_key_but_the_home_has_a_default_and_is_documented() -> None:
    assert [each.name for each in fields(Settings) if each.default is MISSING] == ["home"]
    documented = re.findall(r"^    ([\w, ]+) : ", Settings.__doc__ or "", re.MULTILINE)
    assert [name for names in documented for name in names.split(", ")] == [each.name for each in fields(Settings)]


def test_the_folders(tmp_path: Path) -> None:
    home = Settings(tmp_path)
    assert (home.work, home.images, home.datastore) == (
        tmp_path / "work",
        tmp_path / "images",
        tmp_path / "datastore",
    )


@pytest.mark.parametrize(
    ("database", "address"),
    [
        ("pstamp.db", "/srv/home/pstamp.db"),
        ("images/gpc1.db", "/srv/home/images/gpc1.db"),
        ("/var/pstamp.db", "/var/pstamp.db"),
        ("sqlite:///pstamp.db", "/srv/home/pstamp.db"),
        ("sqlite:////var/pstamp.db", "/var/pstamp.db"),
        ("mysql://u:p@h:3306/db", "mysql://u:p@h:3306/db"),
        ("mariadb://h/db", "mariadb://h/db"),
    ],
)
def test_a_relative_database_lies_in_the_home(database: str, address: str) -> None:
    settings = Settings(Path("/srv/home"), database=database)
    assert settings.address == settings.locate(database) == address


def test_a_database_given_goes_before_the_file(tmp_path: Path) -> None:
    assert load(tmp_path, 'database = "a.db"', "mysql://h/db").database == "mysql://h/db"
    assert load(tmp_path, 'database = "a.db"', None).database == "a.db"
    assert load(tmp_path, 'database = "a.db"', "").database == "a.db"


def test_a_relative_home_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("home").mkdir()
    assert load(Path("home"), "").home == tmp_path.resolve() / "home"


UNKNOWN = "unknown placeholder"
WORDS = "there are {stage} {stage_id} {component} {path_base} {root} {database}"
KEYS = ", ".join(each.name for each in fields(Settings) if each.name != "home")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("colour = 1", f"unknown key 'colour'; the keys are {KEYS}"),
        ('home = "/"', f"unknown key 'home'; the keys are {KEYS}"),
        ("[label]\na = 1", "label = {'a': 1}; expected str"),
        ("label = 1", "label = 1; expected str"),
        ('max_rows = "many"', "max_rows = 'many'; expected int"),
        ("max_rows = 1.5", "max_rows = 1.5; expected int"),
        ("max_rows = true", "max_rows = True; expected int"),
        ("lease_seconds = true", "lease_seconds = True; expected float"),
        ("lossy = 1", "lossy = 1; expected bool"),
        ("max_rows = -1", "max_rows = -1; expected 0 or more"),
        ("retry_seconds = -0.1", "retry_seconds = -0.1; expected 0 or more"),
        ("lease_seconds = nan", "lease_seconds = nan; expected 0 or more"),
        ("lease_seconds = inf", "lease_seconds = inf; expected 0 or more"),
        ('update_chip = "a b"', "update_chip = 'a b'; expected a list"),
        ("update_chip = [1]", "update_chip: 1: expected a program and its arguments, as strings"),
        ('update_warp = ["", "a"]', "update_warp: '': expected a program and its arguments, as strings"),
        ('update_warp = ["a\\u0000"]', "update_warp: 'a\\x00': expected a program and its arguments, as strings"),
        ('update_diff = ["a", "{home}"]', f"update_diff: '{{home}}': {UNKNOWN} 'home'; {WORDS}"),
        ('update_diff = ["{}"]', f"update_diff: '{{}}': {UNKNOWN} ''; {WORDS}"),
        ('update_diff = ["{0}"]', f"update_diff: '{{0}}': {UNKNOWN} '0'; {WORDS}"),
        (
            'update_diff = ["{stage.a}"]',
            f"update_diff: '{{stage.a}}': {UNKNOWN} 'stage.a'; {WORDS}",
        ),
        ('update_diff = ["{stage!r}"]', f"update_diff: '{{stage!r}}': {UNKNOWN} 'stage'; {WORDS}"),
        ('update_diff = ["{stage:9}"]', f"update_diff: '{{stage:9}}': {UNKNOWN} 'stage'; {WORDS}"),
        (
            'update_destreak = ["{"]',
            "update_destreak: '{': Single '{' encountered in format string; a brace that stands "
            "for itself is written twice",
        ),
        ('poll_hosts = "h"', "poll_hosts = 'h'; expected a list"),
        ('poll_hosts = ["h", 1]', "poll_hosts: 1: expected a host, or host:port"),
        ('poll_hosts = [""]', "poll_hosts: '': expected a host, or host:port"),
        ('poll_hosts = ["http://h/"]', "poll_hosts: 'http://h/': expected a host, or host:port"),
        ("label = ", "Invalid value (at end of document)"),
        ('label = "a"\nlabel = "b"', "Cannot overwrite a value (at end of document)"),
    ],
)
def test_a_wrong_file_is_refused_with_the_reason(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(RetryableError) as refusal:
        load(tmp_path, text)
    assert str(refusal.value) == f"{tmp_path}/pstamp.toml: {problem}"
    assert refusal.value.fault == 3


def test_no_server_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(RetryableError) as refusal:
        load_settings(tmp_path)
    assert str(refusal.value) == (
        f"no server in {tmp_path} (pstamp.toml is missing); make one with: pstamp init --home {tmp_path}"
    )
    assert refusal.value.fault == 3


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pstamp.toml").write_bytes(b"label = '\xff'")
    with pytest.raises(RetryableError, match=r"pstamp\.toml: 'utf-8' codec can't decode byte 0xff") as refusal:
        load_settings(tmp_path)
    assert refusal.value.fault == 3


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pstamp.toml").mkdir()
    with pytest.raises(RetryableError, match=r"pstamp\.toml: \[Errno 21\] Is a directory") as refusal:
        load_settings(tmp_path)
    assert refusal.value.fault == 3


def test_the_first_line_of_the_password_file_is_the_password(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a/b@c\nanother\n")
    text = 'database = "mysql://ps@db1/pstamp"\npassword_file = "secret"\n'
    assert load(tmp_path, text).database == "mysql://ps:a%2Fb%40c@db1/pstamp"
    assert load_settings(tmp_path, password="given").database == "mysql://ps:given@db1/pstamp"
    (tmp_path / "secret").unlink()
    with pytest.raises(RetryableError, match=r"password_file = 'secret': .*No such file"):
        load_settings(tmp_path)


def test_parts_of_the_address_are_replaced(tmp_path: Path) -> None:
    load(tmp_path, 'database = "mysql://ps@db1/pstamp"\n')
    changed = load_settings(tmp_path, "mysql://ps@db2/other", server="db3", user="me", port=3307)
    assert changed.database == "mysql://me@db3:3307/other"


def test_where_no_file_is_needed_a_named_database_does(tmp_path: Path) -> None:
    assert load_settings(tmp_path, without_home=True, name="/x.db") == Settings(tmp_path.resolve(), database="/x.db")
    assert load_settings(tmp_path, "y.db", without_home=True) == Settings(tmp_path.resolve(), database="y.db")
    for asked in ({"without_home": True}, {"name": "/x.db"}):
        with pytest.raises(RetryableError, match="make one with: pstamp init"):
            load_settings(tmp_path, **asked)

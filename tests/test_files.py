"""Files: all or nothing, inside their root."""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pstamp_core import files
from pstamp_core.faults import FinalError, UserError
from pstamp_core.files import (
    StoredFile,
    inside,
    link_or_copy,
    measure,
    private_name,
    publish,
    sweep,
    write_text,
    written,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- measure


@pytest.mark.parametrize("content", [b"", b"abc", b"\0" * 3_000_000])
def test_measure(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.fits"
    path.write_bytes(content)
    md5 = hashlib.md5(content).hexdigest()  # noqa: S324
    assert measure(path, "pstamp") == StoredFile(path, "a.fits", "pstamp", len(content), md5)
    assert measure(path, "text", "b.txt") == StoredFile(path, "b.txt", "text", len(content), md5)


# -- inside


@pytest.mark.parametrize("name", ["a", "a/b", "a/../b", "./a", "...", "a..", "..a", " ", "é"])
def test_a_name_below_the_root_is_resolved(tmp_path: Path, name: str) -> None:
    assert inside(tmp_path, name) == (tmp_path / name).resolve()
    assert inside(tmp_path, Path(name)) == (tmp_path / name).resolve()


@pytest.mark.parametrize("name", ["..", "../a", "a/../..", "/etc/passwd", "/", "a/../../root2/b", "", ".", "a/.."])
def test_a_name_that_is_not_below_the_root_is_refused(tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "root2").mkdir()
    with pytest.raises(UserError) as refusal:
        inside(root, name)
    assert str(refusal.value) == f"path {name!r} leads out of {root}; expected a name below it"
    assert refusal.value.fault == 21


def test_a_link_out_of_the_root_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "out").symlink_to(tmp_path)
    (root / "in").symlink_to(root / "a")
    assert inside(root, "in") == root / "a"
    for name in ("out", "out/secret"):
        with pytest.raises(UserError, match="leads out of"):
            inside(root, name)


def test_a_root_that_is_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "real")
    assert inside(tmp_path / "root", "a") == tmp_path / "real" / "a"


@pytest.mark.parametrize("name", ["a\0b", "loop", "loop/a", "\ud800"])
def test_a_name_that_is_no_path_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match="is no usable path") as refusal:
        inside(tmp_path, name)
    assert refusal.value.fault == 21


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text() | st.lists(st.sampled_from(["..", ".", "a", "", "b", "~", "x" * 300]), max_size=8).map("/".join))
def test_no_name_whatever_leads_out(tmp_path: Path, name: str) -> None:
    try:
        path = inside(tmp_path, name)
    except UserError:
        return
    assert tmp_path.resolve() in path.parents


# -- written, publish


def test_a_private_name_is_hidden_and_in_the_same_folder(tmp_path: Path) -> None:
    assert private_name(tmp_path / "a.fits", "w1") == tmp_path / ".a.fits.w1.tmp"


def test_a_file_appears_whole_under_its_name(tmp_path: Path) -> None:
    with written(tmp_path / "a", "w1") as private:
        private.write_text("half")
        assert names(tmp_path) == [".a.w1.tmp"]
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "half"


def test_a_failed_block_leaves_nothing_and_keeps_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")

    def fail() -> None:
        with written(tmp_path / "a") as private:
            private.write_text("half")
            raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        fail()
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_a_block_that_writes_nothing_fails(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), written(tmp_path / "a"):
        pass
    assert names(tmp_path) == []


def test_the_bytes_are_on_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []

    def fsync(descriptor: int) -> None:
        assert not (tmp_path / "a").exists()
        synced.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(files.os, "fsync", fsync)
    (tmp_path / ".a.tmp").write_text("x")
    publish(tmp_path / ".a.tmp", tmp_path / "a")
    assert synced == [(tmp_path / "a").stat().st_ino]


def test_a_failed_rename_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        write_text(tmp_path / "a", "text")
    assert names(tmp_path) == ["a"]


def test_write_text_replaces_and_is_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")
    write_text(tmp_path / "a", "déjà")
    assert (tmp_path / "a").read_bytes() == "déjà".encode()
    assert names(tmp_path) == ["a"]


# -- link_or_copy


@pytest.fixture(params=["link", "copy"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The file system allows links, or does not."""
    if request.param == "copy":

        def no_links(*_: object) -> None:
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr(Path, "hardlink_to", no_links)
    return str(request.param)


def test_a_linked_file_is_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").samefile(tmp_path / "a")


def test_where_links_are_impossible_it_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    (tmp_path / "a").write_text("x")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "x"
    assert not (tmp_path / "b").samefile(tmp_path / "a")


def test_doing_it_again_changes_nothing(tmp_path: Path, way: str) -> None:
    (tmp_path / "a").write_text("x")
    for _ in range(2):
        link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "x"
    assert names(tmp_path) == ["a", "b"]


def test_what_shares_the_old_bytes_is_left_alone(tmp_path: Path, way: str) -> None:
    """A published file may be linked elsewhere too; replacing it must not write into the other."""
    (tmp_path / "elsewhere").write_text("old")
    os.link(tmp_path / "elsewhere", tmp_path / "b")
    (tmp_path / "a").write_text("new")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "new"
    assert (tmp_path / "elsewhere").read_text() == "old"


def test_a_linked_source_gives_its_bytes_not_the_link(tmp_path: Path, way: str) -> None:
    (tmp_path / "data").write_text("x")
    (tmp_path / "a").symlink_to("data")
    (tmp_path / "out").mkdir()
    link_or_copy(tmp_path / "a", tmp_path / "out" / "b")
    assert stat.S_ISREG((tmp_path / "out" / "b").lstat().st_mode)
    assert (tmp_path / "out" / "b").read_text() == "x"


def test_a_missing_source_is_an_error_and_leaves_nothing(tmp_path: Path, way: str) -> None:
    with pytest.raises(FileNotFoundError):
        link_or_copy(tmp_path / "a", tmp_path / "b")
    assert names(tmp_path) == []


# -- sweep


def test_sweep_removes_private_files_and_folders_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "a.fits", "x")
    private_name(tmp_path / "a.fits", "dead").write_text("half")
    folder = private_name(tmp_path / "fileset", "dead")
    folder.mkdir()
    (folder / "b").write_text("half")
    (tmp_path / "kept.tmp").write_text("x")
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / ".c.dead.tmp").write_text("x")
    sweep(tmp_path)
    assert names(tmp_path) == [".hidden", "a.fits", "below", "kept.tmp"]
    assert names(tmp_path / "below") == [".c.dead.tmp"]


def test_sweep_does_not_follow_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_text("x")
    (tmp_path / ".link.tmp").symlink_to(tmp_path / "real")
    sweep(tmp_path)
    assert names(tmp_path) == ["real"]
    assert names(tmp_path / "real") == ["a"]


def test_sweep_of_a_folder_that_is_not_there_does_nothing(tmp_path: Path) -> None:
    sweep(tmp_path / "none")
    assert names(tmp_path) == []


def test_a_gzipped_file_is_unpacked_for_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, packed = tmp_path / "a", tmp_path / "a.gz"
    plain.write_bytes(b"SIMPLE" * 1000)
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    for path in (plain, packed):
        with files.open_unpacked(path) as stream:
            assert stream.read() == b"SIMPLE" * 1000
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(FinalError, match=rf"^{packed}: damaged: Compressed file ended") as caught:
        files.open_unpacked(packed)
    assert caught.value.fault == 25
    packed.write_bytes(gzip.compress(bytes(3 * 2**20)))
    monkeypatch.setattr(files, "MAX_UNPACKED", 2**20)
    with pytest.raises(FinalError, match=rf"^{packed}: more than 1048576 bytes when unpacked; unpack it where it is"):
        files.open_unpacked(packed)

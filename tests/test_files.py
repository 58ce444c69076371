"""What appears under its name only once it is complete, and what a killed process leaves behind."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from optical_hf.files import remove_abandoned, replacing, scratch, take_lock, write_json, write_text

WORKER = """
import os, signal, sys
from optical_hf.files import replacing
with replacing(sys.argv[1]) as partial:
    partial.write_text("half")
    print("on", flush=True)
    signal.pause()
"""


def test_a_file_appears_when_it_is_complete(tmp_path):
    write_text(tmp_path / "a.txt", "first\n")
    with pytest.raises(ValueError, match="stopped"), replacing(tmp_path / "a.txt") as partial:
        partial.write_text("second")
        assert (tmp_path / "a.txt").read_text() == "first\n"
        raise ValueError("stopped")
    assert (tmp_path / "a.txt").read_text() == "first\n"
    write_json(tmp_path / "a.txt", {"ó": 1})
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == '{"ó": 1}\n'
    with replacing(tmp_path / "folder") as partial:
        partial.mkdir()
        (partial / "b.txt").write_text("b")
    assert {path.name for path in tmp_path.rglob("*")} == {"a.txt", "folder", "b.txt"}


def test_what_a_killed_process_left_is_removed_and_what_is_being_written_is_not(tmp_path):
    running = subprocess.Popen(
        [sys.executable, "-c", WORKER, tmp_path / "run.trec"], stdout=subprocess.PIPE, text=True
    )
    assert running.stdout is not None and running.stdout.readline() == "on\n"
    [place] = tmp_path.iterdir()
    write_text(tmp_path / "other.txt", "")
    remove_abandoned(tmp_path)
    assert (place / "run.trec").read_text() == "half"
    running.kill()
    running.communicate()
    assert (place / "run.trec").read_text() == "half"
    write_text(tmp_path / "other.txt", "")
    assert [path.name for path in tmp_path.iterdir()] == ["other.txt"]


def test_only_scratch_folders_are_removed(tmp_path):
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (elsewhere / "kept.txt").write_text("")
    (tmp_path / ".a.0123456789ab.partial").symlink_to(elsewhere)
    (tmp_path / ".b.0123456789ab.partial").write_text("a file of somebody's")
    for name in (".c.partial", "d.0123456789ab.partial", ".e.0123456789ab"):
        (tmp_path / name).mkdir()
    (left := tmp_path / ".run.json.0123456789ab.partial").mkdir()  # killed before it had a lock
    before = {path.name for path in tmp_path.iterdir()} - {left.name}
    remove_abandoned(tmp_path)
    remove_abandoned(tmp_path / "nowhere")
    assert {path.name for path in tmp_path.iterdir()} == before
    assert [path.name for path in elsewhere.iterdir()] == ["kept.txt"]


def test_many_write_one_path_while_others_remove_what_is_abandoned(tmp_path):
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(40):
                write_text(tmp_path / "a.txt", f"{number}" * 1000)
                with scratch(tmp_path, "work") as place:
                    (place / "b.txt").write_text("b")
                    remove_abandoned(tmp_path)
                    assert (place / "b.txt").read_text() == "b"
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and os.listdir(tmp_path) == ["a.txt"]
    assert len(set((tmp_path / "a.txt").read_text())) == 1


def test_a_lock_that_its_holder_removes_meanwhile_is_not_taken(tmp_path, monkeypatch):
    held, flock = take_lock(tmp_path / "lock"), fcntl.flock
    with pytest.raises(BlockingIOError):
        take_lock(tmp_path / "lock")

    def late(*arguments: int) -> None:  # the file is open, and now another comes and goes
        (tmp_path / "lock").unlink()
        (tmp_path / "lock").write_text("of a third")
        os.close(held)
        flock(*arguments)

    monkeypatch.setattr("fcntl.flock", late)
    with pytest.raises(FileNotFoundError):
        take_lock(tmp_path / "lock")


def test_a_disk_without_locks_is_written_to_and_nothing_is_removed(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    (left := tmp_path / ".run.json.0123456789ab.partial").mkdir()
    write_text(tmp_path / "a.txt", "a")
    assert {path.name for path in Path(tmp_path).iterdir()} == {"a.txt", left.name}

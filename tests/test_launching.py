"""What surrounds a command: one writer a folder, as many processes as asked for, and an end with the launcher."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest

from optical_hf import launching
from optical_hf.launching import check_world_size, run, writing

CHILD = """
import signal
from optical_hf.launching import end_with_launcher
end_with_launcher()
print("on", flush=True)
signal.pause()
"""
LAUNCHER = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}])
print(child.pid, flush=True)
child.wait()
"""


def test_a_folder_has_one_writer(tmp_path):
    with writing(tmp_path):
        with pytest.raises(OSError, match=f"{tmp_path} is being written by process {os.getpid()} on "):
            with writing(tmp_path):
                pass
        with writing(tmp_path, is_main_process=False):  # another process of the same launch
            pass
    assert list(tmp_path.iterdir()) == []
    with writing(tmp_path / "new"):
        pass


def test_a_folder_without_a_writer_is_free_only_once_its_lock_is_gone(tmp_path, monkeypatch):
    links, close = [], os.close

    def closing(file: int) -> None:
        links.append(os.fstat(file).st_nlink)
        close(file)

    with writing(tmp_path):
        monkeypatch.setattr("optical_hf.launching.os.close", closing)
    assert links == [0]


def test_a_folder_on_a_disk_without_locks_has_a_writer(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with writing(tmp_path):
        assert (tmp_path / ".optical-hf.json").read_text().startswith(f"process {os.getpid()} on ")
    assert list(tmp_path.iterdir()) == []


def test_a_process_ends_when_its_launcher_is_killed():
    command = [sys.executable, "-c", LAUNCHER, "accelerate", "launch"]
    launcher = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert launcher.stdout is not None
    child = psutil.Process(int(launcher.stdout.readline()))
    assert launcher.stdout.readline() == "on\n"
    launcher.kill()
    launcher.wait()
    psutil.wait_procs([child], timeout=60)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("words", [["accelerate", "launch"], ["python", "-m", "accelerate.commands.launch"]])
def test_accelerates_own_defaults_count(tmp_path, monkeypatch, words):
    config = tmp_path / "default_config.yaml"
    config.write_text("compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_CPU\nnum_processes: 2\n")
    monkeypatch.setattr(launching, "default_config_file", str(config))
    parent = SimpleNamespace(cmdline=lambda: [*words, "train.py"])
    monkeypatch.setattr(launching.psutil, "Process", lambda: SimpleNamespace(parent=lambda: parent))
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(RuntimeError, match="2 processes were asked for, and 1 is running"):
        check_world_size(1)
    check_world_size(2)


def test_what_is_wrong_is_one_line():
    def wrong(arguments):
        raise ValueError("the file is empty")

    with pytest.raises(SystemExit) as ended:
        run(wrong, [])
    assert ended.value.code == "error: the file is empty"

"""Commands that are killed at a point told beforehand, each in a process forked from one that has all imports.

Run as a script it is that process: a job a line comes in, and how it ended goes out.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

# What changes a disk, and "open" where it is opened to be written.
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate", "shutil.rmtree")


class Commands:
    """Runs commands of `optical-hf`, to their end or until they are killed.

    Args:
        names (`str`): the commands, to be imported beforehand.
        environment (`dict[str, str]`): of their processes.
    """

    def __init__(self, *names: str, **environment: str) -> None:
        fixed = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONHASHSEED": "0"}
        self._process = subprocess.Popen(
            [sys.executable, __file__, *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **fixed, **environment},
        )

    def run(
        self, words: list[str], folder: Path, event: int | None = None, delay: float = 0.0
    ) -> tuple[int, int, float, str]:
        """Run a command.

        Args:
            words (`list[str]`): its name and arguments.
            folder (`Path`): where it writes, as does what `tempfile` makes, in `tmp` within.
            event (`int`, *optional*): kill its process group at this change of the folder, the first being 1.
            delay (`float`, *optional*): so many seconds after it.

        Returns:
            `tuple[int, int, float, str]`: the exit code, -9 if it was killed; the number of changes; the seconds; and
            what it printed.
        """
        job = {"words": words, "folder": str(folder), "event": event, "delay": delay}
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        code, changes, seconds = json.loads(self._process.stdout.readline())
        return code, changes, seconds, Path(f"{folder}.log").read_text()

    def close(self) -> None:
        """End the process that forks."""
        self._process.kill()
        self._process.communicate()


def _serve(names: list[str]) -> None:
    for name in names:
        import_module(f"optical_hf.commands.{name}")
    main = import_module("optical_hf.commands.__main__").main
    for line in sys.stdin:
        job = json.loads(line)
        counter = mmap.mmap(-1, 8)  # shared with the fork, and readable when that is gone
        started = time.monotonic()
        if (child := os.fork()) == 0:
            os.setsid()
            _become(main, job, counter)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps([code, int.from_bytes(counter[:8], "little"), time.monotonic() - started]), flush=True)


def _become(main: Any, job: dict[str, Any], counter: mmap.mmap) -> None:
    folder = job["folder"]
    (temporary := Path(folder) / "tmp").mkdir(parents=True, exist_ok=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
    log = os.open(f"{folder}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream, target in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (log, 2)):
        os.dup2(stream, target)
    lock = threading.Lock()

    def kill() -> None:
        os.killpg(0, signal.SIGKILL)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            changes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        else:
            changes = event in CHANGES
            path = arguments[0] if changes else None
        if not changes or isinstance(path, int):
            return
        path = os.fsdecode(path)
        if path.startswith("/") and not path.startswith(folder):  # one without a folder is `shutil.rmtree`'s
            return
        with lock:
            count = int.from_bytes(counter[:8], "little") + 1
            counter[:8] = count.to_bytes(8, "little")
        if count == job["event"]:
            threading.Timer(job["delay"], kill).start() if job["delay"] else kill()

    sys.addaudithook(watch)
    sys.argv = ["optical-hf", *job["words"]]
    code = 0
    try:
        main()
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        code = ended.code if isinstance(ended.code, int) else 1 if ended.code else 0
    except BaseException:
        traceback.print_exc()
        code = 2
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1:])

"""Files and folders that appear under their name only once they are complete, and nothing left of those that do not.

What is not complete yet lies in a scratch folder, `.NAME.XXXXXXXXXXXX.partial`, with a lock in it. The system ends a
lock with the process that holds it, however that ends, and on whichever machine that shares the disk: by this, what a
killed process left is known from what is being written now.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISDIR
from typing import Any
from uuid import uuid4

if sys.platform != "win32":
    import fcntl

_LOCK = ".lock"
_SCRATCH = re.compile(r"\..*\.[0-9a-f]{12}\.partial")


@contextmanager
def scratch(folder: str | os.PathLike[str], name: str) -> Iterator[Path]:
    """Give an empty folder to work in, of which nothing is left at the end of the block.

    What killed processes have left of theirs in the same place is removed first.

    Args:
        folder (`str` or `Path`): where to make it. It has to be there.
        name (`str`): what is going to be made in it, which is a part of its name.
    """
    remove_abandoned(folder)
    while True:
        place = Path(folder) / f".{name}.{uuid4().hex[:12]}.partial"
        place.mkdir(0o700)
        try:
            lock: int | None = _lock(place)
            break
        except (BlockingIOError, FileNotFoundError):
            continue  # until it is locked, another process may take it for abandoned: then there is another name
        except OSError:
            lock = None  # a disk without locks, on which nothing is ever taken for abandoned
            break
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _lock(place: Path) -> int:
    if sys.platform == "win32":
        raise OSError("flock is missing")
    lock = os.open(place / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(place / _LOCK).st_ino != os.fstat(lock).st_ino:  # removed, and made anew by another
            raise FileNotFoundError(place)
    except OSError:
        os.close(lock)
        raise
    return lock


def remove_abandoned(folder: str | os.PathLike[str]) -> None:
    """Remove the scratch folders that killed processes have left in a folder; those in use stay, whoever uses them.

    Where [`scratch`] or [`replacing`] is called, it is done already. It is for folders that are complete, into which
    nothing is going to be written any more.

    Args:
        folder (`str` or `Path`): the folder, not those in it. It need not be there.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    for place in Path(folder).glob(".*.partial"):
        with suppress(OSError):  # in use, gone by now, or on a disk without locks
            status = place.lstat()  # not of what a link leads to, nor of other users': the folder may be /tmp
            if _SCRATCH.fullmatch(place.name) and S_ISDIR(status.st_mode) and status.st_uid == user:
                lock = _lock(place)
                shutil.rmtree(place, ignore_errors=True)
                os.close(lock)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path: what is written there takes the place of `path` if the block ends without an error.

    It is another at every call, so that several processes and machines may write one path: the last one stays.
    The temporary path may be made a file or a folder; a folder takes the place of nothing or of an empty folder only.

    Args:
        path (`str` or `Path`): where the file or folder is going to be. Its parent has to be there.

    Example:

    ```python
    >>> with replacing("run.json") as partial:
    ...     partial.write_text("{}")
    ```
    """
    path = Path(path)
    with scratch(path.parent, path.name) as place:
        yield place / path.name
        os.replace(place / path.name, path)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text in UTF-8, under a temporary name until it is whole."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any, indent: int | None = None) -> None:
    """Write a value as JSON in UTF-8, under a temporary name until it is whole."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")

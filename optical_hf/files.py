"""Files and folders that appear under their name only once they are complete, and tell when they have changed.

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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from stat import S_ISDIR
from typing import Any, TypeVar
from uuid import uuid4

import xxhash

if sys.platform != "win32":
    import fcntl

DIGEST = "digest"
_LOCK = ".lock"
_SCRATCH = re.compile(r"\..*\.[0-9a-f]{12}\.partial")

Value = TypeVar("Value", dict[str, Any], list[Any])


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
            lock: int | None = take_lock(place / _LOCK)
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


def take_lock(path: Path) -> int:
    """Lock a file, which is made if it is not there, until it is closed by `os.close` or the process ends.

    Whoever removes the file does so before closing it: then nobody holds a lock on a file that another cannot see.

    Args:
        path (`Path`): the file. Its folder has to be there.

    Returns:
        `int`: the file's descriptor.

    Raises:
        BlockingIOError: if another holds it.
        FileNotFoundError: if another, who held it, has just removed it.
        OSError: on a disk without locks, and on Windows.
    """
    if sys.platform == "win32":
        raise OSError("flock is missing")
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(path).st_ino != os.fstat(lock).st_ino:  # removed, and made anew by another
            raise FileNotFoundError(path)
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
                lock = take_lock(place / _LOCK)
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


def read_json(path: str | os.PathLike[str], kind: type[Value] = dict) -> Value:  # type: ignore[assignment]
    """Read an object of JSON, or a list if that is the `kind`, from a file in UTF-8.

    Raises:
        OSError: if the file cannot be read.
        ValueError: naming the file, if it holds no such JSON.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, too many digits, nested too deeply
        raise ValueError(f"{path} is no JSON, or is cut off or damaged ({error}).") from error
    if not isinstance(value, kind):
        wanted = "an object" if kind is dict else "a list"
        raise ValueError(f"{path} holds JSON of another kind: a {type(value).__name__}, not {wanted}.")
    return value


def with_digest(record: Mapping[str, Any], name: str = "") -> dict[str, Any]:
    """Add to a record, under `digest`, a hash of its content, and of a name where two files must not change places."""
    content = json.loads(json.dumps(record))
    return {**content, DIGEST: _digest(name, content)}


def pop_digest(content: dict[str, Any], name: str = "") -> bool:
    """Take the hash of [`with_digest`] out of a record. False if the content is another; true if there was none."""
    digest = content.pop(DIGEST, None)
    return digest is None or digest == _digest(name, content)


def _digest(name: str, content: Mapping[str, Any]) -> str:
    written = json.dumps([name, content], sort_keys=True)
    return blake2b(written.encode(), digest_size=16).hexdigest()


def checksums(folder: str | os.PathLike[str]) -> dict[str, str | None]:
    """Hash the files of a folder against damage (XXH3), by their paths in it. They are not held in memory."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _checksum(path) for path in files}


def changed_files(folder: str | os.PathLike[str], sums: Mapping[str, str | None]) -> list[str]:
    """List the files of [`checksums`] that are not there any more, or are not what they were."""
    return [name for name, checksum in sums.items() if _checksum(Path(folder) / name) != checksum]


def _checksum(path: Path) -> str | None:
    checksum = xxhash.xxh3_64()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                checksum.update(block)
    except OSError:
        return None
    return checksum.hexdigest()

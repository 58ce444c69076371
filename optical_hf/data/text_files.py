"""Text files, plain or compressed, and the JSON on their lines."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import logging
import lzma
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, BinaryIO, cast

from huggingface_hub import HfFileSystem

from .characters import without_surrogates

logger = logging.getLogger(__name__)

# What reading a file that is cut off or damaged raises, wherever it has come to.
DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError)
LONGEST_LINE = 1 << 26  # bytes; a compressed file of some kilobytes can hold a line that fills the memory
COMPRESSED = (".gz", ".bz2", ".xz")
_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_NO_TEXT = {
    b"PK\x03\x04": "a zip archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"\x28\xb5\x2f\xfd": "compressed by Zstandard",
    b"\x04\x22\x4d\x18": "compressed by LZ4",
    b"PAR1": "a parquet file",
}

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@contextmanager
def open_bytes(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file, decompressed as its first bytes tell, whatever its name is.

    Args:
        path (`str` or `Path`): of this machine, or `hf://...` of the Hub.

    Raises:
        ValueError: if it is an archive, or compressed in a way that is not read.
    """
    name = os.fspath(path)
    with cast(io.RawIOBase, HfFileSystem().open(name, "rb")) if name.startswith("hf://") else io.FileIO(name) as raw:
        file = io.BufferedReader(raw)
        head = file.peek(6)
        for start, what in _NO_TEXT.items():
            if head.startswith(start):
                raise ValueError(f"{name} is {what}: unpack it, or compress it by gzip, bzip2 or xz instead.")
        opener = next((opener for start, opener in _OPENERS.items() if head.startswith(start)), None)
        if opener is None:
            yield file
        else:
            with opener(file, "rb") as decompressed:
                yield cast(BinaryIO, decompressed)


def numbered_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """Iterate lazily over the lines of a UTF-8 file that are not blank, with their numbers from 1.

    Args:
        path (`str` or `Path`): the file, plain or compressed by gzip, bzip2 or xz.

    Raises:
        ValueError: if the file is not UTF-8, or is cut off or damaged.
    """
    number = 0
    with open_bytes(path) as file:
        try:
            for number, line in enumerate(bounded_lines(file), start=1):
                text = decode(line)
                if text.strip():
                    yield number, text
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        except DAMAGE as error:
            raise ValueError(f"{path}, after line {number}: cut off or damaged ({error}); fetch it again.") from None


def bounded_lines(file: BinaryIO) -> Iterator[bytes]:
    """Iterate over the lines of a file; of one that is too long only as much as [`decode`] needs to refuse it."""
    for line in iter(partial(file.readline, LONGEST_LINE + 1), b""):
        yield line
        if len(line) > LONGEST_LINE:
            return


def decode(line: bytes) -> str:
    """Decode a line without its end, and without the byte order mark that files begin with, joined ones every part.

    Raises:
        ValueError: saying where the line is not UTF-8, or that it is too long.
    """
    if len(line) > LONGEST_LINE:
        raise ValueError(f"over {LONGEST_LINE >> 20} MB without an end: this is no line of text")
    try:
        return line.decode("utf-8").removeprefix("\ufeff").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start + 1}; convert the file to UTF-8") from None


def parse_json(line: str) -> tuple[Any, int]:
    """Parse a line of JSON.

    Returns:
        `tuple[Any, int]`: the value, and how many lone surrogates of it, halves of a character that was cut in two,
        became U+FFFD.

    Raises:
        ValueError: saying why it cannot be read, without file and line.
    """
    try:
        value = json.loads(line)
        if not _SURROGATE.search(line):
            return value, 0
        written, surrogates = without_surrogates(json.dumps(value, ensure_ascii=False))
        return json.loads(written) if surrogates else value, surrogates
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg}, column {error.colno}); a line is one JSON object") from None
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None
    except ValueError:  # Python reads integers of 4300 digits at most
        raise ValueError("a number of too many digits") from None


def warn_of_surrogates(places: Sequence[str]) -> None:
    """Say, once, where [`parse_json`] replaced lone surrogates, if it did.

    Args:
        places (`Sequence[str]`): the file and line of each.
    """
    if places:
        _warn_of_surrogates(len(places), places[0])


@cache  # an evaluation reads its passages more than once
def _warn_of_surrogates(count: int, place: str) -> None:
    text = "Lone surrogates, halves of a character that was cut in two, became U+FFFD: %d, the first at %s."
    logger.warning(text, count, place)

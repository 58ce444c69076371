"""Characters that cannot be seen, and Unicode's normal forms in a time that grows only with a text's length."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import partial
from typing import Literal

# Controls but for white space, and what Unicode calls ignorable by default: soft hyphens, marks of the byte order and
# of the direction of writing, spaces without a width, fillers, tags.
INVISIBLE = (
    "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e00ff"
    "\U000e01f0-\U000e0fff"
)
# What changes the letters beside it: the joiners of Persian, of Indic scripts and of emoji, Mongolian's vowel
# separator; and the selectors of a letter's form.
JOINERS, SELECTORS = "\u180e\u200c\u200d", "\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef"
# After these a joiner matters at the end of a word too: Malayalam's final consonants were long written so.
_VIRAMAS = "".join(char for char in map(chr, range(0x10000)) if unicodedata.combining(char) == 9)
# The ignorable ones that `str.isprintable` takes for printable.
_PRINTABLE = re.compile(f"[\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0{SELECTORS}]")
_FLAG = "\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f"  # those of England, Scotland and Wales are spelt in tags
_REMOVED = re.compile(f"({_FLAG})|[{INVISIBLE}]+")
_STRAY = re.compile(
    rf"(?<!\S)[{JOINERS}{SELECTORS}]+"
    rf"|(?<=[{JOINERS}])[{JOINERS}]+|(?<=[{SELECTORS}])[{SELECTORS}]+"
    rf"|(?<![{_VIRAMAS}{JOINERS}])[{JOINERS}]+(?!\S)"
)
# In a shorter text the time of a run of marks is too short to matter.
_SHORT = 1000
_LONG_RUN = re.compile("[\\W\uff9e\uff9f]{31,}")  # these two letters become marks in NFKC
_SURROGATE = re.compile("[\ud800-\udfff]")


def visible(text: str) -> str:
    """Remove what cannot be seen.

    Joiners and variation selectors stay where a letter, a sign or an emoji changes by them: after one, and joiners
    only before another or after a virama.

    Args:
        text (`str`): any text; white space stays as it is.

    Example:

        >>> visible("\\ufeffco\\u00adoperate\\u200e"), visible("\\u200b")
        ('cooperate', '')
    """
    return text if all_visible(text) else _STRAY.sub("", _REMOVED.sub(r"\1", text))


def all_visible(text: str) -> bool:
    """Tell, quickly, that [`visible`] leaves a text as it is, and that it has no white space but spaces.

    False tells nothing: there may be a joiner that stays.
    """
    return text.isprintable() and (text.isascii() or not _PRINTABLE.search(text))


def normalized(form: Literal["NFC", "NFD", "NFKC"], text: str) -> str:
    """Bring a text into a normal form of Unicode.

    `unicodedata.normalize` sorts the marks on a letter in a time that grows with the square of their number. So runs
    of marks are cut after every 30 by a grapheme joiner, as Unicode's Stream-Safe Text Format has it (UAX 15).
    """
    if len(text) > _SHORT and not text.isascii():
        text = _LONG_RUN.sub(_cut_run, text)
    return unicodedata.normalize(form, text)


def all_normalized(form: Literal["NFC", "NFD", "NFKC"], texts: Sequence[str]) -> Sequence[str]:
    """Bring texts into a normal form of Unicode: what [`normalized`] gives of each, in less time."""
    if max(map(len, texts), default=0) > _SHORT:
        return [normalized(form, text) for text in texts]
    return [*map(partial(unicodedata.normalize, form), texts)]


def _cut_run(run: re.Match[str]) -> str:
    pieces, marks = [], 0
    for character in run[0]:
        # By the decomposition, since some marks consist of two.
        marks = marks + 1 if unicodedata.combining(unicodedata.normalize("NFKD", character)[0]) else 0
        if marks > 30:
            pieces.append("\u034f")
            marks = 1
        pieces.append(character)
    return "".join(pieces)


def without_surrogates(text: str) -> tuple[str, int]:
    """Replace surrogates, which are no characters and cannot be written as UTF-8, by U+FFFD, and count them."""
    return _SURROGATE.subn("\ufffd", text)

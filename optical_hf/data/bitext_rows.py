"""Rows of bitext, as JSON lines and datasets have them, and the choice among tags of a language."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from .characters import visible
from .languages import language_code


def row_pair(row: Any, language: str) -> tuple[str, str]:
    """Return the two sides of a row.

    Args:
        row (`dict`): with the keys `english` and `translation` (or `non_english`), or with `translation` as an object
            of texts by language, see [`choose_tag`].
        language (`str`): of the translation, as `language_code` gives it.

    Returns:
        `tuple[str, str]`: English and the translation; what is null is empty.

    Raises:
        ValueError: saying what is wrong with the row.
    """
    if not isinstance(row, dict):
        raise ValueError(f"a {type(row).__name__}, not an object with the keys 'english' and 'translation'")
    translation, other = row.get("translation"), row.get("non_english")
    if not translation and translation != {}:
        translation = other
    elif other and other != translation:
        raise ValueError("both 'translation' and 'non_english' hold a text; keep one")
    if isinstance(translation, dict):
        english_tag, tag = choose_tag(translation, "en"), choose_tag(translation, language)
        if english_tag is None or tag is None:
            raise ValueError(
                f"'translation' has the languages {reprlib.repr(sorted(translation))}, not 'en' and '{language}'"
            )
        sides = translation[english_tag], translation[tag]
    elif "english" in row and ("translation" in row or "non_english" in row):
        sides = row["english"], translation
    else:
        raise ValueError(
            f"the keys are {reprlib.repr(sorted(row))}; they must be 'english' and 'translation' (or 'non_english'), "
            f"or 'translation' with an object of 'en' and '{language}'"
        )
    for text in sides:
        if text is not None and not isinstance(text, str):
            raise ValueError(f"{reprlib.repr(text)} is not a text")
    return sides[0] or "", sides[1] or ""


def choose_tag(texts: Mapping[str, Any], language: str) -> str | None:
    """Choose among language tags the one of a language.

    A tag whose text is empty gives way to one whose text is not. Then the language's own code goes before its other
    codes (`swh` for `sw`), and these before tags with a region or a script (`pt-BR`).

    Args:
        texts (`Mapping`): texts by tag.
        language (`str`): as `language_code` gives it.

    Returns:
        `str`: the tag, `None` if there is none of the language.

    Raises:
        ValueError: if two tags have the same right, naming them.
    """
    if is_full(texts.get(language)):
        return language
    tags = [tag for tag in texts if tag_language(tag) == language]
    full = [tag for tag in tags if is_full(texts[tag])]
    first = [tag for tag in full if tag.isalpha()] or full or tags[:1]
    if len(first) > 1:
        named = " and ".join(map(repr, first))
        raise ValueError(f"{named} are all '{language}'; keep one, or name the one you mean '{language}'")
    return first[0] if first else None


@lru_cache(maxsize=1024)
def tag_language(tag: str) -> str | None:
    """Return the language of a tag such as `en`, `pt-BR` or `zho_Hans`, as `language_code` gives it, or `None`."""
    try:
        return language_code(re.split("[-_]", tag.strip())[0])
    except ValueError:
        return None


def is_full(text: Any) -> bool:
    """Tell whether a text has something that can be seen."""
    return bool(visible(text).strip()) if isinstance(text, str) else text is not None

"""Language codes: ISO 639-1 where one exists, else ISO 639-3."""

from __future__ import annotations

import re
from functools import cache

import langcodes

# Valid subtags of BCP 47 that name no language: undetermined, several, uncoded, no linguistic content, private use.
_NO_LANGUAGE = re.compile(r"und|mul|mis|zxx|q[a-t][a-z]")


@cache
def language_code(code: str) -> str:
    """Normalise a language code to ISO 639-1 where one exists, else ISO 639-3.

    Args:
        code (`str`):
            An ISO 639-1, 639-2 or 639-3 code in any case, without a region or a script. Retired codes (`iw`) and the
            main variety of a macrolanguage (`swh`, `cmn`, `arb`) become the usual code (`he`, `sw`, `zh`, `ar`).

    Returns:
        `str`: the code in lower case.

    Raises:
        ValueError: if `code` is not the bare code of a language.

    Example:

        >>> language_code("SWA"), language_code("yo"), language_code("ceb")
        ('sw', 'yo', 'ceb')
    """
    if re.fullmatch("[A-Za-z]{2,3}", code) and langcodes.tag_is_valid(code):
        language = langcodes.Language.get(code).prefer_macrolanguage().language or "und"
        if not _NO_LANGUAGE.fullmatch(language):
            # BCP 47 folds Tagalog into Filipino, which has no ISO 639-1 code.
            return "tl" if language == "fil" else language
    raise ValueError(
        f"'{code}' is not a language code; use ISO 639-1 such as 'sw', or ISO 639-3 such as 'ceb' where there is "
        "none, without a region or a script."
    )

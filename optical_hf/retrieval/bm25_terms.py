"""How BM25 cuts a text into terms, as it fits the language."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Any

from ..data.languages import language_code

# Snowball's name of each language. Which of them are there depends on the version of PyStemmer.
STEMMERS = {
    "ar": "arabic", "ca": "catalan", "cs": "czech", "da": "danish", "de": "german", "el": "greek", "en": "english",
    "eo": "esperanto", "es": "spanish", "et": "estonian", "eu": "basque", "fa": "persian", "fi": "finnish",
    "fr": "french", "ga": "irish", "hi": "hindi", "hu": "hungarian", "hy": "armenian", "id": "indonesian",
    "it": "italian", "lt": "lithuanian", "ne": "nepali", "nl": "dutch", "no": "norwegian", "pl": "polish",
    "pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian", "st": "sesotho", "sv": "swedish",
    "ta": "tamil", "tr": "turkish", "yi": "yiddish",
}  # fmt: skip

# Written without spaces, or, as Korean is, with endings joined to the noun.
BIGRAM_LANGUAGES = ("ja", "ko", "th", "zh")
# Thai, Hangul, kana and Han letters; words of other scripts among them stay whole.
_BIGRAM_LETTERS = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u1100-\u11ff\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff"
    "\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff"
)
# Zero-width joiners and the soft hyphen are no letters, and texts differ in them: the words must not.
_INVISIBLE = re.compile("[\u00ad\u200c\u200d]")


def analyzer(language: str) -> Callable[[str], list[str]]:
    """Make the function that cuts texts of a language into terms, in lower case and Unicode's NFKC form.

    Terms are stems where PyStemmer has a stemmer, pairs of neighbouring characters in Chinese, Japanese, Korean and
    Thai, and words elsewhere. No stop words are left out.

    Args:
        language (`str`): as [`languages.language_code`] reads it.

    Raises:
        ImportError: if PyStemmer is not installed.

    Example:
        >>> analyzer("en")("Rivers, running"), analyzer("zh")("尼罗河 Nile")
        (['river', 'run'], ['尼罗', '罗河', 'nile'])
    """
    code = language_code(language)
    instead = " " if code == "fa" else ""  # in Persian, the non-joiner parts affixes from their word
    words, runs, characters = _patterns()
    stemmer = stemmer_of(code)
    stem = None if stemmer is None else import_extra("Stemmer").Stemmer(stemmer).stemWords

    def normalize(text: str) -> str:
        return unicodedata.normalize("NFKC", _INVISIBLE.sub(instead, text)).lower()

    def analyze_words(text: str) -> list[str]:
        found = words.findall(normalize(text))
        return found if stem is None else stem(found)

    def analyze_bigrams(text: str) -> list[str]:
        terms: list[str] = []
        for run, word in runs.findall(normalize(text)):
            letters = characters.findall(run)
            terms += map("".join, zip(letters, letters[1:], strict=False)) if len(letters) > 1 else [word or run]
        return terms

    return analyze_bigrams if code in BIGRAM_LANGUAGES else analyze_words


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Words; runs of bigram letters or else words; single letters with the marks that are written on them."""
    # \w leaves out combining marks, so that the vowel signs of Telugu, Bengali and Hindi would cut words to pieces.
    # Marks beyond U+FFFF, of few living scripts, are left out: a class with them takes ten times as long.
    marks = "".join(char for char in map(chr, range(0x10000)) if unicodedata.category(char) in ("Mn", "Mc"))
    words = re.compile(f"\\w+(?:[{marks}]+\\w*)*")
    runs = re.compile(f"([{_BIGRAM_LETTERS}][{_BIGRAM_LETTERS}{marks}]*)|((?:(?![{_BIGRAM_LETTERS}])[\\w{marks}])+)")
    return words, runs, re.compile(f"[^{marks}][{marks}]*|[{marks}]+")


def stemmer_of(code: str) -> str | None:
    """Return Snowball's name of a language, `None` if PyStemmer has no stemmer for it."""
    name = STEMMERS.get(code)
    return name if name and name in import_extra("Stemmer").algorithms() else None


def import_extra(name: str) -> Any:
    """Import what the extra `bm25` installs."""
    try:
        return __import__(name)
    except ImportError as error:
        raise ImportError('BM25 needs bm25s and PyStemmer: pip install "optical-hf[bm25]".') from error

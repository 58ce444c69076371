"""How BM25 cuts a text into terms, as it fits the language."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Any

from ..data.characters import normalized
from ..data.languages import language_code
from .bm25_letters import letter_folding

# Snowball's name of each language. Which of them are there depends on the version of PyStemmer.
STEMMERS = {
    "ar": "arabic", "ca": "catalan", "cs": "czech", "da": "danish", "de": "german", "el": "greek", "en": "english",
    "eo": "esperanto", "es": "spanish", "et": "estonian", "eu": "basque", "fa": "persian", "fi": "finnish",
    "fr": "french", "ga": "irish", "hi": "hindi", "hu": "hungarian", "hy": "armenian", "id": "indonesian",
    "it": "italian", "lt": "lithuanian", "nb": "norwegian", "ne": "nepali", "nl": "dutch", "no": "norwegian",
    "pl": "polish", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian", "st": "sesotho",
    "sv": "swedish", "ta": "tamil", "tr": "turkish", "yi": "yiddish",
}  # fmt: skip

# What an index was analysed by. A change of the terms of any text, here or in `bm25_letters`, has to raise it.
ANALYSIS_VERSION = 2

# Letters of scripts that are written without spaces, or, as Korean is, with endings joined to the noun: Tai scripts
# (Thai, Lao, Tai Le, New Tai Lue, Tai Tham, Tai Viet), Burmese, Hangul, Khmer, kana, Bopomofo, Han, Yi, Javanese.
# Digits are left out. Words of other scripts among them stay whole.
_BIGRAM_LETTERS = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ec6\u0ec8-\u0ece\u0edc-\u0edf\u1000-\u103f\u1050-\u108f\u109a-\u109f"
    "\u1100-\u11ff\u1780-\u17d3\u17d7\u17dc\u17dd\u1950-\u1974\u1980-\u19c9\u1a20-\u1a7f\u1aa7\u3005-\u3007"
    "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\ua000-\ua48c\ua980-\ua9c0\ua9e0-\ua9ef\ua9fa-\ua9fe\uaa60-\uaa7f\uaa80-\uaac2\uaadb-\uaadd"
    "\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff"
)


GRAM = 4  # characters
_MARKS = re.compile("[\u0300-\u036f]+")  # of Latin, Greek and Cyrillic letters; in other scripts marks are vowels


def analyzer(language: str | None) -> Callable[[str], list[str]]:
    """Make the function that cuts texts of a language into terms, with their letters as [`letter_folding`] makes them.

    Terms are stems where PyStemmer has a stemmer, and words elsewhere; in scripts that do not part words by spaces,
    whatever the language, pairs of neighbouring letters, and letters with a vowel or a tone on them. No stop words are
    left out.

    Without a language, terms are the 4 neighbouring characters of words without diacritics, the ends of a word among
    them: what queries share with passages of another language, such as names, however either language writes them.

    Args:
        language (`str`, *optional*): as [`languages.language_code`] reads it, or `None`.

    Raises:
        ImportError: if PyStemmer is not installed, which is not needed without a language.

    Example:
        >>> analyzer("en")("Rivers, running"), analyzer("zh")("尼罗河 Nile")
        (['river', 'run'], ['尼罗', '罗河', 'nile'])
        >>> analyzer(None)("Tójò, Ọ")
        ['_toj', 'tojo', 'ojo_', '_o_']
    """
    code = "" if language is None else language_code(language)
    fold = letter_folding(code)
    words, unspaced, runs, characters = _patterns()

    def character_grams(text: str) -> list[str]:
        text = _MARKS.sub("", normalized("NFD", fold(text)))
        ended = [f"_{word}_" for word in words.findall(text)]
        return [word[start : start + GRAM] for word in ended for start in range(max(1, len(word) - GRAM + 1))]

    if language is None:
        return character_grams
    stemmer = stemmer_of(code)
    stem: Callable[[list[str]], list[str]] = list
    if stemmer is not None:
        stem = import_extra("Stemmer").Stemmer(stemmer).stemWords

    def analyze(text: str) -> list[str]:
        text = fold(text)
        if not unspaced.search(text):
            return stem(words.findall(text))
        terms: list[str] = []
        for run, word in runs.findall(text):
            letters = characters.findall(run)
            terms += map("".join, zip(letters, letters[1:], strict=False))
            # A letter with its vowel can be a word: in Burmese many are.
            terms += [letter for letter in letters if len(letter) > 1] if len(letters) > 1 else letters or stem([word])
        return terms

    return analyze


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Words; a bigram letter; runs of these or else words; single letters with the marks that are written on them."""
    # \w leaves out combining marks, so that the vowel signs of Telugu, Bengali and Hindi would cut words to pieces.
    # Marks beyond U+FFFF, of few living scripts, are left out: a class with them takes ten times as long.
    marks = "".join(char for char in map(chr, range(0x10000)) if unicodedata.category(char) in ("Mn", "Mc"))
    words = re.compile(f"\\w+(?:[{marks}]+\\w*)*")
    letter = f"[{_BIGRAM_LETTERS}]"
    runs = re.compile(f"({letter}[{_BIGRAM_LETTERS}{marks}]*)|((?!{letter})\\w(?:(?!{letter})[\\w{marks}])*)")
    return words, re.compile(letter), runs, re.compile(f"[^{marks}][{marks}]*|[{marks}]+")


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

"""What BM25 takes for the same letter: cases, digits, and ways of writing, as it fits the language."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from ..data.characters import INVISIBLE, JOINERS, SELECTORS, normalized

_UNSEEN = re.compile(f"[{INVISIBLE}{JOINERS}{SELECTORS}]")
_OTHER_DIGITS = re.compile(r"[^\D0-9]")
# Languages that write I without and with a dot, and keep the dot in capitals.
_DOTTED_I = ("az", "crh", "gag", "kaa", "kiu", "tr", "zza")
# Consonants that end a word, as they were written before they had characters of their own: with a joiner.
_ENDS = {
    "\u09a4\u09cd\u200d": "\u09ce", "\u0d23\u0d4d\u200d": "\u0d7a", "\u0d28\u0d4d\u200d": "\u0d7b",
    "\u0d30\u0d4d\u200d": "\u0d7c", "\u0d32\u0d4d\u200d": "\u0d7d", "\u0d33\u0d4d\u200d": "\u0d7e",
    "\u0d15\u0d4d\u200d": "\u0d7f",
}  # fmt: skip
_HEBREW_POINTS = "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"
_VOWEL_SIGNS = "\u0610-\u061a\u064b-\u0652\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed"
_TATWEEL = "\u0640"
# Letters that look like an apostrophe, for which they are typed: oʻzbek, п'ять, Qurʾān.
_APOSTROPHES = re.compile("[\u02b9-\u02bf\ua78c]")
# Forms of Arabic letters that keyboards and people exchange. In Uyghur, Pashto and Sindhi they are other letters.
_ARABIC = {"أ": "ا", "إ": "ا", "آ": "ا", "ٱ": "ا", "ى": "ي", "ی": "ي", "ک": "ك"}
_PERSIAN = {"ي": "ی", "ى": "ی", "ك": "ک", "أ": "ا", "ۀ": "ه", "\u0654": ""}
_LETTERS = {
    "ar": _ARABIC,
    # Its varieties have no stemmer that would take either ending off.
    **dict.fromkeys("acm acq aeb ajp apc apd arq ars ary arz ayl".split(), _ARABIC | {"ة": "ه"}),
    **dict.fromkeys("azb fa glk lrc mzn pnb".split(), _PERSIAN),
    "ckb": _PERSIAN | {"ة": "ە"},
    "fr": {"œ": "oe", "æ": "ae"},
    "ro": {"ș": "ş", "ț": "ţ"},  # older stemmers know the cedillas alone
    "ur": {"ي": "ی", "ى": "ی", "ك": "ک", "ه": "ہ"},
}
_IRISH_PREFIX = re.compile(r"\b([nt])(?=[AEIOUÁÉÍÓÚ])")
_GREEK = re.compile("[\u0370-\u03ff\u1f00-\u1fff][\u0300-\u036f\u0370-\u03ff\u1f00-\u1fff]*")
_ACCENTS = re.compile("[\u0300-\u036f]+")
_STRESS = re.compile("[\u0300\u0301](?<=[\u0400-\u04ff].)")


def letter_folding(code: str) -> Callable[[str], str]:
    """Make the function that brings the ways to write a word to one.

    Texts come out in lower case (case folding, which makes ss of ß and σ of ς), with the digits 0 to 9, in Unicode's
    NFKC form, and without what cannot be seen, Arabic and Hebrew vowel signs, tatweel, stress marks on Cyrillic and
    accents on Greek letters. Where languages differ in what is the same letter, the language decides.

    Args:
        code (`str`): of the language, as [`languages.language_code`] gives it.
    """
    left_out = _TATWEEL + _HEBREW_POINTS + ("" if code == "ks" else _VOWEL_SIGNS)  # Kashmiri writes all its vowels
    unwritten = re.compile(f"[{left_out}]")
    letters = _LETTERS.get(code, {})
    exchanged = re.compile(f"[{''.join(letters)}]") if letters else None
    by_language = code == "ga" or code in _DOTTED_I

    def fold(text: str) -> str:
        if text.isascii() and text.isprintable() and not by_language:
            return text.lower()
        if "\u200d" in text:
            for written, letter in _ENDS.items():
                text = text.replace(written, letter)
        if code == "fa":  # the non-joiner parts affixes from their word
            text = text.replace("\u200c", " ")
        if code == "ckb":  # the vowel e, made of h on keyboards without it
            text = text.replace("ه\u200c", "ە")
        text = normalized("NFKC", _UNSEEN.sub("", text))
        if code in _DOTTED_I:
            text = text.replace("İ", "i").replace("I", "ı")
        if code == "ga":  # nAthair is n-athair, and no snake (nathair)
            text = _IRISH_PREFIX.sub(r"\1-", text)
        text = unwritten.sub("", text.casefold())
        if "i\u0307" in text:  # İ in small letters, or Lithuanian's i under an accent
            text = normalized("NFKC", text.replace("i\u0307", "i"))
        if exchanged:
            text = exchanged.sub(lambda letter: letters[letter[0]], text)
        text = _OTHER_DIGITS.sub(_ascii_digit, _APOSTROPHES.sub("'", text))
        return _GREEK.sub(_without_accents, _STRESS.sub("", text))

    return fold


def _ascii_digit(digit: re.Match[str]) -> str:
    return str(unicodedata.decimal(digit[0]))


def _without_accents(letters: re.Match[str]) -> str:
    return _ACCENTS.sub("", normalized("NFD", letters[0]))

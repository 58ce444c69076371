"""What cannot be seen, and normal forms of long runs of marks."""

from __future__ import annotations

import unicodedata
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optical_hf.data import characters
from optical_hf.data.characters import normalized, visible, without_surrogates

ENGLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
INVISIBLE = ["\x00", "\x08", "\x1b", "\x7f", "\x9d", "\u00ad", "\u034f", "\u061c", "\u115f", "\u1160", "\u17b4"]
INVISIBLE += ["\u200b", "\u200e", "\u200f", "\u202a", "\u202e", "\u2060", "\u2063", "\u2066", "\u2069", "\u206f"]
INVISIBLE += ["\u3164", "\ufeff", "\uffa0", "\ufff9", "\U0001bca0", "\U0001d173", "\U000e0001", "\U000e0041"]


@pytest.mark.parametrize("character", INVISIBLE)
def test_what_cannot_be_seen_is_removed_everywhere(character: str) -> None:
    assert visible(character) == ""
    assert visible(f"{character}a{character}b c{character}\n") == "ab c\n"


@pytest.mark.parametrize("character", ["\u200c", "\u200d", "\u180e", "\ufe0f", "\u180b", "\U000e0100"])
def test_joiners_and_selectors_alone_are_nothing(character: str) -> None:
    assert visible(character) == visible(character * 3) == visible(f"\u200b{character}") == ""
    assert visible(f"a {character} b{character}{character}c") == f"a  b{character}c"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("می\u200cخواهم\u200c", "می\u200cخواهم"),  # Persian: within a word, not at its end
        ("\u200da\u200c b", "a b"),
        ("क्\u200dष क्\u200cष", "क्\u200dष क्\u200cष"),  # Hindi: another conjunct
        ("ශ්\u200dරී ලංකා", "ශ්\u200dරී ලංකා"),  # Sinhala
        ("അവന്\u200d.", "അവന്\u200d."),  # Malayalam: a final consonant
        ("അവന്\u200d ത്\u200d\u200d", "അവന്\u200d ത്\u200d"),
        ("👨\u200d👩\u200d👧 ❤\ufe0f\u200d🔥 ☎\ufe0f", "👨\u200d👩\u200d👧 ❤\ufe0f\u200d🔥 ☎\ufe0f"),
        (f"{ENGLAND}\u200b!", f"{ENGLAND}!"),
        ("葛\U000e0100城", "葛\U000e0100城"),  # a Japanese name's form of the character
        ("ᠰᠠᠷ\u180eᠠ", "ᠰᠠᠷ\u180eᠠ"),  # Mongolian's vowel separator
        ("\u0600 \u06dd \u00a0\u2028", "\u0600 \u06dd \u00a0\u2028"),  # these can be seen, or are white space
        ("plain ASCII\tand\r\nlines", "plain ASCII\tand\r\nlines"),
    ],
)
def test_what_letters_need_stays(text: str, expected: str) -> None:
    assert visible(text) == expected


@given(st.text(st.sampled_from("ab \n\u094d\u200c\u200d\u180b\u180e\ufe0f\u200b\ufeff\u00ad\U000e0100❤"), max_size=12))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_visible_is_stable_and_loses_no_letter(text: str) -> None:
    seen = visible(text)
    assert visible(seen) == seen
    letters = set("ab \n\u094d❤")
    assert [char for char in seen if char in letters] == [char for char in text if char in letters]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_usual_texts_get_unicodes_normal_form(text: str) -> None:
    for form in ("NFC", "NFD", "NFKC"):
        assert normalized(form, text) == unicodedata.normalize(form, text)
        assert normalized(form, text + "a" * 1000) == unicodedata.normalize(form, text + "a" * 1000)


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC"])
@pytest.mark.parametrize(
    "cycle",
    # Alternating classes have to be sorted. The second is a letter that NFKC makes a mark, the third two marks in one.
    ["\u0301\u0316", "\uff9e\u0316", "\u0f73\u0316", "\U0001e8d0\U0001d165"],
)
def test_runs_of_marks_are_cut_so_that_time_is_linear(monkeypatch: pytest.MonkeyPatch, form: str, cycle: str) -> None:
    longest = 0

    def normalize(form: str, text: str) -> str:
        nonlocal longest
        run = 0
        for character in unicodedata.normalize("NFKD", text) if len(text) < 2 else text:
            marks = unicodedata.normalize("NFKD", character)
            run = run + len(marks) if all(map(unicodedata.combining, marks)) else 0
            longest = max(longest, run)
        return unicodedata.normalize(form, text)

    fake = SimpleNamespace(normalize=normalize, combining=unicodedata.combining)
    monkeypatch.setattr(characters, "unicodedata", fake)
    text = "a" + cycle * 1000 + " b"
    result = normalized(form, text)
    assert 30 <= longest <= 60
    assert result.replace("\u034f", "")[-2:] == " b"
    assert len(unicodedata.normalize("NFD", result.replace("\u034f", ""))) == len(unicodedata.normalize("NFKD", text))


def test_surrogates_are_counted() -> None:
    assert without_surrogates("cut \ud83d, \udc00\ud83d and 🔥") == ("cut \ufffd, \ufffd\ufffd and 🔥", 3)
    assert without_surrogates("whole 🔥") == ("whole 🔥", 0)

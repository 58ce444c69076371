"""Checks made on many pairs at once keep, drop and count what checks of one pair after the other do."""

from __future__ import annotations

import tempfile
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from optical_hf.data import bitext
from optical_hf.data.bitext import REASONS, load_bitext
from optical_hf.data.characters import all_normalized, all_visible, normalized, visible

# Spaces of all kinds, what cannot be seen, joiners and selectors, marks that compose, do not, or change places,
# characters that compose to one or decompose by themselves, letters whose case folds to several, wide ones, no words.
NASTY = " |\u00a0\u2003\u3000\x0b\x85\u2028\u200b\u200c\u200d\ufeff\u00ad\u034f\u3164\ufe0f\U000e0100\u094d"
NASTY += "\u0301\u0316\u0323e\u0308\u00e9\u1ecd\u2126\u212b\u1100\u1161\uac00\ufb01\u00df\u1e9es\u0130Kk\u212a"
NASTY += "\u4e66\u672c\u30cb\u0e01\u0e02\U0001f525a"
WORDS = [
    "Good",
    "good",
    "GOOD",
    "stra\u00dfe",
    "STRASSE",
    "o\u0323\u0301",
    "\u1ecd\u0301",
    "\u4e66" * 9,
    "\u0e01" * 26,
]
TEXT = st.text(st.sampled_from(NASTY), max_size=14) | st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
PLAIN = st.text(st.sampled_from(" |a\u4e66"), max_size=20)
TEXT |= st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)
LONG = st.tuples(TEXT, st.sampled_from(["\u0301\u0316" * 40, "x" * 1001, "\u0323" * 1001])).map("".join)
SIDE = (TEXT | TEXT | PLAIN | LONG).map(lambda text: text.translate(dict.fromkeys(map(ord, "\t\n\r"), " ")))
PAIRS = st.lists(
    st.tuples(SIDE, SIDE) | st.tuples(PLAIN, PLAIN) | SIDE.map(lambda text: (text, text.upper())),
    min_size=1,
    max_size=30,
)


def words(text: str) -> int:
    return text.count(" ") + 1 + len(bitext._UNSPACED_WORD.findall(text))


def width(text: str) -> int:
    return len(text) + len(bitext._WIDE.findall(text))


def pair_by_pair(pairs: Iterable[tuple[str, str]], max_words: int, max_ratio: float) -> tuple[list, dict[str, int]]:
    kept: list[tuple[str, str]] = []
    counts = dict.fromkeys(("kept", *REASONS), 0)
    for pair in pairs:
        english, translation = (" ".join(visible(side.removeprefix("\ufeff")).split()) for side in pair)
        composed = normalized("NFC", english), normalized("NFC", translation)
        shorter, longer = sorted(map(width, composed))
        if not english or not translation:
            reason = "empty"
        elif max(len(english), len(translation)) > 64 * max_words:
            reason = "long"
        elif composed[0].casefold() == composed[1].casefold():
            reason = "identical"
        elif max(map(words, composed)) > max_words:
            reason = "long"
        elif longer + 10 > max_ratio * (shorter + 10):
            reason = "mismatched"
        else:
            reason = "duplicate" if composed in kept else "kept"
        counts[reason] += 1
        if reason == "kept":
            kept.append(composed)
    return kept, counts


@given(PAIRS, st.integers(1, 20), st.sampled_from([1.0, 1.5, 3.0]), st.sampled_from([1, 40, 1 << 15]))
@example([("\u4e66\u672c", "a")], 1, 3.0, 1)  # two words of two letters
@settings(max_examples=300, deadline=None, derandomize=True)
def test_batches_give_what_single_pairs_give(pairs: list, max_words: int, max_ratio: float, batch: int) -> None:
    always = ("a", "b")  # else an error where none is left
    kept, counts = pair_by_pair([always, *pairs, *pairs[:3]], max_words, max_ratio)
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(bitext, "_BATCH", batch):
        lines = [f"{english}\t{translation}\n" for english, translation in [always, *pairs, *pairs[:3]]]
        path = Path(folder) / "b.tsv"
        path.write_text("".join(lines), encoding="utf-8", newline="")
        loaded = load_bitext({"sw": path}, max_words=max_words, max_ratio=max_ratio)
    assert [(row["english"], row["translation"]) for row in loaded.dataset] == kept
    assert loaded.counts["sw"] == counts


def test_every_reason_is_met_across_the_ends_of_batches_and_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = [(f"English {i}", f"Kiswahili {i}") for i in range(1000)]
    bad = [("", "x"), ("Same", "SAME"), ("x" * 9000, "x"), ("w " * 200, "w " * 199), ("y" * 14, "n" * 63), plain[0]]
    bad += [("English\u00a05", "\u200bKiswahili 5"), ("e\u0301" * 3, "\u00e8" * 4), ("\u00e9" * 3, "\u00e8" * 4)]
    pairs = [*plain[:500], *bad, *plain[500:], *bad]
    monkeypatch.setattr(bitext, "_CHUNK", 100)
    path = tmp_path / "b.tsv"
    path.write_text("".join(f"{english}\t{translation}\n" for english, translation in pairs), encoding="utf-8")
    expected = pair_by_pair(pairs, 128, 3.0)
    assert expected[1] == {"kept": 1001, "empty": 2, "identical": 2, "long": 4, "mismatched": 2, "duplicate": 7}
    for batch in (1, 100, 1 << 15):
        monkeypatch.setattr(bitext, "_BATCH", batch)
        loaded = load_bitext({"sw": path})
        assert [(row["english"], row["translation"]) for row in loaded.dataset] == expected[0]
        assert loaded.counts["sw"] == expected[1]
        assert loaded.dataset["language"][:] == ["sw"] * 1001


@given(st.lists(TEXT | LONG, max_size=5))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_all_normalized_and_all_visible(texts: list[str]) -> None:
    for form in ("NFC", "NFD", "NFKC"):
        assert list(all_normalized(form, texts)) == [normalized(form, text) for text in texts]
    for text in texts:
        if all_visible(text):
            assert visible(text) == text and set(filter(str.isspace, text)) <= {" "}
    assert all_visible("".join(map(chr, range(33, 127)))) and not all_visible("a\u3164")
    assert unicodedata.normalize("NFC", "e\u0301") == all_normalized("NFC", ["e\u0301"])[0] == "\u00e9"

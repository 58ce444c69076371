"""The sides of a row, and which of several tags of a language is meant."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from optical_hf.data.bitext import load_bitext
from optical_hf.data.bitext_rows import choose_tag, row_pair


@pytest.mark.parametrize(
    ("language", "texts", "side"),
    [
        ("pt", {"pt": "B.", "pt-br": None}, "B."),
        ("pt", {"pt-br": None, "pt": "B."}, "B."),
        ("pt", {"pt": None, "pt-br": "C."}, "C."),
        ("pt", {"pt": " \ufeff", "pt-br": "C."}, "C."),
        ("pt", {"pt": "B.", "pt-br": "C."}, "B."),
        ("pt", {"pt-br": "C.", "por": "B."}, "B."),
        ("pt", {"pt-br": "", "pt-pt": None}, ""),
        ("zh", {"zho_Hans": "一", "zho_Hant": ""}, "一"),
        ("sw", {"SW": "x", "de": "y"}, "x"),
    ],
)
def test_the_exact_tag_comes_first_and_empty_never_over_full(language: str, texts: dict, side: str) -> None:
    assert row_pair({"translation": {"en": "A.", **texts}}, language) == ("A.", side)


def test_english_is_chosen_likewise() -> None:
    assert row_pair({"translation": {"en_US": "", "eng": "A.", "sw": "B."}}, "sw") == ("A.", "B.")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"translation": {"en": "A.", "zho_Hans": "一", "zho_Hant": "二"}},
            "'zho_Hans' and 'zho_Hant' are all 'zh'; keep one, or name the one you mean 'zh'",
        ),
        ({"translation": {"en-GB": "A.", "en-US": "B.", "zh": "一"}}, "'en-GB' and 'en-US' are all 'en'"),
        ({"translation": {"en": "A.", "zho": "一", "cmn": "二", "zh-TW": "三"}}, "'zho' and 'cmn' are all 'zh'"),
        ({"translation": {"en": "A.", "zh": 7}}, "7 is not a text"),
        ({"translation": {"en": "A.", "zh": [["x"] * 9] * 9}}, r"\[\['x', 'x', 'x', .*\.\.\.\] is not a text"),
        ({"translation": {"en": "A."}}, r"'translation' has the languages \['en'\], not 'en' and 'zh'"),
        ({"translation": {}}, r"'translation' has the languages \[\], not"),
        ({"english": "A.", "translation": "一", "non_english": "二"}, "both 'translation' and 'non_english' hold a"),
    ],
)
def test_rows_that_cannot_be_understood(row: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        row_pair(row, "zh")


def test_of_two_columns_the_full_one_counts() -> None:
    for row in (
        {"english": "A.", "translation": None, "non_english": "B."},
        {"english": "A.", "translation": "B.", "non_english": None},
        {"english": "A.", "translation": "B.", "non_english": "B."},
    ):
        assert row_pair(row, "sw") == ("A.", "B.")
    assert row_pair({"english": None, "translation": None}, "sw") == ("", "")


def test_no_tag_of_the_language() -> None:
    assert choose_tag({"de": "x", "x-sw": "y", "": "z"}, "sw") is None


def test_parquet_and_json_lines_choose_alike(tmp_path: Path) -> None:
    # Parquet gives every row all of its keys.
    rows = [
        {"translation": {"en": "A.", "pt": "B.", "pt-br": None}},
        {"translation": {"en": "C.", "pt": None, "pt-br": "D."}},
        {"translation": {"en": "E.", "pt": None, "pt-br": None}},
    ]
    (tmp_path / "folder").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "folder" / "train.parquet")
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for source in (tmp_path / "b.jsonl", tmp_path / "folder"):
        bitext = load_bitext({"pt": source})
        assert [(row["english"], row["translation"]) for row in bitext.dataset] == [("A.", "B."), ("C.", "D.")]
        assert (bitext.counts["pt"]["kept"], bitext.counts["pt"]["empty"]) == (2, 1)


def test_a_lone_surrogate_is_replaced_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "b.jsonl"
    rows = ['{"english": "whole \\ud83d\\udd25", "translation": "nzima"}']
    rows += [
        '{"english": "cut \\ud83d", "translation": "kata \\uDD25 \\ud83d"}',
        '{"english": "A", "translation": "B"}',
    ]
    path.write_text("\n".join(rows))
    with caplog.at_level(logging.WARNING):
        dataset = load_bitext({"sw": path}).dataset
    assert dataset["english"][:] == ["whole 🔥", "cut \ufffd", "A"]
    assert dataset["translation"][1] == "kata \ufffd \ufffd"
    assert [record.getMessage() for record in caplog.records] == [
        f"Lone surrogates, halves of a character that was cut in two, became U+FFFD: 3, the first at {path}:2."
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[" * 100_000, "JSON that is nested too deeply"),
        ('{"english": "a", "translation": ' + "[" * 50_000 + "]" * 50_000 + "}", "JSON that is nested too deeply"),
        ('{"english": "a", "translation": "b", "id": ' + "9" * 50_000 + "}", "a number of too many digits"),
        ('{"english": "a", "translation": ' + "[" * 400 + "]" * 400 + "}", r"\[+\.\.\.\]+ is not a text"),
    ],
)
def test_deep_nesting_and_huge_numbers_are_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "b.jsonl"
    path.write_text(f'{{"english": "a", "translation": "b"}}\n{line}\n')
    with pytest.raises(ValueError, match=rf"{path}:2: {message}$"):
        load_bitext({"sw": path})

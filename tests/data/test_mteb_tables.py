"""MTEB's parquet tables: refused and accepted as the same lines in JSON and TSV are."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from optical_hf.data.mteb_tables import iter_passage_table, read_candidates, read_judgements, read_queries
from optical_hf.data.trec_files import read_passages


def table(path: Path, *rows: dict, schema: pa.Schema | None = None) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)
    return path


TITLES = [("a", "Nile", "Flows."), ("b", None, "Bends."), ("c", "", "Rises."), ("d", "  ", "Falls.")]
EXPECTED = {"a": "Nile. Flows.", "b": "Bends.", "c": "Rises.", "d": "Falls."}


def test_a_title_of_null_is_no_title_in_both_formats(tmp_path: Path) -> None:
    rows = [dict(zip(("docid", "title", "text"), row, strict=True)) for row in TITLES]
    path = tmp_path / "passages.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_passages(path) == EXPECTED
    corpus = [dict(zip(("_id", "title", "text"), row, strict=True)) for row in TITLES]
    assert dict(iter_passage_table(table(tmp_path / "corpus.parquet", *corpus))) == EXPECTED


@pytest.mark.parametrize("text", [None, 7, [["x"]]])
def test_a_text_that_is_none_is_refused_in_both_formats(tmp_path: Path, text: object) -> None:
    what = {"None": "null"}.get(repr(text), repr(text)).replace("[", r"\[")
    path = tmp_path / "passages.jsonl"
    path.write_text('{"docid": "x", "text": ""}\n' + json.dumps({"docid": "a", "title": "T", "text": text}) + "\n")
    with pytest.raises(ValueError, match=rf"passages\.jsonl, line 2: `text` must be a string, not {what}"):
        read_passages(path)
    corpus = table(tmp_path / "corpus.parquet", {"_id": "a", "title": "T", "text": text})
    with pytest.raises(ValueError, match=rf"corpus\.parquet, row 1: `text` must be a string, not {what}"):
        list(iter_passage_table(corpus))


def test_judgements(tmp_path: Path) -> None:
    def judged(*rows: tuple[object, object, object]) -> dict[str, dict[str, int]]:
        names = ("query-id", "corpus-id", "score")
        return read_judgements(
            table(tmp_path / "qrels.parquet", *(dict(zip(names, row, strict=True)) for row in rows))
        )

    assert judged(("1", "a", 1.0), ("1", "b", 0.0), ("2", "a", 3.0)) == {"1": {"a": 1, "b": 0}, "2": {"a": 3}}
    assert judged((1, 10, 1), (1, 10, 1)) == {"1": {"10": 1}}
    with pytest.raises(ValueError, match=r"qrels\.parquet, row 2: the relevance 0\.5 is not an integer"):
        judged(("1", "a", 1.0), ("1", "b", 0.5))
    with pytest.raises(ValueError, match=r"row 1: the relevance None is not an integer"):
        judged(("1", "a", None), ("1", "b", 1))
    with pytest.raises(ValueError, match=r"row 2: document 'a' has another relevance for query '1' in an earlier row"):
        judged(("1", "a", 1), ("1", "a", 0))
    with pytest.raises(ValueError, match=r"row 1: the document id 'a b' must be a string .* no spaces in it"):
        judged(("1", "a b", 1))
    with pytest.raises(ValueError, match=r"row 1: the query id None must be a string"):
        judged((None, "a", 1), ("1", "a", 1))


def test_queries(tmp_path: Path) -> None:
    def asked(*rows: tuple[object, object]) -> dict[str, str]:
        path = table(tmp_path / "queries.parquet", *(dict(zip(("_id", "text"), row, strict=True)) for row in rows))
        return read_queries(path, {"1", "2"})

    assert asked(("1", "nani?"), ("3", None), ("2", "lini?"), ("1", "nani?")) == {"1": "nani?", "2": "lini?"}
    with pytest.raises(ValueError, match=r"queries\.parquet, row 2: query '1' has another text in an earlier row"):
        asked(("1", "nani?"), ("1", "lini?"))
    with pytest.raises(ValueError, match="row 2: `text` must be a string, not null"):
        asked(("1", "nani?"), ("2", None))
    with pytest.raises(ValueError, match="row 1: query '1' has no text"):
        asked(("1", " \ufeff"))
    with pytest.raises(ValueError, match=r"queries\.parquet: no row of it is of use"):
        asked(("3", "nani?"))


def test_candidates(tmp_path: Path) -> None:
    def ranked(*rows: tuple[object, object]) -> dict[str, list[str]]:
        names = ("query-id", "corpus-ids")
        return read_candidates(
            table(tmp_path / "top.parquet", *(dict(zip(names, row, strict=True)) for row in rows)), {"1"}
        )

    assert ranked(("1", ["b", "a", "b"]), ("2", ["c"])) == {"1": ["b", "a"]}
    with pytest.raises(ValueError, match=r"top\.parquet, row 1: `corpus-ids` must be a list, not None"):
        ranked(("1", None), ("2", ["c"]))
    with pytest.raises(ValueError, match="row 2: query '1' has other candidates in an earlier row"):
        ranked(("1", ["a"]), ("1", ["b"]))
    with pytest.raises(ValueError, match="row 1: the document id None must be a string"):
        ranked(("1", ["a", None]))


def test_bytes_that_are_no_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "corpus.parquet"
    text = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff\xfe"]).buffers())
    pq.write_table(pa.table({"_id": ["a"], "text": text}), path)
    with pytest.raises(ValueError, match=r"corpus\.parquet: no parquet file, or one that is cut off or damaged after"):
        list(iter_passage_table(path))

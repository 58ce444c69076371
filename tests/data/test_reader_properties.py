"""What is read back is what was written, in every format; and whatever the bytes are, an error names the file."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optical_hf.data import text_files
from optical_hf.data.bitext import load_bitext
from optical_hf.data.bitext_readers import find_source, read_pairs
from optical_hf.data.malformed_lines import MalformedLines
from optical_hf.data.mteb_tables import iter_passage_table, read_judgements, read_queries
from optical_hf.data.trec_files import (
    read_passages,
    read_qrels,
    read_run,
    read_topics,
    write_passages,
    write_qrels,
    write_run,
    write_topics,
)
from optical_hf.metrics.miracl_ndcg import miracl_ndcg

repeated = settings(max_examples=50, deadline=None, derandomize=True)

# Any text of one line; a byte order mark at the beginning of a line is none of its text.
LINE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\r\n\ufeff"), max_size=30)
# Half of what is drawn is hard: spaces, quotation marks, separators that are no ends of lines, marks, joiners.
HARD = st.text(st.sampled_from(" \"'\\,<&>{}[]\u2028\x85\x0b\x1c\u200b\u200d\u0301\u0316ọا한é\U0001f525"), max_size=12)
SIDE = LINE | HARD
PAIRS = st.lists(st.tuples(SIDE, SIDE), min_size=1, max_size=6)
ID = st.text(st.characters(exclude_categories=["Cs", "Z", "C"]), min_size=1, max_size=8)
COMPRESS = st.sampled_from([bytes, gzip.compress, bz2.compress, lzma.compress])


@contextmanager
def folder() -> Iterator[Path]:
    # A fixture would give all examples the same folder.
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def read(source: Any, language: str = "sw") -> list[tuple[str, str]]:
    malformed = MalformedLines(at_once=True)
    return list(read_pairs(find_source(source, language), language, malformed))


@given(PAIRS, COMPRESS, st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans())
@repeated
def test_tsv(pairs: list, compress: Callable[[bytes], bytes], end: str, header: bool, mark: bool) -> None:
    lines = ["english\ttranslation"] * header + [f"{english}\t{swahili}" for english, swahili in pairs]
    with folder() as path:
        text = "\ufeff" * mark + "".join(line + end for line in lines)
        (path / "b.tsv").write_bytes(compress(text.encode()))
        # A line of white space alone has no sides.
        expected = [pair if "".join(pair).strip() else ("", "") for pair in pairs]
        assert read(path / "b.tsv") == expected


@given(PAIRS, COMPRESS, st.sampled_from(["keys", "other key", "tags", "folder"]), st.booleans())
@repeated
def test_json_lines(pairs: list, compress: Callable[[bytes], bytes], form: str, escaped: bool) -> None:
    rows: list[dict] = [{"english": english, "translation": swahili} for english, swahili in pairs]
    if form == "other key":
        rows = [{"non_english": swahili, "english": english, "id": 1} for english, swahili in pairs]
    if form == "tags":
        rows = [{"translation": {"de": "x", "en": english, "sw": swahili}} for english, swahili in pairs]
    with folder() as path:
        lines = "".join(json.dumps(row, ensure_ascii=escaped) + "\n" for row in rows)
        (path / "train.jsonl").write_bytes(compress(lines.encode()))
        assert read(path / "train.jsonl") == pairs


@given(PAIRS, st.sampled_from(["utf-8", "utf-16"]))
@repeated
def test_tmx(pairs: list, encoding: str) -> None:
    # XML can hold no control characters, and reads a carriage return as a new line.
    legal = str.maketrans("", "", "".join(map(chr, [*range(9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF])))
    pairs = [(english.translate(legal), swahili.translate(legal)) for english, swahili in pairs]
    units = "".join(
        f'<tu><tuv xml:lang="SW-ke"><seg><g>{escape(swahili)}</g></seg></tuv>'
        f'<tuv xml:lang="en"><seg><ph>code</ph>{escape(english)}</seg></tuv></tu>'
        for english, swahili in pairs
    )
    with folder() as path:
        text = f"<?xml version='1.0' encoding='{encoding}'?><tmx><body>{units}</body></tmx>"
        (path / "b.tmx").write_bytes(text.encode(encoding))
        # Of a side that cannot be seen there is nothing to choose.
        seen = [tuple(side if side.strip("\u200b\u200d \u2028\x85") else None for side in pair) for pair in pairs]
        for (english, swahili), expected in zip(read(path / "b.tmx"), seen, strict=True):
            assert expected[0] in (None, english) and expected[1] in (None, swahili)


@given(PAIRS, COMPRESS, st.sampled_from([("en", "sw"), ("eng", "swh"), ("en_GB", "sw-KE")]))
@repeated
def test_parallel_files(pairs: list, compress: Callable[[bytes], bytes], tags: tuple[str, str]) -> None:
    with folder() as path:
        for tag, side in zip(tags, zip(*pairs, strict=True), strict=True):
            (path / f"c.{tag}").write_bytes(compress("".join(f"{text}\n" for text in side).encode()))
        assert read(path / "c") == pairs


@given(st.dictionaries(ID, SIDE.map(str.strip).filter(lambda text: any(map(str.isalnum, text))), min_size=1), COMPRESS)
@repeated
def test_topics(topics: dict, compress: Callable[[bytes], bytes]) -> None:
    with folder() as path:
        write_topics(topics, path / "topics")
        (path / "topics").write_bytes(compress((path / "topics").read_bytes()))
        assert read_topics(path / "topics") == topics
        rows = pa.table({"id": list(topics), "text": list(topics.values())})
        pq.write_table(rows, path / "queries.parquet")
        assert read_queries(path / "queries.parquet", topics) == topics


@given(st.dictionaries(ID, st.tuples(st.none() | SIDE, SIDE), min_size=1), COMPRESS)
@repeated
def test_passages(passages: dict, compress: Callable[[bytes], bytes]) -> None:
    expected = {
        docid: f"{title.strip()}. {text}" if title and title.strip() else text
        for docid, (title, text) in passages.items()
    }
    rows = [{"docid": docid, "title": title, "text": text} for docid, (title, text) in passages.items()]
    with folder() as path:
        write_passages(expected, path / "written")
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (path / "titled").write_bytes(compress(lines.encode()))
        pq.write_table(pa.Table.from_pylist([{"_id": row.pop("docid"), **row} for row in rows]), path / "parquet")
        assert read_passages(path / "written") == read_passages(path / "titled") == expected
        assert dict(iter_passage_table(path / "parquet")) == expected


@given(st.dictionaries(ID, st.dictionaries(ID, st.integers(-3, 9), min_size=1, max_size=4), min_size=1, max_size=4))
@repeated
def test_qrels(qrels: dict) -> None:
    with folder() as path:
        write_qrels(qrels, path / "qrels")
        rows = [(qid, docid, grade) for qid, judged in qrels.items() for docid, grade in judged.items()]
        columns = dict(zip(("query-id", "corpus-id", "score"), map(list, zip(*rows, strict=True)), strict=True))
        pq.write_table(pa.table(columns), path / "qrels.parquet")
        assert read_qrels(path / "qrels") == read_judgements(path / "qrels.parquet") == qrels


SCORES = st.dictionaries(ID, st.floats(allow_nan=False), min_size=1, max_size=4)


@given(st.dictionaries(ID, SCORES, min_size=1, max_size=4))
@repeated
def test_runs(run: dict) -> None:
    with folder() as path:
        write_run(run, path / "run.gz")
        assert read_run(path / "run.gz") == run


@given(PAIRS)
@repeated
def test_what_is_kept_is_kept_again(pairs: list) -> None:
    with folder() as path:
        # A pair that is kept whatever was drawn, so that the rest may all be dropped.
        lines = [("Always kept.", "Hubaki daima."), *pairs]
        (path / "a.tsv").write_text("".join(f"{e}\t{s}\n" for e, s in lines), encoding="utf-8", newline="")
        first = load_bitext({"sw": path / "a.tsv"})
        assert sum(first.counts["sw"].values()) == len(lines)
        kept = [(row["english"], row["translation"]) for row in first.dataset]
        (path / "b.tsv").write_text("".join(f"{e}\t{s}\n" for e, s in kept), encoding="utf-8", newline="")
        again = load_bitext({"sw": path / "b.tsv"})
        assert [(row["english"], row["translation"]) for row in again.dataset] == kept
        assert again.counts["sw"] == {**dict.fromkeys(first.counts["sw"], 0), "kept": len(kept)}


def _damaged(content: bytes) -> st.SearchStrategy[bytes]:
    cut = st.integers(0, len(content)).map(lambda end: content[:end])
    flip = st.tuples(st.integers(0, len(content) - 1), st.binary(min_size=1, max_size=3)).map(
        lambda change: content[: change[0]] + change[1] + content[change[0] + len(change[1]) :]
    )
    return cut | flip | st.binary(max_size=200)


JSONL = b'{"docid": "a", "english": "x", "text": "x", "translation": {"en": "x\\ud83d", "sw": "y"}}\n' * 3
CONTENTS = [JSONL, b"1\tx\n2\ty\n", b"1 Q0 a 1\n1 Q0 b 0\n"]
UNIT = b"<tu><tuv xml:lang='en'><seg>A</seg></tuv><tuv xml:lang='sw'><seg>B</seg></tuv></tu>"
CONTENTS += [b"<tmx><body>" + UNIT + b"</body></tmx>"]
CONTENTS += [compress(content) for content in CONTENTS for compress in (gzip.compress, bz2.compress, lzma.compress)]


def parquet(**columns: list) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


TABLES = [parquet(**{"query-id": ["1", "2"], "corpus-id": ["a", "b"], "score": [1, 0]})]
TABLES += [parquet(_id=["1", "2"], text=["x", "y"], title=["", "z"])]


@given(content=st.sampled_from(TABLES).flatmap(_damaged))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_bytes_of_a_table_are_read_or_refused_with_the_files_name(content: bytes) -> None:
    with folder() as path:
        file = path / "file.parquet"
        file.write_bytes(content)
        for reader in (
            read_judgements,
            lambda file: read_queries(file, ["1"]),
            lambda file: dict(iter_passage_table(file)),
        ):
            try:
                reader(file)
            except ValueError as error:
                assert "file.parquet" in str(error)


@pytest.mark.parametrize("kind", ["tsv", "jsonl", "topics", "passages", "qrels", "run"])
def test_a_line_without_an_end_is_refused_before_it_fills_the_memory(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "LONGEST_LINE", 1 << 20)
    monkeypatch.setattr(miracl_ndcg, "_LONGEST_LINE", 1 << 20)
    first = b"1 Q0 a 1\n" if kind == "qrels" else b"1 Q0 a 1 1.0 x\n" if kind == "run" else b"1\tx\n"
    if kind in ("jsonl", "passages"):
        first = JSONL.splitlines(keepends=True)[0]
    file = tmp_path / f"file.{kind}"
    file.write_bytes(bz2.compress(first + b" " * (1 << 26)))
    assert file.stat().st_size < 1000
    readers = {"topics": read_topics, "passages": read_passages, "qrels": read_qrels, "run": read_run}
    read_whole: list[int] = []
    readline = bz2.BZ2File.readline
    monkeypatch.setattr(bz2.BZ2File, "readline", lambda self, size=-1: read_whole.append(size) or readline(self, size))
    with pytest.raises(ValueError, match=rf"file\.{kind}(:|, line )2: .*no line of text"):
        readers.get(kind, read)(file)
    assert read_whole == [(1 << 20) + 1] * 2


@pytest.mark.parametrize("kind", ["tsv", "jsonl", "tmx", "topics", "passages", "qrels", "run", "en,sw"])
@given(content=st.sampled_from(CONTENTS).flatmap(_damaged))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_bytes_are_read_or_refused_with_the_files_name(kind: str, content: bytes) -> None:
    readers = {"topics": read_topics, "passages": read_passages, "qrels": read_qrels, "run": read_run}
    with folder() as path:
        file = path / f"file.{kind}" if "," not in kind else path / "file.en"
        file.write_bytes(content)
        try:
            if "," in kind:  # two parallel files
                (path / "b.sw").write_bytes(b"x\ny\n")
                read(f"{file},{path / 'b.sw'}")
            else:
                readers.get(kind, read)(file)
        except ValueError as error:
            assert file.name in str(error)

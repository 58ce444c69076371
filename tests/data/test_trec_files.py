"""Files of topics, passages, qrels and runs, the retrieval set made of them, and exact search."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random

import numpy as np
import pytest
import torch

from optical_hf.data.retrieval_set import RetrievalSet
from optical_hf.data.trec_files import (
    iter_passages,
    rank,
    read_passages,
    read_qrels,
    read_run,
    read_topics,
    write_passages,
    write_qrels,
    write_run,
    write_topics,
)
from optical_hf.metrics.miracl_ndcg.miracl_ndcg import score_run
from optical_hf.retrieval.search import search

TOPICS = {"1": 'Nani aliandika "Kusadikika"?', "10020#0": '"Odun wo', "3": "NA", "4": "a\u2028b\tc"}
QRELS = {"1": {"7#0": 1, "7#1": 0}, "10020#0": {"ọ#2": 3}}
PASSAGES = {"7#0": "Nile. A river.", "7#1": "", "ọ#2": "line\nbreak and \u2028"}


def write(path, content):
    opened = gzip.open(path, "wb") if path.suffix == ".gz" else open(path, "wb")
    with opened as file:
        file.write(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize(
    ("writer", "reader", "content"),
    [
        (write_topics, read_topics, TOPICS),
        (write_qrels, read_qrels, QRELS),
        (write_passages, read_passages, PASSAGES),
        (write_run, read_run, {"1": {"b": 0.1 + 0.2, "a": -1e-17}, "2": {"c": float(np.float32(0.1))}}),
    ],
)
def test_round_trip_is_exact(writer, reader, content, ending, tmp_path):
    path = tmp_path / f"file{ending}"
    writer(content, path)
    assert reader(path) == content
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_readers_take_the_usual_variants(tmp_path):
    qrels = write(tmp_path / "qrels", "\ufeff1 0 a 1\r\n\r\n1\tQ0\tb\t0\n2  Q0 \t a 2")
    assert read_qrels(qrels) == {"1": {"a": 1, "b": 0}, "2": {"a": 2}}
    run = write(tmp_path / "run", "1 Q0 a 7 -0.5 t\n1\tQ0\tb\t1\t2e-3\tt\n")
    assert read_run(run) == {"1": {"a": -0.5, "b": 0.002}}
    topics = write(tmp_path / "topics", "\ufeff1\t swali \r\n2\tmbili")
    assert read_topics(topics) == {"1": "swali", "2": "mbili"}


def test_passages_of_every_shape_in_several_files(tmp_path):
    records = [
        {"docid": "1#0", "title": "Nile", "text": "A river."},
        {"docid": "1#1", "title": "", "text": "No title."},
        {"docid": "1#2", "text": "None either."},
        {"docid": "1#3", "contents": "Nile\nAs it is.", "title": "unused"},
    ]
    first = write(tmp_path / "docs-0.jsonl.gz", "".join(json.dumps(record) + "\n" for record in records[:2]))
    second = write(tmp_path / "docs-1.jsonl", "".join(json.dumps(record) + "\n" for record in records[2:]))
    assert read_passages([first, str(second)]) == {
        "1#0": "Nile. A river.", "1#1": "No title.", "1#2": "None either.", "1#3": "Nile\nAs it is.",
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"docs-0\.jsonl\.gz, line 1: document id '1#0' is there twice"):
        read_passages([first, first])


def test_passages_are_read_lazily(tmp_path):
    path = write(tmp_path / "p.jsonl", '{"docid": "a", "text": "fine"}\nnot json\n')
    passages = iter_passages(path)
    assert next(passages) == ("a", "fine")
    with pytest.raises(ValueError, match=r"p\.jsonl, line 2: not JSON"):
        next(passages)


@pytest.mark.parametrize(
    ("reader", "content", "message"),
    [
        (read_topics, "1\tswali\n2 mbili\n", "line 2: no tab"),
        (read_topics, "1\tswali\n\n1\tmbili\n", "line 3: query id '1' is there twice"),
        (read_topics, "\tswali\n", "line 1: the query id ''"),
        (read_topics, "a b\tswali\n", "line 1: the query id 'a b' .* no spaces"),
        (read_topics, "1\t \n", "line 1: query '1' has no text"),
        (read_topics, "\n\n", "is empty"),
        (read_topics, b"1\tswali\n2\t\xff\n", "line 2: not UTF-8"),
        (read_qrels, "1 Q0 a 1\n1 Q0 a 1\n", "line 2: document 'a' is there twice for query '1'"),
        (read_qrels, "1 Q0 a 1\n1 Q0 b x\n", "line 2: the relevance 'x' is not an integer"),
        (read_qrels, "1 Q0 a 0.5\n", "line 1: the relevance '0.5' is not an integer"),
        (read_qrels, "1 Q0 a\n", "line 1: 3 columns, expected 4"),
        (read_qrels, "", "is empty"),
        (read_run, "1 Q0 a 1 2.0 t\n1 Q0 b 2 nan t\n", "line 2: the score is NaN"),
        (read_run, "1 Q0 a 1 high t\n", "line 1: the score 'high' is not a number"),
        (read_run, "1 Q0 a 1 2.0 t\n1 Q0 a 2 1.0 t\n", "line 2: document 'a' is there twice for query '1'"),
        (read_run, "1 Q0 a 1 2.0\n", "line 1: 5 columns, expected 6"),
        (read_run, "", "is empty"),
        (read_passages, '{"docid": "a", "text": "x"}\n{"docid": "b", "text"\n', "line 2: not JSON .* column"),
        (read_passages, '{"docid": "a", "text": "x"}\n{"docid": "a", "text": "y"}\n', "line 2: document id 'a' is"),
        (read_passages, '{"text": "x"}\n', "line 1: no `docid`"),
        (read_passages, '{"docid": "a", "title": "x"}\n', "line 1: neither `text` nor `contents`"),
        (read_passages, '{"docid": 7, "text": "x"}\n', "line 1: `docid` must be a string, not 7"),
        (read_passages, '{"docid": "a", "text": null}\n', "line 1: `text` must be a string, not null"),
        (read_passages, '{"docid": "a b", "text": "x"}\n', "line 1: the document id 'a b'"),
        (read_topics, "1\t\ufeff\u200b\n", "line 1: query '1' has no text"),
        (read_passages, "[" * 100_000, "line 1: JSON that is nested too deeply"),
        (read_passages, '{"docid": "a", "text": "x", "n": ' + "9" * 5000 + "}", "line 1: a number of too many digits"),
        (
            read_passages,
            '{"docid": "\ufeffa", "text": "x"}',
            "line 1: the document id .* begins with a byte order mark",
        ),
        (read_passages, '{"docid": "a", "title": 0, "text": "x"}', "line 1: `title` must be a string, not 0"),
        (read_qrels, "1 Q0 a " + "9" * 5000, "line 1: the relevance .* is not an integer"),
        (read_passages, '["a", "x"]\n', "line 1: expected a JSON object .* not list"),
        (read_passages, "", "is empty"),
    ],
)
def test_bad_files_are_named_with_their_line(reader, content, message, tmp_path):
    path = write(tmp_path / "bad-file", content)
    with pytest.raises(ValueError, match=f"bad-file.*{message}"):
        reader(path)


def test_damaged_and_misnamed_compressed_files(tmp_path):
    random.seed(0)
    lines = "".join(json.dumps({"docid": f"d{i}", "text": f"{random.random()}"}) + "\n" for i in range(2000))
    whole = gzip.compress(lines.encode())
    path = tmp_path / "docs.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"docs\.jsonl\.gz, after line \d{3,4}: cut off"):
        read_passages(path)
    whole_passages = {record["docid"]: record["text"] for record in map(json.loads, lines.splitlines())}
    for content in (lines.encode(), whole, bz2.compress(lines.encode()), lzma.compress(lines.encode())):
        path.write_bytes(content)
        assert read_passages(path) == whole_passages
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match=r"docs\.jsonl\.gz is a zip archive: unpack it"):
        read_passages(path)
    path.write_bytes(lzma.compress("".join(f"{i}\tswali\n" for i in range(9)).encode())[:-9])
    with pytest.raises(ValueError, match=r"docs\.jsonl\.gz, after line \d: cut off or damaged"):
        read_topics(path)


def test_lone_surrogates_of_passages_are_replaced_and_said(tmp_path, caplog):
    path = write(
        tmp_path / "p.jsonl", '{"docid": "a", "text": "whole \\ud83d\\udd25"}\n{"docid": "b", "text": "cut \\ud83d"}\n'
    )
    assert read_passages(path) == {"a": "whole 🔥", "b": "cut \ufffd"}
    assert [record.getMessage() for record in caplog.records] == [
        f"Lone surrogates, halves of a character that was cut in two, became U+FFFD: 1, the first at {path}, line 2."
    ]


def test_what_no_file_can_hold_is_not_written(tmp_path):
    for content, message in (
        ({"a": "cut \ud83d"}, r"passages, document 'a' 'cut \\ud83d' has half a character in it"),
        ({"a\udc00": "x"}, r"passages: the document id 'a\\udc00' has half a character in it"),
        ({"\ufeffa": "x"}, r"passages: the document id '\\ufeffa' begins with a byte order mark"),
    ):
        with pytest.raises(ValueError, match=message):
            write_passages(content, tmp_path / "passages")
    with pytest.raises(ValueError, match=r"topics, query '1' 'cut \\ud83d' has half a character in it"):
        write_topics({"1": "cut \ud83d"}, tmp_path / "topics")
    with pytest.raises(ValueError, match="topics, query '1': the text is empty"):
        write_topics({"1": "\u200b"}, tmp_path / "topics")
    for relevance in (0.5, None, float("nan"), float("inf"), "1"):
        with pytest.raises(ValueError, match=f"qrels, query '1', document 'a': the relevance {relevance!r} is not an"):
            write_qrels({"1": {"a": relevance}}, tmp_path / "qrels")
    assert not list(tmp_path.iterdir())


def test_files_joined_with_their_byte_order_marks(tmp_path):
    assert read_topics(write(tmp_path / "topics", "\ufeff1\tswali\n\ufeff2\tmbili\n")) == {"1": "swali", "2": "mbili"}
    lines = '\ufeff{"docid": "a", "text": "x"}\n' + '\ufeff{"docid": "b", "text": "y"}\n'
    assert read_passages(write(tmp_path / "passages", lines)) == {"a": "x", "b": "y"}


def test_run_file_is_ranked_as_trec_eval_ranks(tmp_path):
    # In single precision a, b and c tie, so the id decides; d is above them and e below.
    results = {"a": 1.0 + 2e-8, "b": 1.0, "c": 1.0 + 1e-8, "d": 1.5, "e": 0.1}
    assert rank(results) == ["d", "c", "b", "a", "e"]
    write_run({"q": results}, tmp_path / "run", tag="mine")
    assert (tmp_path / "run").read_text() == (
        "q Q0 d 1 1.5 mine\nq Q0 c 2 1.00000001 mine\nq Q0 b 3 1.0 mine\nq Q0 a 4 1.00000002 mine\nq Q0 e 5 0.1 mine\n"
    )


@pytest.mark.parametrize(
    ("run", "tag", "message"),
    [
        ({"q": {"a": 1.0}, "p": {"b": float("nan")}}, "t", "query 'p', document 'b': the score is NaN"),
        ({"q": {"a": 1.0}, "p": {"b c": 1.0}}, "t", "query 'p': the document id 'b c'"),
        ({"q": {"a": 1.0}, "": {"b": 1.0}}, "t", "the query id ''"),
        ({"q": {"a": 1.0}}, "my run", "the tag 'my run'"),
        ({"q": {}}, "t", "holds no result"),
    ],
)
def test_a_bad_run_leaves_the_old_file(run, tag, message, tmp_path):
    path = write(tmp_path / "run", "old")
    with pytest.raises(ValueError, match=message):
        write_run(run, path, tag)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


def test_topics_with_a_line_break_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="query '2': the text is empty or has a line break"):
        write_topics({"1": "fine", "2": "two\nlines"}, tmp_path / "topics")
    assert not list(tmp_path.iterdir())


def test_retrieval_set_from_files(tmp_path, caplog):
    topics = write(tmp_path / "topics.dev.tsv", "1\tmto\n2\tziwa\n")
    passages = write(tmp_path / "passages.jsonl", '{"docid": "a", "title": "Nile", "text": "River."}\n')
    qrels = write(tmp_path / "qrels.tsv", "1 Q0 a 1\n")
    task = RetrievalSet.from_files(topics, passages, qrels, query_language="SWA", document_language="en")
    assert task == RetrievalSet(
        "topics.dev", {"1": "mto", "2": "ziwa"}, {"a": "Nile. River."}, {"1": {"a": 1}}, "sw", "en"
    )
    assert not caplog.records
    qrels.write_text("1 Q0 a 1\n8 Q0 a 1\n9 Q0 a 1\n9 Q0 lost 1\n9 Q0 gone 0\n")
    RetrievalSet.from_files(topics, passages, qrels, query_language="sw", document_language="en", name="mine")
    assert "'mine': 2 of the 3 judged queries are not among the topics (such as '8')" in caplog.text
    assert "'mine': 1 of the 4 relevant judgements name a passage that is not there (such as 'lost')" in caplog.text


@pytest.mark.parametrize("part", ["topics", "passages", "qrels"])
def test_retrieval_set_must_not_be_empty(part):
    parts = {"topics": {"1": "mto"}, "passages": {"a": "Nile"}, "qrels": {"1": {"a": 1}}} | {part: {}}
    with pytest.raises(ValueError, match=f"'mine': its {part} are empty"):
        RetrievalSet("mine", **parts, query_language="sw", document_language="en")


@pytest.mark.parametrize("k", [1, 7, 100])
@pytest.mark.parametrize("ragged", [True, False])
def test_search_is_exact_and_breaks_ties_as_trec_eval_does(ragged, k):
    generator = torch.Generator().manual_seed(0)

    def vectors(count):  # small integers: scores are exact, and many of them are equal
        lengths = torch.randint(1, 6, (count,), generator=generator).tolist()
        tokens = [torch.randint(-2, 3, (length, 4), generator=generator).float() for length in lengths]
        return tokens if ragged else torch.stack([one[0] for one in tokens])

    queries, documents = vectors(70), vectors(40)
    query_ids, doc_ids = [f"q{i}" for i in range(70)], [f"d{i}" for i in range(40)]
    run = search(queries, documents, doc_ids, query_ids, k=k)
    assert list(run) == query_ids
    for qid, query in zip(query_ids, queries, strict=True):
        scores = {}
        for docid, document in zip(doc_ids, documents, strict=True):
            products = query.reshape(-1, 4) @ document.reshape(-1, 4).T
            scores[docid] = products.max(dim=1).values.sum().item()
        expected = rank(scores)[:k]
        assert list(run[qid].items()) == [(docid, scores[docid]) for docid in expected]


def test_search_then_score():
    run = search(torch.eye(3), torch.eye(3), ["a", "b", "c"], ["1", "2", "3"])
    qrels = {"1": {"a": 1}, "2": {"b": 1}, "3": {"a": 1}}
    assert score_run(run, qrels, ["ndcg@1"]) == {"ndcg@1": pytest.approx(2 / 3)}


EYE = torch.eye(2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query_ids": ["1"]}, "2 query vectors but 1 query ids"),
        ({"doc_ids": ["a", "a"]}, "document id 'a' is there twice"),
        ({"document_vectors": [EYE, EYE]}, "both as lists of token vectors, or both as one 2-D tensor"),
        ({"document_vectors": torch.ones(2, 1, 2)}, r"document vectors: a tensor must be 2-D, .*\(2, 1, 2\)"),
        ({"document_vectors": torch.empty(0, 2), "doc_ids": []}, "0 document vectors but 0 document ids"),
        (
            {"query_vectors": torch.tensor([[1.0, 0.0], [float("nan"), 0.0]])},
            "Query '2' has NaN or infinity in its vectors",
        ),
        ({"k": 0}, "k must be at least 1, got 0"),
    ],
)
def test_search_refuses_bad_input(change, message):
    arguments = {"query_vectors": EYE, "document_vectors": EYE, "doc_ids": ["a", "b"], "query_ids": ["1", "2"]}
    with pytest.raises(ValueError, match=message):
        search(**(arguments | change))

"""Hard negatives: which candidates become negatives, what is counted, and a run that was stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from datasets import Dataset

from optical_hf import maxsim
from optical_hf.data.training_rows import FEATURES, load_training_rows
from optical_hf.retrieval.negatives import COUNTS, ModelScores, mine_negatives

PASSAGES = {
    "a": "she wrote it",
    "b": "it rains",
    "c": "the book",
    "d": "today",
    "e": "a book",
    "f": "the  book",
    "g": "",
}
FOUND = {"who": ["b", "a", "c", "f", "x", "g", "d", "e"], "mvua": ["b", "d", "c"]}


def row(query: str, docids: str, positives: str, scores: list[float] | None = None) -> dict:
    texts = [PASSAGES[docid] for docid in docids]
    named = {"passages": texts, "scores": scores, "positives": [*positives], "docids": [*docids]}
    return {"query": query, "query_language": "sw", "document_language": "sw", **named}


def rows(*given: dict) -> Dataset:
    return Dataset.from_list(list(given), features=FEATURES)


ROWS = rows(row("who", "a", "ac"), row("mvua", "bc", "b"), row("who", "c", "ac"))


def counted(**others: int) -> dict[str, int]:
    return dict.fromkeys(COUNTS, 0) | others


def find(topics: Mapping[str, str]) -> dict[str, list[str]]:
    return {qid: FOUND[query] for qid, query in topics.items() if query in FOUND}


def score(queries: Sequence[str], passages: Sequence[Sequence[str]]) -> list[list[float]]:
    """The number of characters of a passage; below 0 for the query "mvua"."""
    signs = [-1.0 if query == "mvua" else 1.0 for query in queries]
    return [[sign * len(text) for text in texts] for sign, texts in zip(signs, passages, strict=True)]


def mine(given: Dataset, output: Path, **options) -> tuple[list[dict], dict[str, int]]:
    counts = mine_negatives(given, options.pop("find", find), lambda: iter(PASSAGES.items()), output, **options)
    return load_training_rows({"sw": output}).dataset.to_list(), counts


def test_negatives_are_the_best_candidates_that_are_no_positives(tmp_path):
    mined, counts = mine(ROWS, tmp_path / "rows", negatives=2)
    # f has the text of c, x is in no collection, g is empty.
    assert mined == [row("who", "abd", "ac"), row("mvua", "bcd", "b"), row("who", "cbd", "ac")]
    # A row that is full asks for no more candidates.
    assert counts == counted(rows=3, negatives=5, known_positives=3 + 1 + 3, missing=2, empty=2)
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


def test_more_than_there_are(tmp_path):
    mined, counts = mine(ROWS.select([1]), tmp_path / "rows", negatives=9)
    assert mined == [row("mvua", "bcd", "b")] and counts["short"] == 1
    mined, counts = mine(rows(row("nani", "a", "a")), tmp_path / "rows")
    assert mined == [row("nani", "a", "a")] and counts == counted(rows=1, short=1)


def test_the_best_are_skipped_and_the_deepest_not_reached(tmp_path):
    mined, _ = mine(ROWS.select([0]), tmp_path / "rows", skip=1, depth=7)
    assert mined == [row("who", "ad", "ac")]


def test_what_scores_nearly_as_high_as_the_positive_is_left_out(tmp_path):
    given = rows(row("who", "ac", "a"), row("mvua", "b", "b"))
    mined, counts = mine(given, tmp_path / "rows", negatives=3, score=score, scored_by="length", margin=0.6)
    assert mined == [
        # The bound is .6 * 12 = 7.2: the 8 characters of b are above it, as are those of c, which was judged.
        row("who", "acde", "a", [12.0, 8.0, 5.0, 6.0]),
        # The bound is -8 - .4 * 8 = -11.2, which nothing is below.
        row("mvua", "b", "b", [-8.0]),
    ]
    left_out = {"known_positives": 2, "likely_positives": 3, "missing": 1, "empty": 1, "repeated": 2}
    assert counts == counted(rows=2, short=1, negatives=2, **left_out)
    assert load_training_rows({"sw": tmp_path / "rows"}).scored_by == "length"


def test_scores_of_the_rows_need_scores_of_the_negatives(tmp_path):
    given = rows(row("who", "a", "a", [9.0]))
    with pytest.raises(ValueError, match="The rows have scores, which the negatives would not have"):
        mine(given, tmp_path / "rows")
    mined, _ = mine(given, tmp_path / "rows", negatives=1, score=score, scored_by="length")
    assert mined == [row("who", "ab", "a", [12.0, 8.0])]
    with pytest.raises(ValueError, match="NaN or infinity as the score of a passage of 'who'"):
        mine(given, tmp_path / "nan", score=lambda queries, passages: [[float("nan")]])
    assert not (tmp_path / "nan").exists()


def test_candidates_of_another_collection(tmp_path):
    with pytest.raises(ValueError, match="1 of the 1 candidates name a passage that is not there"):
        mine(ROWS, tmp_path / "rows", find=lambda topics: {"0": ["z"]})


def test_numbers_out_of_bounds(tmp_path):
    for options, problem in {
        (("negatives", 0),): "negatives must be at least 1",
        (("skip", 100),): "skip is 100: none of the 100 candidates",
        (("margin", float("nan")),): "margin is nan",
        (("chunk_size", 0),): "chunk_size must be at least 1",
    }.items():
        with pytest.raises(ValueError, match=problem):
            mine(ROWS, tmp_path / "rows", **dict(options))
    with pytest.raises(ValueError, match="There are no rows"):
        mine(ROWS.select([]), tmp_path / "rows")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_was_stopped_goes_on(tmp_path):
    options = {"negatives": 2, "score": score, "scored_by": "length", "chunk_size": 1}
    asked: list[str] = []

    def stop(topics: Mapping[str, str]) -> dict[str, list[str]]:
        asked.extend(topics.values())
        if len(asked) == 3:
            raise KeyboardInterrupt
        return find(topics)

    _, counts = mine(ROWS, tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        mine(ROWS, tmp_path / "rows", find=stop, **options)
    assert not (tmp_path / "rows").exists() and asked == ["who", "mvua", "who"]
    parts = tmp_path / "rows.parts"
    assert sorted(path.name for path in parts.iterdir()) == ["00000.json", "00001.json", "settings.json"]
    with pytest.raises(ValueError, match="rows.parts holds chunks that were mined with negatives=2, not 3"):
        mine(ROWS, tmp_path / "rows", **options | {"negatives": 3})
    with pytest.raises(ValueError, match="rows.parts holds chunks that were mined with rows="):
        mine(ROWS.select([0, 2, 1]), tmp_path / "rows", **options)
    written = (parts / "00001.json").read_bytes()
    (parts / "00001.json").write_bytes(written[:-9])
    with pytest.raises(ValueError, match=r"rows.parts/00001.json is no JSON, or is cut off or damaged"):
        mine(ROWS, tmp_path / "rows", **options)
    (parts / "00001.json").write_bytes(written)
    _, again = mine(ROWS, tmp_path / "rows", find=stop, **options)
    assert asked == ["who", "mvua", "who", "who"] and again == counts
    assert (tmp_path / "rows").read_bytes() == (tmp_path / "whole").read_bytes() and not parts.exists()


@pytest.mark.parametrize("pooled", [False, True])
def test_the_scores_of_a_model(teacher, pooled):
    queries, passages = ["who wrote it ?", "mvua leo"], [["she wrote it", "it rains"], ["it rains"]]
    scores = ModelScores(teacher, teacher, pooled=pooled, batch_size=2)(queries, passages)
    documents = ["she wrote it", "it rains"]
    if pooled:
        expected = teacher.encode_pooled(queries, "query") @ teacher.encode_pooled(documents, "document").T
    else:
        expected = maxsim(teacher.encode_tokens(queries, "query"), teacher.encode_tokens(documents, "document"))
    assert [len(each) for each in scores] == [2, 1]
    assert scores[0] == pytest.approx(expected[0].tolist(), abs=1e-5)
    assert scores[1] == pytest.approx(expected[1, 1:].tolist(), abs=1e-5)


def test_the_name_of_scores(teacher, tiny_encoder):
    name = ModelScores(teacher, teacher).fingerprint()
    assert name.startswith("maxsim ") and ModelScores(teacher, teacher, batch_size=3).fingerprint() == name
    other = type(teacher).from_checkpoint(tiny_encoder, document_prefix="passage: ", query_prefix="")
    names = {name, ModelScores(teacher, teacher, pooled=True).fingerprint(), ModelScores(other, teacher).fingerprint()}
    assert len(names) == 3 and len(json.dumps(name)) < 50

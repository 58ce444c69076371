"""`optical-hf fuse`: what it writes, and one line for everything that is wrong."""

from __future__ import annotations

import json

import pytest

from optical_hf.metrics.miracl_ndcg.miracl_ndcg import read_run
from optical_hf.retrieval.fusion import cross_validate, fuse


@pytest.fixture
def runs(tmp_path):
    """Two runs of six queries. The first finds the relevant passages of q0 to q4, the second that of q5."""
    lines: list[list[str]] = [[], []]
    for number in range(6):
        good = 0 if number < 5 else 1
        for place, found in enumerate(lines):
            first, second = ("a", "b") if place == good else ("b", "a")
            found += [f"q{number} Q0 {first} 1 {2.5 + number} x", f"q{number} Q0 {second} 2 0.5 x"]
    for name, found in zip(("one.trec", "two.trec"), lines, strict=True):
        (tmp_path / name).write_text("\n".join(found) + "\n")
    (tmp_path / "qrels.tsv").write_text("".join(f"q{number} Q0 a 1\n" for number in range(6)))
    return tmp_path


def test_methods_give_what_the_functions_give(call, runs):
    files = [runs / "one.trec", runs / "two.trec"]
    tables = [read_run(path) for path in files]
    common = ("fuse", "--runs", *files, "--output", runs / "fused.trec")
    assert call(*common) == f"{runs}/fused.trec holds the run of 6 queries.\n"
    assert read_run(runs / "fused.trec") == fuse(tables)
    call(*common, "--method", "sum", "--normalise", "z-score", "--weights", 0.2, 0.8)
    assert read_run(runs / "fused.trec") == fuse(tables, "sum", "z-score", [0.2, 0.8])
    assert sorted(path.name for path in runs.iterdir()) == ["fused.trec", "one.trec", "qrels.tsv", "two.trec"]


def test_weights_by_cross_validation_are_printed_and_recorded(call, runs):
    files = [runs / "one.trec", runs / "two.trec"]
    printed = call(
        *("fuse", "--runs", *files, "--output", runs / "fused.trec", "--method", "sum"),
        *("--qrels", runs / "qrels.tsv", "--folds", 3),
    )
    chosen = cross_validate([read_run(path) for path in files], {f"q{n}": {"a": 1} for n in range(6)}, folds=3)
    assert read_run(runs / "fused.trec") == chosen.run
    assert printed.splitlines()[0].split() == ["ndcg@10", "weight", "in", "folds"]
    # A single relevant passage in the second place is worth 1 / log2(3) = .6309: (5 + .6309) / 6, (1 + 5 * .6309) / 6.
    assert printed.splitlines()[1].split()[:3] == ["one.trec", "0.9385", f"{chosen.weights[0]:.2f}"]
    assert printed.splitlines()[2].split()[:2] == ["two.trec", "0.6924"]
    record = json.loads((runs / "fused.trec.json").read_text())
    assert record["runs"] == ["one.trec", "two.trec"] and record["run_ndcg"] == chosen.run_ndcg
    assert record["weights"] == chosen.weights and record["folds"] == chosen.folds
    assert record["fold_weights"] == chosen.fold_weights and record["ndcg"] == chosen.ndcg
    assert sum(record["weights"]) == pytest.approx(1) and record["weights"][0] > 0.5


def test_bad_input_gives_one_line_and_writes_nothing(call, runs):
    one, two, output = runs / "one.trec", runs / "two.trec", runs / "fused.trec"
    (runs / "twice.trec").write_text("q0 Q0 a 1 2.0 x\nq0 Q0 b 2 1.0 x\nq0 Q0 a 3 0.5 x\n")
    (runs / "nan.trec").write_text("q0 Q0 a 1 nan x\n")
    (runs / "other.trec").write_text("other Q0 a 1 1.0 x\n")
    for words, message in {
        (one,): "Fusion needs at least two runs, got 1",
        (one, runs / "twice.trec"): f"{runs}/twice.trec, line 3: document 'a' is there twice for query 'q0'",
        (one, runs / "nan.trec"): f"{runs}/nan.trec, line 1: the score is NaN",
        (one, runs / "other.trec"): f"{one} shares no query with the other runs",
        (one, two, "--weights", 1, 1): "--weights and --qrels are for --method sum",
        (one, two, "--method", "sum", "--weights", 1): "There are 1 weights for 2 runs",
        (one, two, "--method", "sum", "--weights", 1, -1): "The weight -1.0 must be",
        (one, two, "--method", "sum", "--weights", 1, 1, "--qrels", "q"): "Give either --weights, or --qrels",
        (one, two, "--method", "sum", "--qrels", runs / "qrels.tsv", "--folds", 9): "folds must be at least 2 and at",
        (one, two, "--method", "sum", "--normalise", "zmuv"): "argument --normalise",
        (one, runs / "gone.trec"): "[Errno 2] No such file",
    }.items():
        error = call("fuse", "--runs", *words, "--output", output)
        assert error.startswith(f"error: {message}") and "\n" not in error, error
    assert "its folder is not there" in call("fuse", "--runs", one, two, "--output", runs / "gone" / "fused.trec")
    assert not list(runs.glob("fused*"))

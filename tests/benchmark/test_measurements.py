"""Every measurement once, tiny, through the command; and what the measurements are made of."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec

import pytest
import torch

from optical_hf import maxsim
from optical_hf.benchmark import bm25
from optical_hf.benchmark.growth import exponent
from optical_hf.benchmark.machine import flop_counter, matrix_rate
from optical_hf.benchmark.maxsim import pad, padded_scores, write_index
from optical_hf.benchmark.run import MEASURES
from optical_hf.benchmark.setup import Setup, generate_texts, skewed_lengths, unit_vectors
from optical_hf.benchmark.table import format_row
from optical_hf.benchmark.transport import marginal_error

LINES = dict.fromkeys(MEASURES, 1) | {"step": 2, "transport": 2, "maxsim": 6, "growth": 3}


def test_every_measure_is_in_the_table_and_in_the_record(call, tmp_path, one_thread):
    pytest.importorskip("sentence_transformers", minversion="6.2")
    table = call("benchmark", "--quick", "--rounds", 2, "--output_dir", tmp_path / "out")
    assert (tmp_path / "out" / "table.md").read_text() == table
    record = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    comparisons = record["comparisons"]
    assert {name: [each["measure"] for each in comparisons].count(name) for name in MEASURES} == LINES
    assert (record["threads"], record["rounds"], record["device"], record["quick"]) == (1, 2, "cpu", True)
    assert record["versions"]["torch"] == torch.__version__ and min(record["matrix_rates"]["float32"]) > 0
    assert f"`{record['command']}`, {record['date']}" == table.splitlines()[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert [row.split(" | ")[0] for row in rows] == [f"| {each['name']}" for each in comparisons]
    installed = {"maxsim-cpu": "maxsim_cpu", "Qdrant Edge, exact": "qdrant_edge"}
    for each in comparisons:
        if each["measure"] == "growth":
            assert [note.split()[0] for note in each["notes"]] == ["exponent", "peak"]
            continue
        missing = each["peer"] in installed and find_spec(installed[each["peer"]]) is None
        assert (each["missing"] is not None) == missing
        assert len(each["ours"]) == 2 and len(each["ratios"]) == (0 if missing or each["measure"] == "bitext" else 2)
    by_measure = {each["measure"]: each for each in comparisons}
    assert by_measure["encoding"]["notes"] == ["largest difference 0e+00"]
    assert 0 < by_measure["step"]["share"] < 1.5 and by_measure["step"]["notes"][0].startswith("student: forward ")


def test_what_is_asked_for_wrongly_is_said(call):
    assert "--only: invalid choice: 'speed'" in (said := call("benchmark", "--only", "speed"))
    assert all(name in said for name in MEASURES)
    assert "--device: invalid choice: 'tpu' (choose from" in (said := call("benchmark", "--device", "tpu"))
    assert "cpu" in said and "cuda" in said
    if not torch.cuda.is_available():
        assert call("benchmark", "--device", "cuda") == "error: --device cuda: torch sees no card here."
    assert call("benchmark", "--rounds", 0) == "error: --rounds must be at least 1, got 0."
    assert "gone" in call("benchmark", "--model", "./gone", "--quick")


def test_without_bm25s_its_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bm25s", None)
    [comparison] = bm25.measure(Setup(tmp_path, quick=True))
    row = format_row({**vars(comparison), "ratios": comparison.ratios, "share": None})
    assert row.startswith("| BM25, 5 queries, 200 passages | not measured | bm25s | not measured: BM25 needs bm25s")


def test_padded_scores_are_those_of_maxsim(tmp_path):
    queries, documents = unit_vectors([3, 3], 8, 0), unit_vectors([1, 5, 2] * 30, 8, 1)
    expected = maxsim(queries, documents)
    torch.testing.assert_close(padded_scores(torch.stack(queries), *pad(documents)), expected)
    index = write_index(tmp_path / "index", documents, 40)
    assert [len(shard) for shard in index.shards] == [40, 40, 10]
    run = index.search(queries, ["q0", "q1"], k=2)
    for found, scores in zip(run.values(), expected, strict=True):
        assert list(found.values()) == pytest.approx(scores.topk(2).values.tolist(), abs=1e-3)


def test_errors_of_marginals_and_growth_are_counted():
    plan, half = torch.tensor([[[0.5, 0.0], [0.1, 0.4]]]), torch.tensor([[0.5, 0.5]])
    assert marginal_error(plan, half, half) == pytest.approx(0.2)
    assert exponent([1, 3, 10], [2.0, 18.0, 200.0]) == pytest.approx(2.0)
    assert exponent([10, 100], [7.0, 7.0]) == 0.0


def test_operations_of_attention_on_the_cpu_are_counted():
    query = torch.randn(2, 3, 5, 7, requires_grad=True)
    with flop_counter() as counter:
        output = torch.nn.functional.scaled_dot_product_attention(query, query, query)
        assert counter.get_total_flops() == 2 * 2 * (2 * 3 * 5 * 5 * 7)  # two products
        output.sum().backward()
    assert counter.get_total_flops() == 2 * (2 + 5) * (2 * 3 * 5 * 5 * 7)  # one of them again, and four of gradients
    clock = iter(range(100))
    assert matrix_rate("cpu", "float32", 10, lambda: float(next(clock))) == 2000.0


def test_generated_texts_differ_and_repeat():
    texts = generate_texts(50, longest=8)
    assert texts == generate_texts(50, longest=8) != generate_texts(50, 1, longest=8)
    assert len(set(texts)) == 50 and {len(text.split()) for text in texts} == {5, 6, 7, 8, 9}
    lengths = skewed_lengths(1000, 512, 0)
    assert min(lengths) >= 4 and max(lengths) == 512 and sorted(lengths)[500] < sum(lengths) / 1000 - 10

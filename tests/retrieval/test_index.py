from __future__ import annotations

import json
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch
from indexes import (
    COMPRESSED,
    PASSAGES,
    QUERIES,
    encode_queries,
    exact_model,
    folder_bytes,
    make_passages,
    read_back,
    spoil,
)
from safetensors.torch import load_file
from transformers import ByT5Tokenizer, CanineTokenizer

from optical_hf import OpticalStudent, OpticalTeacher, maxsim, search
from optical_hf.data.trec_files import rank
from optical_hf.retrieval.index.build import PassageIndex, build_index, model_fingerprint
from optical_hf.retrieval.index.compression import fit_rotation, pool_tokens, quantize
from optical_hf.retrieval.index.shards import IndexShard

CONFIG = Path(__file__).parents[2] / "examples" / "accelerate_configs" / "two_cpu.yaml"


def test_shards_hold_the_vectors_of_encode_in_half_precision(index, teacher):
    docids, tokens, pooled = read_back(index)
    assert len(index) == 23 and [len(shard) for shard in index.shards] == [5, 5, 5, 5, 3]
    assert [set(docids[start : start + 5]) for start in range(0, 23, 5)] == [
        {f"d{number}" for number in range(start, min(start + 5, 23))} for start in range(0, 23, 5)
    ]
    texts = dict(PASSAGES)
    expected, expected_pooled = teacher.encode_both([texts[docid] for docid in docids], "document")
    for found, wanted in zip(tokens, expected, strict=True):
        assert found.dtype == torch.float16
        torch.testing.assert_close(found.float(), wanted, atol=3e-4, rtol=0)
    torch.testing.assert_close(pooled.float(), expected_pooled, atol=3e-4, rtol=0)


@pytest.mark.parametrize("k", [1, 4, 100])
@pytest.mark.parametrize("memory_gb", [4.0, 0.0003])
def test_search_equals_search_in_memory_exactly(tmp_path, k, memory_gb):
    built = build_index(exact_model(), make_passages(300), tmp_path, shard_size=70)
    queries, pooled_queries = exact_model().encode_both(["a", "ten words", "habari"], "query")
    qids = [f"q{number}" for number in range(len(queries))]
    docids, tokens, pooled = read_back(built)
    run = built.search(queries, qids, k, memory_gb)
    assert run == search(queries, tokens, docids, qids, k)
    assert [list(results) for results in run.values()] == [rank(results) for results in run.values()]
    if k == 100:
        assert len(set(run["q2"].values())) < 50  # ties in plenty
    assert built.search_pooled(pooled_queries, qids, k, memory_gb) == search(pooled_queries, pooled, docids, qids, k)


def test_search_equals_search_of_the_model_s_vectors(index, teacher):
    queries, pooled_queries = encode_queries(teacher)
    exact, exact_pooled = teacher.encode([text for _, text in PASSAGES], "document", pooled="both")
    docids, tokens, pooled = read_back(index)
    run, pooled_run = index.search(queries, list(QUERIES)), index.search_pooled(pooled_queries, list(QUERIES))
    for given, ids, tolerance in (((tokens, pooled), docids, 1e-5), ((exact, exact_pooled), dict(PASSAGES), 1e-3)):
        for found, query_vectors, vectors in zip((run, pooled_run), (queries, pooled_queries), given, strict=True):
            expected = search(query_vectors, vectors, list(ids), list(QUERIES))
            for qid in QUERIES:
                assert found[qid] == pytest.approx(expected[qid], abs=tolerance)
                assert list(found[qid])[:3] == list(expected[qid])[:3]


def test_equal_scores_are_cut_as_trec_eval_ranks_across_shards(teacher, tmp_path):
    docids = ["d10", "d9", "c", "a", "z", "e"]  # two a shard: in products of one shape, equal texts score alike
    built = build_index(teacher, [(docid, "the book") for docid in docids], tmp_path, shard_size=2)
    queries, pooled = encode_queries(teacher)
    for run in (built.search(queries, list(QUERIES), k=3), built.search_pooled(pooled, list(QUERIES), k=3)):
        assert [list(results) for results in run.values()] == [["z", "e", "d9"]] * 3


def test_reads_stay_within_a_quarter_of_the_budget(tmp_path, monkeypatch):
    sizes: list[int] = []
    read = IndexShard.read

    def record(shard, name, start, stop):
        tensor = read(shard, name, start, stop)
        if name == "tokens":
            sizes.append(tensor.nbytes)
        return tensor

    built = build_index(exact_model(), make_passages(300), tmp_path, shard_size=70)
    queries, _ = exact_model().encode_both(list(QUERIES.values()), "query")
    _, tokens, _ = read_back(built)
    monkeypatch.setattr(IndexShard, "read", record)
    # 32 bytes for each similarity, of which a passage has as many as dimensions if queries are shorter than that.
    least = 4 * 32 * 7 * 256 / 1e9
    built.search(queries, list(QUERIES), 1, memory_gb=1.001 * least)
    assert least * 1e9 / 8 < max(sizes) <= least * 1e9 / 4
    assert sum(sizes) == sum(one.nbytes for one in tokens) > 2 * len(built.shards) * max(sizes)
    with pytest.raises(ValueError, match=r"is too little: the similarities of the longest query and passage.*Give at"):
        built.search(queries, list(QUERIES), 1, memory_gb=0.999 * least)
    with pytest.raises(ValueError, match=r"too little: the results .*0\.06 GB"):
        built.search(queries, list(QUERIES), 100_000, memory_gb=0.1)


def test_passages_are_read_one_shard_at_a_time(teacher, tmp_path):
    finished = []

    def stream():
        for passage in PASSAGES:
            finished.append(len(list(tmp_path.glob("shard-*.safetensors"))))
            yield passage

    build_index(teacher, stream(), tmp_path, shard_size=5)
    assert finished == [number // 5 for number in range(23)]


@pytest.mark.parametrize("options", [{}, COMPRESSED])
def test_an_interrupted_build_goes_on(teacher, tmp_path, encoded, options):
    whole = build_index(teacher, PASSAGES, tmp_path / "whole", shard_size=5, batch_size=2, **options)

    def broken():
        yield from islice(PASSAGES, 12)
        raise ConnectionError("the corpus is gone")

    with pytest.raises(ConnectionError, match="the corpus is gone"):
        build_index(teacher, broken(), tmp_path / "part", shard_size=5, batch_size=2, **options)
    assert {path.name for path in (tmp_path / "part").glob("shard-*")} == {
        f"shard-0000{number}.{ending}" for number in (0, 1) for ending in ("json", "safetensors")
    }
    with pytest.raises(ValueError, match="unfinished: call `build_index` again"):
        PassageIndex.load(tmp_path / "part")

    (tmp_path / "part" / ".shard-00002.safetensors.0123456789ab.partial").mkdir()  # what a kill left behind
    encoded.clear()
    build_index(teacher, iter(PASSAGES), tmp_path / "part", shard_size=5, batch_size=2, **options)
    assert sorted(encoded) == sorted(text for _, text in PASSAGES[10:])
    assert folder_bytes(tmp_path / "part") == folder_bytes(whole.folder)

    encoded.clear()
    build_index(teacher, dict(PASSAGES), tmp_path / "part", shard_size=5, batch_size=7, **options)
    assert encoded == []
    assert folder_bytes(tmp_path / "part") == folder_bytes(whole.folder)


SCRIPT = """
import json, sys, torch, weakref
from accelerate import PartialState
from optical_hf.launching import end_processes
state = PartialState(cpu=True)
sys.path[:0] = sys.argv[1].split(":")
import test_index as test
print(json.dumps(test.build_and_search(sys.argv[2], sys.argv[3], state.process_index)))
assert state.num_processes == 2
group = weakref.ref(torch.distributed.group.WORLD)
end_processes()
assert not torch.distributed.is_initialized() and group() is None
"""


def build_and_search(encoder: str, folder: str, process: int) -> dict[str, object]:
    teacher = OpticalTeacher.from_checkpoint(encoder, document_prefix="passage: ", query_prefix="query: ")
    texts, encode = [], teacher._encode
    queries, pooled = encode_queries(teacher)

    def record(given, *args, **options):
        texts.extend(given)
        return encode(given, *args, **options)

    teacher._encode = record
    plain = build_index(teacher, PASSAGES, f"{folder}/plain", shard_size=5, batch_size=2)
    count = len(texts)
    small = build_index(teacher, PASSAGES, f"{folder}/small", shard_size=5, batch_size=2, **COMPRESSED)
    runs = [plain.search(queries, list(QUERIES), k=7), small.search(queries, list(QUERIES), k=7)]
    found = {"count": count, "runs": [*runs, plain.search_pooled(pooled, list(QUERIES), k=7)]}
    Path(folder, f"found-{process}.json").write_text(json.dumps(found))
    return found


def test_two_processes_give_the_shards_and_the_run_of_one(tiny_encoder, tmp_path, one_thread, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir(), two.mkdir()
    expected = build_and_search(str(tiny_encoder), str(one), 0)
    assert expected["count"] == 23
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIG), str(script)]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    here = f"{Path(__file__).parent}:{Path(__file__).parents[1]}"
    done = subprocess.run([*command, here, str(tiny_encoder), str(two)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    for name in ("plain", "small"):
        assert len(list((one / name).glob("shard-*.safetensors"))) == 5
        assert folder_bytes(one / name) == folder_bytes(two / name)
    found = [json.loads((two / f"found-{process}.json").read_text()) for process in (0, 1)]
    assert [one["count"] for one in found] == [13, 10]  # shards 0, 2, 4 and 1, 3
    for process in found:
        assert process["runs"] == expected["runs"]
        assert [list(run["q1"]) for run in process["runs"]] == [list(run["q1"]) for run in expected["runs"]]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"dim": 16}, r"options\.dim is None there, 16 here"),
        ({"dtype": "int8", "pool_factor": 2}, r"options\.pool_factor is 1 there, 2 here; options\.dtype is 'float16'"),
        ({"shard_size": 6}, r"options\.shard_size is 5 there, 6 here"),
        ({"single": True}, r"options\.single is False there, True here"),
    ],
)
def test_other_options_on_going_on(teacher, copy, changes, message):
    before = folder_bytes(copy)
    with pytest.raises(ValueError, match=message):
        build_index(teacher, PASSAGES, copy, **{"shard_size": 5, **changes})
    assert folder_bytes(copy) == before


def test_other_models_on_going_on(tiny_encoder, copy, index):
    prefixes = {"document_prefix": "passage: ", "query_prefix": "query: "}
    trained = OpticalStudent.from_checkpoint(tiny_encoder, **prefixes)
    # A student equal to the teacher, and other options of queries, make the same passage vectors.
    build_index(trained, PASSAGES, copy, shard_size=5)
    trained.config.query_length = 9
    build_index(trained, PASSAGES, copy, shard_size=5)
    with torch.no_grad():
        trained.backbone.encoder.layer[0].output.dense.bias[0] += 1
    with pytest.raises(
        ValueError, match=r"another model's index .*: model\.weights is '\w+' there, '\w+' here\. Choose"
    ):
        build_index(trained, PASSAGES, copy, shard_size=5)
    shorter = OpticalTeacher.from_checkpoint(tiny_encoder, document_length=9, **prefixes)
    with pytest.raises(ValueError, match=r"model\.config\.document_length is 64 there, 9 here\. Choose"):
        build_index(shorter, PASSAGES, copy, shard_size=5)
    assert folder_bytes(copy) == folder_bytes(index.folder)


def test_another_tokenizer_on_going_on(tiny_encoder, copy, index, tmp_path):
    prefixes = {"document_prefix": "passage: ", "query_prefix": "query: "}
    folder = Path(shutil.copytree(tiny_encoder, tmp_path / "shuffled"))
    stored = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = stored["model"]["vocab"]
    vocabulary["book"], vocabulary["rains"] = vocabulary["rains"], vocabulary["book"]
    (folder / "tokenizer.json").write_text(json.dumps(stored))
    shuffled = OpticalTeacher.from_checkpoint(folder, **prefixes)
    with pytest.raises(ValueError, match=r"another model's index .*: model\.tokenizer is '\w+' there, '\w+' here\. "):
        build_index(shuffled, PASSAGES, copy, shard_size=5)
    assert folder_bytes(copy) == folder_bytes(index.folder)


def test_the_fingerprint_of_a_tokenizer(tiny_encoder, tmp_path):
    def of(model: OpticalTeacher) -> str:
        return model_fingerprint(model)["tokenizer"]

    teacher = OpticalTeacher.from_checkpoint(tiny_encoder)
    before = of(teacher)
    teacher.encode_tokens(["the book", "a"], "query")  # leaves padding and truncation in the tokenizer
    assert of(teacher) == before
    teacher.save_pretrained(tmp_path)
    assert model_fingerprint(OpticalStudent.from_checkpoint(tmp_path)) == model_fingerprint(teacher)
    teacher.tokenizer.truncation_side = "left"
    assert of(teacher) != before
    # Tokenizers without a backend are known by class, files and added tokens.
    seen = {before}
    for tokenizer in (ByT5Tokenizer(), ByT5Tokenizer(extra_ids=5), CanineTokenizer()):
        teacher.tokenizer = tokenizer
        assert of(teacher) == of(teacher)
        seen.add(of(teacher))
    assert len(seen) == 4


@pytest.mark.parametrize(
    "passages, message",
    [
        ([("d0", "another text"), *PASSAGES[1:]], r"shard-00000\.safetensors was made of other passages"),
        ([*PASSAGES[:22], ("d99", PASSAGES[22][1])], r"shard-00004\.safetensors was made of other passages"),
        (PASSAGES + [("d99", "the book")], r"shard-00004\.safetensors was made of other passages"),
        (PASSAGES[:20], r"shard-00004\.safetensors is there, but the passages end before it"),
    ],
)
def test_other_passages_on_going_on(teacher, copy, passages, message):
    with pytest.raises(ValueError, match=message):
        build_index(teacher, passages, copy, shard_size=5)


@pytest.mark.parametrize(
    "passages, options, message",
    [
        ([], {}, "There are no passages"),
        ([("d1", "a"), ("d2", "b"), ("d1", "c")], {}, "'d1' is there twice"),
        ([("d1", "a"), ("d2", "b"), ("d3", "a"), ("d2", "c")], {"shard_size": 2}, "'d2' is there twice"),
        ([("d1", "a"), (2, "b")], {}, "Passage 2: docid and text have to be strings"),
        ([("d1", None)], {}, "Passage 'd1': docid and text have to be strings"),
        (PASSAGES, {"shard_size": 0}, "shard_size must be at least 1, got 0"),
        (PASSAGES, {"shard_size": 10**13}, "shard_size must be at most 1,000,000,000,000, got 10000000000000"),
        (PASSAGES, {"shard_size": 2.5}, r"shard_size must be a whole number of at least 1, got 2\.5"),
        (PASSAGES, {"batch_size": 0}, "batch_size must be at least 1, got 0"),
        (PASSAGES, {"batch_size": True}, "batch_size must be a whole number of at least 1, got True"),
        (PASSAGES, {"pool_factor": -1}, "pool_factor must be at least 1, got -1"),
        (PASSAGES, {"dim": 0}, "dim must be at least 1, got 0"),
        (PASSAGES, {"dim": 33}, "dim is 33; the model's vectors have 32 dimensions"),
        (PASSAGES, {"dtype": "float32"}, "dtype is 'float32'; it has to be 'float16' or 'int8'"),
        (PASSAGES, {"single": True, "dim": 16}, "of which `single` stores none"),
    ],
)
def test_bad_input_of_build(teacher, tmp_path, passages, options, message):
    with pytest.raises(ValueError, match=message):
        build_index(teacher, passages, tmp_path / "index", **options)
    assert not list(tmp_path.rglob("shard-*")) or "'d2'" in message  # its first shard was good


def test_a_model_that_gives_nan(tiny_encoder, tmp_path):
    student = OpticalStudent.from_checkpoint(tiny_encoder)
    rains = student.tokenizer.convert_tokens_to_ids("rains")
    with torch.no_grad():
        student.backbone.embeddings.word_embeddings.weight[rains] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinity for the passage 'd2'"):
        build_index(student, [("d1", "the book"), ("d2", "it rains")], tmp_path)


@pytest.mark.parametrize(
    "queries, ids, k, message",
    [
        ([torch.ones(2, 32)], ["q1", "q2"], 1, "1 query vectors but 2 query ids"),
        ([torch.ones(2, 32)] * 2, ["q1", "q1"], 1, "query id 'q1' is there twice"),
        ([torch.ones(2, 32), torch.ones(2, 16)], ["q1", "q2"], 1, "Query 'q2' has vectors of size 16.*of size 32"),
        ([torch.full((2, 32), torch.nan)], ["q1"], 1, "Query 'q1' has NaN"),
        ([torch.full((2, 32), torch.inf)], ["q1"], 1, "Query 'q1' has NaN or infinity in its vectors"),
        ([torch.ones(2, 32), torch.empty(0, 32)], ["q1", "q2"], 1, "Query 'q2' has no tokens"),
        ([torch.ones(32)], ["q1"], 1, r"Query 'q1' has the shape \(32,\) in place of \(tokens, dim\)"),
        ([torch.ones(2, 32)], ["q1"], 0, "k must be at least 1, got 0"),
        ([torch.ones(2, 32)], ["q1"], 2.5, r"k must be a whole number of at least 1, got 2\.5"),
        (torch.full((1, 32), -torch.inf), ["q1"], 1, "Query 'q1' has NaN or infinity in its vectors"),
        (torch.ones(1, 16), ["q1"], 1, "Query 'q1' has vectors of size 16.*of size 32"),
        (torch.ones(32), ["q1"] * 32, 1, "there twice"),
    ],
)
def test_bad_queries(index, queries, ids, k, message):
    find = index.search_pooled if isinstance(queries, torch.Tensor) else index.search
    with pytest.raises(ValueError, match=message):
        find(queries, ids, k)


@pytest.mark.parametrize("how", ["cut", "cut in the header", "garbage", "empty", "gone", "other file"])
def test_a_damaged_shard_is_named_and_made_again(teacher, index, copy, encoded, how):
    path = copy / "shard-00003.safetensors"
    spoil(path, how)
    with pytest.raises(ValueError, match=rf"{path} is damaged or missing .*Delete shard-00003\.\*"):
        PassageIndex.load(copy)
    if how != "gone":
        with pytest.raises(ValueError, match=f"{path} is damaged"):
            build_index(teacher, PASSAGES, copy, shard_size=5, batch_size=2)
        path.unlink()
    build_index(teacher, PASSAGES, copy, shard_size=5, batch_size=2)
    assert sorted(encoded) == sorted(text for _, text in PASSAGES[15:20])
    assert folder_bytes(copy) == folder_bytes(index.folder)


def test_a_shard_cut_off_after_loading_and_damaged_contents_are_named(index, teacher, copy):
    queries, _ = encode_queries(teacher)
    loaded = PassageIndex.load(copy)
    path = loaded.shards[1].path
    whole = path.read_bytes()
    for name, position in (("tokens", 0), ("offsets", 8)):
        _, _, start = loaded.shards[1].tensors[name]
        path.write_bytes(whole[: start + position] + b"\xff\x7f" + whole[start + position + 2 :])  # a half NaN
        with pytest.raises(ValueError, match=f"{path} is damaged"):
            loaded.search(queries, list(QUERIES))
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=f"{path} is damaged"):
        loaded.search(queries, list(QUERIES))


def test_docids_of_another_shard_are_not_taken(copy, index):
    shutil.copy(copy / "shard-00001.json", copy / "shard-00003.json")
    loaded = PassageIndex.load(copy)
    with pytest.raises(ValueError, match=r"shard-00003\.json is damaged.*does not belong to shard-00003\.safetensors"):
        loaded.search_pooled(torch.ones(1, 32), ["q"])


def test_single_and_token_vectors_are_not_taken_for_each_other(index):
    with pytest.raises(ValueError, match=r"Query 'q1' has the shape \(32,\) in place of \(tokens, dim\)"):
        index.search(torch.ones(1, 32), ["q1"])
    with pytest.raises(ValueError, match="give one tensor"):
        index.search_pooled([torch.ones(1, 32)], ["q1"])


@pytest.mark.parametrize("memory_gb", [0, -1, float("nan"), float("inf"), 1e7, True, "4"])
def test_budgets_that_are_none(index, memory_gb):
    with pytest.raises(ValueError, match=r"memory_gb must be a number above 0 and at most 1,000,000 \(GB\), got "):
        index.search([torch.ones(2, 32)], ["q1"], memory_gb=memory_gb)


def test_candidates_that_are_not_in_the_index_are_named(index, teacher, caplog):
    queries, _ = encode_queries(teacher)
    candidates = {"q1": ["d3", "x1"], "q2": ["d4", "x2", "x1"], "q9": ["x9"]}
    run = index.search(queries, list(QUERIES), candidates=candidates)
    assert {qid: set(results) for qid, results in run.items()} == {"q1": {"d3"}, "q2": {"d4"}, "q3": set()}
    assert caplog.messages == ["3 of the 5 candidates name a passage that is not there (such as 'x1')."]
    with pytest.raises(ValueError, match=r"2 of the 2 candidates name a passage that is not there \(such as 'x1'\)"):
        index.search(queries, list(QUERIES), candidates={"q1": ["x1", "x2"]})


def test_shards_of_another_index_are_not_taken(teacher, copy, tmp_path):
    other = build_index(teacher, PASSAGES, tmp_path / "other", shard_size=5, dtype="int8")
    shutil.copy(other.folder / "shard-00003.safetensors", copy)
    with pytest.raises(ValueError, match=r"shard-00003\.safetensors was made by another model or with other options"):
        PassageIndex.load(copy)
    shutil.copy(copy / "shard-00001.safetensors", copy / "shard-00003.safetensors")
    with pytest.raises(ValueError, match=r"shard-00003\.safetensors was made of other passages"):
        PassageIndex.load(copy)


def test_folders_that_are_no_index(tmp_path, teacher):
    with pytest.raises(FileNotFoundError, match="has no index.json"):
        PassageIndex.load(tmp_path)
    (tmp_path / "index.json").write_text('{"model": ')
    for use in (PassageIndex.load, lambda folder: build_index(teacher, PASSAGES, folder)):
        with pytest.raises(ValueError, match=r"index\.json is damaged, or not an index's"):
            use(tmp_path)


def test_single_vectors(teacher, index, tmp_path, encoded):
    built = build_index(teacher, PASSAGES, tmp_path, shard_size=5, batch_size=2, single=True)
    queries, pooled = encode_queries(teacher)
    assert load_file(built.shards[0].path).keys() == {"pooled"}
    assert built.search_pooled(pooled, list(QUERIES)) == index.search_pooled(pooled, list(QUERIES))
    with pytest.raises(ValueError, match="use `search_pooled`"):
        built.search(queries, list(QUERIES))


# Compression ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("pool_factor", [1, 3])
@pytest.mark.parametrize("dim", [None, 28])
def test_every_combination_of_compressions(teacher, index, tmp_path, dtype, pool_factor, dim):
    built = build_index(
        teacher, PASSAGES, tmp_path, shard_size=5, batch_size=2, dtype=dtype, pool_factor=pool_factor, dim=dim
    )
    queries, pooled = encode_queries(teacher)
    docids, whole, _ = read_back(index)
    same_docids, small, _ = read_back(built)
    assert same_docids == docids
    for one, other in zip(whole, small, strict=True):
        assert 1 <= len(other) <= max(1, len(one) // pool_factor)
        torch.testing.assert_close(other.float().norm(dim=1), torch.ones(len(other)), atol=0.02, rtol=0)
    bytes_a_vector = (dim or 32) * (1 if dtype == "int8" else 2) + (2 if dtype == "int8" else 0)
    stored = [load_file(shard.path) for shard in built.shards]
    size = sum(tensors[name].nbytes for tensors in stored for name in ("tokens", "scales") if name in tensors)
    assert size == bytes_a_vector * sum(len(one) for one in small)

    exact = maxsim(queries, whole) / torch.tensor([[len(query)] for query in queries])
    run = built.search(queries, list(QUERIES))
    found = torch.tensor([[results[docid] for docid in docids] for results in run.values()])
    error = (found / torch.tensor([[len(query)] for query in queries]) - exact).abs().max()
    # Of a mean cosine: int8 costs next to nothing, four of 32 dimensions a little, two thirds of the tokens much.
    bound = 0.005 * (dtype == "int8") + 0.03 * (dim is not None) + 0.25 * (pool_factor > 1) + 1e-6
    assert error < bound
    assert (error > 1e-4) == (bound > 1e-4)
    assert built.search_pooled(pooled, list(QUERIES)) == index.search_pooled(pooled, list(QUERIES))
    if dim is not None:
        with pytest.raises(ValueError, match="Query 'q1' has vectors of size 28, not of size 32"):
            built.search([torch.ones(2, 28)], ["q1"])


def test_a_rotation_to_the_full_dimension_keeps_scores(teacher, index, tmp_path):
    built = build_index(teacher, PASSAGES, tmp_path, shard_size=5, batch_size=2, dim=32)
    queries, _ = encode_queries(teacher)
    for qid, results in index.search(queries, list(QUERIES)).items():
        assert built.search(queries, list(QUERIES))[qid] == pytest.approx(results, abs=3e-3)


def test_fit_rotation_finds_the_subspace_of_the_vectors():
    generator = torch.Generator().manual_seed(0)
    coordinates = torch.randn(200, 3, generator=generator) * torch.tensor([3.0, 2.0, 1.0])
    vectors = coordinates @ torch.randn(3, 12, generator=generator)
    rotation = fit_rotation(vectors.split(70), 3)
    torch.testing.assert_close(rotation.T @ rotation, torch.eye(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(vectors @ rotation @ rotation.T, vectors, atol=1e-4, rtol=1e-4)
    strength = (vectors @ rotation).square().sum(0)
    assert strength[0] > strength[1] > strength[2]
    torch.testing.assert_close(fit_rotation([vectors], 1), rotation[:, :1], atol=1e-4, rtol=0)


def test_pool_tokens_by_hand():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6], [0.6, -0.8]])
    # Nearest are the first and the third; the next join would be worse.
    pooled = pool_tokens(vectors, 2)
    assert len(pooled) == 2
    pooled = pool_tokens(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.96, 0.28], [-0.28, 0.96]]), 2)
    means = torch.tensor([[1.96, 0.28], [-0.28, 1.96]]) / (1.96**2 + 0.28**2) ** 0.5
    torch.testing.assert_close(pooled[pooled[:, 0].argsort(descending=True)], means)
    assert torch.equal(pool_tokens(vectors, 1), vectors)
    assert torch.equal(pool_tokens(vectors[:1], 3), vectors[:1])
    assert pool_tokens(vectors, 100).shape == (1, 2)


@pytest.mark.parametrize("dim", [0, 13, 2.0])
def test_compressions_out_of_bounds(dim):
    with pytest.raises(ValueError, match="dim must be "):
        fit_rotation([torch.ones(3, 12)], dim)
    with pytest.raises(ValueError, match="There are no vectors"):
        fit_rotation([], 3)
    with pytest.raises(ValueError, match="factor must be at least 1, got 0"):
        pool_tokens(torch.ones(3, 12), 0)


def test_quantize_is_off_by_half_a_step_at_most():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(50, 24, generator=generator)
    vectors[7] = 0
    numbers, scales = quantize(vectors)
    assert numbers.dtype == torch.int8 and scales.dtype == torch.float16 and scales.shape == (50,)
    assert numbers.abs().amax(1).tolist() == [0 if row == 7 else 127 for row in range(50)]
    restored = numbers.float() * scales.float()[:, None]
    step = vectors.abs().amax(1, keepdim=True) / 127
    assert ((restored - vectors).abs() <= 0.5 * step + 127 * step * 2**-11 + 1e-8).all()
    assert (restored - vectors).abs().max() > 0.005

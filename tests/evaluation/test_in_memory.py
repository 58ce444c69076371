"""The cache of encoded passages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from optical_hf import OpticalStudent, OpticalTeacher
from optical_hf.evaluation.in_memory import encode_passages
from optical_hf.models.modeling_optical import OpticalModel
from optical_hf.retrieval.index import shards

PASSAGES = {"d1": "she wrote the book", "d2": "it rains", "d3": "a"}


@pytest.fixture
def encoded(monkeypatch) -> list[str]:
    """Every text that is encoded from now on."""
    texts: list[str] = []
    encode = OpticalModel._encode

    def record(model, given, *arguments, **options):
        texts.extend(given)
        return encode(model, given, *arguments, **options)

    monkeypatch.setattr(OpticalModel, "_encode", record)
    return texts


def same(first, second) -> bool:
    (tokens, pooled), (other_tokens, other_pooled) = first, second
    return torch.equal(pooled, other_pooled) and all(map(torch.equal, tokens, other_tokens))


def test_a_model_s_passages_are_encoded_once(tiny_encoder, tmp_path, encoded):
    teacher = OpticalTeacher.from_checkpoint(tiny_encoder)
    expected = encode_passages(teacher, PASSAGES)
    assert same(encode_passages(teacher, PASSAGES, cache_dir=tmp_path / "cache"), expected)
    assert encoded == [*PASSAGES.values()] * 2
    encoded.clear()
    # Nothing of these changes a passage's vectors.
    student = OpticalStudent.from_checkpoint(tiny_encoder, query_prefix="query: ", query_length=9)
    other_ids = dict(zip("abc", PASSAGES.values(), strict=True))
    assert same(encode_passages(student, other_ids, cache_dir=tmp_path / "cache"), expected)
    assert encoded == [] and len(list((tmp_path / "cache").iterdir())) == 1


def test_another_tokenizer_is_another_file(tiny_encoder, tmp_path):
    folder = Path(shutil.copytree(tiny_encoder, tmp_path / "shuffled"))
    stored = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = stored["model"]["vocab"]
    vocabulary["book"], vocabulary["rains"] = vocabulary["rains"], vocabulary["book"]
    (folder / "tokenizer.json").write_text(json.dumps(stored))
    shuffled = OpticalTeacher.from_checkpoint(folder)
    first = encode_passages(OpticalTeacher.from_checkpoint(tiny_encoder), PASSAGES, cache_dir=tmp_path / "cache")
    second = encode_passages(shuffled, PASSAGES, cache_dir=tmp_path / "cache")
    assert same(second, encode_passages(shuffled, PASSAGES)) and not same(second, first)
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize("how", ["a flipped bit", "cut", "empty", "garbage", "no tensors"])
def test_a_damaged_file_is_made_anew_with_a_word(tiny_encoder, tmp_path, encoded, caplog, how):
    teacher = OpticalTeacher.from_checkpoint(tiny_encoder)
    expected = encode_passages(teacher, PASSAGES, cache_dir=tmp_path)
    [path] = tmp_path.iterdir()
    whole = path.read_bytes()
    if how == "a flipped bit":
        path.write_bytes(whole[:-4] + bytes([whole[-4] ^ 1]) + whole[-3:])
    elif how == "no tensors":
        shards.save_file({"tokens": torch.ones(2)}, path)
    else:
        path.write_bytes({"cut": whole[:-7], "empty": b"", "garbage": b"\xff" * 999}[how])
    encoded.clear(), caplog.clear()
    assert same(encode_passages(teacher, PASSAGES, cache_dir=tmp_path), expected)
    assert encoded == [*PASSAGES.values()]
    [message] = caplog.messages
    assert message.startswith(f"{path} is damaged (") and message.endswith("): its passages are encoded anew.")
    assert path.read_bytes() == whole


def test_a_cache_that_is_full_costs_nothing_but_the_cache(tiny_encoder, tmp_path, monkeypatch, caplog):
    def fail(*arguments):
        raise SafetensorError("No space left on device")

    teacher = OpticalTeacher.from_checkpoint(tiny_encoder)
    monkeypatch.setattr(shards, "save_file", fail)
    assert same(encode_passages(teacher, PASSAGES, cache_dir=tmp_path), encode_passages(teacher, PASSAGES))
    assert "The passages' vectors are not kept for the next run" in caplog.text and "No space left" in caplog.text
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        encode_passages(teacher, PASSAGES, cache_dir=tmp_path / "file")


@pytest.mark.parametrize("batch_size", [0, -1, 1.5])
def test_batch_sizes_that_are_none(tiny_encoder, batch_size):
    with pytest.raises(ValueError, match=f"batch_size must be .*at least 1, got {batch_size}"):
        encode_passages(OpticalTeacher.from_checkpoint(tiny_encoder), PASSAGES, batch_size)

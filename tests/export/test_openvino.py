"""Models in 8 bits, by OpenVINO."""

from __future__ import annotations

import pytest
import torch
from trainers import make_bitext

from optical_hf import OpticalTeacher, build_index
from optical_hf.data.trec_files import write_passages
from optical_hf.export import openvino as module
from optical_hf.export.openvino import export_openvino
from optical_hf.models.openvino_teacher import OpenVINOTeacher, is_openvino
from optical_hf.retrieval.index.build import model_fingerprint

TEXTS = make_bitext(80)["english"][:]


@pytest.fixture(scope="module")
def teacher(tiny_encoder):
    options = {"query_prefix": "who ", "document_prefix": "the ", "projection_dim": 16, "document_length": 8}
    torch.manual_seed(0)
    return OpticalTeacher.from_checkpoint(tiny_encoder, **options)


@pytest.fixture(scope="module")
def folder(teacher, tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8") / "model"
    assert export_openvino(teacher, folder, TEXTS) > 0.97
    return folder


def test_it_encodes_nearly_as_the_model(teacher, folder):
    model = OpenVINOTeacher(folder)
    for role in ("query", "document"):
        tokens, pooled = teacher.encode_both(TEXTS[:20], role)
        others, other_pooled = model.encode_both(TEXTS[:20], role)
        assert [one.shape for one in others] == [one.shape for one in tokens]
        cosines = torch.cat([(one * other).sum(1) for one, other in zip(tokens, others, strict=True)])
        assert 0.9 < float(cosines.min()) and 0.97 < float(cosines.mean()) < 0.9999  # 8 bits, and no more
        assert float((pooled * other_pooled).sum(1).min()) > 0.98


def test_an_index_is_built_and_searched_with_it(folder, tmp_path, teacher):
    model = OpenVINOTeacher(folder, threads=1)
    passages = [(f"d{number}", text) for number, text in enumerate(TEXTS[:30])]
    index = build_index(model, passages, tmp_path / "index")
    run = index.search(model.encode_tokens([TEXTS[4]], "document"), ["q"], k=1)
    assert list(run["q"]) == ["d4"]
    with pytest.raises(ValueError, match="weights"):  # those in 32 bits are another model's
        build_index(teacher, passages, tmp_path / "index")
    assert model_fingerprint(model)["config"] == model_fingerprint(teacher)["config"]


def test_bad_input(teacher, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="holds 63 texts; the ranges of 8 bits take at least 64"):
        export_openvino(teacher, tmp_path / "few", TEXTS[:63])
    with pytest.raises(FileNotFoundError, match="There is no openvino_model.xml in .*few"):
        OpenVINOTeacher(tmp_path / "few")
    monkeypatch.setattr(module, "LEAST", 1.1)
    with pytest.raises(RuntimeError, match="mean cosine to the model's token vectors is .* below 1.1"):
        export_openvino(teacher, tmp_path / "unlike", TEXTS[:64])
    assert not list((tmp_path / "unlike").iterdir()) and not is_openvino(tmp_path / "unlike")


def test_the_command(tiny_encoder, tmp_path, call):
    passages = str(tmp_path / "passages.jsonl")
    write_passages({f"d{number}": text for number, text in enumerate(TEXTS)}, passages)
    words = ("export", tiny_encoder, tmp_path / "int8", "--format=openvino")
    assert "encodes in 8 bits" in call(*words, "--passages", passages)
    assert "--passages is needed for --format openvino" in call(*words)
    index = ("index", "--model", tmp_path / "int8", "--passages", passages, "--index_dir", tmp_path / "index")
    assert "--query_length was fixed when" in call(*index, "--query_length", "8")
    call(*index)
    assert (tmp_path / "index" / "index.json").exists()

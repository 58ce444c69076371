from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from multilingual import TEXTS, multilingual_encoder
from tokenizers import Tokenizer

from optical_hf import OpticalStudent

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

EXAMPLE = Path(__file__).parents[2] / "examples" / "export_onnx.py"


@pytest.mark.parametrize(
    "options",
    [
        {
            "query_prefix": "query: ",
            "document_prefix": "passage: ",
            "projection_dim": 8,
            "document_skiplist": [".", ","],
        },
        {"query_expansion": True, "attend_to_expansion": True, "query_length": 20, "score_special_tokens": True},
    ],
    ids=["prefixes, projection and skiplist", "attended expansion"],
)
def test_onnxruntime_gives_the_models_vectors(tmp_path, monkeypatch, capsys, options):
    torch.manual_seed(0)
    student = OpticalStudent.from_checkpoint(multilingual_encoder(tmp_path / "encoder"), **options)
    student.save_pretrained(tmp_path / "student")
    monkeypatch.setattr(sys, "argv", ["export_onnx.py", str(tmp_path / "student"), str(tmp_path / "out")])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert "model.onnx encodes as" in capsys.readouterr().out
    names = ["document_tokenizer.json", "model.onnx", "prefixes.json", "query_tokenizer.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names

    # What the example's docstring tells people to do, in batches of other sizes and lengths than the export's.
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    prefixes = json.loads((tmp_path / "out" / "prefixes.json").read_text())
    for role in ("query", "document"):
        tokenizer = Tokenizer.from_file(str(tmp_path / "out" / f"{role}_tokenizer.json"))
        expected, pooled = student.encode(TEXTS, role, pooled="both")
        for start in range(0, len(TEXTS), 7):
            texts = tokenizer.encode_batch([prefixes[role] + text for text in TEXTS[start : start + 7]])
            found = session.run(
                ["token_vectors", "mask", "pooled"],
                {
                    "input_ids": np.array([text.ids for text in texts]),
                    "attention_mask": np.array([text.attention_mask for text in texts]),
                    "special_tokens_mask": np.array([text.special_tokens_mask for text in texts]),
                    "is_query": np.array(role == "query"),
                },
            )
            for index, (vectors, mask, single) in enumerate(zip(*found, strict=True), start):
                assert mask.sum() == len(expected[index])
                np.testing.assert_allclose(vectors[mask], expected[index].numpy(), rtol=0, atol=1e-4)
                np.testing.assert_allclose(single, pooled[index].numpy(), rtol=0, atol=1e-4)

"""Export a model for fast encoding on a CPU: compiled by OpenVINO, in 8 bits.

    pip install "optical-hf[openvino]"
    optical-hf export yoruba-student yoruba-student-int8 --format openvino --passages passages.en.jsonl
    optical-hf index --model yoruba-student-int8 --passages passages.en.jsonl --index_dir index

Weights and what flows between the layers become 8-bit integers, whose ranges are measured on sample texts: those of
the collection that is going to be encoded serve best.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..files import scratch
from ..models.modeling_optical import OpticalModel
from ..models.openvino_teacher import GRAPH, OpenVINOTeacher
from ..models.processing_optical import ROLES, process_texts

TEXTS = 200  # that ranges are measured on; more of them change the vectors little
CHECKED = 32  # other texts, that graph and model are compared on
LEAST = 0.98  # mean cosine of the token vectors of both; a sound model has about .998 in 8 bits


class _Encoder(torch.nn.Module):
    def __init__(self, model: OpticalModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        output = self.model(input_ids, attention_mask)
        return output.token_vectors, output.pooled


def export_openvino(model: OpticalModel, folder: str | os.PathLike[str], texts: Sequence[str]) -> float:
    """Write a model in 8 bits, once it is known to encode nearly alike.

    Args:
        model ([`OpticalStudent`] or [`OpticalTeacher`]): the model, with its tokenizer.
        folder (`str` or `Path`): made if it is not there.
        texts (`Sequence[str]`): at least 64 texts as they will be encoded. The first 200 give the ranges, with the
            prefixes of both roles; the last 32 of the rest are compared.

    Returns:
        `float`: the mean cosine of the token vectors of graph and model.

    Raises:
        ImportError: if the extra `openvino` is not installed.
        RuntimeError: if this cosine is below .98; nothing is written then.
        ValueError: if there are too few texts.
    """
    if missing := [name for name in ("openvino", "nncf") if find_spec(name) is None]:
        raise ImportError(f'{", ".join(missing)} missing: pip install "optical-hf[openvino]"')
    if len(texts) < 2 * CHECKED:
        raise ValueError(f"`texts` holds {len(texts)} texts; the ranges of 8 bits take at least {2 * CHECKED}.")
    import nncf
    import openvino

    def batches(chosen: Sequence[str]) -> list[dict[str, np.ndarray]]:
        made = []
        for place, start in enumerate(range(0, len(chosen), 4)):
            batch = process_texts(chosen[start : start + 4], ROLES[place % 2], model.tokenizer, model.config)
            made.append({name: batch[name].numpy() for name in ("input_ids", "attention_mask")})
        return made

    given, held_out = list(texts[: min(TEXTS, len(texts) - CHECKED)]), list(texts[-CHECKED:])
    example = {name: torch.from_numpy(array) for name, array in batches(given[:4])[0].items()}
    was_training = model.training
    graph = openvino.convert_model(_Encoder(model).eval(), example_input=example)
    model.train(was_training)
    ranges = nncf.Dataset(batches(given))
    graph = nncf.quantize(graph, ranges, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(batches(given)))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with scratch(folder, "openvino") as place:
        partial = place / "openvino"
        partial.mkdir()
        openvino.save_model(graph, partial / GRAPH, compress_to_fp16=False)
        model.config.save_pretrained(partial)
        model.tokenizer.save_pretrained(partial)
        cosine = _mean_cosine(model, OpenVINOTeacher(partial), held_out)
        if not cosine >= LEAST:
            raise RuntimeError(
                f"In 8 bits, the mean cosine to the model's token vectors is {cosine:.3f}, below {LEAST}."
            )
        for path in sorted(partial.iterdir(), key=lambda path: path.name == GRAPH):  # by which a folder is known
            path.replace(folder / path.name)
    return cosine


def _mean_cosine(model: OpticalModel, other: OpticalModel, texts: Sequence[str]) -> float:
    own, others = (torch.cat(each.encode_tokens(texts, "document")) for each in (model, other))
    return float((own * others).sum(1).mean())

"""Export a student to ONNX, for people who serve without torch.

    pip install "optical-hf[onnx]" && optical-hf export yoruba-student yoruba-student-onnx

One graph encodes queries and documents, so that a server holds the weights once; `is_query` says which. Beside it lie
a tokenizer of each role, which cuts and pads as the student does, and the prefixes. With onnxruntime, tokenizers and
numpy alone:

    folder = "yoruba-student-onnx/"
    session = onnxruntime.InferenceSession(folder + "model.onnx")
    tokenizer = tokenizers.Tokenizer.from_file(folder + "query_tokenizer.json")
    prefix = json.load(open(folder + "prefixes.json"))["query"]
    texts = tokenizer.encode_batch([prefix + "Ta ni ó kọ ìwé yìí?"])
    token_vectors, mask, pooled = session.run(None, {
        "input_ids": np.array([text.ids for text in texts]),
        "attention_mask": np.array([text.attention_mask for text in texts]),
        "special_tokens_mask": np.array([text.special_tokens_mask for text in texts]),
        "is_query": np.array(True),
    })
    vectors = token_vectors[0][mask[0]]  # (tokens, dim), for MaxSim
"""

from __future__ import annotations

import logging
import os
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from ..files import scratch, write_json
from ..models.modeling_optical import OpticalModel
from ..models.processing_optical import ROLES, scored_tokens

SAMPLE = ["Who wrote this book?", "", "Ta ni ó kọ ìwé yìí? " * 40, "من كتب هذا الكتاب؟", "这本书是谁写的？"]
TOLERANCE = 1e-4
ONE_FILE = 2_000_000_000  # bytes; a larger model has its weights in a file beside it, as ONNX demands


class Encoder(torch.nn.Module):
    """The model with its scoring mask, from what a tokenizer gives."""

    def __init__(self, model: OpticalModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        special_tokens_mask: torch.Tensor,
        is_query: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        config, tokenizer = self.model.config, self.model.tokenizer
        tokens, special = attention_mask.bool(), special_tokens_mask.bool()
        expansion = ~tokens & is_query if config.query_expansion else torch.zeros_like(tokens)
        of_query, of_document = (
            scored_tokens(input_ids, tokens, special, expansion, role, tokenizer, config) for role in ROLES
        )
        mask = (of_query & is_query) | (of_document & ~is_query)  # onnxruntime has no torch.where of booleans
        if config.query_expansion:
            input_ids = input_ids.masked_fill(expansion, tokenizer.mask_token_id)
            if config.attend_to_expansion:
                attention_mask = (tokens | expansion).long()
        output = self.model(input_ids, attention_mask)
        return output.token_vectors, mask, output.pooled


def role_tokenizer(model: OpticalModel, role: str) -> Tokenizer:
    """Copy the model's tokenizer, to cut and pad as [`process_texts`] does."""
    config, own = model.config, model.tokenizer
    if not own.is_fast:
        raise ValueError(
            f"{type(own).__name__} cannot be saved for the tokenizers library: a fast tokenizer is needed."
        )
    tokenizer = Tokenizer.from_str(own.backend_tokenizer.to_str())
    length = config.query_length if role == "query" else config.document_length
    tokenizer.enable_truncation(length)
    fixed = length if role == "query" and config.query_expansion else None
    tokenizer.enable_padding(pad_id=own.pad_token_id, pad_token=own.pad_token, length=fixed)
    return tokenizer


def batch(tokenizer: Tokenizer, texts: list[str], role: str) -> dict[str, np.ndarray]:
    """Tokenise texts that have their prefix into the graph's inputs."""
    found = tokenizer.encode_batch(texts)
    inputs = {
        "input_ids": np.array([one.ids for one in found]),
        "attention_mask": np.array([one.attention_mask for one in found]),
        "special_tokens_mask": np.array([one.special_tokens_mask for one in found]),
    }
    return {**inputs, "is_query": np.array(role == "query")}


def write_graph(model: OpticalModel, folder: Path) -> None:
    """Write the graph, the tokenizers and the prefixes."""
    prefixes = {"query": model.config.query_prefix, "document": model.config.document_prefix}
    write_json(folder / "prefixes.json", prefixes, indent=2)
    for role in ROLES:
        role_tokenizer(model, role).save(str(folder / f"{role}_tokenizer.json"))
    inputs = batch(role_tokenizer(model, "query"), SAMPLE[:2], "query")
    shape: Any = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Encoder(model).eval(),
            tuple(torch.from_numpy(one) for one in inputs.values()),
            input_names=list(inputs),
            output_names=["token_vectors", "mask", "pooled"],
            dynamic_shapes={name: shape if array.ndim else None for name, array in inputs.items()},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    size = sum(one.numel() * one.element_size() for one in model.parameters())
    program.save(str(folder / "model.onnx"), external_data=size > ONE_FILE)


def largest_difference(model: OpticalModel, folder: Path) -> float:
    """Encode a sample with onnxruntime and with torch, one text at a time and all together, and compare."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    largest = 0.0
    for role in ROLES:
        tokenizer = Tokenizer.from_file(str(folder / f"{role}_tokenizer.json"))
        prefix = model.config.query_prefix if role == "query" else model.config.document_prefix
        tokens, pooled = model.encode_both(SAMPLE, role)
        for chosen in ([0], [2], list(range(len(SAMPLE)))):
            found = session.run(None, batch(tokenizer, [prefix + SAMPLE[index] for index in chosen], role))
            for index, vectors, mask, single in zip(chosen, *found, strict=True):
                if mask.sum() != len(tokens[index]):
                    return float("inf")
                for one, two in ((vectors[mask], tokens[index]), (single, pooled[index])):
                    largest = max(largest, float(np.abs(one - two.numpy()).max()))
    return largest


def export_onnx(model: OpticalModel, folder: str | os.PathLike[str]) -> float:
    """Write a model as an ONNX graph, with its tokenizers and prefixes, once the graph is known to encode alike.

    Args:
        model ([`OpticalStudent`] or [`OpticalTeacher`]): the model, with its tokenizer.
        folder (`str` or `Path`): made if it is not there.

    Returns:
        `float`: the largest difference of a vector of a sample, between onnxruntime and torch.

    Raises:
        ImportError: if the extra `onnx` is not installed.
        RuntimeError: if the graph differs from the model by more than 1e-4; nothing is written then.
        ValueError: if the tokenizer is not one of the tokenizers library.
    """
    if missing := [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]:
        raise ImportError(f'{", ".join(missing)} missing: pip install "optical-hf[onnx]"')
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with scratch(folder, "onnx") as place:
        partial = place / "onnx"
        partial.mkdir()
        write_graph(model, partial)
        difference = largest_difference(model, partial)
        if difference > TOLERANCE:
            raise RuntimeError(f"The graph differs from the model by {difference:.1e}; nothing was written.")
        for path in partial.iterdir():
            path.rename(folder / path.name)
    return difference

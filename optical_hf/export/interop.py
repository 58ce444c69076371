"""Folders of other tools' own formats, without remote code: PyLate's, and sentence-transformers' for single vectors.

A saved student is a `MultiVectorEncoder` already, with all that [`OpticalConfig`] can say; the formats here say less,
so what they cannot repeat is refused. [`~OpticalModel.from_checkpoint`] reads both back.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase

from ..files import write_json
from ..models.configuration_optical import OpticalConfig, read_json
from ..models.modeling_optical import OpticalModel
from ..models.processing_optical import skiplist_ids


def export_pylate(model: OpticalModel, folder: str | os.PathLike[str]) -> None:
    """Save a model as PyLate does; `MultiVectorEncoder(folder)` of sentence-transformers loads it as well.

    PyLate applies a prefix of several tokens only when asked to: `encode(..., prompt_name="query", is_query=True)` and
    `encode(..., prompt_name="document", is_query=False)`. It takes the spaces off both ends of a text, prefix
    included. A model without projection gets the identity as one, since PyLate would add a random one.

    Args:
        model ([`OpticalStudent`] or [`OpticalTeacher`]):
            The model, with its tokenizer.
        folder (`str` or `Path`):
            Where to save it; not the folder of a saved student, whose files have the same names.

    Raises:
        ValueError: if PyLate cannot score as the model does, naming the option that is in the way.

    Example:

    ```python
    >>> from optical_hf import OpticalStudent, export_pylate
    >>> student = OpticalStudent.from_checkpoint("yoruba-student", score_special_tokens=True, score_prefix=True)
    >>> export_pylate(student, "yoruba-student-pylate")  # scores [CLS], [SEP] and the prefix, unlike yoruba-student
    ```
    """
    config, tokenizer = model.config, model.tokenizer
    prefixes = {"query": config.query_prefix, "document": config.document_prefix}
    if not config.score_special_tokens:
        raise _refuse("PyLate scores special tokens", "score_special_tokens", "False")
    if any(prefixes.values()) and not config.score_prefix:
        raise _refuse("PyLate scores the prefix", "score_prefix", "False")
    skipped = skiplist_ids(config.document_skiplist, tokenizer)
    if set(skipped) & set(tokenizer.encode("")):
        raise _refuse("PyLate's skiplist takes out special tokens too", "document_skiplist", config.document_skiplist)
    markers = {role: _marker(prefix, tokenizer) for role, prefix in prefixes.items()}
    general = {
        "model_type": "ColBERT",
        "prompts": {role: "" if markers[role] else prefix for role, prefix in prefixes.items()},
        "default_prompt_name": None,
        "similarity_fn_name": "MaxSim",
        "query_prefix": markers["query"],
        "document_prefix": markers["document"],
        "query_length": config.query_length,
        "document_length": config.document_length,
        "do_query_expansion": config.query_expansion,
        "attend_to_expansion_tokens": config.query_expansion and config.attend_to_expansion,
        "skiplist_words": tokenizer.convert_ids_to_tokens(skipped),
    }
    modules = {"": "sentence_transformers.models.Transformer", "1_Dense": "pylate.models.Dense.Dense"}
    _save(model, folder, modules, general, {"max_seq_length": config.document_length})
    _save_dense(model, Path(folder) / "1_Dense")


def export_single_vector(model: OpticalModel, folder: str | os.PathLike[str]) -> None:
    """Save a model's pooled vectors as a `SentenceTransformer`: encoder, pooling, projection, normalisation.

    Use `encode_query` and `encode_document`. If `query_length` and `document_length` differ, sentence-transformers 6.2
    is needed, otherwise any version will do.

    Args:
        model ([`OpticalStudent`] or [`OpticalTeacher`]):
            The model, with its tokenizer.
        folder (`str` or `Path`):
            Where to save it; not the folder of a saved student, whose files have the same names.

    Raises:
        ValueError: if sentence-transformers cannot pool as the model does, naming the option that is in the way.

    Example:

    ```python
    >>> from optical_hf import OpticalStudent, export_single_vector
    >>> export_single_vector(OpticalStudent.from_checkpoint("yoruba-student"), "yoruba-student-single")
    ```
    """
    config = model.config
    if config.query_expansion and config.attend_to_expansion:
        raise _refuse("A SentenceTransformer has no query expansion to attend to", "attend_to_expansion", "True")
    general = {
        "model_type": "SentenceTransformer",
        "prompts": {"query": config.query_prefix, "document": config.document_prefix},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
    }
    lengths = {"query_length": config.query_length, "document_length": config.document_length}
    transformer = {"max_seq_length": max(lengths.values())}
    if config.query_length != config.document_length:
        transformer |= lengths
    base = "sentence_transformers.models"
    modules = {"": f"{base}.Transformer", "1_Pooling": f"{base}.Pooling"}
    if model.projection is not None:
        modules["2_Dense"] = f"{base}.Dense"
    _save(model, folder, modules | {f"{len(modules)}_Normalize": f"{base}.Normalize"}, general, transformer)
    pooling = {
        "word_embedding_dimension": config.hidden_size,
        "pooling_mode_cls_token": config.pooling == "cls",
        "pooling_mode_mean_tokens": config.pooling == "mean",
    }
    (Path(folder) / "1_Pooling").mkdir(exist_ok=True)
    write_json(Path(folder) / "1_Pooling" / "config.json", pooling, indent=2)
    if model.projection is not None:
        _save_dense(model, Path(folder) / "2_Dense")


def _save(
    model: OpticalModel,
    folder: str | os.PathLike[str],
    modules: dict[str, str],
    general: dict[str, Any],
    transformer: dict[str, Any],
) -> None:
    path = Path(folder)
    stored = read_json(path, "config.json") if path.is_dir() else None
    if stored is not None and stored.get("model_type") == OpticalConfig.model_type:
        raise ValueError(f"{folder} holds a saved student, which this would overwrite; name another folder.")
    model.backbone.save_pretrained(path)
    model.tokenizer.save_pretrained(path)
    listed = [{"idx": i, "name": str(i), "path": one, "type": kind} for i, (one, kind) in enumerate(modules.items())]
    write_json(path / "sentence_bert_config.json", {**transformer, "do_lower_case": False}, indent=2)
    write_json(path / "config_sentence_transformers.json", general, indent=2)
    write_json(path / "modules.json", listed, indent=2)


def _save_dense(model: OpticalModel, folder: Path) -> None:
    size = model.config.hidden_size
    weight = torch.eye(size) if model.projection is None else model.projection.weight.detach()
    config = {
        "in_features": size,
        "out_features": len(weight),
        "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    folder.mkdir(exist_ok=True)
    write_json(folder / "config.json", config, indent=2)
    save_file({"linear.weight": weight.to("cpu", model.dtype).contiguous()}, folder / "model.safetensors")


def _marker(prefix: str, tokenizer: PreTrainedTokenizerBase) -> str:
    # PyLate puts one token of the vocabulary behind the first token of a text. A prefix that is such a token is
    # written as one, and then applied without being asked for; any other prefix is a prompt.
    ids = tokenizer.encode(prefix, add_special_tokens=False) if prefix else []
    alone = tokenizer.encode("a")
    if len(ids) != 1 or tokenizer.encode(f"{prefix}a") != alone[:1] + ids + alone[1:]:
        return ""
    added = {number: token for token, number in tokenizer.get_added_vocab().items()}
    return added.get(ids[0], "")


def _refuse(what: str, option: str, value: Any) -> ValueError:
    return ValueError(
        f"{what}, and this model's `{option}` is {value}. Load it with another value to export it so, "
        f"`OpticalStudent.from_checkpoint(..., {option}=...)`: its scores will be others."
    )

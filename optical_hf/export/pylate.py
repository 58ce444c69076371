"""A model in PyLate's format, without remote code."""

from __future__ import annotations

import os
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from ..models.modeling_optical import OpticalModel
from ..models.processing_optical import skiplist_ids
from .folders import refusal, save_dense, save_folder


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
        raise refusal("PyLate scores special tokens", "score_special_tokens", "False")
    if any(prefixes.values()) and not config.score_prefix:
        raise refusal("PyLate scores the prefix", "score_prefix", "False")
    skipped = skiplist_ids(config.document_skiplist, tokenizer)
    if set(skipped) & set(tokenizer.encode("")):
        raise refusal("PyLate's skiplist takes out special tokens too", "document_skiplist", config.document_skiplist)
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
    save_folder(model, folder, modules, general, {"max_seq_length": config.document_length})
    save_dense(model, Path(folder) / "1_Dense")


def _marker(prefix: str, tokenizer: PreTrainedTokenizerBase) -> str:
    # PyLate puts one token of the vocabulary behind the first token of a text. A prefix that is such a token is
    # written as one, and then applied without being asked for; any other prefix is a prompt.
    ids = tokenizer.encode(prefix, add_special_tokens=False) if prefix else []
    alone = tokenizer.encode("a")
    if len(ids) != 1 or tokenizer.encode(f"{prefix}a") != alone[:1] + ids + alone[1:]:
        return ""
    added = {number: token for token, number in tokenizer.get_added_vocab().items()}
    return added.get(ids[0], "")

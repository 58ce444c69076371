"""A model's pooled vectors in the format of sentence-transformers, without remote code."""

from __future__ import annotations

import os
from pathlib import Path

from ..files import write_json
from ..models.modeling_optical import OpticalModel
from .folders import refusal, save_dense, save_folder


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
        raise refusal("A SentenceTransformer has no query expansion to attend to", "attend_to_expansion", "True")
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
    save_folder(model, folder, modules | {f"{len(modules)}_Normalize": f"{base}.Normalize"}, general, transformer)
    pooling = {
        "word_embedding_dimension": config.hidden_size,
        "pooling_mode_cls_token": config.pooling == "cls",
        "pooling_mode_mean_tokens": config.pooling == "mean",
    }
    (Path(folder) / "1_Pooling").mkdir(exist_ok=True)
    write_json(Path(folder) / "1_Pooling" / "config.json", pooling, indent=2)
    if model.projection is not None:
        save_dense(model, Path(folder) / "2_Dense")

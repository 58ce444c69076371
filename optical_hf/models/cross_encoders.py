"""Cross-encoders, which read a query and a passage together and give one score: those of sentence-transformers."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from accelerate import PartialState

from .configuration_optical import read_json

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder


def is_cross_encoder(name_or_path: str | os.PathLike[str]) -> bool:
    """Tell whether a checkpoint scores pairs of texts, by its files; an encoder would load from it as well.

    Args:
        name_or_path (`str` or `Path`): a local folder or a Hub repository.
    """
    general = read_json(name_or_path, "config_sentence_transformers.json") or {}
    config = read_json(name_or_path, "config.json") or {}
    names = config.get("architectures")
    name = str(names[0]) if isinstance(names, list) and names else ""
    return general.get("model_type") == "CrossEncoder" or name.endswith("ForSequenceClassification")


def load_cross_encoder(name_or_path: str | os.PathLike[str], **options: Any) -> CrossEncoder:
    """Load a cross-encoder that gives one score a pair, on the device of this process.

    Args:
        name_or_path (`str` or `Path`):
            A local folder or a Hub repository: a cross-encoder, or with `num_labels=1` any encoder, which gets a new
            head.
        options:
            Of `CrossEncoder`, such as `max_length`.

    Raises:
        ImportError: if sentence-transformers is not installed.
        ValueError: if it gives several scores a pair, as a classifier of more than two classes does.
        OSError: if there is no such model.
    """
    try:
        from sentence_transformers import CrossEncoder
    except ImportError as error:
        raise ImportError('Cross-encoders need sentence-transformers: pip install "optical-hf[rerank]".') from error
    model = CrossEncoder(os.fspath(name_or_path), device=str(PartialState().device), **options)
    if model.num_labels != 1:
        raise ValueError(f"{name_or_path} gives {model.num_labels} scores a pair, and a ranking needs one.")
    return model


def check_cross_encoder(model: Any) -> CrossEncoder:
    """Return a model if it is a loaded cross-encoder of one score.

    Raises:
        ValueError: if it is something else.
    """
    library = sys.modules.get("sentence_transformers")
    if library is None or not isinstance(model, library.CrossEncoder):
        raise ValueError(
            f"The model is a {type(model).__name__}: neither a teacher or student, nor a CrossEncoder of "
            "sentence-transformers."
        )
    if model.num_labels != 1:
        raise ValueError(f"The cross-encoder gives {model.num_labels} scores a pair, and a ranking needs one.")
    return model

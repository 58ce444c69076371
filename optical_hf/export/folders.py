"""What the folders of PyLate and sentence-transformers share: the encoder, the list of modules, a projection.

A saved student is a `MultiVectorEncoder` already, with all that [`OpticalConfig`] can say; these formats say less, so
what they cannot repeat is refused. [`~OpticalModel.from_checkpoint`] reads both back.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ..files import write_json
from ..models.configuration_optical import OpticalConfig, read_json
from ..models.modeling_optical import OpticalModel


def save_folder(
    model: OpticalModel,
    folder: str | os.PathLike[str],
    modules: dict[str, str],
    general: dict[str, Any],
    transformer: dict[str, Any],
) -> None:
    """Save encoder and tokenizer, and the three files by which sentence-transformers and PyLate load a folder.

    Args:
        model ([`OpticalStudent`] or [`OpticalTeacher`]): the model, with its tokenizer.
        folder (`str` or `Path`): where to save it.
        modules (`dict[str, str]`): the modules' types by their folder, in order.
        general (`dict`): what config_sentence_transformers.json says.
        transformer (`dict`): what sentence_bert_config.json says.

    Raises:
        ValueError: if the folder holds a saved student.
    """
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


def save_dense(model: OpticalModel, folder: Path) -> None:
    """Save the model's projection as a Dense module; the identity if it has none."""
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


def refusal(what: str, option: str, value: Any) -> ValueError:
    """Say which option of a model a format cannot repeat, and how to load the model without it."""
    return ValueError(
        f"{what}, and this model's `{option}` is {value}. Load it with another value to export it so, "
        f"`OpticalStudent.from_checkpoint(..., {option}=...)`: its scores will be others."
    )

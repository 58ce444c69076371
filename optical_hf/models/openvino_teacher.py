"""A model compiled by OpenVINO, in 8 bits, for encoding on a CPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer

from .configuration_optical import OpticalConfig
from .modeling_optical import OpticalOutput, OpticalTeacher

GRAPH = "openvino_model.xml"


def is_openvino(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is one that `optical-hf export --format openvino` wrote."""
    return (Path(folder) / GRAPH).is_file()


class OpenVINOTeacher(OpticalTeacher):
    """A model that OpenVINO runs: it encodes as [`OpticalTeacher`] does, and cannot be trained.

    Args:
        folder (`str` or `Path`): written by [`export_openvino`].
        threads (`int`, *optional*): threads it runs on; by default as many as torch has.

    Raises:
        ImportError: if the extra `openvino` is not installed.
        FileNotFoundError: if the folder does not hold such a model.

    Example:

    ```python
    >>> model = OpenVINOTeacher("yoruba-student-int8")
    >>> vectors = model.encode_tokens(["Ta ni ó kọ ìwé yìí?"], "query")
    ```
    """

    def __init__(self, folder: str | os.PathLike[str], threads: int | None = None) -> None:
        if not is_openvino(folder):
            raise FileNotFoundError(
                f"There is no {GRAPH} in {folder}: `optical-hf export --format openvino` makes it."
            )
        try:
            import openvino
        except ImportError as error:
            raise ImportError('openvino is missing: pip install "optical-hf[openvino]"') from error
        config: Any = OpticalConfig.from_pretrained(folder)
        nothing: Any = nn.Module()
        super().__init__(config, backbone=nothing)
        self.projection = None  # it is in the graph
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self._weights = {name: Path(folder) / name for name in (GRAPH, GRAPH.replace(".xml", ".bin"))}
        options = {"INFERENCE_NUM_THREADS": threads or torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
        self._compiled = openvino.Core().compile_model(str(self._weights[GRAPH]), "CPU", options)

    @property
    def device(self) -> torch.device:
        """`torch.device`: always the CPU."""
        return torch.device("cpu")

    def forward(  # type: ignore[override]  # no token types
        self, input_ids: Tensor, attention_mask: Tensor, scoring_mask: Tensor
    ) -> OpticalOutput:
        """Compute the vectors of a batch, as [`OpticalModel.forward`] does."""
        outputs = self._compiled({"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()})
        vectors, pooled = (torch.from_numpy(outputs[place].copy()) for place in (0, 1))
        return OpticalOutput(token_vectors=vectors, scoring_mask=scoring_mask.bool(), pooled=pooled)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """Return the bytes of graph and weights: what tells this model from others."""
        return {
            name: torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
            for name, path in self._weights.items()
        }

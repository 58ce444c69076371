"""Export a student to a format of other tools: ONNX, OpenVINO, PyLate, or single vectors.

    pip install "optical-hf[onnx]" && optical-hf export yoruba-student yoruba-student-onnx
    optical-hf export yoruba-student yoruba-student-int8 --format openvino --passages passages.en.jsonl
    optical-hf export yoruba-student yoruba-student-single --format single_vector

`optical_hf.export.onnx` says how the graph is run without torch. A saved student needs no export to be a
`MultiVectorEncoder` of sentence-transformers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from ..arguments import ArgumentReader
from ..data.trec_files import iter_passages
from ..export.onnx import export_onnx
from ..export.openvino import export_openvino
from ..export.pylate import export_pylate
from ..export.sentence_transformers import export_single_vector
from ..launching import run
from ..models.modeling_optical import OpticalTeacher


@dataclass
class ExportArguments:
    """What is exported, and how."""

    model: str = field(metadata={"help": "A student, or any model that can be loaded; a folder or a Hub name."})
    output: str = field(metadata={"help": "A folder, made if it is not there."})
    format: str = field(
        default="onnx", metadata={"help": "For whom.", "choices": ["onnx", "openvino", "pylate", "single_vector"]}
    )
    passages: str | None = field(
        default=None, metadata={"help": "Passages like those it will encode, for the 8 bits of openvino."}
    )
    score_special_tokens: bool = field(default=False, metadata={"help": "Score them, as PyLate does."})
    score_prefix: bool = field(default=False, metadata={"help": "Score the tokens of the prefix, as PyLate does."})


def reader() -> ArgumentReader:
    """Return the reader of this command's arguments."""
    description = "Export a student to a format of other tools."
    return ArgumentReader(
        ExportArguments, prog="optical-hf export", description=description, positionals=("model", "output")
    )


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    [given] = reader().read(arguments)
    scored: dict[str, Any] = {name: True for name in ("score_special_tokens", "score_prefix") if getattr(given, name)}
    model = OpticalTeacher.from_checkpoint(given.model, **scored)
    if (given.format == "openvino") != (given.passages is not None):
        raise ValueError("--passages is needed for --format openvino, and for no other.")
    if given.format == "openvino":
        texts = [text for _, text in islice(iter_passages(given.passages), 500)]
        cosine = export_openvino(model, given.output, texts)
        print(f"{given.output} encodes in 8 bits; the mean cosine to the vectors of {given.model} is {cosine:.4f}.")
        return
    if given.format == "onnx":
        difference = export_onnx(model, given.output)
        print(f"{given.output}/model.onnx encodes as {given.model} does: the largest difference is {difference:.1e}.")
        return
    if given.format == "pylate":
        export_pylate(model, given.output)
    else:
        export_single_vector(model, given.output)
    print(f"{given.output} holds {given.model} in the format {given.format}.")


if __name__ == "__main__":
    run(main, sys.argv[1:])

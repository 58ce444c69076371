"""The models of a search and their index, as the commands evaluate, miracl, index and search take them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from accelerate import PartialState

from ..bounds import check_count, check_fields, check_memory
from ..models.cross_encoders import is_cross_encoder, load_cross_encoder
from ..models.loading_optical import check_name
from ..models.modeling_optical import OpticalTeacher
from ..models.openvino_teacher import OpenVINOTeacher, is_openvino
from ..quickstart import quickstart_model
from ..retrieval.candidates import BM25
from ..retrieval.index.build import check_options, model_fingerprint

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

logger = logging.getLogger(__name__)

_TEXT_OPTIONS = ("query_prefix", "document_prefix", "query_length", "document_length")


@dataclass
class EncoderArguments:
    """The models."""

    model: str | None = field(
        default=None, metadata={"help": "Encodes the queries; else 'quickstart', which is multilingual-e5-small."}
    )
    document_model: str | None = field(default=None, metadata={"help": "Encodes the passages; else --model."})
    query_prefix: str | None = field(default=None, metadata={"help": "Put before queries; else the checkpoint's own."})
    document_prefix: str | None = field(default=None, metadata={"help": "Put before passages; else its own."})
    query_length: int | None = field(default=None, metadata={"help": "Longest query in tokens."})
    document_length: int | None = field(default=None, metadata={"help": "Longest passage in tokens."})
    batch_size: int = field(default=32, metadata={"help": "Texts a forward pass."})

    def __post_init__(self) -> None:
        check_fields(self, check_count, "query_length", "document_length", "batch_size")

    def check_names(self) -> None:
        """Refuse models that are not there, before hours of reading what they are to encode."""
        for name in (self.model, self.document_model):
            if name not in (None, "quickstart"):
                check_name(str(name))

    def load(self) -> tuple[OpticalTeacher, OpticalTeacher]:
        """Load the model of the queries and that of the passages, which may be one."""
        query_model = self._load(self.model or "quickstart")
        if self.document_model is not None:
            return query_model, self._load(self.document_model)
        if query_model.config.architectures == ["OpticalStudent"]:
            logger.warning(
                "%s is a student, and will encode the passages too, for which it was not distilled: --document_model "
                "names the teacher that encodes them ('quickstart' for that of the quickstart).",
                self.model,
            )
        return query_model, query_model

    def load_cross_encoder(self) -> CrossEncoder | None:
        """Load the model if it is a cross-encoder; `None` if it is not."""
        if self.model in (None, "quickstart") or not is_cross_encoder(str(self.model)):
            return None
        for name in ("document_model", *_TEXT_OPTIONS):
            if getattr(self, name) is not None:
                raise ValueError(f"--{name} is for models that encode; {self.model} is a cross-encoder.")
        return load_cross_encoder(str(self.model))

    def _load(self, name: str) -> OpticalTeacher:
        if name == "quickstart":
            name = str(quickstart_model())
        elif is_cross_encoder(name):
            raise ValueError(
                f"{name} is a cross-encoder, which scores pairs and encodes nothing: it is for `optical-hf rerank` "
                "and `optical-hf evaluate --first_stage`."
            )
        options = {name: getattr(self, name) for name in _TEXT_OPTIONS if getattr(self, name) is not None}
        if is_openvino(name):
            if options:
                raise ValueError(f"--{next(iter(options))} was fixed when {name} was exported: leave it out.")
            return OpenVINOTeacher(name)
        return OpticalTeacher.from_checkpoint(name, **options).to(PartialState().device)

    def description(
        self, query_model: OpticalTeacher | CrossEncoder, document_model: OpticalTeacher | CrossEncoder
    ) -> dict[str, Any]:
        """What a result says of the models it is about."""
        packages = {"optical_hf": version("optical-hf"), "torch": torch.__version__}
        made_by = {"model": model_fingerprint(query_model)}
        shared = document_model is query_model
        made_by["document_model"] = made_by["model"] if shared else model_fingerprint(document_model)
        return {
            "model": self.model or "quickstart",
            "document_model": self.document_model or self.model or "quickstart",
            **{part: {name: each[part] for name, each in made_by.items()} for part in ("weights", "tokenizer")},
            "versions": packages | {"transformers": transformers.__version__},
        }


@dataclass
class IndexArguments:
    """How the passages are kept."""

    index_dir: str | None = field(
        default=None, metadata={"help": "Folder of the index, to share it between runs; else index/ in --output_dir."}
    )
    shard_size: int = field(default=10_000, metadata={"help": "Passages in a file of the index."})
    single: bool = field(default=False, metadata={"help": "Keep pooled vectors only: no late interaction."})
    dim: int | None = field(default=None, metadata={"help": "Rotate token vectors down to so many dimensions."})
    pool_factor: int = field(default=1, metadata={"help": "Keep one token vector in so many."})
    dtype: str = field(default="float16", metadata={"help": "Of the vectors kept.", "choices": ["float16", "int8"]})

    def __post_init__(self) -> None:
        check_fields(self, check_count, "shard_size", "pool_factor", "dim")
        check_options(self.options())

    def options(self) -> dict[str, Any]:
        """The options of [`build_index`]."""
        return {name: getattr(self, name) for name in ("shard_size", "single", "dim", "pool_factor", "dtype")}


@dataclass
class SearchArguments:
    """How it is searched."""

    first_stage: str | None = field(
        default=None,
        metadata={
            "help": "'bm25', 'bm25-char4' (character 4-grams, across languages), or a TREC run, such as "
            "'run.{language}.trec' for several languages: only what it found is encoded and ranked."
        },
    )
    depth: int = field(default=100, metadata={"help": "Passages of the first stage that are reranked."})
    max_queries: int | None = field(default=None, metadata={"help": "Use the first queries of each language only."})
    memory_gb: float = field(default=4.0, metadata={"help": "Most memory the search takes, in GB a process."})
    strict: bool = field(
        default=False,
        metadata={"help": "Refuse judged queries and passages, and candidates, that are not there; else a warning."},
    )

    def __post_init__(self) -> None:
        check_fields(self, check_count, "depth", "max_queries")
        check_fields(self, check_memory, "memory_gb")

    def runs(self, languages: Sequence[str] = ("{language}",)) -> list[str]:
        """The files of the first stage, one a language."""
        if self.first_stage in (None, *BM25):
            return []
        return [str(self.first_stage).replace("{language}", language) for language in languages]

    def protocol(self, collection: str) -> str:
        """Name what a figure was measured on; it differs by the first stage."""
        if self.first_stage is None:
            return collection
        return f"{collection}, {self.depth} of {Path(self.first_stage).name} reranked"

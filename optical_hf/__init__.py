"""Cross-lingual retrieval by optimal-transport token distillation (OPTICAL, arXiv 2301.12566) for Transformers.

The configuration and the models are imported at once, so that `AutoModel` knows them; everything else on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from transformers import AutoConfig, AutoModel

from .metrics import register_metric
from .models.configuration_optical import OpticalConfig
from .models.modeling_optical import OpticalOutput, OpticalStudent, OpticalTeacher

if TYPE_CHECKING:
    from .data.bitext import Bitext, load_bitext
    from .data.bitext_sampling import balance_languages, hold_out
    from .data.miracl import load_miracl
    from .data.retrieval_set import RetrievalSet
    from .data.training_rows import load_training_rows
    from .export.pylate import export_pylate
    from .export.sentence_transformers import export_single_vector
    from .hub.push import PushError, push_metric_space, push_student
    from .losses.alignment import GreedyLoss, OTLoss, mse_loss
    from .models.interpolation import interpolate
    from .retrieval.index.build import build_index
    from .retrieval.index.exact import PassageIndex
    from .retrieval.maxsim import maxsim
    from .retrieval.search import search
    from .training.distillation_args import OpticalTrainingArguments
    from .training.distillation_trainer import OpticalDistillationTrainer
    from .training.retrieval_args import OpticalRetrievalArguments
    from .training.retrieval_trainer import OpticalRetrievalTrainer

_ON_FIRST_USE = {
    "Bitext": "data.bitext",
    "GreedyLoss": "losses.alignment",
    "OTLoss": "losses.alignment",
    "OpticalDistillationTrainer": "training.distillation_trainer",
    "OpticalRetrievalArguments": "training.retrieval_args",
    "OpticalRetrievalTrainer": "training.retrieval_trainer",
    "OpticalTrainingArguments": "training.distillation_args",
    "PassageIndex": "retrieval.index.exact",
    "PushError": "hub.push",
    "RetrievalSet": "data.retrieval_set",
    "balance_languages": "data.bitext_sampling",
    "build_index": "retrieval.index.build",
    "export_pylate": "export.pylate",
    "export_single_vector": "export.sentence_transformers",
    "hold_out": "data.bitext_sampling",
    "interpolate": "models.interpolation",
    "load_bitext": "data.bitext",
    "load_miracl": "data.miracl",
    "load_training_rows": "data.training_rows",
    "maxsim": "retrieval.maxsim",
    "mse_loss": "losses.alignment",
    "push_metric_space": "hub.push",
    "push_student": "hub.push",
    "search": "retrieval.search",
}

# Teacher and student share a configuration: AutoModel picks the one that `architectures` in it names.
AutoConfig.register("optical", OpticalConfig)
AutoModel.register(OpticalConfig, (OpticalTeacher, OpticalStudent))
# Saved folders carry their code, and load with `trust_remote_code=True` where this package is not installed.
OpticalConfig.register_for_auto_class()
OpticalTeacher.register_for_auto_class("AutoModel")
OpticalStudent.register_for_auto_class("AutoModel")
register_metric()

__all__ = [
    "Bitext",
    "GreedyLoss",
    "OTLoss",
    "OpticalConfig",
    "OpticalDistillationTrainer",
    "OpticalOutput",
    "OpticalRetrievalArguments",
    "OpticalRetrievalTrainer",
    "OpticalStudent",
    "OpticalTeacher",
    "OpticalTrainingArguments",
    "PassageIndex",
    "PushError",
    "RetrievalSet",
    "balance_languages",
    "build_index",
    "export_pylate",
    "export_single_vector",
    "hold_out",
    "interpolate",
    "load_bitext",
    "load_miracl",
    "load_training_rows",
    "maxsim",
    "mse_loss",
    "push_metric_space",
    "push_student",
    "search",
]


def __getattr__(name: str) -> Any:
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_ON_FIRST_USE[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

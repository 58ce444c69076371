"""Cross-lingual retrieval by optimal-transport token distillation (OPTICAL, arXiv 2301.12566) for Transformers."""

from transformers import AutoConfig, AutoModel

from .data.bitext import Bitext, load_bitext
from .data.bitext_sampling import balance_languages, hold_out
from .data.miracl import load_miracl
from .export.interop import export_pylate, export_single_vector
from .hub.push import PushError, push_metric_space, push_student
from .losses.alignment import GreedyLoss, OTLoss, mse_loss
from .metrics import register_metric
from .models.configuration_optical import OpticalConfig
from .models.interpolation import interpolate
from .models.modeling_optical import OpticalOutput, OpticalStudent, OpticalTeacher
from .retrieval.index.build import PassageIndex, build_index
from .retrieval.maxsim import maxsim
from .retrieval.search import RetrievalSet, search
from .training.distillation_args import OpticalTrainingArguments
from .training.distillation_trainer import OpticalDistillationTrainer

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
    "maxsim",
    "mse_loss",
    "push_metric_space",
    "push_student",
    "search",
]

"""Cross-lingual retrieval by optimal-transport token distillation (OPTICAL, arXiv 2301.12566) for Transformers."""

from transformers import AutoConfig, AutoModel

from .bitext import Bitext, load_bitext
from .bitext_sampling import balance_languages, hold_out
from .configuration_optical import OpticalConfig
from .hub import PushError, push_metric_space, push_student
from .interop import export_pylate, export_single_vector
from .interpolation import interpolate
from .losses import GreedyLoss, OTLoss, mse_loss
from .metrics import register_metric
from .miracl import load_miracl
from .modeling_optical import OpticalOutput, OpticalStudent, OpticalTeacher
from .passage_index import PassageIndex, build_index
from .retrieval import RetrievalSet, search
from .scoring import maxsim
from .trainer import OpticalDistillationTrainer
from .training_args import OpticalTrainingArguments

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

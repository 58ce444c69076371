"""What the arguments of both trainers share."""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import TrainingArguments
from transformers.trainer_utils import HubStrategy

from ..bounds import check_count, check_fields, check_number, check_training

# Of the redeclared arguments, those that decide on nothing, or, as the number of epochs, may grow.
_IDLE = (
    *("passage_cache", "per_device_eval_batch_size", "logging_steps", "save_total_limit", "num_train_epochs"),
    *("encode_batch_size", "teacher_memory", "logging_nan_inf_filter"),
)


@dataclass
class OpticalArguments(TrainingArguments):
    r"""
    Arguments of both trainers.

    Args:
        dropout (`float`, *optional*, defaults to 0.0):
            Dropout of the model while it trains, in place of that of its checkpoint.
        freeze_embeddings (`bool`, *optional*, defaults to `True`):
            Whether the model's embedding tables stay as they are.
        freeze_layers (`int`, *optional*, defaults to 0):
            How many of the model's lower layers stay as they are.
        passage_cache (`str`, *optional*):
            Folder that keeps passage vectors of retrieval sets from one run to the next, of a model that does not
            change.
    """

    dropout: float = field(default=0.0, metadata={"help": "Dropout of the model while it trains."})
    freeze_embeddings: bool = field(default=True, metadata={"help": "Keep the model's embedding tables."})
    freeze_layers: int = field(default=0, metadata={"help": "Keep this many of the model's lower layers."})
    passage_cache: str | None = field(default=None, metadata={"help": "Folder that keeps encoded passages."})

    learning_rate: float = field(default=5e-5, metadata={"help": "The peak learning rate."})
    warmup_steps: float = field(default=0.1, metadata={"help": "Steps of warm-up; below 1, a share of all steps."})
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay of AdamW."})
    num_train_epochs: float = field(default=2.0, metadata={"help": "Passes over the data."})
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Pairs or rows a device and step."})
    per_device_eval_batch_size: int = field(default=32, metadata={"help": "Texts a device and step in evaluation."})
    logging_steps: float = field(default=10, metadata={"help": "Steps between logs."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints kept."})
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Leave a loss that is not finite out of the log; it ends a training."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay False: the collator needs them."})

    def __post_init__(self) -> None:
        self._check_numbers()
        super().__post_init__()
        if self.device.type == "cpu":  # there is nothing to pin memory for, and torch warns of it
            self.dataloader_pin_memory = False
        if self.hub_strategy not in ("every_save", "end"):
            raise ValueError(
                f"`hub_strategy` is {HubStrategy(self.hub_strategy).value!r}, which pushes optimizer states and paths "
                "of this machine; choose 'every_save' or 'end'."
            )

    def _check_numbers(self) -> None:
        check_training(self)
        check_fields(self, check_count, "freeze_layers", least=0)
        check_fields(self, check_number, "dropout", most=1)

    @classmethod
    def decisive(cls) -> tuple[str, ...]:
        """Name the arguments that decide on the trained weights."""
        own = [name for kind in cls.__mro__ if issubclass(kind, OpticalArguments) for name in kind.__annotations__]
        return (
            *(name for name in own if name not in _IDLE),
            *("seed", "data_seed", "gradient_accumulation_steps", "lr_scheduler_type", "lr_scheduler_kwargs", "optim"),
            *("adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "dataloader_drop_last"),
        )

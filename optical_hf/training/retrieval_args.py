"""Arguments of [`OpticalRetrievalTrainer`]."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ..bounds import check_count, check_fields, check_number
from .optical_args import OpticalArguments


@dataclass
class OpticalRetrievalArguments(OpticalArguments):
    r"""
    How a retriever is trained: arguments of [`OpticalRetrievalTrainer`].

    All those of [`OpticalArguments`] and of [`~transformers.TrainingArguments`] are there as well.

    Args:
        > Parameters that control what is learnt

        negatives (`int`, *optional*, defaults to 7):
            How many of a row's negatives take part, the first ones.
        contrastive_weight (`float`, *optional*, defaults to 1.0):
            Weight of [`ranking.info_nce`]: a query's own passage against all others of the batch, of all processes.
        divergence_weight (`float`, *optional*, defaults to 0.0):
            Weight of [`ranking.score_divergence`]: the scores of a row's passages against a teacher's.
        margin_weight (`float`, *optional*, defaults to 0.0):
            Weight of [`ranking.margin_mse`]: the margins of a row's positive over its negatives against a teacher's.
        retention_weight (`float`, *optional*, defaults to 0.0):
            Weight of the divergence, on rows of English alone, of the scores over the batch from those that the model
            gave when the training began, so that it does not forget English.
        token_weight, pooled_weight (`float`, *optional*, default to 1.0):
            Weight of all of these on MaxSim scores (the mean over a query's tokens) and on pooled vectors.

        > Parameters that control the scores

        token_temperature, pooled_temperature (`float`, *optional*, default to 0.01 and 0.02):
            What MaxSim scores and pooled cosines are divided by; where they start, with `learn_temperatures`.
        learn_temperatures (`bool`, *optional*, defaults to `False`):
            Whether the two temperatures are learnt. They belong to the training: no saved model holds them.
        score_temperature (`float`, *optional*, defaults to 1.0):
            What a teacher's scores are divided by: 1 suits the logits of a cross-encoder, 0.01 to 0.02 cosines.

        > Parameters that control the batches

        alpha (`float`, *optional*):
            Probability that a batch is monolingual; it is cross-lingual otherwise, and each batch is of one language
            pair: see [`HybridSampler`]. By default rows of all pairs are mixed.
        temperature (`float`, *optional*, defaults to 1.0):
            With `alpha`, 1 draws language pairs in proportion to their rows; larger evens them out.
        encode_batch_size (`int`, *optional*):
            Texts encoded at once. Their activations are made again for the gradient (gradient caching, arXiv
            2101.06983): memory is that of so many texts, whatever the batch. A step takes longer: 8 % on a CPU.
    """

    negatives: int = field(default=7, metadata={"help": "Negatives of a row that take part."})
    contrastive_weight: float = field(default=1.0, metadata={"help": "Weight of InfoNCE over the batch."})
    divergence_weight: float = field(default=0.0, metadata={"help": "Weight of the divergence of teacher scores."})
    margin_weight: float = field(default=0.0, metadata={"help": "Weight of MarginMSE to teacher scores."})
    retention_weight: float = field(default=0.0, metadata={"help": "Weight of what keeps English as it was."})
    token_weight: float = field(default=1.0, metadata={"help": "Weight of all of them on MaxSim scores."})
    pooled_weight: float = field(default=1.0, metadata={"help": "Weight of all of them on pooled vectors."})
    token_temperature: float = field(default=0.01, metadata={"help": "What MaxSim scores are divided by."})
    pooled_temperature: float = field(default=0.02, metadata={"help": "What pooled scores are divided by."})
    learn_temperatures: bool = field(default=False, metadata={"help": "Learn the two temperatures."})
    score_temperature: float = field(default=1.0, metadata={"help": "What teacher scores are divided by."})
    alpha: float | None = field(
        default=None, metadata={"help": "Probability of a monolingual batch; else languages are mixed."}
    )
    temperature: float = field(
        default=1.0, metadata={"help": "With --alpha, above 1, small language pairs come up more often."}
    )
    encode_batch_size: int | None = field(
        default=None, metadata={"help": "Texts encoded at once: less memory, a longer step."}
    )

    learning_rate: float = field(default=2e-5, metadata={"help": "The peak learning rate."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ddp_broadcast_buffers is None:
            # No buffer of an encoder changes. They would be sent at every forward pass, of which with gradient caching
            # the processes do not make as many, if their rows have more or fewer negatives: each would wait for ever.
            self.ddp_broadcast_buffers = False
        if not any((self.contrastive_weight, self.divergence_weight, self.margin_weight)):
            raise ValueError(
                "--contrastive_weight must be above 0 where --divergence_weight and --margin_weight are 0: nothing "
                f"would be learnt, got {self.contrastive_weight}."
            )
        if not (self.token_weight or self.pooled_weight):
            raise ValueError("`token_weight` and `pooled_weight` are both 0: nothing would be learnt.")

    def _check_numbers(self) -> None:
        super()._check_numbers()
        check_fields(self, check_count, "negatives", least=0, most=10_000)
        check_fields(self, check_count, "encode_batch_size")
        check_fields(self, check_number, "alpha", most=1)
        check_fields(self, check_number, "temperature", most=math.inf, above=True)
        check_fields(self, check_number, "token_temperature", "pooled_temperature", "score_temperature", above=True)
        check_fields(
            self,
            check_number,
            *("contrastive_weight", "divergence_weight", "margin_weight", "retention_weight"),
            *("token_weight", "pooled_weight"),
        )

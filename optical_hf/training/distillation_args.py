"""Arguments of [`OpticalDistillationTrainer`]."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..bounds import check_count, check_fields, check_number
from ..models.processing_optical import ROLES
from ..transport import SOLVERS
from .optical_args import OpticalArguments


@dataclass
class OpticalTrainingArguments(OpticalArguments):
    r"""
    How it is distilled: arguments of [`OpticalDistillationTrainer`].

    All those of [`OpticalArguments`] and of [`~transformers.TrainingArguments`] are there as well.
    These defaults differ from [`~transformers.TrainingArguments`]: `warmup_steps` is 0.1 (a share of all steps),
    `per_device_train_batch_size` 32, `per_device_eval_batch_size` 32, `num_train_epochs` 2, `weight_decay` 0.01,
    `logging_steps` 10, `save_total_limit` 2, `train_sampling_strategy` `"group_by_length"`, and
    `remove_unused_columns` `False`.

    Args:
        > Parameters that control what is distilled

        roles (`list[str]`, *optional*, defaults to `["query"]`):
            Roles in which pairs are encoded: `"query"`, `"document"`, or both, in which case they alternate.
        concatenation (`int`, *optional*, defaults to 1):
            The most pairs of a language, in the order of the bitext, that are joined into one longer pair: see
            [`with_concatenation`]. Texts longer than the role's length are cut, and the two sides not at
            the same place: `roles=["document"]`, whose length is larger, suits it.
        retention_share (`float`, *optional*, defaults to 0.25):
            English sentences added as pairs with themselves, as a share of the bitext, so that the student goes on
            agreeing with the teacher on English. 0 for none.
        retention_weight (`float`, *optional*, defaults to 1.0):
            Weight of the loss of these English-English pairs.
        alpha (`float`, *optional*):
            Probability that a batch is of English-English pairs; it is of one other language otherwise: see
            [`HybridSampler`]. By default, pairs of all languages are mixed, by length.
        mark_dropout (`float`, *optional*, defaults to 0.8):
            Share of the translations from which diacritics are dropped, as people do who type questions: in three
            quarters of them the marks above a letter (tone), in the others all marks. Only letters of the Latin
            script.

        teacher_memory (`float`, *optional*, defaults to 1.0):
            Gigabytes, on each device, in which the teacher's vectors of English sentences are kept: it need not encode
            them again in the next epoch, or beside another language. 20,000 sentences of 30 tokens fit into one.

        > Parameters that control the transport, for `loss="ot"`

        solver (`str`, *optional*, defaults to `"sinkhorn"`):
            One of those of [`transport.transport_plan`], which also explains the next four.
        epsilon (`float`, *optional*, defaults to 0.1):
            Entropic regularisation, in units of the standard deviation of a pair's costs.
        iterations (`int`, *optional*, defaults to 200):
            The most iterations of the solver.
        reg_m (`float`, *optional*, defaults to 10.0):
            Price of missing a marginal, for `solver="unbalanced"`.
        partial_mass (`float`, *optional*, defaults to 0.8):
            Share of the mass that is moved, for `solver="partial"`.
        centre (`bool`, *optional*, defaults to `True`):
            Whether the teacher's mean token vector is subtracted from both sides before the cosine.
        token_weight (`float`, *optional*, defaults to 1.0):
            Weight of the transport or greedy loss itself; 0 leaves the next two terms alone.
        pooled_weight (`float`, *optional*, defaults to 1.0):
            Weight of the squared distance of the pooled vectors, which is added to the transport or greedy loss.
        score_weight (`float`, *optional*, defaults to 1.0):
            Weight of the divergences of the student's scores from the teacher's, which are added likewise: see
            [`ScoreBank`].
        bank_size (`int`, *optional*, defaults to 4096):
            How many English sentences of the bitext are scored for it: all of them by pooled vectors, the first 256 by
            MaxSim.
        pooled_temperature, token_temperature (`float`, *optional*, default to 0.02 and 0.01):
            What these scores, as cosines, are divided by.
    """

    roles: list[str] = field(default_factory=lambda: ["query"], metadata={"help": "query, document, or both."})
    concatenation: int = field(
        default=1,
        metadata={
            "help": "Join up to this many pairs that follow one another into one. --roles document suits it: over the "
            "role's length, both sides are cut, but not alike."
        },
    )
    retention_share: float = field(default=0.25, metadata={"help": "English-English pairs, as a share of the bitext."})
    retention_weight: float = field(default=1.0, metadata={"help": "Weight of the English-English pairs' loss."})
    alpha: float | None = field(
        default=None, metadata={"help": "Probability of an English-English batch; else languages are mixed."}
    )
    mark_dropout: float = field(default=0.8, metadata={"help": "Share of translations that lose their diacritics."})
    teacher_memory: float = field(default=1.0, metadata={"help": "Gigabytes of the teacher's vectors that are kept."})
    train_sampling_strategy: str = field(
        default="group_by_length", metadata={"help": "Batches of pairs of like length need little padding."}
    )

    solver: str = field(default="sinkhorn", metadata={"help": f"One of {', '.join(SOLVERS)}."})
    epsilon: float = field(default=0.1, metadata={"help": "Entropic regularisation, in deviations of the cost."})
    iterations: int = field(default=200, metadata={"help": "The most iterations of the solver."})
    reg_m: float = field(default=10.0, metadata={"help": "Price of missing a marginal (solver unbalanced)."})
    partial_mass: float = field(default=0.8, metadata={"help": "Share of the mass that is moved (solver partial)."})
    centre: bool = field(default=True, metadata={"help": "Subtract the teacher's mean vector before the cosine."})
    token_weight: float = field(default=1.0, metadata={"help": "Weight of the transport or greedy loss itself."})
    pooled_weight: float = field(default=1.0, metadata={"help": "Weight of the distance of the pooled vectors."})
    score_weight: float = field(default=1.0, metadata={"help": "Weight of the divergences of the scores."})
    bank_size: int = field(default=4096, metadata={"help": "English sentences that are scored for it."})
    pooled_temperature: float = field(default=0.02, metadata={"help": "What pooled scores are divided by."})
    token_temperature: float = field(default=0.01, metadata={"help": "What MaxSim scores are divided by."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.roles or not set(self.roles) <= set(ROLES):
            raise ValueError(f"`roles` is {self.roles}; it has to name 'query', 'document' or both.")
        if self.solver not in SOLVERS:
            raise ValueError(f"Unknown solver {self.solver!r}: choose one of {', '.join(SOLVERS)}.")

    def _check_numbers(self) -> None:
        super()._check_numbers()
        check_fields(self, check_count, "iterations", "bank_size")
        check_fields(self, check_count, "concatenation", most=1000)  # of so many pairs at once
        check_fields(self, check_number, "epsilon", "reg_m", "pooled_temperature", "token_temperature", above=True)
        check_fields(self, check_number, "partial_mass", most=1, above=True)
        check_fields(self, check_number, "mark_dropout", "alpha", most=1)
        check_fields(self, check_number, "retention_share", most=1000)  # so many copies of every sentence
        check_fields(self, check_number, "retention_weight", "token_weight", "pooled_weight", "score_weight")
        check_fields(self, check_number, "teacher_memory")

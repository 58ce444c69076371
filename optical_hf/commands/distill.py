"""Distil a retriever into a student that reads another language, from bitext alone.

Without arguments this is the quickstart: multilingual-e5-small, the package's own sample of Swahili and Yoruba, and
Hausa as the language that training never sees.

    optical-hf distill

Your own languages, evaluated on your own questions:

    optical-hf distill \
        --teacher intfloat/multilingual-e5-small --query_prefix "query: " --document_prefix "passage: " \
        --bitext yo=bitext.en-yo.tsv ha=bitext.en-ha.tsv --output_dir yoruba-student \
        --passages passages.en.jsonl --topics yo=topics.yo.tsv sw=topics.sw.tsv \
        --english_topics yo=topics.yo.english.tsv sw=topics.sw.english.tsv --qrels yo=qrels.yo.tsv sw=qrels.sw.tsv

In several processes: `accelerate launch -m optical_hf.commands.distill`. Every argument may come from
`--config file.yaml` instead, where `bitext`, `topics` and the like are mappings. The student, its tokenizer,
`results.json` and a model card made from it lie in `--output_dir`, checkpoints below it.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset, IterableDataset
from transformers import set_seed

from ..arguments import ArgumentReader
from ..bounds import check_count, check_fields, check_number
from ..data.bitext import load_bitext, parse_bitext_arguments
from ..data.bitext_sampling import balance_languages, hold_out
from ..evaluation.gains import LanguageQuestions, format_table, load_questions, parse_language_arguments
from ..files import with_digest, write_json
from ..hub.weights import weights_hash
from ..launching import check_files, check_world_size, check_writable, run, start_logging, writing
from ..models.loading_optical import check_name
from ..models.modeling_optical import OpticalStudent, OpticalTeacher
from ..quickstart import quickstart_arguments, quickstart_model
from ..training.distillation_args import OpticalTrainingArguments
from ..training.distillation_trainer import OpticalDistillationTrainer
from ..training.model_card import count_pairs, write_card
from ..training.provenance import checkpoint_origin, machine, source_names

logger = logging.getLogger(__name__)

TEXT_OPTIONS = ("query_prefix", "document_prefix", "query_length", "document_length")
# The arguments of the training that results.json keeps.
RECIPE = (
    *("learning_rate", "warmup_steps", "weight_decay", "per_device_train_batch_size", "gradient_accumulation_steps"),
    *("roles", "concatenation", "retention_share", "retention_weight", "mark_dropout", "dropout", "freeze_embeddings"),
    *("freeze_layers", "solver", "epsilon", "iterations", "reg_m", "partial_mass", "centre", "token_weight"),
    *("pooled_weight", "score_weight", "bank_size", "pooled_temperature", "token_temperature", "bf16", "fp16"),
    *("load_best_model_at_end", "metric_for_best_model"),
)


@dataclass
class DistilledModels:
    """What is distilled."""

    teacher: str | None = field(
        default=None, metadata={"help": "Encoder or retriever, a folder or a Hub name; else multilingual-e5-small."}
    )
    student: str | None = field(default=None, metadata={"help": "What the student starts from; else the teacher."})
    query_prefix: str | None = field(default=None, metadata={"help": "Put before queries; else the checkpoint's own."})
    document_prefix: str | None = field(default=None, metadata={"help": "Put before passages; else its own."})
    query_length: int | None = field(default=None, metadata={"help": "Longest query in tokens, in training as well."})
    document_length: int | None = field(default=None, metadata={"help": "Longest passage in tokens."})
    projection_dim: int | None = field(default=None, metadata={"help": "Size of a new projection of the student."})
    loss: str = field(default="ot", metadata={"help": "What is distilled by.", "choices": ["ot", "greedy", "mse"]})

    def __post_init__(self) -> None:
        check_fields(self, check_count, "query_length", "document_length", "projection_dim", most=10**6)

    def load(self) -> tuple[OpticalTeacher, OpticalStudent]:
        """Load the teacher, and the student as it is before training."""
        options = {name: getattr(self, name) for name in TEXT_OPTIONS if getattr(self, name) is not None}
        teacher = OpticalTeacher.from_checkpoint(self.teacher_name, **options)
        if self.projection_dim is not None:
            options["projection_dim"] = self.projection_dim
        return teacher, OpticalStudent.from_checkpoint(self.student or self.teacher_name, **options)

    @property
    def teacher_name(self) -> str:
        """`str`: the teacher's folder or Hub name."""
        return self.teacher or str(quickstart_model())


@dataclass
class BitextArguments:
    """What it is distilled from."""

    bitext: list[str] = field(default_factory=list, metadata={"help": "language=source ...; else the quickstart."})
    max_words: int = field(
        default=32,
        metadata={
            "help": "Leave out longer sentences: over --query_length tokens, both sides are cut, but not alike."
        },
    )
    streaming: bool = field(
        default=False, metadata={"help": "Read bitext too large for memory as it is trained on; needs --max_steps."}
    )
    temperature: float = field(
        default=1.0, metadata={"help": "Above 1, small languages repeat to come up more often."}
    )
    held_out: int = field(default=100, metadata={"help": "Pairs a language that are kept out for evaluation."})

    def __post_init__(self) -> None:
        check_fields(self, check_count, "max_words", "held_out")
        check_fields(self, check_number, "temperature", most=math.inf, above=True)

    def load(
        self, sources: Mapping[str, Sequence[str]], seed: int
    ) -> tuple[Dataset | IterableDataset, Dataset, dict[str, dict[str, int]]]:
        """Load the pairs to train on (not balanced yet, but for a stream), those held out, and the counts."""
        if not self.streaming:
            bitext = load_bitext(sources, max_words=self.max_words)
            train, held_out = hold_out(bitext.dataset, self.held_out, seed=seed)
            for language, count in bitext.counts.items():
                if self.held_out > count["kept"] / 5:
                    logger.warning(
                        "--held_out keeps %d of the %d pairs of %r for evaluation, and %d are trained on. Give a "
                        "smaller number to train on more.",
                        self.held_out, count["kept"], language, count["kept"] - self.held_out,
                    )  # fmt: skip
            return train, held_out, bitext.counts
        bitext = load_bitext(
            sources, max_words=self.max_words, temperature=self.temperature, seed=seed, streaming=True
        )
        first = self.held_out * len(sources)  # languages alternate
        held_out = Dataset.from_list(list(bitext.dataset.take(first)))
        if len(held_out) < first or next(iter(bitext.dataset.skip(first)), None) is None:
            raise ValueError(f"The bitext ends within the first {first} pairs, which --held_out keeps for evaluation.")
        return bitext.dataset.skip(first).shuffle(seed=seed, buffer_size=10_000), held_out, bitext.counts


@dataclass
class QuestionArguments:
    """What it is evaluated on."""

    collection: str | None = field(
        default=None, metadata={"help": "What questions and passages are called, on the Hub if they are there."}
    )
    passages: str | None = field(default=None, metadata={"help": "English passages, JSON lines."})
    topics: list[str] = field(default_factory=list, metadata={"help": "language=questions.tsv ..."})
    english_topics: list[str] = field(default_factory=list, metadata={"help": "language=the same in English.tsv ..."})
    qrels: list[str] = field(default_factory=list, metadata={"help": "language=qrels.tsv ..."})
    max_queries: int | None = field(default=None, metadata={"help": "Use the first questions of each language only."})
    strict: bool = field(
        default=False, metadata={"help": "Refuse judged questions and passages that are not there; else a warning."}
    )

    def __post_init__(self) -> None:
        check_fields(self, check_count, "max_queries")

    def load(self, seen: Sequence[str]) -> list[LanguageQuestions]:
        """Load the questions of every language, those of the bitext marked as seen."""
        names = ("topics", "qrels", "english_topics")
        files = {name: parse_language_arguments(name, getattr(self, name)) for name in names}
        check_files("--passages", self.passages)
        for name, paths in files.items():
            check_files(f"--{name}", *paths.values())
        return load_questions(self.passages, **files, seen=seen, max_queries=self.max_queries, strict=self.strict)


def reader() -> ArgumentReader:
    """Return the reader of this command's arguments."""
    description = "Distil a retriever into a student that reads another language, from bitext alone."
    classes = (DistilledModels, BitextArguments, QuestionArguments, OpticalTrainingArguments)
    return ArgumentReader(*classes, prog="optical-hf distill", description=description)


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    models, pairs, asked, args = reader().read(arguments, quickstart_arguments(), without="bitext")
    check_world_size(args.world_size)
    check_writable(args.output_dir, 0)
    start_logging(args.process_index == 0)
    with writing(args.output_dir, args.process_index == 0):
        distil(models, pairs, asked, args)


def distil(
    models: DistilledModels, pairs: BitextArguments, asked: QuestionArguments, args: OpticalTrainingArguments
) -> None:
    """Measure the start, train, measure the student, and write what happened beside it."""
    set_seed(args.seed)
    started = time.time()
    folder = Path(str(args.output_dir))
    if (folder / "config.json").exists() and args.process_index == 0:
        logger.warning("%s holds a student already, which the new one will replace.", folder)

    sources = parse_bitext_arguments(pairs.bitext)
    for name in (models.teacher, models.student):
        if name is not None:
            check_name(name)
    questions = asked.load(seen=list(sources))
    if "ndcg" in (args.metric_for_best_model or "") and not any(each.seen for each in questions):
        raise ValueError(
            f"--metric_for_best_model {args.metric_for_best_model} is measured on the languages of the bitext, and "
            "none of them has --topics."
        )
    train, held_out, counts = pairs.load(sources, args.seed)
    balanced = train if pairs.streaming else balance_languages(train, pairs.temperature, seed=args.seed)
    teacher, student = models.load()
    origin = _origin(models, teacher, sources)  # written down before the training, which may take days
    trainer = OpticalDistillationTrainer(
        student,
        teacher,
        args,
        balanced,
        held_out,
        loss=models.loss,
        languages=list(sources),
        retrieval_sets=[each.own for each in questions if each.seen],
    )

    languages = _measure_start(trainer, questions)
    output = trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_model(_internal_call=True)  # not pushed yet: card and results are to come
    metrics = {name.removeprefix("eval_"): value for name, value in trainer.evaluate().items()}
    for each in questions:
        row = languages[each.language]
        measured = {name: metrics.get(f"{each.language}_{name}") for name in row["zero_shot"]}
        row["student"] = measured if each.seen else trainer.evaluate_retrieval(each.own)
    if args.process_index != 0:
        return
    collection = asked.collection or (Path(asked.passages).name if asked.passages else None)
    passages = len(questions[0].own.passages) if questions else None
    results = {
        "date": time.strftime("%Y-%m-%d", time.gmtime(started)),
        **origin,
        "loss": models.loss,
        "seed": args.seed,
        "steps": trainer.state.global_step,
        "bitext": count_pairs(counts, held_out, train, balanced),
        "retention_pairs": _retention_pairs(trainer.train_dataset),
        "streaming": pairs.streaming,
        "max_words": pairs.max_words,
        "temperature": pairs.temperature,
        "held_out_pairs": pairs.held_out,
        "collection": collection,
        "passages": passages,
        "protocol": f"the student's queries over {passages} passages of the teacher" if questions else None,
        "languages": languages,
        "held_out": {name: value for name, value in metrics.items() if "accuracy" in name},
        "training_seconds": trainer.seconds_before + output.metrics["train_runtime"],
        "total_seconds": trainer.seconds_before + time.time() - started,
        "processes": args.world_size,
        "machine": machine(args.device),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "weights": weights_hash(folder),
        "arguments": {name: getattr(args, name) for name in RECIPE}
        | {kind: trainer.accelerator.mixed_precision == kind for kind in ("bf16", "fp16")},  # the launcher's, too
    }
    write_json(folder / "results.json", with_digest(results), indent=2)
    write_card(folder, repo_id=trainer.hub_model_id if args.push_to_hub else None)
    if languages:
        print(format_table(languages))
    print(
        f"\nThe student is in {args.output_dir}. Load it with\n"
        "    import optical_hf\n    from transformers import AutoModel\n"
        f"    student = AutoModel.from_pretrained({args.output_dir!r})\n"
        '    vectors = student.encode_tokens(["..."], role="query")'
    )
    if args.push_to_hub:
        trainer.push_output("End of training")
        print(f"It is on the Hub as {trainer.hub_model_id}.")


def _origin(
    models: DistilledModels, teacher: OpticalTeacher, sources: Mapping[str, Sequence[str]]
) -> dict[str, object]:
    start = checkpoint_origin(models.student or models.teacher_name)
    return {
        "teacher": checkpoint_origin(models.teacher_name)["name"],
        "teacher_config": {name: getattr(teacher.config, name) for name in TEXT_OPTIONS},
        "student": start["name"],
        "base_model": start["base_model"],
        "license": start["license"],
        "bitext_sources": {language: source_names(many, language) for language, many in sources.items()},
    }


def _measure_start(
    trainer: OpticalDistillationTrainer, questions: Sequence[LanguageQuestions]
) -> dict[str, dict[str, Any]]:
    """Measure the student as it is, and the teacher on the same questions in English."""
    languages: dict[str, dict[str, Any]] = {}
    for each in questions:
        row: dict[str, Any] = {"seen": each.seen, "queries": len(each.own.qrels)}
        row["zero_shot"] = trainer.evaluate_retrieval(each.own)
        if each.english is not None:
            row["english"] = trainer.evaluate_retrieval(each.english, trainer.teacher)
        languages[each.language] = row
    return languages


def _retention_pairs(train: Dataset | IterableDataset | None) -> int | None:
    return train["language"][:].count("en") if isinstance(train, Dataset) else None


if __name__ == "__main__":
    run(main, sys.argv[1:])

"""Distil a retriever into a student that reads another language, from bitext alone.

Without arguments this is the quickstart: multilingual-e5-small, the package's own sample of Swahili and Yoruba, and
Hausa as the language that training never sees.

    accelerate launch examples/distill.py

Your own languages, evaluated on your own questions:

    accelerate launch examples/distill.py \
        --teacher intfloat/multilingual-e5-small --query_prefix "query: " --document_prefix "passage: " \
        --bitext yo=bitext.en-yo.tsv ha=bitext.en-ha.tsv --output_dir yoruba-student \
        --passages passages.en.jsonl --topics yo=topics.yo.tsv sw=topics.sw.tsv \
        --english_topics yo=topics.yo.english.tsv sw=topics.sw.english.tsv --qrels yo=qrels.yo.tsv sw=qrels.sw.tsv

Every argument may come from `--config file.yaml` instead, where `bitext`, `topics` and the like are mappings. The
student, its tokenizer, `results.json` and a model card made from it lie in `--output_dir`, checkpoints below it.
"""

from __future__ import annotations

import json
import logging
import platform
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from datasets import Dataset
from transformers import HfArgumentParser, set_seed

from optical_hf import (
    OpticalDistillationTrainer,
    OpticalStudent,
    OpticalTeacher,
    OpticalTrainingArguments,
    hold_out,
    load_bitext,
)
from optical_hf.data.bitext import parse_bitext_arguments
from optical_hf.data.bitext_sampling import balance_languages
from optical_hf.evaluation.gains import format_table, load_questions, parse_language_arguments
from optical_hf.files import write_json
from optical_hf.launching import check_world_size, check_writable, end_processes
from optical_hf.quickstart.model import quickstart_arguments, quickstart_model
from optical_hf.training.model_card import write_card
from optical_hf.training.provenance import checkpoint_origin, source_names


@dataclass
class ScriptArguments:
    """What is distilled, from what, and what it is evaluated on."""

    teacher: str | None = field(
        default=None, metadata={"help": "Encoder or retriever, a folder or a Hub name; else the quickstart's model."}
    )
    student: str | None = field(default=None, metadata={"help": "What the student starts from; else the teacher."})
    query_prefix: str | None = field(default=None, metadata={"help": "Put before queries; else the checkpoint's own."})
    document_prefix: str | None = field(default=None, metadata={"help": "Put before passages; else its own."})
    query_length: int | None = field(default=None, metadata={"help": "Longest query in tokens, in training as well."})
    document_length: int | None = field(default=None, metadata={"help": "Longest passage in tokens."})
    projection_dim: int | None = field(default=None, metadata={"help": "Size of a new projection of the student."})
    loss: str = field(default="ot", metadata={"help": "What is distilled by.", "choices": ["ot", "greedy", "mse"]})
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
    collection: str | None = field(
        default=None, metadata={"help": "What questions and passages are called, on the Hub if they are there."}
    )
    passages: str | None = field(default=None, metadata={"help": "English passages, JSON lines."})
    topics: list[str] = field(default_factory=list, metadata={"help": "language=questions.tsv ..."})
    english_topics: list[str] = field(default_factory=list, metadata={"help": "language=the same in English.tsv ..."})
    qrels: list[str] = field(default_factory=list, metadata={"help": "language=qrels.tsv ..."})
    max_queries: int | None = field(default=None, metadata={"help": "Use the first questions of each language only."})


def parse_arguments(arguments: Sequence[str]) -> tuple[ScriptArguments, OpticalTrainingArguments]:
    """Read the command line over `--config`, and both over the quickstart if neither names bitext."""
    # `--name=value` as two words, so that what is given can be seen.
    arguments = [word for one in arguments for word in (one.split("=", 1) if re.match(r"--\w+=", one) else [one])]
    if "--config" in arguments:
        place = arguments.index("--config")
        path = arguments[place + 1] if place + 1 < len(arguments) else ""
        del arguments[place : place + 2]
        arguments = as_arguments(read_config(path)) + arguments
    if "--bitext" not in arguments:
        arguments = as_arguments(quickstart_arguments()) + arguments
    parser = HfArgumentParser([ScriptArguments, OpticalTrainingArguments])  # type: ignore[list-item]
    script, training = parser.parse_args_into_dataclasses(arguments)
    return script, training


def read_config(path: str) -> dict[str, Any]:
    """Read a YAML file of arguments, all of them as the words that stand there (`no` is no `False`)."""
    if not Path(path).is_file():
        raise ValueError(f"--config: there is no file {path!r}.")
    try:
        options = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"--config {path} is no YAML: {error}") from error
    if not isinstance(options, dict):
        raise ValueError(f"--config {path}: write `name: value` lines.")
    return options


def as_arguments(options: dict[str, Any]) -> list[str]:
    """Write a mapping of options as a command line; of files by language, as `language=file` words."""
    words = []
    for name, value in options.items():
        if isinstance(value, dict) and name in ("bitext", "topics", "english_topics", "qrels"):
            pairs = [(key, one) for key, many in value.items() for one in (many if isinstance(many, list) else [many])]
            value = [f"{key}={one}" for key, one in pairs]
        elif isinstance(value, dict):
            value = json.dumps(value)
        if value not in (None, "", "null", "~"):
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return words


def main(arguments: Sequence[str]) -> None:
    script, args = parse_arguments(arguments)
    check_world_size(args.world_size)
    assert args.output_dir is not None  # its __post_init__ has a default
    check_writable(args.output_dir, 0)
    logging.basicConfig(level=logging.INFO if args.process_index == 0 else logging.ERROR, format="%(message)s")
    set_seed(args.seed)
    started = time.time()

    sources = parse_bitext_arguments(script.bitext)
    by_language = {
        name: parse_language_arguments(name, getattr(script, name)) for name in ("topics", "qrels", "english_topics")
    }
    questions = load_questions(script.passages, **by_language, seen=list(sources), max_queries=script.max_queries)
    if args.metric_for_best_model and "ndcg" in args.metric_for_best_model and not any(one.seen for one in questions):
        raise ValueError(
            f"--metric_for_best_model {args.metric_for_best_model} is measured on the languages of the bitext, and "
            "none of them has --topics."
        )
    if script.held_out < 1:
        raise ValueError(f"--held_out is {script.held_out}; hold out at least 1 pair of each language.")
    if script.streaming:
        bitext = load_bitext(
            sources, max_words=script.max_words, temperature=script.temperature, seed=args.seed, streaming=True
        )
        first = script.held_out * len(sources)  # languages alternate
        held_out = Dataset.from_list(list(bitext.dataset.take(first)))
        if len(held_out) < first or next(iter(bitext.dataset.skip(first)), None) is None:
            raise ValueError(f"The bitext ends within the first {first} pairs, which --held_out keeps for evaluation.")
        train = bitext.dataset.skip(first).shuffle(seed=args.seed, buffer_size=10_000)
    else:
        bitext = load_bitext(sources, max_words=script.max_words)
        train, held_out = hold_out(bitext.dataset, script.held_out, seed=args.seed)
        train = balance_languages(train, script.temperature, seed=args.seed)

    names = ("query_prefix", "document_prefix", "query_length", "document_length")
    options = {name: getattr(script, name) for name in names if getattr(script, name) is not None}
    teacher_name = script.teacher or quickstart_model()
    teacher = OpticalTeacher.from_checkpoint(teacher_name, **options)
    if script.projection_dim:
        options["projection_dim"] = script.projection_dim
    student = OpticalStudent.from_checkpoint(script.student or teacher_name, **options)
    start = checkpoint_origin(script.student or teacher_name)
    origins = {  # written down before the training, which may take days
        "date": time.strftime("%Y-%m-%d", time.gmtime(started)),
        "teacher": checkpoint_origin(teacher_name)["name"],
        "teacher_config": {name: getattr(teacher.config, name) for name in names},
        "student": start["name"],
        "base_model": start["base_model"],
        "license": start["license"],
        "bitext_sources": {language: source_names(many, language) for language, many in sources.items()},
    }
    trainer = OpticalDistillationTrainer(
        student,
        teacher,
        args,
        train,
        held_out,
        loss=script.loss,
        languages=list(sources),
        retrieval_sets=[one.own for one in questions if one.seen],
    )

    languages: dict[str, dict[str, Any]] = {}
    for one in questions:
        languages[one.language] = {"seen": one.seen, "queries": len(one.own.qrels)}
        languages[one.language]["zero_shot"] = trainer.evaluate_retrieval(one.own)
        if one.english is not None:
            languages[one.language]["english"] = trainer.evaluate_retrieval(one.english, teacher)
    output = trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_model(_internal_call=True)  # not pushed yet: card and results are to come
    metrics = {name.removeprefix("eval_"): value for name, value in trainer.evaluate().items()}
    for one in questions:
        found = {name: metrics.get(f"{one.language}_{name}") for name in languages[one.language]["zero_shot"]}
        languages[one.language]["student"] = found if one.seen else trainer.evaluate_retrieval(one.own)
    if args.process_index != 0:
        return
    on_gpu = args.device.type == "cuda"
    hardware = torch.cuda.get_device_name(args.device) if on_gpu else f"{args.device.type}, {platform.machine()}"
    results = {
        **origins,
        "loss": script.loss,
        "seed": args.seed,
        "steps": trainer.state.global_step,
        "bitext": bitext.counts,
        "streaming": script.streaming,
        "max_words": script.max_words,
        "temperature": script.temperature,
        "held_out_pairs": script.held_out,
        "collection": script.collection or (Path(script.passages).name if script.passages else None),
        "passages": len(questions[0].own.passages) if questions else None,
        "protocol": f"the student's queries over {len(questions[0].own.passages)} passages of the teacher"
        if questions
        else None,
        "languages": languages,
        "held_out": {name: value for name, value in metrics.items() if "accuracy" in name},
        "training_seconds": output.metrics["train_runtime"],
        "total_seconds": time.time() - started,
        "processes": args.world_size,
        "machine": f"{hardware}, threads a process: {torch.get_num_threads()}",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "arguments": {name: getattr(args, name) for name in RECIPE},
    }
    write_json(Path(args.output_dir) / "results.json", results, indent=2)
    write_card(args.output_dir, repo_id=trainer.hub_model_id if args.push_to_hub else None)
    if languages:
        print(format_table(languages))
    print(
        f"\nThe student is in {args.output_dir}. Load it with\n"
        "    import optical_hf\n    from transformers import AutoModel\n"
        f"    student = AutoModel.from_pretrained({args.output_dir!r})\n"
        '    vectors = student.encode(["..."], role="query")'
    )
    if args.push_to_hub:
        trainer.push_output("End of training")
        print(f"It is on the Hub as {trainer.hub_model_id}.")


RECIPE = (
    *("learning_rate", "warmup_steps", "weight_decay", "per_device_train_batch_size", "gradient_accumulation_steps"),
    *("roles", "concatenation", "retention_share", "retention_weight", "mark_dropout", "dropout", "freeze_embeddings"),
    *("freeze_layers", "solver", "epsilon", "iterations", "reg_m", "partial_mass", "centre", "token_weight"),
    *("pooled_weight", "score_weight", "bank_size", "pooled_temperature", "token_temperature", "bf16", "fp16"),
    *("load_best_model_at_end", "metric_for_best_model"),
)

if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, OSError, RuntimeError, ImportError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    end_processes()

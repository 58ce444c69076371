"""Train a cross-encoder that reranks, from queries with a positive and negative passages.

    optical-hf train_reranker --model intfloat/multilingual-e5-small --rows yo-en=rows.jsonl --output_dir reranker

The rows are those of `optical-hf train`, such as `optical-hf mine` writes them; they may have the `scores` of a
teacher. `--model` is a cross-encoder, or an encoder, which gets a new head. The cross-encoder, its `results.json` and
a card made from it lie in `--output_dir`, checkpoints below it; `optical-hf rerank` and
`sentence_transformers.CrossEncoder` load it. In several processes: `accelerate launch -m
optical_hf.commands.train_reranker`.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import set_seed

from ..arguments import ArgumentReader
from ..bounds import check_count, check_fields
from ..data.training_rows import load_training_rows, parse_row_arguments
from ..files import with_digest, write_json
from ..hub.weights import weights_hash
from ..launching import check_world_size, check_writable, run, start_logging, writing
from ..models.cross_encoders import load_cross_encoder
from ..quickstart import quickstart_model
from ..training.cross_encoder import (
    CrossEncoderArguments,
    RankedRow,
    SettingsKeeper,
    cross_encoder_trainer,
    hold_out_queries,
    measure_rows,
    rows_to_rank,
)
from ..training.model_card import write_card
from ..training.provenance import checkpoint_origin, row_source_names
from ..training.resuming import checkpoint_to_resume, dataset_digest, remove_surplus, seconds_until

# The arguments of the training that results.json keeps.
RECIPE = (
    *("learning_rate", "warmup_steps", "weight_decay", "num_train_epochs"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "bf16", "fp16"),
)


@dataclass
class RerankerModels:
    """What is trained, on what."""

    model: str = field(metadata={"help": "Cross-encoder or encoder, a folder, a Hub name, or 'quickstart'."})
    rows: list[str] = field(
        metadata={"help": "pair=source ..., where a pair is 'sw', or 'sw-en' for queries in sw over passages in en."}
    )
    max_length: int | None = field(default=None, metadata={"help": "Longest pair in tokens; else the model's."})

    def __post_init__(self) -> None:
        check_fields(self, check_count, "max_length", most=10**6)


def reader() -> ArgumentReader:
    """Return the reader of this command's arguments."""
    description = "Train a cross-encoder that reranks, from queries with a positive and negative passages."
    classes = (RerankerModels, CrossEncoderArguments)
    return ArgumentReader(*classes, prog="optical-hf train_reranker", description=description)


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    given, args = reader().read(arguments)
    check_world_size(args.world_size)
    check_writable(args.output_dir, 0)
    start_logging(args.process_index == 0)
    with writing(args.output_dir, args.process_index == 0):
        train(given, args)


def train(given: RerankerModels, args: CrossEncoderArguments) -> None:
    """Measure the start, train, measure again, and write what happened beside the model."""
    set_seed(args.seed)  # also of a new head
    started = time.time()
    folder = Path(str(args.output_dir))
    sources = parse_row_arguments(given.rows)
    loaded = load_training_rows(sources, seed=args.seed)
    rows, counts = rows_to_rank(RankedRow(row["query"], row["passages"], row["scores"]) for row in loaded.dataset)
    trained, held_out = hold_out_queries(rows, args.held_out, args.seed)
    name = str(quickstart_model()) if given.model == "quickstart" else given.model
    origin = checkpoint_origin(name)
    settings = {
        "model": origin["name"],
        "rows": dataset_digest(loaded.dataset, ["query", "passages", "scores"]),
        "processes": args.world_size,
        **{name: getattr(args, name) for name in ("loss", "held_out", "seed", "max_steps", "lr_scheduler_type")},
        **{name: getattr(args, name) for name in RECIPE if name != "num_train_epochs"},
        "max_length": given.max_length,
    }
    checkpoint = checkpoint_to_resume(args.resume_from_checkpoint, folder, settings)
    seconds_before = 0.0 if checkpoint is None else seconds_until(checkpoint)
    if checkpoint is not None and args.process_index == 0:
        remove_surplus(checkpoint, folder, args.save_total_limit)
    options: dict[str, Any] = {} if given.max_length is None else {"max_length": given.max_length}
    model = load_cross_encoder(name, num_labels=1, **options)
    start = measure_rows(model, held_out, args.per_device_eval_batch_size)
    trainer = cross_encoder_trainer(model, trained, args)
    trainer.add_callback(SettingsKeeper(settings, seconds_before))
    output = trainer.train(resume_from_checkpoint=checkpoint)
    ndcg = measure_rows(model, held_out, args.per_device_eval_batch_size)
    if args.process_index != 0:
        return
    model.save_pretrained(str(folder), create_model_card=False)
    results = {
        "date": time.strftime("%Y-%m-%d", time.gmtime(started)),
        "model": origin["name"],
        "base_model": origin["base_model"],
        "license": origin["license"],
        "loss": args.loss,
        "seed": args.seed,
        "steps": trainer.state.global_step,
        "sources": sorted({name for names in row_source_names(sources).values() for name in names}),
        "rows": {**counts, "held_out": len(held_out), "trained": len(trained)},
        "scores": trained[0].scores is not None and args.loss == "listnet",
        "max_length": model.max_seq_length,
        "held_out": {"queries": args.held_out, "start": {"ndcg@10": start}, "trained": {"ndcg@10": ndcg}},
        "training_seconds": seconds_before + output.metrics["train_runtime"],
        "processes": args.world_size,
        "machine": f"{args.device.type}, {platform.machine()}",
        "versions": {name: version(name) for name in ("torch", "transformers", "sentence-transformers")},
        "weights": weights_hash(folder),
        "arguments": {name: getattr(args, name) for name in RECIPE},
    }
    write_json(folder / "results.json", with_digest(results), indent=2)
    write_card(folder)
    print(f"nDCG@10 on the rows of {args.held_out} queries held out: {start:.4f} before, {ndcg:.4f} after training.")
    print(f"The cross-encoder is in {args.output_dir}: give it to `optical-hf rerank` as --model.")


if __name__ == "__main__":
    run(main, sys.argv[1:])

"""Train the same rows by OpticalRetrievalTrainer and by sentence-transformers' MultiVectorEncoderTrainer, in turn.

Both start from the same model and take the same steps with the same loss: InfoNCE over the batch and the rows'
negatives, on the mean MaxSim at temperature 0.01. Printed are nDCG@10 on judged questions, and rows a second.

    python examples/compare_training.py --rows rows.sw.jsonl --language sw --topics sw.dev.topics.tsv \
        --passages sw.passages.jsonl --qrels sw.dev.qrels.tsv --steps 40

The rows need at least `--negatives` negatives each (`optical-hf mine`); others are left out, and counted.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from datasets import Dataset
from sentence_transformers import MultiVectorEncoder, MultiVectorEncoderTrainer, MultiVectorEncoderTrainingArguments
from sentence_transformers.multi_vector_encoder.losses import MultiVectorMultipleNegativesRankingLoss
from sentence_transformers.multi_vector_encoder.scoring import mean_colbert_scores
from transformers import set_seed

from optical_hf import OpticalStudent, RetrievalSet, load_training_rows
from optical_hf.arguments import ArgumentReader
from optical_hf.evaluation.in_memory import encode_passages, evaluate_queries
from optical_hf.launching import run
from optical_hf.quickstart import quickstart_model
from optical_hf.training.retrieval_args import OpticalRetrievalArguments
from optical_hf.training.retrieval_trainer import OpticalRetrievalTrainer

TEMPERATURE = 0.01


@dataclass
class Compared:
    """What is trained, and measured."""

    rows: str = field(metadata={"help": "Rows, JSON lines of one language."})
    language: str = field(metadata={"help": "Of queries and passages."})
    topics: str = field(metadata={"help": "Judged questions."})
    passages: str = field(metadata={"help": "Their passages."})
    qrels: str = field(metadata={"help": "Their judgements."})
    model: str | None = field(default=None, metadata={"help": "What both start from; else multilingual-e5-small."})
    query_prefix: str | None = field(default=None, metadata={"help": "Put before queries; else the model's own."})
    document_prefix: str | None = field(default=None, metadata={"help": "Put before passages; else its own."})
    document_length: int = field(default=128, metadata={"help": "Longest passage in tokens."})
    negatives: int = field(default=2, metadata={"help": "Negatives of every row."})
    batch_size: int = field(default=16, metadata={"help": "Rows a step."})
    steps: int = field(default=40, metadata={"help": "Steps of each training."})
    learning_rate: float = field(default=2e-5, metadata={"help": "The peak learning rate."})
    seeds: int = field(default=3, metadata={"help": "Trainings of each kind."})


def main(words: Sequence[str]) -> None:
    """Train alternately, and print a line each and the means."""
    (given,) = ArgumentReader(Compared, prog="compare_training.py", description=__doc__).read(words)
    options = {"document_length": given.document_length}
    for name in ("query_prefix", "document_prefix"):
        if getattr(given, name) is not None:
            options[name] = getattr(given, name)
    start = OpticalStudent.from_checkpoint(given.model or str(quickstart_model()), **options)
    read = load_training_rows({given.language: given.rows}).dataset
    rows = read.filter(lambda row: len(row["passages"]) > given.negatives)
    print(f"{len(rows)} of {len(read)} rows have {given.negatives} negatives or more.")
    judged = RetrievalSet.from_files(
        given.topics, given.passages, given.qrels, query_language=given.language, document_language=given.language
    )
    found: dict[str, list[tuple[float, float]]] = {"optical-hf": [], "sentence-transformers": []}
    with tempfile.TemporaryDirectory() as folder:
        start.save_pretrained(f"{folder}/start")
        print(f"before: nDCG@10 {_measure(start, judged):.4f}")
        for seed in range(given.seeds):
            for name, train in (("optical-hf", _ours), ("sentence-transformers", _theirs)):
                set_seed(seed)
                model, seconds = train(given, f"{folder}/start", rows, seed, f"{folder}/{name}-{seed}")
                speed = given.steps * given.batch_size / seconds
                found[name].append((_measure(model, judged), speed))
                print(f"{name}, seed {seed}: nDCG@10 {found[name][-1][0]:.4f}, {speed:.2f} rows a second", flush=True)
    for name, measured in found.items():
        scores, speeds = zip(*measured, strict=True)
        spread = f" (deviation {statistics.stdev(scores):.4f})" if len(scores) > 1 else ""
        print(f"{name}: nDCG@10 {statistics.mean(scores):.4f}{spread}, {statistics.median(speeds):.2f} rows a second")
    ratios = sorted(ours[1] / theirs[1] for ours, theirs in zip(*found.values(), strict=True))
    print(f"speed, ours to theirs: {statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")


def _measure(model: OpticalStudent, judged: RetrievalSet) -> float:
    return evaluate_queries(model, judged, encode_passages(model, judged.passages))["ndcg@10"]


def _arguments(given: Compared, seed: int, folder: str) -> dict[str, object]:
    return {
        "output_dir": folder,
        "max_steps": given.steps,
        "per_device_train_batch_size": given.batch_size,
        "learning_rate": given.learning_rate,
        "warmup_steps": 0.1,
        "weight_decay": 0.01,
        "seed": seed,
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 1000,
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": False,
    }


def _ours(given: Compared, start: str, rows: Dataset, seed: int, folder: str) -> tuple[OpticalStudent, float]:
    args = OpticalRetrievalArguments(
        **_arguments(given, seed, folder),  # type: ignore[arg-type]
        negatives=given.negatives,
        pooled_weight=0.0,
        token_temperature=TEMPERATURE,
        freeze_embeddings=False,
    )
    model = OpticalStudent.from_pretrained(start)
    trainer = OpticalRetrievalTrainer(model, args, rows)
    began = time.perf_counter()
    trainer.train()
    return model, time.perf_counter() - began


def _theirs(given: Compared, start: str, rows: Dataset, seed: int, folder: str) -> tuple[OpticalStudent, float]:
    model = MultiVectorEncoder(start, trust_remote_code=True)
    columns = ["anchor", "positive", *(f"negative_{number}" for number in range(given.negatives))]
    wide = rows.map(
        lambda row: dict(zip(columns, [row["query"], *row["passages"]], strict=False)),
        remove_columns=rows.column_names,
    )
    loss = MultiVectorMultipleNegativesRankingLoss(model, scale=1 / TEMPERATURE, similarity_fct=mean_colbert_scores)
    args = MultiVectorEncoderTrainingArguments(**_arguments(given, seed, folder))  # type: ignore[arg-type]
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # as ours
    trainer = MultiVectorEncoderTrainer(model=model, args=args, train_dataset=wide, loss=loss)
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    model.save_pretrained(folder)
    return OpticalStudent.from_checkpoint(folder), seconds


if __name__ == "__main__":
    run(main, sys.argv[1:])

"""Hybrid batches (arXiv 2408.10536) on parallel passages: monolingual, cross-lingual and multilingual mAP, and bias.

    python examples/hybrid_batches.py --rows sw=sw.jsonl te=te.jsonl yo-en=yo.jsonl --questions xquad \
        --languages en es ar hi zh ru --alphas 0 0.5 1 --seeds 1 2 --train_config train.yaml --output_dir hybrid

Every alpha and seed is one `optical-hf train`. `--questions` is a folder of questions and passages that are
translations of one another: `topics.LANGUAGE.tsv`, `passages.LANGUAGE.jsonl`, and `qrels.tsv` for all languages.

- *monolingual*: mAP of a language's questions over its own passages, averaged over languages;
- *cross-lingual*: over the passages of another language, averaged over pairs;
- *multilingual*: over the passages of all languages in one list, in which every translation is relevant;
- *bias*: in that list, the largest less the smallest rank of the relevant passage's translations; lower is better.

A training that is done is not done again. `table.md` and `results.json` in `--output_dir` hold the means over seeds.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from optical_hf import OpticalTeacher, maxsim
from optical_hf.arguments import ArgumentReader
from optical_hf.data.trec_files import read_passages, read_qrels, read_topics
from optical_hf.evaluation.language_bias import language_bias
from optical_hf.evaluation.significance import bootstrap_interval
from optical_hf.files import read_json, write_json, write_text
from optical_hf.launching import run, writing
from optical_hf.quickstart import quickstart_model

MEASURES = ("monolingual", "cross-lingual", "multilingual", "bias")


@dataclass
class HybridArguments:
    """What is trained, and measured."""

    rows: list[str] = field(metadata={"help": "pair=source ..., as in `optical-hf train`."})
    questions: str = field(metadata={"help": "Folder of parallel questions and passages."})
    output_dir: str = field(metadata={"help": "Folder of the trainings and the table."})
    languages: list[str] = field(
        default_factory=lambda: ["en", "es", "ar", "hi", "zh", "ru"], metadata={"help": "Of questions and passages."}
    )
    alphas: list[float] = field(default_factory=lambda: [0.0, 0.5, 1.0], metadata={"help": "Probabilities."})
    seeds: list[int] = field(default_factory=lambda: [1, 2], metadata={"help": "A training each."})
    model: str = field(default="quickstart", metadata={"help": "What every training starts from."})
    train_config: str | None = field(default=None, metadata={"help": "YAML file of `optical-hf train`."})
    document_length: int = field(
        default=256, metadata={"help": "Longest passage in tokens, of all arms when measured."}
    )
    max_queries: int = field(default=300, metadata={"help": "Questions of each language."})


def main(words: Sequence[str]) -> None:
    """Train every arm, and measure it."""
    (given,) = ArgumentReader(HybridArguments, prog="hybrid_batches.py", description=__doc__).read(words)
    folder = Path(given.output_dir)
    start = str(quickstart_model()) if given.model == "quickstart" else given.model
    with writing(given.output_dir):
        arms = {"before": [_measure(given, start, folder / "before.json")]}
        for alpha in given.alphas:
            arms[f"alpha {alpha:g}"] = [
                _measure(given, _train(given, start, alpha, seed), folder / f"{alpha:g}-{seed}.json")
                for seed in given.seeds
            ]
        _report(arms, folder)


def _train(given: HybridArguments, start: str, alpha: float, seed: int) -> str:
    folder = Path(given.output_dir) / f"{alpha:g}-{seed}"
    if not (folder / "results.json").exists():
        words = ["--model", start, "--rows", *given.rows, "--alpha", str(alpha), "--seed", str(seed)]
        words += ["--output_dir", str(folder), *(["--config", given.train_config] if given.train_config else [])]
        if any(folder.glob("checkpoint-*")):
            words += ["--resume_from_checkpoint", "true"]
        print("optical-hf train", *words, flush=True)
        if code := subprocess.run([sys.executable, "-m", "optical_hf.commands", "train", *words]).returncode:
            raise RuntimeError(f"`optical-hf train` ended with {code}; mend it, and start this again.")
    return str(folder)


def _measure(given: HybridArguments, model_name: str, path: Path) -> dict[str, list[float]]:
    """Every measure of every question, averaged over the languages that it is asked in, and over."""
    if path.exists():
        return read_json(path)
    model = OpticalTeacher.from_checkpoint(model_name, document_length=given.document_length)
    questions = Path(given.questions)
    qrels = read_qrels(questions / "qrels.tsv")
    relevant = {qid: [docid for docid, grade in judged.items() if grade > 0] for qid, judged in qrels.items()}
    qids = list(relevant)[: given.max_queries]
    passages = {language: read_passages(questions / f"passages.{language}.jsonl") for language in given.languages}
    docids = list(next(iter(passages.values())))
    encoded = {
        language: model.encode_tokens([texts[docid] for docid in docids], "document")
        for language, texts in passages.items()
    }
    own = np.array([[docid in relevant[qid] for docid in docids] for qid in qids])
    measured: dict[str, list[np.ndarray]] = {name: [] for name in MEASURES}
    for asked in given.languages:
        topics = read_topics(questions / f"topics.{asked}.tsv")
        queries = model.encode_tokens([topics[qid] for qid in qids], "query")
        scores = {language: maxsim(queries, vectors).numpy() for language, vectors in encoded.items()}
        for language, values in scores.items():
            name = "monolingual" if language == asked else "cross-lingual"
            measured[name].append(_average_precision(values, own))
        joined = np.concatenate(list(scores.values()), axis=1)
        measured["multilingual"].append(_average_precision(joined, np.tile(own, len(scores))))
        runs = {
            language: {
                qid: dict(zip(docids, row.tolist(), strict=True)) for qid, row in zip(qids, values, strict=True)
            }
            for language, values in scores.items()
        }
        bias = language_bias(runs, {qid: qrels[qid] for qid in qids})
        measured["bias"].append(np.array([bias[qid] for qid in qids]))
    found = {name: np.mean(values, axis=0).tolist() for name, values in measured.items()}
    write_json(path, found)
    return found


def _average_precision(scores: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    order = np.argsort(-scores, axis=1, kind="stable")
    hits = np.take_along_axis(relevant, order, axis=1)
    precision = hits.cumsum(axis=1) / np.arange(1, hits.shape[1] + 1)
    return (precision * hits).sum(axis=1) / hits.sum(axis=1)


def _report(arms: dict[str, list[dict[str, list[float]]]], folder: Path) -> None:
    lines = [f"| batches | {' | '.join(MEASURES)} |", f"|---|{'---|' * len(MEASURES)}"]
    results: dict[str, dict[str, dict[str, object]]] = {}
    for name, seeds in arms.items():
        cells, results[name] = [], {}
        for measure in MEASURES:
            samples = np.array([each[measure] for each in seeds])
            low, high = bootstrap_interval([samples])
            digits = 1 if measure == "bias" else 3
            cells.append(f"{samples.mean():.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]")
            by_seed = samples.mean(axis=1).tolist()
            results[name][measure] = {"mean": float(samples.mean()), "interval": [low, high], "by_seed": by_seed}
        lines.append(f"| {name} | {' | '.join(cells)} |")
    write_json(folder / "results.json", results, indent=2)
    write_text(folder / "table.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    run(main, sys.argv[1:])

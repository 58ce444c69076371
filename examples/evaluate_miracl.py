"""Measure a retriever on MIRACL, language by language, under one protocol.

    accelerate launch examples/evaluate_miracl.py --model yoruba-student --languages sw yo --output_dir miracl

The topics, judgements and passages come from the Hub, its cache, or `--data_dir`; see `optical_hf.miracl`. With
`--first_stage bm25`, or a file of TREC runs, only what that found is encoded and ranked. A run that was stopped goes
on where it was; `accelerate launch` spreads encoding and search over its processes.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import PartialState
from evaluate_retrieval import ModelArguments
from transformers import HfArgumentParser

from optical_hf.bm25 import BM25Index
from optical_hf.evaluator import evaluate_collection
from optical_hf.json_files import write_json
from optical_hf.launching import check_writable
from optical_hf.metrics.miracl_ndcg.miracl_ndcg import read_run
from optical_hf.miracl import PROTOCOLS, MiraclSet, load_miracl
from optical_hf.published import published_scores, published_sources
from optical_hf.trec import write_run


@dataclass
class MiraclArguments:
    """What part of MIRACL is searched, and how."""

    languages: list[str] = field(metadata={"help": "Language codes."})
    protocol: str = field(default="full", metadata={"help": "Which passages.", "choices": list(PROTOCOLS)})
    split: str = field(default="dev", metadata={"help": "dev or train."})
    data_dir: str | None = field(default=None, metadata={"help": "Folder of the same layout, instead of the Hub."})
    revision: str | None = field(default=None, metadata={"help": "Of miracl/miracl, or MTEB's set."})
    corpus_revision: str | None = field(default=None, metadata={"help": "Of miracl/miracl-corpus."})
    first_stage: str | None = field(
        default=None, metadata={"help": "'bm25', or TREC runs such as 'run.{language}.trec': only these are reranked."}
    )
    depth: int = field(default=100, metadata={"help": "Passages of the first stage that are reranked."})
    max_queries: int | None = field(default=None, metadata={"help": "Use the first judged queries only."})


def main(arguments: Sequence[str]) -> None:
    parser = HfArgumentParser([ModelArguments, MiraclArguments])  # type: ignore[list-item]
    models, script = parser.parse_args_into_dataclasses(list(arguments))
    state = PartialState()
    logging.basicConfig(level=logging.INFO if state.is_main_process else logging.ERROR, format="%(message)s")
    output = Path(models.output_dir)
    check_writable(output, 0)
    # All of them before hours of encoding: a language that is not there shows now.
    sets = [
        load_miracl(language, script.protocol, script.split, script.data_dir, script.revision, script.corpus_revision)
        for language in script.languages
    ]
    query_model, document_model = models.load()
    languages: dict[str, dict[str, Any]] = {}
    per_query: dict[str, Any] = {}
    for one in sets:
        qrels = dict(list(one.qrels.items())[: script.max_queries])
        measured = evaluate_collection(
            query_model,
            document_model,
            one.topics,
            qrels,
            one.iter_passages(),
            Path(models.index_dir or output / "index") / one.language,
            candidates=first_stage(one, script, output, state),
            **models.index_options(),
        )
        languages[one.language] = {"queries": len(qrels)} | {name: each.scores for name, each in measured.items()}
        if script.split == "dev" and not (script.max_queries or script.first_stage):
            languages[one.language]["published"] = published_scores(one.language, script.protocol)
        per_query[one.language] = {name: each.per_query for name, each in measured.items()}
        if state.is_main_process:
            for scoring, each in measured.items():
                write_run(each.run, output / f"run.{one.language}.{scoring}.trec")
    if not state.is_main_process:
        return
    scorings = [name for name in ("maxsim", "pooled") if name in next(iter(languages.values()))]
    average: dict[str, dict[str, float]] = {
        scoring: {
            name: sum(row[scoring][name] for row in languages.values()) / len(languages)
            for name in next(iter(languages.values()))[scoring]
        }
        for scoring in scorings
    }
    write_json(
        output / "metrics.json",
        {
            "protocol": label(script),
            "split": script.split,
            "revision": {"topics": script.revision, "corpus": script.corpus_revision},
            "average": average,
            "languages": languages,
            "published_sources": published_sources(script.protocol),
            **models.description(),
            "per_query": per_query,
        },
        indent=2,
    )
    print(format_table(languages, average, label(script)))


def first_stage(
    one: MiraclSet, script: MiraclArguments, output: Path, state: PartialState
) -> Mapping[str, Sequence[str]] | None:
    """Return what may be ranked, best first, by query id: of the protocol `rerank`, a run, or BM25; else all."""
    if script.first_stage is None:
        return one.candidates
    if script.first_stage == "bm25":
        folder = output / "bm25" / one.language
        with state.main_process_first():
            index = (
                BM25Index(folder) if folder.exists() else BM25Index.build(one.iter_passages(), one.language, folder)
            )
        run = index.search({qid: text for qid, text in one.topics.items() if qid in one.qrels}, script.depth)
    else:
        run = read_run(script.first_stage.format(language=one.language))
    ranked = {qid: sorted(found, key=lambda docid: (found[docid], docid), reverse=True) for qid, found in run.items()}
    return {qid: docids[: script.depth] for qid, docids in ranked.items()}


def label(script: MiraclArguments) -> str:
    """Name the protocol as every figure has to be labelled."""
    name = PROTOCOLS[script.protocol]
    return name if script.first_stage is None else f"{name}, {script.depth} of {script.first_stage} reranked"


def format_table(languages: Mapping[str, Mapping[str, Any]], average: Mapping[str, Any], protocol: str) -> str:
    """Lay out the figures, with those published under the same protocol beside them."""
    scorings = list(average)
    published = sorted({system for row in languages.values() for system in row.get("published", {})})
    rows = [["", "queries", *(f"{s} {name}" for s in scorings for name in average[s]), *published]]
    for language, row in languages.items():
        own = [f"{row[s][name]:.4f}" for s in scorings for name in average[s]]
        others = [f"{row['published'][s]:.4f}" if s in row.get("published", {}) else "-" for s in published]
        rows.append([language, str(row["queries"]), *own, *others])
    queries = sum(row["queries"] for row in languages.values())
    means = [f"{value:.4f}" for s in scorings for value in average[s].values()]
    for system in published:
        known = [row["published"].get(system) for row in languages.values()]
        means.append(f"{sum(known) / len(known):.4f}" if None not in known else "-")
    rows.append(["average", str(queries), *means])
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    note = ["Published nDCG@10 on the right."] if published else []
    return "\n".join([f"MIRACL, {protocol}", *lines, *note])


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        sys.exit(f"error: {error}")

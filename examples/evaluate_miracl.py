"""Measure a retriever on MIRACL, language by language, under one protocol.

    accelerate launch examples/evaluate_miracl.py --model yoruba-student --languages sw yo --output_dir miracl

The topics, judgements and passages come from the Hub, its cache, or `--data_dir`; see `optical_hf.data.miracl`. With
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

from evaluate_retrieval import ModelArguments, reranked
from transformers import HfArgumentParser

from optical_hf.data.miracl import PROTOCOLS, load_miracl
from optical_hf.data.trec_files import write_run
from optical_hf.evaluation.collection import evaluate_collection
from optical_hf.evaluation.miracl_published import published_scores, published_sources
from optical_hf.files import write_json
from optical_hf.launching import check_writable, end_processes, start_processes
from optical_hf.retrieval.candidates import first_stage


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
    max_queries: int | None = field(default=None, metadata={"help": "Use the first judged queries only."})


def main(arguments: Sequence[str]) -> None:
    parser = HfArgumentParser([ModelArguments, MiraclArguments])  # type: ignore[list-item]
    models, script = parser.parse_args_into_dataclasses(list(arguments))
    state = start_processes()
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
        candidates: Mapping[str, Sequence[str]] | None = one.candidates
        if script.first_stage is not None:
            candidates = first_stage(
                script.first_stage.format(language=one.language),
                {qid: text for qid, text in one.topics.items() if qid in qrels},
                one.iter_passages,
                one.language,
                output / "bm25" / one.language,
                models.depth,
            )
        measured = evaluate_collection(
            query_model,
            document_model,
            one.topics,
            qrels,
            one.iter_passages(),
            Path(models.index_dir or output / "index") / one.language,
            candidates=candidates,
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
    protocol = reranked(PROTOCOLS[script.protocol], script.first_stage, models.depth)
    write_json(
        output / "metrics.json",
        {
            "protocol": protocol,
            "split": script.split,
            "revision": {repository: commit for one in sets for repository, commit in one.revisions.items()},
            "average": average,
            "languages": languages,
            "published_sources": published_sources(script.protocol),
            **models.description(query_model, document_model),
            "per_query": per_query,
        },
        indent=2,
    )
    print(format_table(languages, average, protocol))


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
    end_processes()

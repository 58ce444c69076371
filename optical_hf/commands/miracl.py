"""Measure a retriever on MIRACL, language by language, under one protocol.

    optical-hf miracl --model yoruba-student --languages sw yo --output_dir miracl

The topics, judgements and passages come from the Hub, its cache, or `--data_dir`; see `optical_hf.data.miracl`. With
`--first_stage bm25`, or a file of TREC runs, only what that found is encoded and ranked. A run that was stopped goes
on where it was; `accelerate launch -m optical_hf.commands.miracl` spreads encoding and search over its processes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..arguments import ArgumentReader
from ..data.miracl import PROTOCOLS, MiraclSet, load_miracl
from ..data.trec_files import write_run
from ..evaluation.collection import check_collection, evaluate_collection
from ..evaluation.miracl_published import published_scores, published_sources
from ..files import write_json
from ..launching import check_files, check_writable, run, start_logging, start_processes
from ..retrieval.candidates import first_stage
from .encoders import EncoderArguments, IndexArguments, SearchArguments


@dataclass
class MiraclArguments:
    """What part of MIRACL is searched."""

    output_dir: str = field(metadata={"help": "Folder for metrics.json, the runs and the indexes."})
    languages: list[str] = field(metadata={"help": "Language codes."})
    protocol: str = field(default="full", metadata={"help": "Which passages.", "choices": list(PROTOCOLS)})
    split: str = field(default="dev", metadata={"help": "dev or train."})
    data_dir: str | None = field(default=None, metadata={"help": "Folder of the same layout, instead of the Hub."})
    revision: str | None = field(default=None, metadata={"help": "Of miracl/miracl, or MTEB's set."})
    corpus_revision: str | None = field(default=None, metadata={"help": "Of miracl/miracl-corpus."})


def reader() -> ArgumentReader:
    """Return the reader of this command's arguments."""
    description = "Measure a retriever on MIRACL, language by language, under one protocol."
    classes = (MiraclArguments, EncoderArguments, SearchArguments, IndexArguments)
    return ArgumentReader(*classes, prog="optical-hf miracl", description=description)


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    miracl, encoders, searching, kept = reader().read(arguments)
    state = start_processes()
    start_logging(state.is_main_process)
    output = Path(miracl.output_dir)
    check_writable(output, 0)
    encoders.check_names()
    # All of them before hours of encoding: a language that is not there shows now.
    sets = [
        load_miracl(language, miracl.protocol, miracl.split, miracl.data_dir, miracl.revision, miracl.corpus_revision)
        for language in miracl.languages
    ]
    check_files("--first_stage", *searching.runs([each.language for each in sets]))
    prepared = [_prepare(each, searching, output) for each in sets]
    query_model, document_model = encoders.load()
    languages: dict[str, dict[str, Any]] = {}
    per_query: dict[str, Any] = {}
    for each, (qrels, candidates, missing) in zip(sets, prepared, strict=True):
        measured = evaluate_collection(
            query_model,
            document_model,
            each.topics,
            qrels,
            each.iter_passages(),
            Path(kept.index_dir or output / "index") / each.language,
            candidates=candidates,
            missing=missing,
            batch_size=encoders.batch_size,
            memory_gb=searching.memory_gb,
            **kept.options(),
        )
        row: dict[str, Any] = {"queries": len(qrels), "missing": missing}
        row |= {name: scored.scores for name, scored in measured.items()}
        if miracl.split == "dev" and searching.max_queries is None and searching.first_stage is None:
            row["published"] = published_scores(each.language, miracl.protocol)
        languages[each.language] = row
        per_query[each.language] = {name: scored.per_query for name, scored in measured.items()}
        if state.is_main_process:
            for scoring, scored in measured.items():
                write_run(scored.run, output / f"run.{each.language}.{scoring}.trec")
    if not state.is_main_process:
        return
    first = next(iter(languages.values()))
    average: dict[str, dict[str, float]] = {
        scoring: {
            name: sum(row[scoring][name] for row in languages.values()) / len(languages) for name in first[scoring]
        }
        for scoring in ("maxsim", "pooled")
        if scoring in first
    }
    protocol = searching.protocol(PROTOCOLS[miracl.protocol])
    write_json(
        output / "metrics.json",
        {
            "protocol": protocol,
            "split": miracl.split,
            "revision": {repository: commit for each in sets for repository, commit in each.revisions.items()},
            "average": average,
            "languages": languages,
            "published_sources": published_sources(miracl.protocol),
            "index": kept.options(),
            **encoders.description(query_model, document_model),
            "per_query": per_query,
        },
        indent=2,
    )
    print(format_table(languages, average, protocol))


def _prepare(
    each: MiraclSet, searching: SearchArguments, output: Path
) -> tuple[dict[str, dict[str, int]], Mapping[str, Sequence[str]] | None, dict[str, int]]:
    """Return the judgements and the candidates of a language, and what they name that is not there."""
    qrels = dict(list(each.qrels.items())[: searching.max_queries])
    candidates: Mapping[str, Sequence[str]] | None = each.candidates
    if searching.first_stage is not None:
        candidates = first_stage(
            searching.first_stage.replace("{language}", each.language),
            {qid: text for qid, text in each.topics.items() if qid in qrels},
            each.iter_passages,
            each.language,
            output / Path(searching.first_stage).name / each.language,
            searching.depth,
        )
    try:
        missing = check_collection(each.topics, qrels, each.iter_passages(), candidates, strict=searching.strict)
    except ValueError as error:
        raise ValueError(f"MIRACL {each.language}: {error}") from error
    return qrels, candidates, missing


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
    run(main, sys.argv[1:])

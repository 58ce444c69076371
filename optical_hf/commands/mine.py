"""Find hard negatives for training rows, by BM25, a TREC run or a model, or go on with a run that was stopped.

    optical-hf mine --rows sw=topics.tsv,passages.jsonl,qrels.tsv --passages passages.jsonl --first_stage bm25 \\
        --output rows.sw.jsonl

Without `--first_stage`, `--model` searches its own index of the passages. Where a model is given it scores the
passages too: the scores stand in the rows, and candidates that score nearly as high as the positive are left out.
"""

from __future__ import annotations

import glob
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from ..arguments import ArgumentReader
from ..bounds import check_count, check_fields, check_memory, check_number
from ..data.judged_collections import iter_collection, read_queries
from ..data.training_row_checks import text_id
from ..data.training_row_sources import language_pair
from ..data.training_rows import load_training_rows, parse_row_arguments
from ..data.trec_files import rank, read_run
from ..launching import check_files, run, start_logging, start_processes
from ..retrieval.bm25 import BM25Index
from ..retrieval.candidates import BM25, bm25_index
from ..retrieval.index.build import PassageIndex, build_index
from ..retrieval.negatives import Find, ModelScores, mine_negatives
from .encoders import EncoderArguments, IndexArguments


@dataclass
class MiningArguments:
    """What negatives are found for, and where."""

    rows: list[str] = field(
        metadata={"help": "Training rows of one language pair: sw=SOURCE, or sw-en=SOURCE for English passages."}
    )
    passages: list[str] = field(metadata={"help": "The collection: JSON lines, or pid<TAB>text; one or more files."})
    output: str = field(metadata={"help": "JSON lines of rows to write."})
    first_stage: str | None = field(
        default=None,
        metadata={"help": "'bm25', 'bm25-char4' (across languages), or a TREC run; else the model searches."},
    )
    topics: str | None = field(default=None, metadata={"help": "The queries of the TREC run by id."})
    negatives: int = field(default=7, metadata={"help": "Negatives of a row; those that it has stay, and count."})
    skip: int = field(default=0, metadata={"help": "Leave out so many of the best candidates."})
    depth: int = field(default=100, metadata={"help": "Candidates of a query."})
    margin: float = field(
        default=0.95, metadata={"help": "Leave out what the model scores above so much of the positive's score."}
    )
    pooled: bool = field(default=False, metadata={"help": "Search and score by pooled vectors instead of MaxSim."})
    max_rows: int | None = field(default=None, metadata={"help": "Use the first rows only."})
    max_negatives: int | None = field(default=None, metadata={"help": "Keep so many of a row's own negatives."})
    min_grade: int = field(default=1, metadata={"help": "Least grade of a positive in judgements."})
    article_query: str = field(
        default="title",
        metadata={"help": "What of an article is the query.", "choices": ["title", "first_sentence"]},
    )
    chunk_size: int = field(default=10_000, metadata={"help": "Rows between two savings."})
    memory_gb: float = field(default=4.0, metadata={"help": "Most memory that the search takes, in GB."})

    def __post_init__(self) -> None:
        check_memory("--memory_gb", self.memory_gb)
        check_fields(self, check_count, "negatives", "depth", "chunk_size", "max_rows", "min_grade")
        check_fields(self, check_count, "skip", "max_negatives", least=0)
        check_fields(self, check_number, "margin", most=1000, above=True)


def reader() -> ArgumentReader:
    """Return the reader of this command's arguments."""
    description = "Find hard negatives for training rows, by BM25, a TREC run or a model."
    classes = (MiningArguments, EncoderArguments, IndexArguments)
    return ArgumentReader(*classes, prog="optical-hf mine", description=description)


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    given, encoders, kept = reader().read(arguments)
    state = start_processes()
    start_logging(state.is_main_process)
    if state.num_processes > 1:
        raise ValueError("`optical-hf mine` runs in one process; `optical-hf index` builds the index by several.")
    sources = parse_row_arguments(given.rows)
    if len(sources) != 1:
        raise ValueError(f"--rows has {' and '.join(sources)}: give the rows of one language pair at a time.")
    [pair] = sources
    query_language, document_language = language_pair(pair)
    if given.first_stage == "bm25" and query_language != document_language:
        raise ValueError(f"Words find nothing across languages ({pair}): give bm25-char4, a model or a TREC run.")
    by_run = given.first_stage not in (None, *BM25)
    if (given.topics is not None) != by_run:
        raise ValueError("--topics and a TREC run as --first_stage go together: they say which query has which id.")
    if kept.single and not given.pooled:
        raise ValueError("--single keeps pooled vectors only: give --pooled.")
    if not Path(given.output).absolute().parent.is_dir():
        raise ValueError(f"--output {given.output}: its folder is not there; make it first.")
    files = [path for pattern in given.passages for path in sorted(glob.glob(pattern)) or [pattern]]
    check_files("--passages", *files)
    check_files("--topics", given.topics)
    check_files("--first_stage", given.first_stage if by_run else None)
    encoders.check_names()
    rows = load_training_rows(
        sources,
        max_rows=given.max_rows,
        max_negatives=given.max_negatives,
        min_grade=given.min_grade,
        article_query=given.article_query,
    )
    score = None
    if given.first_stage is None or encoders.model is not None:
        query_model, document_model = encoders.load()
        score = ModelScores(query_model, document_model, given.pooled, encoders.batch_size)
    settings = {
        "first_stage": given.first_stage and [given.first_stage, _size(given.first_stage)],
        "passages": [[path, _size(path)] for path in files],
        "index": kept.options(),
    }
    counts = mine_negatives(
        rows.dataset,
        _find(given, kept, files, document_language, score, rows.dataset["query"][:]),
        lambda: iter_collection(files),
        given.output,
        negatives=given.negatives,
        skip=given.skip,
        depth=given.depth,
        score=score,
        scored_by=None if score is None else score.fingerprint(),
        margin=given.margin,
        chunk_size=given.chunk_size,
        settings=settings,
    )
    left_out = ", ".join(f"{counts[name]:,} {name.replace('_', ' ')}" for name in list(counts)[3:])
    print(
        f"{given.output} holds {counts['rows']:,} rows with {counts['negatives']:,} mined negatives; "
        f"{counts['short']:,} rows have less than {given.negatives}. Candidates left out: {left_out}."
    )


def _size(path: str) -> int | None:
    return Path(path).stat().st_size if Path(path).is_file() else None


def _find(
    given: MiningArguments,
    kept: IndexArguments,
    files: list[str],
    language: str,
    score: ModelScores | None,
    asked: Sequence[str],
) -> Find:
    """Return what finds candidates; indexes are built, or checked, at its first call."""
    if given.first_stage is None:
        assert score is not None
        return _find_by_model(given, kept, files, score)
    if given.first_stage not in BM25:
        queries = {text_id(text): qid for qid, text in read_queries(str(given.topics)).items()}
        results = read_run(given.first_stage)
        if not any(queries.get(text_id(text)) in results for text in asked):
            raise ValueError(
                f"{given.first_stage} holds results of none of the rows' queries, which are known by their texts in "
                f"--topics {given.topics}: do these files belong together?"
            )

        def find_in_run(topics: Mapping[str, str]) -> dict[str, list[str]]:
            return {qid: rank(results.get(queries.get(text_id(text), ""), {})) for qid, text in topics.items()}

        return find_in_run
    folder = kept.index_dir or f"{given.output}.{given.first_stage}"
    words_of = language if given.first_stage == "bm25" else None

    @cache
    def opened() -> BM25Index:
        return bm25_index(lambda: iter_collection(files), words_of, folder)

    return lambda topics: {qid: list(results) for qid, results in opened().search(topics, given.depth).items()}


def _find_by_model(given: MiningArguments, kept: IndexArguments, files: list[str], score: ModelScores) -> Find:
    folder, options = kept.index_dir or f"{given.output}.index", kept.options()

    @cache
    def opened() -> PassageIndex:
        passages = iter_collection(files)
        return build_index(score.document_model, passages, folder, batch_size=score.batch_size, **options)

    def find(topics: Mapping[str, str]) -> dict[str, list[str]]:
        index, texts = opened(), list(topics.values())
        tokens, pooled = score.query_model.encode_both(texts, "query", batch_size=score.batch_size)
        if given.pooled:
            found = index.search_pooled(pooled, list(topics), given.depth, given.memory_gb)
        else:
            found = index.search(tokens, list(topics), given.depth, given.memory_gb)
        return {qid: list(results) for qid, results in found.items()}

    return find


if __name__ == "__main__":
    run(main, sys.argv[1:])

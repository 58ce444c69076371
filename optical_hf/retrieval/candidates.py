"""What a first stage found, to be reranked: BM25 of our own, or the TREC run of any system."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from accelerate import PartialState

from ..bounds import check_count
from ..data.trec_files import rank
from ..files import remove_abandoned
from ..metrics.miracl_ndcg.miracl_ndcg import read_run
from .bm25 import BM25Index, digest_passages


def first_stage(
    source: str | os.PathLike[str],
    topics: Mapping[str, str],
    passages: Callable[[], Iterable[tuple[str, str]]],
    language: str,
    folder: str | os.PathLike[str],
    depth: int = 100,
) -> dict[str, list[str]]:
    """Find the passages to rerank, by query id, best first.

    Every process launched by Accelerate has to call this; the first one builds the index of BM25.

    Args:
        source (`str` or `Path`):
            `"bm25"`, or a TREC run file.
        topics (`Mapping[str, str]`):
            Queries by id.
        passages (`Callable`):
            Gives `(docid, text)` of the collection from its beginning at every call. Not called for a run file.
        language (`str`):
            Of queries and passages; decides BM25's analysis.
        folder (`str` or `Path`):
            Where BM25's index is made, or found; see [`bm25.BM25Index`].
        depth (`int`, *optional*, defaults to 100):
            Passages a query.

    Raises:
        ValueError: if `depth` is not positive, the run file is malformed or holds none of the queries, or the index in
            `folder` is of other passages or of another language.
    """
    check_count("depth", depth)
    if source == "bm25":
        with PartialState().main_process_first():
            index = _index(passages, language, Path(folder))
        run = index.search(topics, depth)
    else:
        run = read_run(source)
        if not run.keys() & topics.keys():
            raise ValueError(f"{source} holds results of none of the {len(topics)} queries.")
    return {qid: rank(found)[:depth] for qid, found in run.items() if qid in topics}


def _index(passages: Callable[[], Iterable[tuple[str, str]]], language: str, folder: Path) -> BM25Index:
    remove_abandoned(folder.parent)
    if not folder.exists():
        return BM25Index.build(passages(), language, folder)
    index = BM25Index(folder)
    # Only the process that comes first has to read the collection again.
    if PartialState().is_main_process and index.language != language:
        raise ValueError(f"{folder} holds an index of {index.language!r}, not of {language!r}: delete it.")
    if PartialState().is_main_process and index.passages != digest_passages(passages()):
        raise ValueError(f"{folder} holds an index of other passages: choose another folder, or delete this one.")
    return index

"""What a first stage found, to be reranked: BM25 of our own, or the TREC run of any system."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from accelerate import PartialState

from ..bounds import check_count
from ..data.languages import language_code
from ..data.trec_files import rank
from ..files import remove_abandoned
from ..metrics.miracl_ndcg.miracl_ndcg import read_run
from .bm25 import BM25Index, digest_passages

BM25 = ("bm25", "bm25-char4")


def first_stage(
    source: str | os.PathLike[str],
    topics: Mapping[str, str],
    passages: Callable[[], Iterable[tuple[str, str]]],
    language: str | None,
    folder: str | os.PathLike[str],
    depth: int = 100,
) -> dict[str, list[str]]:
    """Find the passages to rerank, by query id, best first.

    Every process launched by Accelerate has to call this; the first one builds the index of BM25.

    Args:
        source (`str` or `Path`):
            `"bm25"` over the words of a language, `"bm25-char4"` over character 4-grams across languages, or a TREC
            run file.
        topics (`Mapping[str, str]`):
            Queries by id.
        passages (`Callable`):
            Gives `(docid, text)` of the collection from its beginning at every call. Not called for a run file.
        language (`str`, *optional*):
            Of queries and passages, for `"bm25"`; decides its analysis.
        folder (`str` or `Path`):
            Where BM25's index is made, or found; see [`bm25.BM25Index`].
        depth (`int`, *optional*, defaults to 100):
            Passages a query.

    Raises:
        ValueError: if `depth` is not positive, the run file is malformed or holds none of the queries, or the index in
            `folder` is of other passages or of another language.
    """
    check_count("depth", depth)
    if source in BM25:
        if source == "bm25" and language is None:
            raise ValueError("bm25 needs the language that queries and passages share; bm25-char4 needs none.")
        index = bm25_index(passages, language if source == "bm25" else None, folder)
        run = index.search(topics, depth)
    else:
        run = read_run(source)
        if not run.keys() & topics.keys():
            raise ValueError(f"{source} holds results of none of the {len(topics)} queries.")
    return {qid: rank(found)[:depth] for qid, found in run.items() if qid in topics}


def bm25_index(
    passages: Callable[[], Iterable[tuple[str, str]]], language: str | None, folder: str | os.PathLike[str]
) -> BM25Index:
    """Build an index of BM25, or open the one in `folder` if it is of these passages and this language.

    Args:
        passages (`Callable`): as in [`first_stage`], as are the others.
        language (`str`, *optional*): as in [`BM25Index.build`].
        folder (`str` or `Path`): where it is made, or found.

    Raises:
        ValueError: if the index in `folder` is of other passages or another language.
    """
    folder = Path(folder)
    remove_abandoned(folder.parent)
    with PartialState().main_process_first():
        if not folder.exists():
            return BM25Index.build(passages(), language, folder)
        index = BM25Index(folder)
        # Only the process that comes first has to read the collection again.
        if PartialState().is_main_process:
            wanted = None if language is None else language_code(language)
            if index.language != wanted:
                terms = [
                    "character 4-grams" if code is None else f"words of {code!r}" for code in (index.language, wanted)
                ]
                raise ValueError(f"{folder} holds an index of {terms[0]}, not of {terms[1]}: delete it.")
            if index.passages != digest_passages(passages()):
                raise ValueError(
                    f"{folder} holds an index of other passages: choose another folder, or delete this one."
                )
        return index

"""Queries, passages and judgements that belong together."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .languages import language_code
from .trec_files import read_passages, read_qrels, read_topics

logger = logging.getLogger(__name__)


@dataclass
class RetrievalSet:
    """Queries, passages and judgements of one language pair.

    Args:
        name (`str`):
            What reports call it.
        topics (`dict[str, str]`):
            Queries by id.
        passages (`dict[str, str]`):
            Passages by document id.
        qrels (`dict[str, dict[str, int]]`):
            Relevances by query id and document id. A judged query that is not in `topics` still counts in the mean,
            as with `trec_eval -c`, and is warned of.
        query_language (`str`):
            Language of the queries, as [`languages.language_code`] reads it; kept as its code.
        document_language (`str`):
            Language of the passages, likewise.

    Raises:
        ValueError: if topics, passages or qrels are empty, or a language has no code.
    """

    name: str
    topics: dict[str, str]
    passages: dict[str, str]
    qrels: dict[str, dict[str, int]]
    query_language: str
    document_language: str

    def __post_init__(self) -> None:
        for part in ("topics", "passages", "qrels"):
            if not getattr(self, part):
                raise ValueError(f"Retrieval set {self.name!r}: its {part} are empty.")
        self.query_language = language_code(self.query_language)
        self.document_language = language_code(self.document_language)
        unknown = [qid for qid in self.qrels if qid not in self.topics]
        if unknown:
            logger.warning(
                "Retrieval set %r: %d of the %d judged queries are not among the topics (such as %r); each scores 0.",
                self.name,
                len(unknown),
                len(self.qrels),
                unknown[0],
            )
        relevant = [docid for judged in self.qrels.values() for docid, relevance in judged.items() if relevance > 0]
        lost = [docid for docid in relevant if docid not in self.passages]
        if lost:
            logger.warning(
                "Retrieval set %r: %d of the %d relevant judgements name a passage that is not there (such as %r).",
                self.name,
                len(lost),
                len(relevant),
                lost[0],
            )

    @classmethod
    def from_files(
        cls,
        topics: str | os.PathLike[str],
        passages: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        qrels: str | os.PathLike[str],
        *,
        query_language: str,
        document_language: str,
        name: str | None = None,
    ) -> RetrievalSet:
        """Read a retrieval set, such as MIRACL's files as they are.

        Args:
            topics (`str` or `Path`):
                `qid<TAB>text` lines.
            passages (`str`, `Path`, or a sequence of them):
                JSON lines, plain or `.gz`; see [`iter_passages`].
            qrels (`str` or `Path`):
                TREC qrels.
            query_language (`str`):
                Language of the queries.
            document_language (`str`):
                Language of the passages.
            name (`str`, *optional*):
                Defaults to the topics file's name without its ending.

        Raises:
            ValueError: naming file and line, if one of them is malformed or empty.
        """
        return cls(
            name=name or Path(topics).stem,
            topics=read_topics(topics),
            passages=read_passages(passages),
            qrels=read_qrels(qrels),
            query_language=query_language,
            document_language=document_language,
        )

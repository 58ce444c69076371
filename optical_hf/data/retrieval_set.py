"""Queries, passages and judgements that belong together."""

from __future__ import annotations

import logging
import os
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass
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
            as with `trec_eval -c`; it is warned of, as is a relevant passage that is not in `passages`.
        query_language (`str`):
            Language of the queries, as [`languages.language_code`] reads it; kept as its code.
        document_language (`str`):
            Language of the passages, likewise.
        strict (`bool`, *optional*, defaults to `False`):
            Refuse what is otherwise warned of.

    Raises:
        ValueError: if topics, passages or qrels are empty, no judged query or no judged passage is there, nothing is
            relevant, or a language has no code.
    """

    name: str
    topics: dict[str, str]
    passages: dict[str, str]
    qrels: dict[str, dict[str, int]]
    query_language: str
    document_language: str
    strict: InitVar[bool] = False

    def __post_init__(self, strict: bool) -> None:
        where = f"Retrieval set {self.name!r}: "
        for part in ("topics", "passages", "qrels"):
            if not getattr(self, part):
                raise ValueError(f"{where}its {part} are empty.")
        self.query_language = language_code(self.query_language)
        self.document_language = language_code(self.document_language)
        check_queries(self.qrels, self.topics, strict, where)
        check_judgements(self.qrels, self.passages, strict, where)

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
        strict: bool = False,
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
            strict (`bool`, *optional*, defaults to `False`):
                Refuse judgements of queries or passages that are not there, instead of warning of them.

        Raises:
            ValueError: naming file and line, if one of them is malformed or empty, and as [`RetrievalSet`].
        """
        return cls(
            name=name or Path(topics).stem,
            topics=read_topics(topics),
            passages=read_passages(passages),
            qrels=read_qrels(qrels),
            query_language=query_language,
            document_language=document_language,
            strict=strict,
        )


def relevant_docids(qrels: Mapping[str, Mapping[str, int]], where: str = "") -> list[str]:
    """List the document id of every judgement above 0: one that is not there makes scores lower without being seen.

    Args:
        qrels (`dict[str, dict[str, int]]`): relevances by query id and document id.
        where (`str`, *optional*): begins the error.

    Raises:
        ValueError: if no judgement is above 0, so that every score would be 0.
    """
    docids = [docid for judged in qrels.values() for docid, relevance in judged.items() if relevance > 0]
    if not docids:
        raise ValueError(f"{where}no judgement is above 0: nothing is relevant, and every score would be 0.")
    return docids


def check_queries(
    qrels: Mapping[str, Mapping[str, int]], topics: Container[str], strict: bool = False, where: str = ""
) -> int:
    """Count the judged queries that are not among the topics, as [`check_passages`] counts passages."""
    return _check(list(qrels), topics, "judged queries are not among the topics", strict, where)


def check_judgements(
    qrels: Mapping[str, Mapping[str, int]], collection: Container[str], strict: bool = False, where: str = ""
) -> int:
    """Count the relevant judgements that name a passage that is not in the collection, as [`check_passages`] does.

    While another judged passage is there, files belong together and are scored, if only by 0.

    Raises:
        ValueError: if none of the judged passages is there, nothing is relevant, or any relevant one is not there with
            `strict`.
    """
    others = (docid for judged in qrels.values() for docid in judged)
    return check_passages("relevant judgements", relevant_docids(qrels, where), collection, strict, where, others)


def check_passages(
    what: str,
    docids: Sequence[str],
    collection: Container[str],
    strict: bool = False,
    where: str = "",
    others: Iterable[str] = (),
) -> int:
    """Count the document ids that are named and not in the collection, and warn of them.

    Args:
        what (`str`): what names them, such as `"candidates"`.
        docids (`Sequence[str]`): every document id, as often as it is named.
        collection (container of `str`): the document ids that are there.
        strict (`bool`, *optional*, defaults to `False`): refuse them instead.
        where (`str`, *optional*): begins warning and error.
        others (`Iterable[str]`, *optional*): what the same file names beside them.

    Returns:
        `int`: how many are not there.

    Raises:
        ValueError: naming the first that is not there, if none is there and none of `others`, or any is not with
            `strict`.
    """
    return _check(docids, collection, f"{what} name a passage that is not there", strict, where, others)


def _check(
    ids: Sequence[str], there: Container[str], what: str, strict: bool, where: str, others: Iterable[str] = ()
) -> int:
    lost = [name for name in ids if name not in there]
    if not lost:
        return 0
    message = f"{where}{len(lost)} of the {len(ids)} {what} (such as {lost[0]!r})"
    if len(lost) == len(ids) and not any(name in there for name in others):
        raise ValueError(f"{message}: do these files belong together?")
    if strict:
        raise ValueError(f"{message}, which `strict` refuses.")
    logger.warning("%s.", message)
    return len(lost)

"""The evaluation sets of a study: questions in several languages, their judgements, and where the passages are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.bitext_readers import find_source
from ..data.trec_files import iter_passages, read_passages, read_qrels, read_topics
from .config_file import FileErrors, as_list, check_keys, expand, positive

logger = logging.getLogger(__name__)

Qrels = dict[str, dict[str, int]]
SET_KEYS = ("passages", "topics", "english_topics", "qrels", "max_queries", "parallel", "same_language")


@dataclass(frozen=True)
class Questions:
    """The judged questions of one language.

    Args:
        topics (`dict[str, str]`): by query id.
        qrels (`dict[str, dict[str, int]]`): of these. A judged question that is no topic is here too, and scores 0.
        english (`dict[str, str]`, *optional*): the same questions in English.
    """

    topics: dict[str, str]
    qrels: Qrels
    english: dict[str, str] | None = None


@dataclass(frozen=True)
class EvaluationSet:
    """Questions and passages in several languages.

    Args:
        name (`str`): its key in the study's file.
        passages (`dict[str, list[Path]]`): JSON lines, by language.
        questions (`dict[str, Questions]`): by language.
        parallel (`bool`): whether the passages are the same, by docid, in every language.
        same_language (`bool`): whether questions are asked of the passages of their own language only.
        max_queries (`int`, *optional*): how many questions of a language were taken.
    """

    name: str
    passages: dict[str, list[Path]]
    questions: dict[str, Questions]
    parallel: bool = False
    same_language: bool = False
    max_queries: int | None = None

    def document_languages(self, language: str) -> list[str]:
        """The languages whose passages are searched with the questions of a language."""
        return [language] if self.same_language else list(self.passages)

    @property
    def protocol(self) -> str:
        """What a figure of this set has to be labelled with."""
        what = "passages of the question's own language" if self.same_language else "passages of each language"
        first = f"the first {self.max_queries}" if self.max_queries else "all"
        return f"{first} judged questions of each language, searched exactly among all {what}"


def read_set(name: str, given: Any, path: Path) -> EvaluationSet:
    """Read an evaluation set as the study's file has it: all of its questions, and the first of its passages.

    Raises:
        ValueError, FileNotFoundError: naming the file, the key, and what is wrong.
    """
    error, where = FileErrors(path), f"evaluation.{name}"
    check_keys(error.mapping(where, given), SET_KEYS, error, where)
    for key in ("passages", "topics", "qrels"):
        if not given.get(key):
            raise error(f"{where}.{key}", "is missing or empty.")
    for key in ("parallel", "same_language"):
        if not isinstance(given.get(key, False), bool):
            raise error(f"{where}.{key}", f"{given[key]!r} is neither true nor false.")
    most = given.get("max_queries")
    if most is not None:
        positive(most, f"{where}.max_queries", error)
    passages = _by_language(given["passages"], f"{where}.passages", error, _check_passages)
    topics = _by_language(given["topics"], f"{where}.topics", error, _join_topics)
    english = _by_language(given.get("english_topics") or {}, f"{where}.english_topics", error, _join_topics)
    if isinstance(given["qrels"], dict):
        qrels = _by_language(given["qrels"], f"{where}.qrels", error, _join_qrels)
    else:
        shared = _read(given["qrels"], f"{where}.qrels", error, _join_qrels)
        qrels = dict.fromkeys(topics, shared)
    same_language = given.get("same_language", False)
    for key, languages in (("qrels", topics.keys() - qrels), ("topics", (qrels.keys() | english) - topics.keys())):
        if languages:
            raise error(f"{where}.{key}", f"'{min(languages)}' is missing: topics and qrels go together.")
    if same_language and (without := sorted(topics.keys() - passages.keys())):
        raise error(f"{where}.passages", f"'{without[0]}' is missing, and same_language is true.")
    if given.get("parallel") and (same_language or len(passages) < 2):
        raise error(f"{where}.parallel", "needs passages in two languages at least, and no same_language.")
    in_english = {} if same_language else topics.get("en", {})
    questions = {
        language: _questions(topics, qrels[language], english.get(language), in_english, most, language, where, error)
        for language in topics
    }
    if given.get("parallel"):
        _check_parallel(passages, questions, where, error)
    return EvaluationSet(name, passages, questions, bool(given.get("parallel")), same_language, most)


def _check_parallel(
    passages: Mapping[str, list[Path]], questions: Mapping[str, Questions], where: str, error: FileErrors
) -> None:
    # What the language bias asks for; better now than after the first arm.
    docids = {language: set(read_passages(paths)) for language, paths in passages.items()}
    (first, expected), *others = docids.items()
    for language, found in others:
        if odd := expected ^ found:
            what = f"'{first}' and '{language}' differ in the passage {min(odd)!r}; the set is called parallel."
            raise error(f"{where}.passages.{language}", what)
    for language, asked in questions.items():
        for qid, judged in asked.qrels.items():
            relevant = {docid for docid, relevance in judged.items() if relevance > 0}
            if qid not in asked.topics or not relevant or not relevant <= expected:
                what = (
                    "is no topic" if qid not in asked.topics else "has no relevant passage, or one that is not there"
                )
                raise error(f"{where}.qrels", f"question {qid!r} in '{language}' {what}; the set is called parallel.")


def _questions(
    all_topics: Mapping[str, Mapping[str, str]],
    qrels: Qrels,
    english: Mapping[str, str] | None,
    in_english: Mapping[str, str],
    most: int | None,
    language: str,
    where: str,
    error: FileErrors,
) -> Questions:
    topics = all_topics[language]
    judged = [qid for qid in topics if qid in qrels][:most]
    if not judged:
        raise error(f"{where}.topics.{language}", "the set is empty: none of its questions is in its qrels.")
    # A judged question that is no topic counts, as with `trec_eval -c`; one cut off by max_queries does not.
    # One file of qrels may hold the questions of other languages too.
    known = set().union(*all_topics.values())
    lost = [qid for qid in qrels if qid not in known]
    if lost:
        logger.warning("%s.qrels: %d judged questions are no topics (such as %r); 0 each.", where, len(lost), lost[0])
    if english is not None and (missing := [qid for qid in judged if qid not in english]):
        raise error(f"{where}.english_topics.{language}", f"lacks {len(missing)} questions, such as {missing[0]!r}.")
    if english is None and all(qid in in_english for qid in judged):
        english = in_english
    return Questions(
        {qid: topics[qid] for qid in judged},
        {qid: qrels[qid] for qid in (*judged, *lost)},
        None if english is None else {qid: english[qid] for qid in judged},
    )


def _by_language(given: Any, where: str, error: FileErrors, read: Callable[[list[Path]], Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, names in error.mapping(where, given).items():
        if (code := error.language(f"{where}.{key}", key)) in found:
            raise error(f"{where}.{key}", f"'{code}' is there twice.")
        found[code] = _read(names, f"{where}.{key}", error, read)
    return found


def _read(names: Any, where: str, error: FileErrors, read: Callable[[list[Path]], Any]) -> Any:
    names = as_list(names)
    if not names or not all(isinstance(name, str) for name in names):
        raise error(where, f"{names!r} is no path, nor a list of paths.")
    paths = [expand(name, error.path) for name in names]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(str(error(where, f"there is no file {path}.")))
    try:
        return read(paths)
    except ValueError as wrong:
        raise error(where, str(wrong)) from wrong


def _check_passages(paths: list[Path]) -> list[Path]:
    for path in paths:
        next(iter_passages(path))
    return paths


def _join_topics(paths: list[Path]) -> dict[str, str]:
    return _join((path, read_topics(path)) for path in paths)


def _join_qrels(paths: list[Path]) -> Qrels:
    return _join((path, read_qrels(path)) for path in paths)


def _join(parts: Iterable[tuple[Path, dict[str, Any]]]) -> dict[str, Any]:
    joined: dict[str, Any] = {}
    for path, part in parts:
        if twice := joined.keys() & part.keys():
            raise ValueError(f"{path}: query id {min(twice)!r} is in an earlier file too.")
        joined |= part
    return joined


def find_bitext(name: Any, language: str, path: Path, where: str) -> str:
    """Return a source for [`load_bitext`], relative to the study's file if it is there, else of the Hub.

    Raises:
        ValueError, FileNotFoundError: naming the file and the key.
    """
    error = FileErrors(path)
    if not isinstance(name, str):
        raise error(where, f"{name!r} is no source of bitext.")
    here = ",".join(str(expand(part.strip(), path)) for part in name.split(","))
    try:
        find_source(here, language)
        return here
    except FileNotFoundError as missing:
        try:
            on_hub = not Path(name).exists() and find_source(name, language).kind == "dataset"
        except FileNotFoundError:
            on_hub = False
        if not on_hub:
            raise FileNotFoundError(str(error(where, str(missing)))) from None
        return name
    except ValueError as wrong:
        raise error(where, str(wrong)) from wrong

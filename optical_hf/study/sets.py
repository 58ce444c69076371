"""The evaluation sets of a study: questions in several languages, their judgements, and where the passages are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.bitext_readers import find_source
from ..data.retrieval_set import check_judgements
from ..data.trec_files import iter_passages, read_qrels, read_topics
from .config_file import FileErrors, as_list

logger = logging.getLogger(__name__)

Qrels = dict[str, dict[str, int]]
FILE_KEYS = ("passages", "topics", "english_topics", "qrels")
SET_KEYS = (*FILE_KEYS, "max_queries", "parallel", "same_language")


@dataclass(frozen=True)
class JudgedQuestions:
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
        files (`dict[str, Path]`): all that it was read from, by the names in the study's file.
        passages (`dict[str, list[Path]]`): JSON lines, by language.
        questions (`dict[str, JudgedQuestions]`): by language.
        parallel (`bool`): whether the passages are the same, by docid, in every language.
        same_language (`bool`): whether questions are asked of the passages of their own language only.
        max_queries (`int`, *optional*): how many questions of a language were taken.
    """

    name: str
    files: dict[str, Path]
    passages: dict[str, list[Path]]
    questions: dict[str, JudgedQuestions]
    parallel: bool = False
    same_language: bool = False
    max_queries: int | None = None

    def document_languages(self, language: str) -> list[str]:
        """The languages whose passages are searched with the questions of a language."""
        return [language] if self.same_language else list(self.passages)

    @property
    def protocol(self) -> str:
        """What was searched with which questions; every score of this set has to be labelled with it."""
        what = "passages of the question's own language" if self.same_language else "passages of each language"
        first = f"the first {self.max_queries}" if self.max_queries else "all"
        return f"{first} judged questions of each language, searched exactly among all {what}"


def read_set(name: str, given: Any, error: FileErrors) -> EvaluationSet:
    """Read an evaluation set as the study's file has it: all of its questions, and the ids of its passages.

    Args:
        name (`str`): its key under `evaluation`.
        given: what stands there.
        error ([`FileErrors`]): names the file.

    Raises:
        ValueError, FileNotFoundError: naming the file, the key, and what is wrong. Relevant passages that are in no
            file are counted and warned of; if no judged passage is in one, it is an error.
    """
    where = error.name("evaluation", name, ("arm", "training"))
    error.mapping(where, given, SET_KEYS)
    for key in ("passages", "topics", "qrels"):
        if not given.get(key):
            raise error(f"{where}.{key}", "is missing or empty.")
    parallel, same_language = (
        error.boolean(f"{where}.{key}", given.get(key, False)) for key in ("parallel", "same_language")
    )
    max_queries = given.get("max_queries")
    if max_queries is not None:
        error.count(f"{where}.max_queries", max_queries)
    passages: dict[str, list[Path]] = {}
    docids: dict[str, set[str]] = {}
    for language, key, names in error.languages(f"{where}.passages", given["passages"]):
        passages[language] = _paths(names, key, error)
        docids[language] = _docids(passages[language], key, error)
    topics, english = (
        {
            language: _read(files, key, error, read_topics)
            for language, key, files in error.languages(f"{where}.{part}", given.get(part) or {})
        }
        for part in ("topics", "english_topics")
    )
    if isinstance(given["qrels"], dict):
        qrels = {
            language: _read(files, key, error, read_qrels)
            for language, key, files in error.languages(f"{where}.qrels", given["qrels"])
        }
    else:
        qrels = dict.fromkeys(topics, _read(given["qrels"], f"{where}.qrels", error, read_qrels))
    for key, languages in (("qrels", topics.keys() - qrels), ("topics", (qrels.keys() | english) - topics.keys())):
        if languages:
            raise error(f"{where}.{key}", f"'{min(languages)}' is missing: topics and qrels need the same languages.")
    if same_language and (without := sorted(topics.keys() - passages.keys())):
        raise error(f"{where}.passages", f"'{without[0]}' is missing, and same_language is true.")
    if parallel and (same_language or len(passages) < 2):
        raise error(f"{where}.parallel", "needs passages in two languages or more, and same_language left out.")
    in_english = {} if same_language else topics.get("en", {})
    questions = _select(topics, qrels, english, in_english, max_queries, where, error)
    if parallel:
        _check_parallel(docids, questions, where, error)
    everywhere = set().union(*docids.values())
    for language, asked in questions.items():
        there = docids[language] if same_language else everywhere
        check_judgements(asked.qrels, there, where=f"{error.path}: {where}.qrels, '{language}': ")
    parts = [given.get(part) or {} for part in FILE_KEYS]
    lists = [as_list(names) for part in parts for names in (part.values() if isinstance(part, dict) else [part])]
    files = {name: error.expand(name) for names in lists for name in names}
    return EvaluationSet(name, files, passages, questions, parallel, same_language, max_queries)


def _select(
    topics: Mapping[str, dict[str, str]],
    qrels: Mapping[str, Qrels],
    english: Mapping[str, dict[str, str]],
    in_english: dict[str, str],
    max_queries: int | None,
    where: str,
    error: FileErrors,
) -> dict[str, JudgedQuestions]:
    # A judged question that is no topic counts, as with `trec_eval -c`; one cut off by max_queries does not.
    # One file of qrels may hold the questions of other languages too.
    known = set().union(*topics.values())
    lost = {language: [qid for qid in judged if qid not in known] for language, judged in qrels.items()}
    if names := sorted(set().union(*lost.values())):
        logger.warning(
            "%s.qrels: %d judged questions are in no file of topics, such as %r. Each scores 0.",
            where,
            len(names),
            names[0],
        )
    questions = {}
    for language, texts in topics.items():
        judged = [qid for qid in texts if qid in qrels[language]][:max_queries]
        if not judged:
            raise error(f"{where}.topics.{language}", "the set is empty: none of its questions is in its qrels.")
        translated = english.get(language)
        if translated is not None and (missing := [qid for qid in judged if qid not in translated]):
            what = f"lacks {len(missing)} questions, such as {missing[0]!r}."
            raise error(f"{where}.english_topics.{language}", what)
        if translated is None and all(qid in in_english for qid in judged):
            translated = in_english
        questions[language] = JudgedQuestions(
            {qid: texts[qid] for qid in judged},
            {qid: qrels[language][qid] for qid in (*judged, *lost[language])},
            None if translated is None else {qid: translated[qid] for qid in judged},
        )
    return questions


def _check_parallel(
    docids: Mapping[str, set[str]], questions: Mapping[str, JudgedQuestions], where: str, error: FileErrors
) -> None:
    # What the language bias asks for; better now than after the first arm.
    (first, expected), *others = docids.items()
    for language, own in others:
        if odd := expected ^ own:
            what = f"only one of '{first}' and '{language}' has the passage {min(odd)!r}, but `parallel` is true."
            raise error(f"{where}.passages.{language}", what)
    for language, asked in questions.items():
        for qid, judged in asked.qrels.items():
            relevant = {docid for docid, relevance in judged.items() if relevance > 0}
            if qid not in asked.topics:
                what = "is in no file of topics"
            elif not relevant:
                what = "has no relevant passage"
            elif not relevant <= expected:
                what = f"has the relevant passage {min(relevant - expected)!r}, which is in no file of passages"
            else:
                continue
            raise error(f"{where}.qrels", f"question {qid!r} in '{language}' {what}, but `parallel` is true.")


def _paths(names: Any, key: str, error: FileErrors) -> list[Path]:
    names = as_list(names)
    if not names or not all(isinstance(name, str) for name in names):
        raise error(key, f"{names!r} is not a path, nor a list of paths.")
    paths = [error.expand(name) for name in names]
    for path in paths:
        if not path.is_file():
            raise error.missing(key, f"there is no file {path}.")
    return paths


def _docids(paths: list[Path], key: str, error: FileErrors) -> set[str]:
    try:
        return {docid for docid, _ in iter_passages(paths)}
    except ValueError as wrong:
        raise error(key, str(wrong)) from wrong


def _read(names: Any, key: str, error: FileErrors, read: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    joined: dict[str, Any] = {}
    for path in _paths(names, key, error):
        try:
            part = read(path)
        except ValueError as wrong:
            raise error(key, str(wrong)) from wrong
        if twice := joined.keys() & part.keys():
            raise error(key, f"{path}: query id {min(twice)!r} is in an earlier file too.")
        joined |= part
    return joined


def find_bitext(name: Any, language: str, key: str, error: FileErrors) -> str:
    """Return a source for [`load_bitext`], relative to the study's file if it is there, else of the Hub.

    Args:
        name: what stands in the file.
        language (`str`): of the translations.
        key (`str`): where it stands.
        error ([`FileErrors`]): names the file.

    Raises:
        ValueError, FileNotFoundError: naming the file and the key.
    """
    if not isinstance(name, str):
        raise error(key, f"{name!r} is not a source of bitext: write a path, or the name of a dataset on the Hub.")
    here = ",".join(str(error.expand(part.strip())) for part in name.split(","))
    try:
        find_source(here, language)
    except FileNotFoundError as missing:
        with suppress(FileNotFoundError):
            if not Path(name).exists() and find_source(name, language).kind == "dataset":
                return name
        raise error.missing(key, str(missing)) from None
    except ValueError as wrong:
        raise error(key, str(wrong)) from wrong
    return here

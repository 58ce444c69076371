"""What a distillation gained, by language: the student beside zero-shot and the questions in English."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

from ..bounds import check_count
from ..data.languages import language_code
from ..data.retrieval_set import RetrievalSet
from ..data.trec_files import read_passages, read_qrels, read_topics
from ..metrics import NDCG

Measure = Callable[[RetrievalSet], dict[str, float]]


@dataclass
class LanguageQuestions:
    """Questions of one language on English passages, and the same questions in English if there are any."""

    language: str
    seen: bool
    own: RetrievalSet
    english: RetrievalSet | None


def parse_language_arguments(option: str, arguments: Sequence[str]) -> dict[str, str]:
    """Parse `["yo=topics.yo.tsv", ...]`, one path a language, naming what is wrong with any other form."""
    paths: dict[str, str] = {}
    for argument in arguments:
        language, equals, path = argument.partition("=")
        if not equals or not path:
            raise ValueError(f"--{option} {argument}: write language=path, such as 'yo=topics.yo.tsv'.")
        code = language_code(language)
        if code in paths:
            raise ValueError(f"--{option} {argument}: {code!r} is there twice.")
        paths[code] = path
    return paths


def load_questions(
    passages: str | None,
    topics: Mapping[str, str],
    qrels: Mapping[str, str],
    english_topics: Mapping[str, str],
    seen: Sequence[str],
    max_queries: int | None = None,
    strict: bool = False,
) -> list[LanguageQuestions]:
    """Read the questions of several languages on one collection of English passages.

    Args:
        passages (`str`, *optional*): JSON lines; needed if there are topics.
        topics, qrels, english_topics (`Mapping[str, str]`): files by language; the last need not have them all.
        seen (`Sequence[str]`): the languages that are in the bitext.
        max_queries (`int`, *optional*): keeps the first of each language only.
        strict (`bool`, *optional*, defaults to `False`):
            Refuse judged questions and relevant passages that are not there, instead of warning of them.

    Raises:
        ValueError: if a language has topics without qrels or the reverse, or there are no passages; if `max_queries`
            is not positive; and as [`RetrievalSet`].
    """
    if max_queries is not None:
        check_count("--max_queries", max_queries)
    if topics.keys() != qrels.keys() or english_topics.keys() - topics.keys():
        raise ValueError(
            f"Every language needs --topics and --qrels: topics are given for {sorted(topics)}, qrels for "
            f"{sorted(qrels)}, English topics for {sorted(english_topics)}."
        )
    if topics and passages is None:
        raise ValueError("--topics needs --passages: the passages to search.")
    corpus = read_passages(passages) if topics and passages else {}

    questions = []
    for language, path in topics.items():
        own = read_topics(path)
        qids = list(own)[: max_queries or None]
        cut = own.keys() - set(qids)
        # A judged question that is in no file of topics still counts, as with `trec_eval -c`.
        judged = {qid: documents for qid, documents in read_qrels(qrels[language]).items() if qid not in cut}
        asked = RetrievalSet(language, {qid: own[qid] for qid in qids}, corpus, judged, language, "en", strict)
        english = None
        if language in english_topics:
            texts = read_topics(english_topics[language])
            if missing := [qid for qid in own if qid not in texts]:
                raise ValueError(
                    f"{english_topics[language]} lacks {len(missing)} of the questions of {path}, such as "
                    f"{missing[0]!r}."
                )
            english = copy(asked)  # its judgements are the same, and have been warned of
            english.name, english.query_language = f"{language}_in_english", "en"
            english.topics = {qid: texts[qid] for qid in qids}
        questions.append(LanguageQuestions(language, language in seen, asked, english))
    return questions


def format_table(languages: Mapping[str, Mapping[str, Any]]) -> str:
    """Lay out the `languages` of `results.json` as a table: nDCG@10 of MaxSim and, after the slash, of pooled vectors.

    Seen and unseen languages are two groups, each with its mean. `closed` is how much of the gap between zero-shot and
    the questions in English the student closed, by MaxSim.
    """
    columns = ("zero_shot", "student", "english")
    rows: list[tuple[str, ...]] = [("", "queries", "zero-shot", "student", "English", "closed")]
    for title, seen in (("seen in distillation", True), ("never seen", False)):
        group = {language: row for language, row in languages.items() if row["seen"] is seen}
        if not group:
            continue
        rows.append((title, "", "", "", "", ""))
        if len(group) > 1:
            mean: dict[str, Any] = {"queries": sum(row["queries"] for row in group.values())}
            for column in columns:
                if all(column in row for row in group.values()):
                    names = next(iter(group.values()))[column]
                    mean[column] = {
                        name: sum(row[column][name] for row in group.values()) / len(group) for name in names
                    }
            group |= {"mean": mean}
        for language, row in group.items():
            cells = [f"{row[c][NDCG]:.3f} / {row[c][f'pooled_{NDCG}']:.3f}" if c in row else "-" for c in columns]
            rows.append((f"  {language}", str(row["queries"]), *cells, _closed(row)))
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    title = "nDCG@10, MaxSim / pooled; closed: the gain as a share of the gap to English"
    return "\n".join([title, *lines])


def _closed(row: Mapping[str, Any]) -> str:
    if "english" not in row or row["english"][NDCG] <= row["zero_shot"][NDCG]:
        return "-"
    gain = row["student"][NDCG] - row["zero_shot"][NDCG]
    return f"{gain / (row['english'][NDCG] - row['zero_shot'][NDCG]):+.0%}"

"""What is judged of queries: graded judgements of TREC and BEIR, and MS MARCO's triples of ids."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from .malformed_lines import MalformedLines
from .text_files import numbered_lines
from .training_row_checks import RowTally

JUDGEMENTS = (
    "a line is TREC's 'qid 0 docid grade', BEIR's 'query-id corpus-id score' under such a header, MS MARCO's triple "
    "'qid pid nid', or 'pos_score neg_score qid pid nid'"
)


@dataclass
class Judged:
    """What is judged for a query: by positive, its line and score; its negatives and their scores, for `""` those of
    all positives."""

    positives: dict[str, tuple[int, float | None]] = field(default_factory=dict)
    negatives: dict[str, dict[str, float | None]] = field(default_factory=dict)


def add_grade(judged: Judged, docid: str, grade: int, number: int, min_grade: int) -> None:
    """Note a document's grade, judged in the line `number`: positive from `min_grade` on, negative from 0 down."""
    if grade >= min_grade:
        judged.positives[docid] = number, None
    elif grade <= 0:
        judged.negatives.setdefault("", {})[docid] = None


def read_judgements(
    path: str,
    topics: Mapping[str, str],
    tally: RowTally,
    malformed: MalformedLines,
    min_grade: int,
    max_rows: int | None,
    max_negatives: int | None,
) -> dict[str, Judged]:
    """Read what is judged of the topics.

    Args:
        path (`str`): graded judgements or triples, as `JUDGEMENTS` says.
        topics (`Mapping[str, str]`): queries by id.
        tally ([`RowTally`]): counts judged queries that are no topics.
        malformed ([`MalformedLines`]): notes the lines that cannot be read.
        min_grade (`int`): the least grade of a positive; those of 0 or less are negatives.
        max_rows (`int`, *optional*): after so many positives, only what belongs to the queries or, in triples, to the
            positives before is read.
        max_negatives (`int`, *optional*): how many negatives of a triple's positive are kept, the first.

    Returns:
        `dict[str, Judged]`: by query id.

    Raises:
        ValueError: if the first line is of no known form, or there is none.
    """
    judged: dict[str, Judged] = {}
    unknown: set[str] = set()
    rows = full = width = 0
    header = False
    for number, line in numbered_lines(path):
        columns = line.split()
        if not width:
            width, header = len(columns), columns[0].lower() in ("query-id", "query_id", "qid")
            if width not in (3, 4, 5) or (width == 5 and not _is_number(columns[0])):
                raise ValueError(f"{path}, line {number}: {reprlib.repr(line)} is no judgement; {JUDGEMENTS}.")
            if header:
                continue
        if len(columns) != width:
            malformed.add(f"{path}:{number}", f"{len(columns)} columns, where the first line has {width}")
            continue
        qid = columns[2 if width == 5 else 0]
        if qid not in topics:
            if qid not in unknown:
                tally.drop("missing", f"{path}:{number}", f"the query {qid!r} is not among the topics")
            unknown.add(qid)
            continue
        each = judged.get(qid, Judged())
        begun = len(each.positives)
        is_full = max_rows is not None and rows >= max_rows
        try:
            if width == 4 or header:
                if is_full and qid not in judged:
                    continue
                _add_judgement(each, columns[-2], columns[-1], number, min_grade)
            else:
                positive = columns[-2]
                if is_full and full == rows:
                    break
                if is_full and positive not in each.positives:
                    continue
                full += _add_triple(each, positive, columns, number, max_negatives, tally)
        except ValueError as error:
            malformed.add(f"{path}:{number}", str(error))
            continue
        judged[qid] = each
        rows += len(each.positives) - begun
    if not width:
        raise ValueError(f"{path} is empty: {JUDGEMENTS}.")
    return judged


def _add_judgement(judged: Judged, docid: str, grade: str, number: int, min_grade: int) -> None:
    if docid in judged.positives or docid in judged.negatives.get("", ()):
        raise ValueError(f"the document {docid!r} is judged twice for the query")
    try:
        value = int(grade)
    except ValueError:
        raise ValueError(f"the grade {grade!r} is not a whole number") from None
    add_grade(judged, docid, value, number, min_grade)


def _add_triple(
    judged: Judged, positive: str, columns: list[str], number: int, most: int | None, tally: RowTally
) -> bool:
    """Add a triple, and tell whether its positive has all of its negatives by it."""
    scores: list[float | None] = [None, None]
    if len(columns) == 5:
        for side, score in enumerate(columns[:2]):
            if not _is_number(score):
                raise ValueError(f"the score {score!r} is not a finite number")
            scores[side] = float(score)
    if judged.positives.setdefault(positive, (number, scores[0]))[1] != scores[0]:
        raise ValueError(f"the positive {positive!r} has another score than in line {judged.positives[positive][0]}")
    negatives = judged.negatives.setdefault(positive, {})
    if columns[-1] in negatives:
        tally.counts["duplicate_negatives"] += 1
        return False
    if most is not None and len(negatives) >= most:
        return False
    negatives[columns[-1]] = scores[1]
    return len(negatives) == most


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False

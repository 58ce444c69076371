"""What a training row is made of, what is dropped of it, and the count of both."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

from .characters import normalized, visible

ROW_REASONS = ("empty", "without_positive", "missing", "duplicate")
NEGATIVE_REASONS = ("positive_negatives", "empty_negatives", "missing_negatives", "duplicate_negatives")
_MOST_NAMED = 20


class Passage(NamedTuple):
    """A passage of a row: its id, its text (`None` if it is in no collection), and a teacher's score of it."""

    docid: str
    text: str | None
    score: float | None = None


class Record(NamedTuple):
    """What a source says of a query: one training row for each of the positives.

    Args:
        place (`str`): file and line.
        query (`str`): its text.
        positives (`Sequence[Passage]`): the passages that answer it.
        negatives (`Sequence[Passage]`): those that do not.
        known (`Sequence[Passage]`): other positives of it, which get no row here; perhaps without a text.
        scored_by (`str`, *optional*): fingerprint of the model of the scores.
    """

    place: str
    query: str
    positives: Sequence[Passage]
    negatives: Sequence[Passage]
    known: Sequence[Passage] = ()
    scored_by: str | None = None


def text_id(text: str) -> str:
    """Name a passage that has no docid by a hash of its text, in normal form and with single spaces.

    Example:

        >>> text_id("It rains.") == text_id(" It  rains.\\u200b")
        True
    """
    plain = " ".join(normalized("NFC", visible(text)).split())
    return blake2b(plain.encode(), digest_size=8).hexdigest()


def is_empty(text: str) -> bool:
    """Tell whether a text has nothing that can be seen."""
    return not visible(text).strip()


@dataclass
class RowTally:
    """Counts what is kept and dropped of one language pair; at most 20 of what is dropped are named.

    Args:
        counts (`dict[str, int]`): `kept` rows and their `negatives`, and what was dropped by reason.
    """

    counts: dict[str, int] = field(default_factory=dict)
    named: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin to count anew."""
        self.counts.update(dict.fromkeys(("kept", "negatives", *ROW_REASONS, *NEGATIVE_REASONS), 0))
        self.named.clear()

    def drop(self, reason: str, place: str, what: str) -> None:
        """Count a row or a negative that is dropped.

        Args:
            reason (`str`): one of `ROW_REASONS` or `NEGATIVE_REASONS`.
            place (`str`): file and line.
            what (`str`): what is wrong there.
        """
        self.counts[reason] += 1
        if len(self.named) < _MOST_NAMED:
            self.named.append(f"{place}: {what}")

    def __deepcopy__(self, memo: dict[int, Any]) -> RowTally:
        # `datasets` copies the arguments of a stream's generator; the caller's counts must stay the ones counted into.
        return self


class RowChecks:
    """Makes the rows of one language pair from the records of its sources.

    Args:
        query_language, document_language (`str`): codes of the pair.
        tally ([`RowTally`]): counts.
        max_negatives (`int`, *optional*): negatives of a row; of more, so many are chosen by chance.
        seed (`int`): of that choice, which is the same for a row wherever it stands.
    """

    def __init__(
        self, query_language: str, document_language: str, tally: RowTally, max_negatives: int | None, seed: int
    ) -> None:
        self.languages = {"query_language": query_language, "document_language": document_language}
        self.tally, self.max_negatives, self.seed = tally, max_negatives, seed
        self._seen: set[bytes] = set()

    def rows(self, record: Record, max_rows: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield a record's rows, until `max_rows` are counted, and count what is dropped of it."""
        drop = self.tally.drop
        if is_empty(record.query):
            return drop("empty", record.place, "the query is empty")
        if not record.positives:
            return drop("without_positive", record.place, "no positive passage")
        every = [*record.known, *record.positives]
        docids = list(dict.fromkeys(passage.docid for passage in every))
        texts = {text_id(passage.text) for passage in every if passage.text is not None}
        negatives = list(self._negatives(record, texts.union(docids)))
        for positive in record.positives:
            if positive.text is None:
                drop("missing", record.place, f"the positive {positive.docid!r} is not in the collection")
            elif is_empty(positive.text):
                drop("empty", record.place, f"the positive {positive.docid!r} is empty")
            elif self._is_known(record.query, positive.text):
                drop("duplicate", record.place, "query and positive are there before")
            elif self.tally.counts["kept"] != max_rows:
                passages = [positive, *self._chosen(negatives, f"{self.seed} {record.query} {positive.docid}")]
                self.tally.counts["kept"] += 1
                self.tally.counts["negatives"] += len(passages) - 1
                yield {
                    "query": record.query,
                    **self.languages,
                    "passages": [passage.text for passage in passages],
                    "scores": None if positive.score is None else [passage.score for passage in passages],
                    "positives": docids,
                    "docids": [passage.docid for passage in passages],
                }

    def _negatives(self, record: Record, positives: set[str]) -> Iterator[Passage]:
        drop, names = self.tally.drop, set[str]()
        for negative in record.negatives:
            what = f"the negative {negative.docid!r}"
            if negative.docid in positives:
                drop("positive_negatives", record.place, f"{what} is a positive of the same query")
            elif negative.text is None:
                drop("missing_negatives", record.place, f"{what} is not in the collection")
            elif is_empty(negative.text):
                drop("empty_negatives", record.place, f"{what} is empty")
            elif (name := text_id(negative.text)) in positives:
                drop("positive_negatives", record.place, f"{what} has the text of a positive of the same query")
            elif name in names or negative.docid in names:
                drop("duplicate_negatives", record.place, f"{what} is there twice")
            else:
                names |= {name, negative.docid}
                yield negative

    def _chosen(self, negatives: list[Passage], seed: str) -> list[Passage]:
        if self.max_negatives is None or len(negatives) <= self.max_negatives:
            return negatives
        chosen = sorted(random.Random(seed).sample(range(len(negatives)), self.max_negatives))
        return [negatives[index] for index in chosen]

    def _is_known(self, query: str, positive: str) -> bool:
        key = blake2b(f"{text_id(query)} {text_id(positive)}".encode(), digest_size=8).digest()
        known = key in self._seen
        self._seen.add(key)
        return known


class KnownPositives:
    """The positives of every query over all records of a language pair: another record's may be a row's negative."""

    def __init__(self) -> None:
        self._docids: dict[str, dict[str, None]] = {}
        self._texts: dict[str, set[str]] = {}
        self.several = False

    def noted(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield rows as they are, and note their positives; `several` tells whether two rows differ in theirs."""
        for row in rows:
            query = text_id(row["query"])
            docids = self._docids.setdefault(query, dict.fromkeys(row["positives"]))
            self.several |= list(docids) != row["positives"]
            docids.update(dict.fromkeys(row["positives"]))
            self._texts.setdefault(query, set()).add(text_id(row["passages"][0]))
            yield row

    def completed(self, row: dict[str, Any], tally: RowTally) -> dict[str, Any]:
        """Return a row with all positives of its query, and without them among its negatives."""
        query = text_id(row["query"])
        docids, texts = self._docids[query], self._texts[query]
        kept = [0]
        for index, (docid, text) in enumerate(zip(row["docids"], row["passages"], strict=True)):
            if index and (docid in docids or text_id(text) in texts):
                tally.counts["negatives"] -= 1
                place = f"the query {row['query']!r}"
                tally.drop("positive_negatives", place, f"the negative {docid!r} is a positive of it in another row")
            elif index:
                kept.append(index)
        lists = {name: [row[name][index] for index in kept] for name in ("passages", "docids")}
        scores = None if row["scores"] is None else [row["scores"][index] for index in kept]
        return row | lists | {"scores": scores, "positives": list(docids)}

"""Hard negatives of training rows: what a first stage or a model finds for a query, and is not known to answer it."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import Dataset
from tqdm.auto import tqdm

from ..bounds import check_count
from ..data.retrieval_set import check_passages
from ..data.training_row_checks import is_empty, text_id
from ..data.training_row_lines import row_line
from ..files import read_json, replacing, write_json
from ..models.modeling_optical import OpticalModel
from .index.build import model_fingerprint
from .index.shards import fingerprint
from .maxsim import maxsim

COUNTS = ("rows", "short", "negatives", "known_positives", "likely_positives", "missing", "empty", "repeated")
_ROWS_AT_ONCE = 16  # whose passages are scored together: 16 rows of 8 passages are 4 batches of 32
Find = Callable[[Mapping[str, str]], Mapping[str, Sequence[str]]]
Score = Callable[[Sequence[str], Sequence[Sequence[str]]], list[list[float]]]


def mine_negatives(
    rows: Dataset,
    find: Find,
    passages: Callable[[], Iterable[tuple[str, str]]],
    output: str | os.PathLike[str],
    *,
    negatives: int = 7,
    skip: int = 0,
    depth: int = 100,
    score: Score | None = None,
    scored_by: str | None = None,
    margin: float = 0.95,
    chunk_size: int = 10_000,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, int]:
    """Give rows hard negatives, and write them as JSON lines, or go on with a call that was stopped.

    A row keeps the negatives it has. Behind them come the best candidates until there are `negatives`, without those
    that are positives of the query by their id or their text, or that score nearly as high as the positive: these are
    likely to answer the query too, though nobody judged them (TopK-PercPos of [Moreira et al.,
    2024](https://arxiv.org/abs/2407.15831)).

    Args:
        rows (`datasets.Dataset`):
            As [`load_training_rows`] gives them.
        find (`Callable`):
            Gives the candidates' document ids, best first, of queries by id; called for a chunk of rows.
        passages (`Callable`):
            Gives `(docid, text)` of the collection from its beginning at every call. It is read once a chunk.
        output (`str` or `Path`):
            The file. It appears once it is complete; until then finished chunks are in a folder beside it.
        negatives (`int`, *optional*, defaults to 7):
            How many negatives a row gets.
        skip (`int`, *optional*, defaults to 0):
            How many of the best candidates are left out.
        depth (`int`, *optional*, defaults to 100):
            How many candidates there are at most, with those that are left out.
        score (`Callable`, *optional*):
            Scores passages: takes queries and a list of passages of each, gives as many lists of scores. The scores
            of all passages are written into the rows. See [`ModelScores`].
        scored_by (`str`, *optional*):
            The fingerprint of what scores, written into the rows.
        margin (`float`, *optional*, defaults to 0.95):
            Candidates that score above `margin` times the positive's score are left out. Where this is below 0, above
            `2 - margin` times, so that the bound is below it as well.
        chunk_size (`int`, *optional*, defaults to 10,000):
            Rows a chunk; texts of all of its candidates are in memory.
        settings (`Mapping[str, Any]`, *optional*):
            What `find` and `passages` depend on, as JSON can say it: a call goes on with the same only.

    Returns:
        `dict[str, int]`: the number of `rows`; of them `short` ones, with less than `negatives`; the mined
        `negatives`; and the candidates left out: `known_positives`, `likely_positives` by the margin, those `missing`
        from the collection, `empty` ones, and those `repeated`, whose id or text the row has by then. A candidate
        counts for every row that meets it.

    Raises:
        ValueError: if a number is out of bounds, rows that have scores get negatives without, none of the candidates
            is in the collection, or the unfinished chunks beside `output` were made by other settings.
    """
    for name, value in (("negatives", negatives), ("skip", skip + 1), ("depth", depth), ("chunk_size", chunk_size)):
        check_count(name, value)
    if skip >= depth:
        raise ValueError(f"skip is {skip}: none of the {depth} candidates (depth) would be left.")
    if not margin > 0:
        raise ValueError(f"margin is {margin}; it must be above 0.")
    if not len(rows):
        raise ValueError("There are no rows to find negatives for.")
    if score is None and any(scores is not None for scores in rows["scores"]):
        raise ValueError(
            "The rows have scores, which the negatives would not have: let a model score all of them anew, or take "
            "the scores out of the rows."
        )
    miner = _Miner(find, passages, negatives, skip, depth, score, scored_by, margin)
    numbers = {"negatives": negatives, "skip": skip, "depth": depth, "margin": margin, "chunk_size": chunk_size}
    made_by = {**numbers, "scored_by": scored_by, "rows": _digest(rows), **(settings or {})}
    output = Path(output)
    parts = output.with_name(f"{output.name}.parts")
    _check_made_by(parts, json.loads(json.dumps(made_by)))
    counts = dict.fromkeys(COUNTS, 0)
    starts = range(0, len(rows), chunk_size)
    with tqdm(total=len(rows), desc="Mining negatives", unit="row", delay=2) as bar:
        for number, start in enumerate(starts):
            path = parts / f"{number:05d}.json"
            if not path.is_file():
                chunk = rows.select(range(start, min(start + chunk_size, len(rows)))).to_list()
                write_json(path, miner.mine(chunk, bar))
            part = read_json(path)
            for name, count in part["counts"].items():
                counts[name] += count
            bar.update(min(start + chunk_size, len(rows)) - bar.n)
    with replacing(output) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        for number in range(len(starts)):
            file.writelines(read_json(parts / f"{number:05d}.json")["lines"])
    shutil.rmtree(parts)
    return counts


def _digest(rows: Dataset) -> str:
    return fingerprint([fingerprint(row) for row in rows])


def _check_made_by(parts: Path, made_by: dict[str, Any]) -> None:
    path = parts / "settings.json"
    if not path.is_file():
        parts.mkdir(parents=True, exist_ok=True)
        write_json(path, made_by)
        return
    there = read_json(path)
    if differing := [name for name in there | made_by if there.get(name) != made_by.get(name)]:
        name = differing[0]
        raise ValueError(
            f"{parts} holds chunks that were mined with {name}={there.get(name)!r}, not {made_by.get(name)!r}: delete "
            "it to begin anew, or give the same settings to go on."
        )


@dataclass
class _Miner:
    find: Find
    passages: Callable[[], Iterable[tuple[str, str]]]
    negatives: int
    skip: int
    depth: int
    score: Score | None
    scored_by: str | None
    margin: float

    def mine(self, chunk: list[dict[str, Any]], bar: tqdm[Any]) -> dict[str, Any]:
        """Return the lines of a chunk of rows, and its counts."""
        ids: dict[str, str] = {}
        for row in chunk:
            ids.setdefault(row["query"], str(len(ids)))
        found = self.find({qid: query for query, qid in ids.items()})
        wanted = {query: list(found.get(qid, ()))[self.skip : self.depth] for query, qid in ids.items()}
        texts = self._texts(chunk, wanted)
        named = [docid for docids in wanted.values() for docid in docids]
        if named:
            check_passages("candidates", named, texts)
        counts: Counter[str] = Counter()
        lines = []
        for start in range(0, len(chunk), _ROWS_AT_ONCE):
            group = chunk[start : start + _ROWS_AT_ONCE]
            candidates = [self._candidates(row, wanted[row["query"]], texts, counts) for row in group]
            self._fill(group, candidates, counts)
            lines += [row_line(row, self.scored_by) for row in group]
            bar.update(len(group))
        return {"counts": counts, "lines": lines}

    def _texts(self, chunk: list[dict[str, Any]], wanted: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """Read the collection once, and keep the texts of the candidates and of the positives."""
        needed = {docid for docids in wanted.values() for docid in docids}
        needed.update(docid for row in chunk for docid in row["positives"])
        return {docid: text for docid, text in self.passages() if docid in needed}

    def _candidates(
        self, row: dict[str, Any], docids: Sequence[str], texts: Mapping[str, str], counts: Counter[str]
    ) -> Iterator[tuple[str, str]]:
        """Yield the candidates that may become a row's negatives, lazily: what nobody asks for is not counted."""
        positives = {*row["positives"], row["docids"][0], text_id(row["passages"][0])}
        positives.update(text_id(texts[docid]) for docid in row["positives"] if docid in texts)
        taken = {*row["docids"][1:], *map(text_id, row["passages"][1:])}
        for docid in docids:
            name = text_id(texts[docid]) if docid in texts else ""
            if docid in positives or name in positives:
                counts["known_positives"] += 1
            elif not name:
                counts["missing"] += 1
            elif is_empty(texts[docid]):
                counts["empty"] += 1
            elif docid in taken or name in taken:
                counts["repeated"] += 1
            else:
                taken |= {docid, name}
                yield docid, texts[docid]

    def _fill(
        self, rows: list[dict[str, Any]], candidates: list[Iterator[tuple[str, str]]], counts: Counter[str]
    ) -> None:
        """Add negatives to rows, round by round: most candidates of a deep list are never needed, nor scored."""
        if self.score is not None:
            for row, scores in zip(rows, self._scored(rows, [row["passages"] for row in rows]), strict=True):
                row["scores"] = scores
        unfinished = list(zip(rows, candidates, strict=True))
        while unfinished:
            tried = []
            for row, left in unfinished:
                if some := list(islice(left, max(self.negatives + 1 - len(row["docids"]), 0))):
                    tried.append((row, left, some))
            texts = [[text for _, text in some] for _, _, some in tried]
            for (row, _, some), scores in zip(tried, self._scored([row for row, _, _ in tried], texts), strict=True):
                self._add(row, some, scores, counts)
            unfinished = [(row, left) for row, left, _ in tried]
        counts["rows"] += len(rows)
        counts["short"] += sum(len(row["docids"]) - 1 < self.negatives for row in rows)

    def _scored(self, rows: list[dict[str, Any]], passages: list[list[str]]) -> list[list[float]]:
        if self.score is None or not rows:
            return [[] for _ in rows]
        scored = self.score([row["query"] for row in rows], passages)
        for row, scores in zip(rows, scored, strict=True):
            if not all(map(math.isfinite, scores)):
                raise ValueError(f"The model gives NaN or infinity as the score of a passage of {row['query']!r}.")
        return scored

    def _add(
        self, row: dict[str, Any], some: list[tuple[str, str]], scores: list[float], counts: Counter[str]
    ) -> None:
        for index, (docid, text) in enumerate(some):
            if scores:
                positive = row["scores"][0]
                if scores[index] > positive - (1 - self.margin) * abs(positive):
                    counts["likely_positives"] += 1
                    continue
                row["scores"].append(scores[index])
            row["passages"].append(text)
            row["docids"].append(docid)
            counts["negatives"] += 1


@dataclass(frozen=True)
class ModelScores:
    """Scores passages by a model, or by two whose vectors can be compared: MaxSim, or the product of pooled vectors.

    Args:
        query_model, document_model ([`OpticalTeacher`] or [`OpticalStudent`]): encode queries and passages.
        pooled (`bool`, *optional*, defaults to `False`): score by pooled vectors.
        batch_size (`int`, *optional*, defaults to 32): texts a forward pass.
    """

    query_model: OpticalModel
    document_model: OpticalModel
    pooled: bool = False
    batch_size: int = 32

    def __call__(self, queries: Sequence[str], passages: Sequence[Sequence[str]]) -> list[list[float]]:
        """Score every query's own passages: as many lists of scores as there are queries."""
        every = list(dict.fromkeys(text for texts in passages for text in texts))
        rows = {text: row for row, text in enumerate(every)}
        chosen = [[rows[text] for text in texts] for texts in passages]
        options: dict[str, Any] = {"batch_size": self.batch_size, "show_progress": False}
        if self.pooled:
            vectors = self.document_model.encode_pooled(every, "document", **options)
            asked = self.query_model.encode_pooled(queries, "query", **options)
            return [(vectors[own] @ query).tolist() for query, own in zip(asked, chosen, strict=True)]
        tokens = self.document_model.encode_tokens(every, "document", **options)
        asking = self.query_model.encode_tokens(queries, "query", **options)
        return [
            maxsim([query], [tokens[row] for row in own])[0].tolist()
            for query, own in zip(asking, chosen, strict=True)
        ]

    def fingerprint(self) -> str:
        """Name what the scores depend on: both models, what is for queries too, and the way of scoring."""
        config = self.query_model.config.to_dict()
        queries = {name: value for name, value in config.items() if name.startswith("query_")}
        queries["attend_to_expansion"] = config.get("attend_to_expansion")
        models = [model_fingerprint(self.query_model), model_fingerprint(self.document_model)]
        scoring = "pooled" if self.pooled else "maxsim"
        return f"{scoring} {fingerprint({'queries': queries, 'models': models})}"

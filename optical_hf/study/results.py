"""The results of a study, read from its folder: scores by query, language pair, rotation and seed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metrics import NDCG

RECALL = "recall@100"
MEASURES = (NDCG, RECALL)
SCORERS = ("maxsim", "pooled")
BIAS = "language_bias"
ZERO_SHOT, CEILING = "zero_shot", "ceiling"
OVERALL = "all sets"
STATUSES = ("seen", "unseen", "english")

Array = NDArray[np.float64]
LanguagePair = tuple[str, str | None]  # query and passage language; None: the passages of all languages in one list
# The scores by query, in the order of the query ids, of an evaluation set and pair in one rotation and seed, if known.
Value = Callable[[str, LanguagePair, str, int], Array | None]
# By evaluation set and query language: (seeds, queries).
Groups = dict[tuple[str, str], Array]


@dataclass(frozen=True)
class CompletedArm:
    """One arm that is complete: what `arm.json` says, and the scores by query of its evaluation sets."""

    record: dict[str, Any]
    scores: dict[tuple[str, LanguagePair, str, str], Array]

    @property
    def key(self) -> tuple[str | None, str, int | None]:
        return self.record["rotation"], self.record["method"], self.record["seed"]


@dataclass(frozen=True)
class Grid:
    """Rotations and seeds, each rotation with each seed."""

    rotations: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.rotations and self.seeds)


@dataclass(frozen=True)
class View:
    """Which passages of which evaluation sets a measure is taken over.

    Args:
        name (`str`): what tables call it.
        sets (`tuple[str, ...]`): evaluation sets; they weigh the same.
        passages (`str`): those in `"all"` languages, in `"english"`, in the query's `"own"`, in `"other"` ones
            (neither own nor English), or `"together"`: all languages in one list.
    """

    name: str
    sets: tuple[str, ...]
    passages: str = "all"

    def holds(self, query_language: str, document_language: str | None) -> bool:
        """Whether the pair belongs to it."""
        if document_language is None or self.passages == "together":
            return document_language is None and self.passages == "together"
        if self.passages == "english":
            return document_language == "en"
        if self.passages == "all" or query_language == document_language != "en":
            return self.passages in ("all", "own")
        return self.passages == "other" and document_language not in (query_language, "en")


@dataclass
class StudyResults:
    """The complete arms of a study.

    Args:
        arms (`dict`): by rotation, method and seed.
        order (`Sequence[str]`): rotations in the order of reports.
        protocols (`dict`): by evaluation set.
        queries (`dict`): the number of queries by evaluation set and pair.
        translated (`set`): the evaluation sets whose languages ask the same queries, translated.
    """

    arms: dict[tuple[str | None, str, int | None], CompletedArm]
    order: Sequence[str]
    protocols: dict[str, str] = field(default_factory=dict)
    queries: dict[tuple[str, LanguagePair], int] = field(default_factory=dict)
    translated: set[str] = field(default_factory=set)

    def scores(self, method: str, scorer: str = "maxsim", measure: str = NDCG) -> Value:
        """The scores of a method; those of zero-shot and ceiling are the same in every rotation and seed."""
        untrained = method in (ZERO_SHOT, CEILING)

        def value(name: str, pair: LanguagePair, rotation: str, seed: int) -> Array | None:
            arm = self.arms.get((None, method, None) if untrained else (rotation, method, seed))
            return arm.scores.get((name, pair, scorer, measure)) if arm else None

        return value

    def grid(self, *methods: str) -> Grid:
        """The largest grid of rotations and seeds in which every one of the trained methods is complete.

        If seeds are missing in some rotation they are left out of all; if no seed is in every rotation, the first
        rotation stands alone.
        """
        common = set.intersection(*({(r, s) for r, m, s in self.arms if m == method} for method in methods))
        cells = [(r, s) for r, s in common if r is not None and s is not None]
        rotations = [rotation for rotation in self.order if any(rotation == r for r, _ in cells)]
        seeds = sorted({s for _, s in cells})
        whole = [seed for seed in seeds if all((rotation, seed) in common for rotation in rotations)]
        if rotations and not whole:
            rotations = rotations[:1]
            whole = [seed for seed in seeds if (rotations[0], seed) in common]
        return Grid(tuple(rotations), tuple(whole))

    def status(self, language: str, rotation: str) -> str:
        """Whether a query language is `"english"`, or `"seen"` or `"unseen"` in a rotation."""
        if language == "en":
            return "english"
        seen = next(set(arm.record["seen"]) for (name, _, _), arm in self.arms.items() if name == rotation)
        return "seen" if language in seen else "unseen"

    def views(self) -> list[View]:
        """Each evaluation set; of parallel passages also those in English, in the query's language and in others."""
        views = []
        for name in self.protocols:
            views.append(View(name, (name,)))
            if self.is_parallel(name):
                kinds = {"english": "English passages", "own": "own language", "other": "other languages"}
                views += [View(f"{name}, {label}", (name,), kind) for kind, label in kinds.items()]
        return views

    def overall(self) -> View:
        """All evaluation sets, as one view."""
        return View(OVERALL, tuple(self.protocols))

    def is_parallel(self, name: str) -> bool:
        """Whether queries of a language are searched over passages of several languages."""
        pairs = [pair for pair in self.pairs(name) if pair[1] is not None]
        return len(pairs) > len({query_language for query_language, _ in pairs})

    def pairs(self, name: str) -> list[LanguagePair]:
        """The pairs of an evaluation set."""
        return [pair for evaluation_set, pair in self.queries if evaluation_set == name]

    def groups(self, view: View, grid: Grid, status: str, value: Value) -> Groups:
        """Collect the scores of a view's languages of one status, averaged over passage languages and rotations."""
        groups: Groups = {}
        for name in view.sets:
            pairs = [pair for pair in self.pairs(name) if view.holds(*pair)]
            for language in dict.fromkeys(query_language for query_language, _ in pairs):
                rotations = [rotation for rotation in grid.rotations if self.status(language, rotation) == status]
                parts = []
                for rotation, pair in product(rotations, (pair for pair in pairs if pair[0] == language)):
                    seeds = [value(name, pair, rotation, seed) for seed in grid.seeds]
                    known = [scores for scores in seeds if scores is not None]
                    if len(known) == len(seeds):
                        parts.append(np.stack(known))
                if parts:
                    groups[name, language] = np.mean(parts, axis=0)
        return groups


def minus(first: Value, second: Value) -> Value:
    """The difference of two scores of the same queries, where both are known."""

    def value(*cell: Any) -> Array | None:
        left, right = first(*cell), second(*cell)
        return None if left is None or right is None else left - right

    return value


def relative(first: Value, reference: Value) -> Value:
    """The scores of a pair as a share of the mean of a reference, where that is known and not 0."""

    def value(*cell: Any) -> Array | None:
        scores, whole = first(*cell), reference(*cell)
        return None if scores is None or whole is None or whole.mean() <= 0 else scores / whole.mean()

    return value


def read_results(
    folder: str | os.PathLike[str], arms: Iterable[str], rotations: Sequence[str], sets: Sequence[str]
) -> StudyResults:
    """Read the arms of a study that are complete: that have an `arm.json`.

    Args:
        folder (`str` or `Path`): the study's `--output_dir`.
        arms, rotations, sets (`Sequence[str]`): their names, in the order of reports; others are not read.

    Raises:
        ValueError: if a file is broken, a score is not a number, or arms were measured on different queries.
    """
    results = StudyResults({}, rotations)
    qids: dict[tuple[str, LanguagePair], tuple[list[str], Path]] = {}
    for path in (Path(folder, "arms", name, "arm.json") for name in arms):
        if not path.exists():
            continue
        record = _read_json(path)
        for part in ("arm", "rotation", "method", "seed", "seen", "sets"):
            if part not in record:
                raise _broken(path, f"has no {part!r}")
        arm = CompletedArm(record, {})
        for name in [name for name in record["sets"] if name in sets]:
            source = path.with_name(f"{name}.json")
            content = _read_json(source)
            results.protocols.setdefault(name, content.get("protocol") or "")
            for pair, scores, ids in _read_pairs(source, content):
                known, first = qids.setdefault((name, pair), (ids, source))
                if known != ids:
                    raise ValueError(
                        f"{source} and {first} were measured on different queries ({_pair_name(pair)}): remove the "
                        "folder of one of the two arms and run it again."
                    )
                results.queries[name, pair] = len(ids)
                arm.scores.update({(name, pair, *keys): values for keys, values in scores.items()})
        results.arms[arm.key] = arm
    results.protocols = {name: results.protocols[name] for name in sets if name in results.protocols}
    for name in results.protocols:
        asked = {tuple(qids[name, pair][0]) for pair in results.pairs(name) if pair[1] is not None}
        if results.is_parallel(name) and len(asked) == 1:
            results.translated.add(name)
    return results


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise _broken(path, f"cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise _broken(path, "is not a JSON object")
    return content


def _read_pairs(
    path: Path, content: Mapping[str, Any]
) -> list[tuple[LanguagePair, dict[tuple[str, str], Array], list[str]]]:
    pairs: list[tuple[LanguagePair, dict[tuple[str, str], Array], list[str]]] = []
    try:
        for row in content["pairs"]:
            lists = {(s, m): row[s]["per_query"][m] for s in SCORERS for m in MEASURES}
            scores = {keys: _finite(path, values) for keys, values in lists.items()}
            pairs.append(((row["query_language"], row["document_language"]), scores, row["qids"]))
        bias = content.get("language_bias") or {}
        for language in bias["maxsim"]["per_query"] if bias else ():
            scores = {(s, BIAS): _finite(path, bias[s]["per_query"][language]) for s in SCORERS}
            # Which queries have a bias at all depends on the judgements alone: their number has to agree.
            number = len(scores["maxsim", BIAS])
            pairs.append(((language, None), scores, [str(index) for index in range(number)]))
    except (KeyError, TypeError) as error:
        raise _broken(path, f"lacks a part ({error})") from error
    for pair, scores, ids in pairs:
        if not ids or any(len(values) != len(ids) for values in scores.values()):
            raise _broken(path, f"has {len(ids)} query ids but not as many scores ({_pair_name(pair)})")
    return pairs


def _finite(path: Path, values: Any) -> Array:
    array = np.array(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise _broken(path, "has scores that are not numbers")
    return array


def _broken(path: Path, what: str) -> ValueError:
    return ValueError(f"{path} {what}: remove the arm's folder and run it again.")


def _pair_name(pair: LanguagePair) -> str:
    return f"{pair[0]} queries over {pair[1] or 'all'} passages"

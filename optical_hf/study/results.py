"""The results of a study, read from its folder: scores by query, language pair, rotation and seed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from ..metrics import NDCG
from .arm_files import Array, LanguagePair, pair_name, read_arm, read_scores

ZERO_SHOT, CEILING = "zero_shot", "ceiling"
OVERALL = "all sets"
STATUSES = ("seen", "unseen", "english")

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
        ValueError: naming a file that is damaged, or two arms that were measured on different queries.
    """
    folder = Path(folder)
    results = StudyResults({}, rotations)
    qids: dict[tuple[str, LanguagePair], tuple[list[str], Path]] = {}
    for arm_name in arms:
        path = folder / "arms" / arm_name
        if not (path / "arm.json").exists():
            continue
        arm = CompletedArm(read_arm(folder, arm_name), {})
        for name in [name for name in arm.record["sets"] if name in sets]:
            source = path / f"{name}.json"
            measured = read_scores(folder, arm_name, name)
            results.protocols.setdefault(name, measured.protocol)
            for pair, scores, ids in measured.pairs:
                known, first = qids.setdefault((name, pair), (ids, source))
                if known != ids:
                    raise ValueError(
                        f"{source} and {first} were measured on different queries ({pair_name(pair)}): remove the "
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

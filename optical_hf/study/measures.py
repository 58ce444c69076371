"""The measures of a robustness study: gains, the gap closed, seen against unseen, language bias, levers, and tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..evaluation.significance import bootstrap_interval, holm, randomisation_test
from ..metrics import NDCG
from .arm_files import BIAS, MEASURES, SCORERS, Array, LanguagePair
from .results import (
    CEILING,
    STATUSES,
    ZERO_SHOT,
    Grid,
    Groups,
    StudyResults,
    Value,
    View,
    minus,
    relative,
)

# Of a smaller gap to the ceiling, or gain over zero-shot, a share would be noise.
SMALLEST_GAP, SMALLEST_GAIN = 0.01, 0.005
PRIMARY = f"maxsim {NDCG}"
GAIN = f"gain {PRIMARY}"  # over zero-shot
SEED_GAINS = f"{GAIN} by seed"
LEVEL = 0.05  # of significance, after Holm's correction
Row = dict[str, Any]


def study_measures(results: StudyResults, methods: Sequence[str], levers: dict[str, str]) -> dict[str, list[Row]]:
    """Compute every measure of a study.

    Means over languages are means over evaluation sets, which weigh the same, of the means over their languages, which
    weigh the same. Intervals are of 95 %, by a bootstrap over queries and seeds. Tests are paired randomisation tests
    of nDCG@10 by MaxSim, of the queries of a language, averaged over seeds; Holm's correction is over the languages of
    one evaluation set that are seen, or unseen, in one comparison.

    Args:
        results ([`StudyResults`]): the complete arms.
        methods (`Sequence[str]`): the first is compared with every other.
        levers (`dict[str, str]`): by name, the base each is compared with.

    Returns:
        `dict`: lists of rows. `pairs`: each language pair in each rotation. `languages` and `groups`: scores, gains
        over zero-shot (also by seed) and the share of the gap to the ceiling closed, of each language, and of all that
        are seen, unseen or English. `robustness`: unseen against seen. `contrasts` and `tests`: methods against
        zero-shot and each other, levers against their base. `bias`: the spread of ranks over passage languages.
        `levers`: each beside its base, in the rotations and seeds of both.
    """
    measures = _Measures(results)
    methods = [name for name in methods if results.grid(name)]
    levers = {name: base for name, base in levers.items() if results.grid(name)}
    names = [*methods, *levers]
    against = [(name, ZERO_SHOT) for name in names] + [(methods[0], other) for other in methods[1:]]
    against += [(name, base) for name, base in levers.items()]
    report: dict[str, list[Row]] = {
        "pairs": [row for name in (ZERO_SHOT, CEILING) for row in measures.pairs(name, None)],
        "languages": [],
        "groups": [],
        "robustness": [],
        "contrasts": [],
        "tests": [],
        "bias": [],
        "levers": [],
    }
    for name in names:
        report["pairs"] += [row for rotation in results.grid(name).rotations for row in measures.pairs(name, rotation)]
    views = results.views()
    tested = [view for view in views if view.passages in ("all", "english")]
    several = [results.overall()] if len(results.protocols) > 1 else []
    for view in tqdm([*views, *several], "Measuring", unit="view", delay=2):
        for status, name in product(STATUSES, (ZERO_SHOT, CEILING, *names) if methods else ()):
            grid = measures.grid(name, methods[0])
            rows = list(measures.scores(view, grid, status, name))
            report["groups"] += rows[:1]
            report["languages"] += rows[1:] if view in tested else []
        report["robustness"] += [measures.robustness(view, name) for name in names]
        for status, pair in product(STATUSES, against):
            report["contrasts"] += measures.contrast(view, status, *pair)
            report["tests"] += measures.tests(view, status, *pair) if view in tested else []
        report["levers"] += [row for name, base in levers.items() for row in measures.lever(view, name, base)]
    for name, status, method in product(results.protocols, STATUSES, (ZERO_SHOT, *names) if methods else ()):
        report["bias"] += measures.bias(name, measures.grid(method, methods[0]), status, method)
    return report


class _Measures:
    """The measures of one study, each as rows for its report."""

    def __init__(self, results: StudyResults) -> None:
        self.results = results

    def grid(self, name: str, first: str) -> Grid:
        """The grid of a method; zero-shot and the ceiling group their languages as the first method does."""
        if name not in (ZERO_SHOT, CEILING):
            return self.results.grid(name)
        grid = self.results.grid(first)
        return Grid(grid.rotations, grid.seeds[:1])

    def pairs(self, name: str, rotation: str | None) -> Iterator[Row]:
        """Each language pair in one rotation, averaged over seeds, without intervals."""
        grid = Grid((rotation or "",), self.results.grid(name).seeds if rotation else (0,))
        for (evaluation_set, pair), queries in self.results.queries.items():
            row: Row = {"set": evaluation_set, "method": name, "rotation": rotation, "query_language": pair[0]}
            row |= {"document_language": pair[1], "queries": queries}
            for scorer, measure in product(SCORERS, MEASURES):
                value = self.results.scores(name, scorer, measure)
                row[f"{scorer} {measure}"] = _pair_mean(value, evaluation_set, pair, grid)
            if pair[1] is None or row[PRIMARY] is None:
                continue
            if rotation:
                start, ceiling = (
                    _pair_mean(self.results.scores(method), evaluation_set, pair, grid)
                    for method in (ZERO_SHOT, CEILING)
                )
                gain = _minus(row[PRIMARY], start)
                row |= {"status": self.results.status(pair[0], rotation), "gain": gain}
                row["closed"] = _share(gain, _minus(ceiling, start))
            yield row

    def scores(self, view: View, grid: Grid, status: str, name: str) -> Iterator[Row]:
        """Scores, gains and the gap closed: of the languages of a status together, then of each."""
        by_title: dict[str, Groups] = {}
        for scorer, measure in product(SCORERS, MEASURES):
            own, start = (self.results.scores(method, scorer, measure) for method in (name, ZERO_SHOT))
            by_title[f"{scorer} {measure}"] = self.results.groups(view, grid, status, own)
            if name not in (ZERO_SHOT, CEILING):
                by_title[f"gain {scorer} {measure}"] = self.results.groups(view, grid, status, minus(own, start))
        if not by_title[PRIMARY]:
            return
        ceiling = self.results.groups(view, grid, status, self.results.scores(CEILING))
        start_groups = self.results.groups(view, grid, status, self.results.scores(ZERO_SHOT))
        keys = list(by_title[PRIMARY])
        for kept in [keys, *([key] for key in keys)]:
            row: Row = {"view": view.name, "status": status, "method": name}
            row |= {"rotations": list(grid.rotations), "seeds": list(grid.seeds)}
            row["sets"] = list(dict.fromkeys(name for name, _ in kept))
            row["languages"] = list(dict.fromkeys(language for _, language in kept))
            for title, groups in by_title.items():
                chosen = {key: groups[key] for key in kept if key in groups}
                row[title] = estimate(chosen, self.results) if NDCG in title else {"value": _mean(chosen)}
            if gains := {key: gain for key, gain in by_title.get(GAIN, {}).items() if key in kept}:
                row[SEED_GAINS] = [
                    _mean({key: gain[index] for key, gain in gains.items()}) for index in range(len(grid.seeds))
                ]
            both = [key for key in kept if key in start_groups and key in ceiling]
            own_mean, start_mean, ceiling_mean = (
                _mean({key: groups[key] for key in both}) for groups in (by_title[PRIMARY], start_groups, ceiling)
            )
            row["closed"] = _share(_minus(own_mean, start_mean), _minus(ceiling_mean, start_mean))
            yield row

    def robustness(self, view: View, name: str) -> Row:
        """Unseen minus seen: as scored, as a share of zero-shot and of the ceiling, and of the same languages."""
        grid, own = self.results.grid(name), self.results.scores(name)
        row: Row = {"view": view.name, "method": name}
        values = {
            "raw": own,
            "of_zero_shot": relative(own, self.results.scores(ZERO_SHOT)),
            "of_ceiling": relative(own, self.results.scores(CEILING)),
            "gain": minus(own, self.results.scores(ZERO_SHOT)),
        }
        for title, value in values.items():
            seen, unseen = (self.results.groups(view, grid, status, value) for status in ("seen", "unseen"))
            row[title] = _difference(unseen, seen, self.results)
            if title == "raw":
                both = {key: unseen[key] - seen[key] for key in unseen if key in seen}
                row["rotated"] = estimate(both, self.results) | {
                    "languages": list(dict.fromkeys(language for _, language in both))
                }
            if title == "gain":
                row["retention"] = _share(_mean(unseen), _mean(seen), SMALLEST_GAIN)
        return row

    def contrast(self, view: View, status: str, name: str, other: str) -> Iterator[Row]:
        """The paired difference of two methods over languages."""
        groups = self._differences(view, status, name, other)
        if groups:
            yield {"view": view.name, "status": status, "method": name, "against": other} | estimate(
                groups, self.results
            )

    def tests(self, view: View, status: str, name: str, other: str) -> Iterator[Row]:
        """The paired randomisation tests of two methods, by language."""
        groups = self._differences(view, status, name, other)
        p_values = [randomisation_test(gains.mean(0), np.zeros(gains.shape[1])) for gains in groups.values()]
        for ((_, language), gains), p, corrected in zip(groups.items(), p_values, holm(p_values), strict=True):
            yield {
                "view": view.name,
                "status": status,
                "method": name,
                "against": other,
                "language": language,
                "queries": gains.shape[1],
                "difference": float(gains.mean()),
                "p": p,
                "holm": corrected,
                "significant": corrected < LEVEL,
            }

    def _differences(self, view: View, status: str, name: str, other: str) -> Groups:
        grid = self.results.grid(name) if other == ZERO_SHOT else self.results.grid(name, other)
        return self.results.groups(view, grid, status, minus(self.results.scores(name), self.results.scores(other)))

    def bias(self, evaluation_set: str, grid: Grid, status: str, name: str) -> Iterator[Row]:
        """How far apart the parallel relevant passages rank, of the languages of a status together."""
        view = View(evaluation_set, (evaluation_set,), "together")
        row: Row = {"set": evaluation_set, "status": status, "method": name}
        for scorer in SCORERS:
            groups = self.results.groups(view, grid, status, self.results.scores(name, scorer, BIAS))
            row[scorer] = estimate(groups, self.results)
            row["languages"] = [language for _, language in groups]
        if row["languages"]:
            yield row

    def lever(self, view: View, name: str, base: str) -> Iterator[Row]:
        """A lever beside its base: the seen gain kept, and what the unseen and English gained or lost by it."""
        grid, start = self.results.grid(name, base), self.results.scores(ZERO_SHOT)
        own, other = self.results.scores(name), self.results.scores(base)
        row: Row = {"view": view.name, "lever": name, "base": base, "sets": []}
        row |= {"rotations": list(grid.rotations), "seeds": list(grid.seeds)}
        for status in STATUSES:
            change = self.results.groups(view, grid, status, minus(own, other))
            if not change:
                continue
            row["sets"] = list(dict.fromkeys([*row["sets"], *(name for name, _ in change)]))
            row[status] = {"change": estimate(change, self.results)}
            for title, value in (("base_gain", other), ("gain", own)):
                groups = self.results.groups(view, grid, status, minus(value, start))
                row[status][title] = estimate({key: groups[key] for key in change if key in groups}, self.results)
        if "seen" in row and (gain := row["seen"]["base_gain"]["value"]) is not None and gain >= SMALLEST_GAIN:
            # The base's gain is taken as it is; only the change has an interval.
            change = row["seen"]["change"]
            row["kept"] = {
                "value": 1 + change["value"] / gain,
                "interval": [1 + bound / gain for bound in change["interval"]],
            }
        if "seen" in row or "unseen" in row:
            yield row


def _pair_mean(value: Value, evaluation_set: str, pair: LanguagePair, grid: Grid) -> float | None:
    seeds = [value(evaluation_set, pair, grid.rotations[0], seed) for seed in grid.seeds]
    means = [float(scores.mean()) for scores in seeds if scores is not None]
    return sum(means) / len(means) if means else None


def estimate(groups: Groups, results: StudyResults) -> Row:
    """Mean and bootstrap interval, both `None` if there are no groups."""
    return {"value": _mean(groups), "interval": _interval(_units(groups, results))}


def _difference(first: Groups, second: Groups, results: StudyResults) -> Row:
    """The difference of two means. What is measured on the same queries on both sides is subtracted query by query."""
    if not first or not second:
        return {"value": None, "interval": None}
    units = _units(first, results)
    for key, array in _units(second, results).items():
        units[key] = units.get(key, 0.0) - array
    return {"value": _minus(_mean(first), _mean(second)), "interval": _interval(units)}


def _units(groups: Groups, results: StudyResults) -> dict[tuple[str, str], Array]:
    """What sums to the mean, by what may be drawn apart: languages, but not those whose queries are translations."""
    units: dict[tuple[str, str], Array] = {}
    for (name, language), array in groups.items():
        key = (name, "" if name in results.translated else language)
        units[key] = units.get(key, 0.0) + array * _weight(groups, name)
    return units


def _interval(units: dict[tuple[str, str], Array]) -> list[float] | None:
    return list(bootstrap_interval([array * len(units) for array in units.values()])) if units else None


def _weight(groups: Groups, name: str) -> float:
    sets = [evaluation_set for evaluation_set, _ in groups]
    return 1 / (len(set(sets)) * sets.count(name))


def _mean(groups: Groups) -> float | None:
    """The mean over evaluation sets of the mean over their languages."""
    return sum(_weight(groups, name) * float(array.mean()) for (name, _), array in groups.items()) if groups else None


def _minus(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def _share(part: float | None, whole: float | None, smallest: float = SMALLEST_GAP) -> float | None:
    return None if part is None or whole is None or whole < smallest else part / whole

"""What the tables and sentences of a study's report hold: numbers as text, and the rows they are about."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .measures import GAIN, PRIMARY, SEED_GAINS, Row
from .results import CEILING, ZERO_SHOT

LABELS = {ZERO_SHOT: "zero-shot", CEILING: "ceiling"}
TITLES = {"seen": "seen", "unseen": "never seen", "english": "English questions"}  # by status
SEEN_KEPT = 0.9  # of the gain of seen languages: what a lever for the unseen may not cost


def number(value: float | None, sign: bool = False) -> str:
    """A score or, with its sign, a gain in three decimals: `.697`, `+.012`; `-` if there is none.

    A loss that rounds to nothing is `-.000`.
    """
    if value is None:
        return "-"
    # What is only the rounding of sums is nothing, and has no sign.
    text = f"{round(value, 9) + 0.0:{'+' if sign else ''}.3f}"
    if not sign and not float(text):
        text = text.removeprefix("-")
    return text.replace("0.", ".", 1) if abs(float(text)) < 1 else text


def signed(value: float | None) -> str:
    """A gain: `+.012`."""
    return number(value, sign=True)


def percent(value: float | None) -> str:
    """A share: `35 %`."""
    return "-" if value is None else f"{value:.0%}".replace("%", " %")


def with_interval(estimate: Mapping[str, Any] | None, text: Callable[[float], str] = number) -> str:
    """An estimate and its interval: `.697 [.671, .724]`; `-` if there is none."""
    if not estimate or estimate["value"] is None:
        return "-"
    low, high = estimate["interval"]
    return f"{text(estimate['value'])} [{text(low)}, {text(high)}]"


def select(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """The rows that have these values."""
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def ranking(report: Mapping[str, Any], methods: Sequence[str], view: str, status: str) -> list[Row]:
    """The methods whose gain in a view is known, best first."""
    rows = [row for row in select(report["groups"], view=view, status=status) if row["method"] in methods]
    return sorted((row for row in rows if row[GAIN]["value"] is not None), key=lambda row: -row[GAIN]["value"])


def tally(report: Mapping[str, Any], method: str, against: str) -> str:
    """How many languages of all sets a method is significantly better and worse in: `seen +2 -0 of 12, ...`."""
    parts = []
    for status in ("seen", "unseen"):
        tests = select(report["tests"], status=status, method=method, against=against)
        tests = [row for row in tests if row["view"] in report["sets"]]
        better = sum(row["significant"] and row["difference"] > 0 for row in tests)
        worse = sum(row["significant"] and row["difference"] < 0 for row in tests)
        if tests:
            parts.append(f"{status} +{better} -{worse} of {len(tests)}")
    return ", ".join(parts) or "not comparable"


def harmless_levers(report: Mapping[str, Any], view: str) -> list[Row]:
    """The levers that keep enough of the seen gain, gain on unseen languages, and lose none of them significantly."""
    losses = [
        test["method"]
        for test in select(report["tests"], status="unseen", against=ZERO_SHOT, significant=True)
        if test["view"] in report["sets"] and test["difference"] < 0
    ]
    return [
        row
        for row in select(report["levers"], view=view)
        if "kept" in row and row["kept"]["value"] >= SEEN_KEPT
        if "unseen" in row and row["unseen"]["gain"]["value"] >= 0 and row["lever"] not in losses
    ]


def language_rows(report: Mapping[str, Any], methods: Sequence[str], view: str) -> list[dict[str, Any]]:
    """Each language of a view: zero-shot, the ceiling, and each method's score and gain as text."""
    languages: dict[tuple[str, str], dict[str, Row]] = {}
    for row in select(report["languages"], view=view):
        languages.setdefault((row["status"], row["languages"][0]), {})[row["method"]] = row
    stars = {
        (row["status"], row["language"], row["method"])
        for row in select(report["tests"], view=view, against=ZERO_SHOT, significant=True)
    }
    rows = []
    for (status, language), by_method in languages.items():
        scores = {method: row[PRIMARY]["value"] for method, row in by_method.items()}
        best = max((scores[method] for method in methods if method in scores), default=None)
        cells = dict.fromkeys(methods, "-")
        for method in [method for method in methods if method in scores]:
            mark = "**" if scores[method] == best else ""
            star = "*" if (status, language, method) in stars else ""
            cells[method] = f"{mark}{number(scores[method])}{mark} {signed(by_method[method][GAIN]['value'])}{star}"
        rows.append(
            {
                "language": language,
                "status": status,
                "zero_shot": scores.get(ZERO_SHOT),
                "ceiling": scores.get(CEILING),
                "cells": list(cells.values()),
            }
        )
    return rows


def spread(row: Row) -> float:
    """How far the gains of the seeds are apart."""
    gains: list[float] = row[SEED_GAINS]
    return max(gains) - min(gains)


def widest_language(report: Mapping[str, Any], group: Row, views: Sequence[str]) -> Row:
    """The language of a group in which its seeds are furthest apart."""
    languages = select(report["languages"], status=group["status"], method=group["method"])
    return max((row for row in languages if row["view"] in views and SEED_GAINS in row), key=spread)

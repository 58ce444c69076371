"""The report of a robustness study: `report.md` for people, `report.json` for programs, figures for both."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..quickstart.model import MODEL_NAME
from .figures import write_figures
from .measures import GAIN, PRIMARY, study_measures
from .results import ZERO_SHOT, StudyResults, read_results
from .tables import (
    INTRODUCTION,
    NOTES,
    bias_table,
    contrast_table,
    group_tables,
    language_table,
    lever_table,
    number,
    passages_table,
    percent,
    robustness_table,
    seed_table,
    select,
    table,
    with_interval,
)

if TYPE_CHECKING:
    from .config import Study

logger = logging.getLogger(__name__)

# Of the study's file, what is about the method: where its files are says nothing to others.
CONFIG_KEYS = ("checkpoint", "max_words", "pairs", "rotations", "seeds", "training", "methods", "levers")
NOTHING = {"value": float("-inf")}
SEEN_KEPT = 0.9  # of the gain of seen languages: what a lever for the unseen may not cost


def write_report(study: Study, folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Measure the arms of a study that are complete, and write `report.json`, `report.md` and `figures/`.

    The same arms give the same report, byte by byte.

    Args:
        study ([`Study`]): what there should be; arms that are missing are named in the report.
        folder (`str` or `Path`): its `--output_dir`.

    Returns:
        `dict`: what is in `report.json`: the rows of [`study_measures`], `missing` arms, `config` and `sets`.

    Raises:
        ValueError: if a file of an arm is broken, or arms were measured on different queries.
    """
    results = read_results(folder, study.arms, list(study.rotations), list(study.evaluation))
    levers = {name: str(lever.base) for name, lever in study.levers.items()}
    measures = study_measures(results, list(study.methods), levers)
    teacher = study.config.get("teacher") or MODEL_NAME
    models = {"teacher": teacher, "student": study.config.get("student") or teacher}
    report: dict[str, Any] = {
        "missing": _missing(study, results),
        "config": models | {key: study.config[key] for key in CONFIG_KEYS if key in study.config},
        "sets": {
            name: {"protocol": protocol, "queries": _queries(results, name)}
            for name, protocol in results.protocols.items()
        },
        **measures,
    }
    methods = [name for name in study.methods if results.grid(name)]
    figures: dict[str, str] = {}
    try:
        figures = write_figures(results, report, methods, list(levers), Path(folder) / "figures")
    except ImportError as error:
        logger.warning("The report has no figures. %s", error)
    lines = _markdown(report, results, methods, list(levers), figures)
    for name, text in (("report.json", _json(report)), ("report.md", "\n".join(lines))):
        partial = Path(folder) / f"{name}.partial"
        partial.write_text(f"{text}\n", encoding="utf-8")
        os.replace(partial, Path(folder) / name)
    return report


def _missing(study: Study, results: StudyResults) -> list[str]:
    done = {arm.record["arm"]: arm.record["sets"] for arm in results.arms.values()}
    missing = [name for name in study.arms if name not in done]
    for name, sets in done.items():
        missing += [f"{name} ({one})" for one in study.arms[name].method.sets if one not in sets]
    return missing


def _queries(results: StudyResults, name: str) -> dict[str, int]:
    return {pair[0]: results.queries[name, pair] for pair in results.pairs(name) if pair[1] is not None}


def _json(report: Mapping[str, Any]) -> str:
    """One row a line: to be read, and compared by line, without being ten times as long."""
    parts = []
    for key, value in report.items():
        text = json.dumps(_rounded(value), ensure_ascii=False)
        if isinstance(value, list) and value:
            rows = ",\n".join(json.dumps(_rounded(row), ensure_ascii=False) for row in value)
            text = f"[\n{rows}\n]"
        parts.append(f"{json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value


def _markdown(
    report: Mapping[str, Any],
    results: StudyResults,
    methods: Sequence[str],
    levers: Sequence[str],
    figures: Mapping[str, str],
) -> list[str]:
    lines = ["# Robustness on languages never seen", ""]
    if report["missing"]:
        lines += [f"**Not complete.** Missing arms: {', '.join(report['missing'])}.", ""]
    if left := _left_out(results, [*methods, *levers]):
        lines += [f"Complete but left out, since not every rotation has their seed yet: {', '.join(left)}.", ""]
    if not report["groups"]:
        return [*lines, "No arm of a method is complete."]
    sets, everything = list(results.protocols), results.overall().name
    top = [everything, *sets] if len(sets) > 1 else sets
    in_english = [f"{name}, English passages" for name in sets if results.is_parallel(name)]
    lines += ["## In short", "", *_summary(report, top[0], sets, methods), "", *INTRODUCTION, ""]
    sections = (
        ("Seen and unseen languages", top + in_english, lambda view: group_tables(report, view, methods)),
        ("Unseen against seen", top + in_english, lambda view: robustness_table(report, view, methods)),
        ("Levers", top, lambda view: lever_table(report, view)),
        ("Seeds", top, lambda view: seed_table(report, view, [*methods, *levers])),
        (
            f"`{methods[0]}` against the others",
            top + in_english,
            lambda view: contrast_table(report, methods[0], view),
        ),
        ("Language by language", sets + in_english, lambda view: language_table(report, view, methods)),
        ("The language of the passages", sets, lambda view: passages_table(report, view, methods)),
    )
    for heading, views, make in sections:
        parts = [line for view in views if (body := make(view)) for line in (f"### {view}", "", *body)]
        lines += [f"## {heading}", "", *NOTES.get(heading, []), *parts] if parts else []
    if bias := bias_table(report, [*methods, *levers]):
        lines += ["## Language bias", "", *NOTES["Language bias"], *bias]
    if figures:
        lines += ["## Figures", ""]
        for name, caption in figures.items():
            lines += [f"![{name.removesuffix('.png')}](figures/{name})", "", caption, ""]
    lines += ["## Evaluation sets", ""]
    for name, one in report["sets"].items():
        queries = ", ".join(f"{language} {count}" for language, count in one["queries"].items())
        lines.append(f"- `{name}`: {one['protocol']}. Queries: {queries}.")
    lines += ["", "## The study", "", *_costs(results, [*methods, *levers]), "```yaml"]
    config = yaml.safe_dump(report["config"], sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)
    lines += [config.rstrip(), "```"]
    return lines


def _left_out(results: StudyResults, names: Sequence[str]) -> list[str]:
    left = []
    for (rotation, method, seed), arm in results.arms.items():
        grid = results.grid(method) if method in names else None
        if grid and not (rotation in grid.rotations and seed in grid.seeds):
            left.append(arm.record["arm"])
    return left


def _summary(report: Mapping[str, Any], view: str, sets: Sequence[str], methods: Sequence[str]) -> list[str]:
    lines = []
    for status, title in (("seen", "Seen languages"), ("unseen", "Languages never seen")):
        rows = [row for row in select(report["groups"], view=view, status=status) if row["method"] in methods]
        rows = sorted((row for row in rows if row[GAIN]["value"] is not None), key=lambda row: -row[GAIN]["value"])
        if not rows:
            continue
        best = rows[0]
        low, high = best[GAIN]["interval"]
        verdict = (
            "gains most" if low > 0 else "loses least" if high < 0 else "comes first, but may as well gain nothing"
        )
        start = best[PRIMARY]["value"] - best[GAIN]["value"]
        rest = "; ".join(f"`{row['method']}` {with_interval(row[GAIN], sign=True)}" for row in rows[1:])
        lines.append(
            f"- **{title}**: `{best['method']}` {verdict}, {with_interval(best[GAIN], sign=True)} over zero-shot, "
            f"{number(start)} to {number(best[PRIMARY]['value'])}{f'. Then {rest}' if rest else ''}."
        )
    parts = []
    for row in select(report["robustness"], view=view):
        if row["method"] in methods and row["rotated"]["value"] is not None:
            kept = "" if row["retention"] is None else f" (gain {percent(row['retention'])} of the seen)"
            parts.append(f"`{row['method']}` {with_interval(row['rotated'], sign=True)}{kept}")
    if parts:
        lines.append(f"- **The same language unseen instead of seen**: {'; '.join(parts)}.")
    parts = [f"`{name}` {_tally(report, sets, name, ZERO_SHOT)}" for name in methods]
    lines.append(f"- **Significantly better (+) and worse (-) than zero-shot**: {'; '.join(parts)}.")
    parts = []
    for other in methods[1:]:
        rows = select(report["contrasts"], view=view, method=methods[0], against=other)
        found = [f"{row['status']} {with_interval(row, sign=True)}" for row in rows if row["status"] != "english"]
        parts.append(f"`{other}` {', '.join(found)} ({_tally(report, sets, methods[0], other)})")
    if parts:
        lines.append(f"- **`{methods[0]}` against** {'; '.join(parts)}.")
    rows = [row for row in select(report["groups"], view=view, status="english") if row["method"] in methods]
    parts = [f"`{row['method']}` {with_interval(row[GAIN], sign=True)}" for row in rows]
    if parts:
        lines.append(f"- **English questions** against zero-shot: {'; '.join(parts)}.")
    if levers := select(report["levers"], view=view):
        good = [
            f"`{row['lever']}` ({percent(row['kept']['value'])}, {number(row['unseen']['gain']['value'], sign=True)})"
            for row in levers
            if row.get("kept", NOTHING)["value"] >= SEEN_KEPT
            and row.get("unseen", {"gain": NOTHING})["gain"]["value"] >= 0
            and not _lost(report, sets, row["lever"])
        ]
        lines.append(
            f"- **Levers** that keep {percent(SEEN_KEPT)} of their base's seen gain, gain on unseen languages in the "
            f"mean, and lose none of them significantly: {', '.join(good) or 'none'}, of {len(levers)}."
        )
    return lines


def _tally(report: Mapping[str, Any], sets: Sequence[str], name: str, other: str) -> str:
    parts = []
    for status in ("seen", "unseen"):
        tests = [
            row for row in select(report["tests"], status=status, method=name, against=other) if row["view"] in sets
        ]
        better = sum(row["significant"] and row["difference"] > 0 for row in tests)
        worse = sum(row["significant"] and row["difference"] < 0 for row in tests)
        if tests:
            parts.append(f"{status} +{better} -{worse} of {len(tests)}")
    return ", ".join(parts) or "not comparable"


def _lost(report: Mapping[str, Any], sets: Sequence[str], name: str) -> bool:
    tests = select(report["tests"], status="unseen", method=name, against=ZERO_SHOT)
    return any(row["significant"] and row["difference"] < 0 for row in tests if row["view"] in sets)


def _costs(results: StudyResults, names: Sequence[str]) -> list[str]:
    rows = []
    for name in names:
        grid = results.grid(name)
        records = [arm.record for arm in results.arms.values() if arm.record["method"] == name]
        if grid and records:
            steps = sorted({record["steps"] for record in records})
            seconds = [
                sum(record[key] for record in records) / len(records) / 60
                for key in ("training_seconds", "evaluation_seconds")
            ]
            pairs = sorted({record["pairs_per_language"] for record in records})
            rows.append(
                (
                    name,
                    f"{' '.join(grid.rotations)}, {' '.join(map(str, grid.seeds))}",
                    " ".join(map(str, pairs)),
                    " ".join(map(str, steps)),
                    *(f"{minutes:.1f}" for minutes in seconds),
                )
            )
    return table(("", "rotations, seeds", "pairs a language", "steps", "minutes of training", "of evaluation"), rows)

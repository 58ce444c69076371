"""The report of a robustness study: `report.md` for people, `report.json` for programs, figures for both."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..files import write_text
from ..quickstart.model import MODEL_NAME
from .figures import write_figures
from .measures import LEVEL, SMALLEST_GAP, study_measures
from .results import OVERALL, StudyResults, read_results
from .tables import (
    LABELS,
    SEEN_KEPT,
    TITLES,
    harmless_levers,
    language_rows,
    number,
    percent,
    ranking,
    select,
    signed,
    spread,
    tally,
    widest_language,
    with_interval,
)

if TYPE_CHECKING:
    from .config import Study

logger = logging.getLogger(__name__)

# The keys of the study's file that the report repeats. The paths of one machine are of no use to others.
CONFIG_KEYS = ("checkpoint", "max_words", "pairs", "rotations", "seeds", "training", "methods", "levers")


def write_report(study: Study, folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Measure the arms of a study that are complete, and write `report.json`, `report.md` and `figures/`.

    The same arms give the same report, byte by byte.

    Args:
        study ([`Study`]): the arms that should be there; the report names those that are missing.
        folder (`str` or `Path`): its `--output_dir`.

    Returns:
        `dict`: what is in `report.json`: the rows of [`study_measures`], `missing` arms, `config` and `sets`.

    Raises:
        ValueError: if a file of an arm is broken, or arms were measured on different queries.
    """
    results = read_results(folder, study.arms, list(study.rotations), list(study.evaluation))
    methods = [name for name in study.methods if results.grid(name)]
    levers = {name: str(lever.base) for name, lever in study.levers.items()}
    done = {arm.record["arm"]: arm.record["sets"] for arm in results.arms.values()}
    missing = [name for name in study.arms if name not in done]
    for name, sets in done.items():
        missing += [f"{name} ({wanted})" for wanted in study.arms[name].method.sets if wanted not in sets]
    teacher = study.config.get("teacher") or MODEL_NAME
    models = {"teacher": teacher, "student": study.config.get("student") or teacher}
    report: dict[str, Any] = {
        "missing": missing,
        "config": models | {key: study.config[key] for key in CONFIG_KEYS if key in study.config},
        "sets": {
            name: {
                "protocol": protocol,
                "queries": {pair[0]: results.queries[name, pair] for pair in results.pairs(name) if pair[1]},
            }
            for name, protocol in results.protocols.items()
        },
        **study_measures(results, list(study.methods), levers),
    }
    figures: dict[str, str] = {}
    try:
        figures = write_figures(results, report, methods, list(levers), Path(folder) / "figures")
    except ImportError as error:
        logger.warning("The report has no figures. %s", error)
    left_out = [
        arm.record["arm"]
        for (rotation, name, seed), arm in results.arms.items()
        if (name in methods or name in levers) and (grid := results.grid(name))
        if rotation not in grid.rotations or seed not in grid.seeds
    ]
    costs = _costs(results, [*methods, *levers])
    write_text(Path(folder) / "report.json", _json(report))
    write_text(Path(folder) / "report.md", render_report(report, methods, list(levers), left_out, costs, figures))
    return report


def render_report(
    report: Mapping[str, Any],
    methods: Sequence[str],
    levers: Sequence[str],
    left_out: Sequence[str] = (),
    costs: Sequence[Sequence[str]] = (),
    figures: Mapping[str, str] | None = None,
) -> str:
    """Render `report.md` from `report_template.md`, which has the words, and `report_tables.md`.

    Args:
        report (`dict`): what is in `report.json`.
        methods, levers (`Sequence[str]`): those with complete arms, in the order of the tables.
        left_out (`Sequence[str]`, *optional*): complete arms that are in no measure.
        costs (`Sequence[Sequence[str]]`, *optional*): the rows of the table of steps and minutes.
        figures (`Mapping[str, str]`, *optional*): captions by file name.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "number": number,
        "signed": signed,
        "percent": percent,
        "estimate": with_interval,
        "difference": partial(with_interval, text=signed),
        "share": partial(with_interval, text=percent),
        "ranks": partial(with_interval, text="{:.1f}".format),
    }
    names, sets = [*methods, *levers], list(report["sets"])
    views = list(dict.fromkeys(row["view"] for row in report["groups"]))
    parallel = {name: [view for view in views if view.startswith(f"{name}, ")] for name in sets}
    return environment.get_template("report_template.md").render(
        report=report,
        methods=list(methods),
        names=names,
        sets=sets,
        top=[OVERALL, *sets] if len(sets) > 1 else sets,
        parallel=parallel,
        in_english=[view for view in views if view.endswith(", English passages")],
        seeds=sorted({seed for row in report["groups"] if row["method"] in names for seed in row["seeds"]}),
        left_out=left_out,
        costs=costs,
        figures=figures or {},
        config=yaml.safe_dump(
            report["config"], sort_keys=False, allow_unicode=True, width=110, default_flow_style=None
        ),
        labels=LABELS,
        titles=TITLES,
        level=LEVEL,
        smallest_gap=SMALLEST_GAP,
        seen_kept=SEEN_KEPT,
        select=lambda part, **wanted: select(report[part], **wanted),
        ranking=partial(ranking, report, methods),
        tally=partial(tally, report),
        harmless_levers=partial(harmless_levers, report),
        language_rows=partial(language_rows, report, methods),
        spread=spread,
        widest_language=partial(widest_language, report),
    )


def _costs(results: StudyResults, names: Sequence[str]) -> list[list[str]]:
    """The cells of a table: the grid of each method and lever, its pairs and steps, and its minutes an arm."""
    rows = []
    for name in names:
        grid = results.grid(name)
        if not grid:
            continue
        records = [arm.record for arm in results.arms.values() if arm.record["method"] == name]
        row = [name, f"{' '.join(grid.rotations)}, {' '.join(map(str, grid.seeds))}"]
        for key in ("pairs_per_language", "steps"):
            row.append(" ".join(map(str, sorted({record[key] for record in records}))))
        for key in ("training_seconds", "evaluation_seconds"):
            row.append(f"{sum(record[key] for record in records) / len(records) / 60:.1f}")
        rows.append(row)
    return rows


def _json(report: Mapping[str, Any]) -> str:
    """One row per line: a person can read it and compare two of them, and it stays short."""
    rounded = json.loads(json.dumps(report), parse_float=lambda digits: round(float(digits), 5))
    parts = []
    for key, value in rounded.items():
        text = json.dumps(value, ensure_ascii=False)
        if isinstance(value, list) and value:
            text = "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in value) + "\n]"
        parts.append(f"{json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"

"""The figures of a robustness study, to be read in print and by the colour-blind."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from ..files import replacing
from .measures import GAIN, estimate
from .results import STATUSES, ZERO_SHOT, StudyResults, minus
from .tables import TITLES, select, signed

# Okabe and Ito's colours, but for the yellow, which is too pale on white; with markers, so that grey print will do.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":")
STYLE: Any = {"font.size": 8, "axes.titlesize": 9, "axes.spines.top": False, "axes.spines.right": False}
DPI = 110
LANGUAGES_ABREAST = 6
SIGNS = {"seen": "■", "unseen": "□", "english": " "}
GREY = {"color": "0.3", "marker": "o", "markersize": 4.5, "linestyle": "none"}


def write_figures(
    results: StudyResults, report: Mapping[str, Any], methods: Sequence[str], levers: Sequence[str], folder: Path
) -> dict[str, str]:
    """Draw what there is data for: heat maps, gains by language, scores by bitext size, and training.

    Args:
        results ([`StudyResults`]): for the curves of training.
        report (`dict`): the rows of [`study_measures`].
        methods, levers (`Sequence[str]`): which to draw, in this order.
        folder (`Path`): where the PNG files go.

    Returns:
        `dict[str, str]`: captions by file name.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
        from PIL import Image
    except ImportError as error:
        raise ImportError('Figures need matplotlib: pip install "optical-hf[study]".') from error
    folder.mkdir(parents=True, exist_ok=True)
    captions = {}
    with matplotlib.rc_context(STYLE):
        draw = _Drawing(results, report, Figure)
        for name, (figure, caption) in draw.all(methods, levers).items():
            buffer = BytesIO()
            figure.savefig(buffer, dpi=DPI, format="png")
            # With 256 colours, a third of the bytes; and without the version of matplotlib in them.
            image = Image.open(buffer).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)
            with replacing(folder / name) as partial:
                image.save(partial, "PNG", optimize=True)
            captions[name] = caption
    return captions


class _Drawing:
    def __init__(self, results: StudyResults, report: Mapping[str, Any], figure: Any) -> None:
        self.results, self.report, self.figure = results, report, figure

    def all(self, methods: Sequence[str], levers: Sequence[str]) -> dict[str, tuple[Any, str]]:
        drawn = {}
        for name in self.results.protocols:
            for rotation in self.results.order if self.results.is_parallel(name) else ():
                drawn[f"pairs-{name}-{rotation}.png"] = self.heat_maps(name, rotation, methods)
            drawn[f"gain-{name}.png"] = self.gains(name, methods)
        drawn["bitext-size.png"] = self.sizes([*methods, *levers])
        drawn["training.png"] = self.training(methods)
        return {name: figure for name, figure in drawn.items() if figure is not None}

    def heat_maps(self, name: str, rotation: str, methods: Sequence[str]) -> tuple[Any, str] | None:
        """Gain of each language pair, a panel for each method."""
        from matplotlib.patches import Rectangle

        rows = [row for row in select(self.report["pairs"], set=name, rotation=rotation) if row["gain"] is not None]
        rows = [row for row in rows if row["method"] in methods]
        if not rows:
            return None
        status = {row["query_language"]: row["status"] for row in rows}
        queries = sorted(status, key=lambda language: STATUSES.index(status[language]))
        passages = list(dict.fromkeys(row["document_language"] for row in rows))
        # In the order of the questions, so that the diagonal is one language.
        passages.sort(key=lambda language: queries.index(language) if language in queries else len(queries))
        shown = [method for method in methods if any(row["method"] == method for row in rows)]
        across = min(len(shown), 2)
        down = -(-len(shown) // across)
        size = (across * (0.46 * len(passages) + 0.5) + 0.9, down * (0.3 * len(queries) + 0.75))
        figure = self.figure(figsize=size, layout="constrained")
        panels = figure.subplots(down, across, squeeze=False)
        limit = max(max(abs(row["gain"]) for row in rows), 0.005)
        for panel, method in zip(panels.flat, shown, strict=False):
            grid = np.full((len(queries), len(passages)), np.nan)
            for row in select(rows, method=method):
                grid[queries.index(row["query_language"]), passages.index(row["document_language"])] = row["gain"]
            image = panel.imshow(grid, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto")
            for (y, x), gain in np.ndenumerate(grid):
                if np.isfinite(gain):
                    colour = "white" if abs(gain) > 0.6 * limit else "black"
                    panel.text(x, y, signed(gain), ha="center", va="center", fontsize=7, color=colour)
                if status[queries[y]] == "seen" and passages[x] == "en":
                    box = Rectangle((x - 0.47, y - 0.45), 0.94, 0.9, fill=False, edgecolor="black", linewidth=1.6)
                    panel.add_patch(box)
            panel.set_title(method)
            panel.set_xticks(range(len(passages)), passages)
            panel.set_yticks(range(len(queries)), [f"{SIGNS[status[language]]} {language}" for language in queries])
            for label, language in zip(panel.get_yticklabels(), queries, strict=True):
                label.set_fontweight("bold" if status[language] == "seen" else "normal")
            panel.tick_params(length=0)
            panel.spines[:].set_visible(False)
        for panel in panels.flat[len(shown) :]:
            panel.set_visible(False)
        figure.supxlabel("language of the passages", fontsize=8)
        figure.supylabel("language of the questions", fontsize=8)
        figure.colorbar(image, ax=panels, label="gain in nDCG@10", shrink=0.8)
        caption = (
            f"{name}, rotation {rotation}: gain over zero-shot by language of questions and passages, MaxSim nDCG@10. "
            "■ seen, □ never seen; a box marks the language pairs of the bitext."
        )
        return figure, caption

    def gains(self, name: str, methods: Sequence[str]) -> tuple[Any, str] | None:
        """Gain of each language with its interval, method beside method."""
        rows = [row for row in select(self.report["languages"], view=name) if row["method"] in methods]
        rows = [row for row in rows if row[GAIN]["value"] is not None]
        if not rows:
            return None
        languages = list(dict.fromkeys(row["languages"][0] for row in rows))
        down = -(-len(languages) // LANGUAGES_ABREAST)
        across = -(-len(languages) // down)
        size = (max(4.5, 0.6 + 0.13 * across * (2 * len(methods) + 1)), 0.5 + 2.3 * down)
        figure = self.figure(figsize=size, layout="constrained")
        panels = figure.subplots(down, 1, sharey=True, squeeze=False)[:, 0]
        for line, panel in enumerate(panels):
            shown = languages[line * across : (line + 1) * across]
            panel.axhline(0, color="black", linewidth=0.8)
            for row in (row for row in rows if row["languages"][0] in shown):
                index, second = methods.index(row["method"]), row["status"] == "unseen"
                step = (2 * index + second - len(methods) + 0.5) / (2 * len(methods) + 1)
                value, (low, high) = row[GAIN]["value"], row[GAIN]["interval"]
                bars = [[max(value - low, 0)], [max(high - value, 0)]]
                panel.errorbar(shown.index(row["languages"][0]) + step, value, bars, **_style(index, hollow=second))
            for edge in range(1, across):
                panel.axvline(edge - 0.5, color="0.8", linewidth=0.6)
            panel.set_xticks(range(len(shown)), shown)
            panel.set_xlim(-0.5, across - 0.5)
            panel.tick_params(axis="x", length=0)
            panel.set_ylabel("gain in nDCG@10")
        handles = [panel.errorbar([], [], [], label=method, **_style(index)) for index, method in enumerate(methods)]
        handles.append(panel.errorbar([], [], [], label="seen", **GREY))
        handles.append(panel.errorbar([], [], [], label="never seen", **(GREY | {"markerfacecolor": "white"})))
        columns = _columns([*methods, "seen", "never seen"], size[0])
        figure.legend(handles=handles, loc="outside upper center", ncols=columns, frameon=False)
        return figure, (
            f"{name}: gain over zero-shot by language of the questions, MaxSim nDCG@10, 95 % intervals. Filled: "
            "rotations that see the language, and English questions. Hollow: rotations that do not see it."
        )

    def sizes(self, names: Sequence[str]) -> tuple[Any, str] | None:
        """Gain against bitext size, of methods that differ in nothing else."""
        families: dict[str, dict[int, str]] = {}
        for arm in self.results.arms.values():
            record = arm.record
            if record["method"] in names and record["steps"]:
                family = families.setdefault(json.dumps(record["options"], sort_keys=True), {})
                family.setdefault(record["pairs_per_language"], record["method"])
        compared = [dict(sorted(family.items())) for family in families.values() if len(family) > 1]
        if not compared:
            return None
        view = self.results.overall()
        figure = self.figure(figsize=(4.5, 3), layout="constrained")
        panel = figure.subplots()
        panel.axhline(0, color="black", linewidth=0.8)
        for index, family in enumerate(compared):
            grid = self.results.grid(*family.values())
            largest = family[max(family)]
            for status in ("seen", "unseen"):
                points = []
                for pairs, method in family.items():
                    value = minus(self.results.scores(method), self.results.scores(ZERO_SHOT))
                    gain = estimate(self.results.groups(view, grid, status, value), self.results)
                    if gain["value"] is not None:
                        points.append((pairs, gain["value"], *gain["interval"]))
                if points:
                    x, y, low, high = np.array(points).T
                    style = _style(index, hollow=status == "unseen") | {
                        "linestyle": "--" if status == "unseen" else "-"
                    }
                    bars = np.maximum([y - low, high - y], 0)
                    panel.errorbar(x, y, bars, label=f"{largest}, {TITLES[status]}", **style)
        panel.set_xscale("log")
        ticks = sorted({pairs for family in compared for pairs in family})
        panel.set_xticks(ticks, [f"{pairs:,}" for pairs in ticks])
        panel.minorticks_off()
        panel.set_xlabel("pairs of each seen language")
        panel.set_ylabel("gain in nDCG@10")
        figure.legend(loc="outside upper center", ncols=2, frameon=False)
        return figure, "Gain over zero-shot against the size of the bitext, MaxSim nDCG@10, mean over evaluation sets."

    def training(self, methods: Sequence[str]) -> tuple[Any, str] | None:
        """The plan's entropy and the spread of the student's vectors while it trains."""
        titles = {"plan_entropy": "entropy of the plan", "vector_spread": "spread of the student's vectors"}
        curves = {name: {method: self._curves(method, name) for method in methods} for name in titles}
        drawn = [name for name in titles if any(curves[name].values())]
        if not drawn:
            return None
        figure = self.figure(figsize=(0.5 + 3 * len(drawn), 2.8), layout="constrained")
        panels = figure.subplots(1, len(drawn), squeeze=False)[0]
        handles: dict[str, Any] = {}
        for panel, name in zip(panels, drawn, strict=True):
            for index, method in enumerate(methods):
                if points := curves[name][method]:
                    steps = sorted(points)
                    means = [float(np.mean(points[step])) for step in steps]
                    lows, highs = ([pick(points[step]) for step in steps] for pick in (min, max))
                    style = _style(index) | {"linestyle": DASHES[index % 4], "markevery": max(1, len(steps) // 8)}
                    del style["capsize"], style["elinewidth"]
                    [handles[method]] = panel.plot(steps, means, label=method, **style)
                    panel.fill_between(steps, lows, highs, color=style["color"], alpha=0.15, linewidth=0)
            panel.set_title(titles[name])
            panel.set_xlabel("step")
        handles = {method: handles[method] for method in methods if method in handles}
        columns = _columns(list(handles), figure.get_figwidth())
        figure.legend(handles=list(handles.values()), loc="outside upper center", ncols=columns, frameon=False)
        return (
            figure,
            "During training: mean over rotations and seeds, and the range from the smallest to the largest.",
        )

    def _curves(self, method: str, name: str) -> dict[int, list[float]]:
        points: dict[int, list[float]] = {}
        for arm in self.results.arms.values():
            curves = arm.record.get("curves", {}) if arm.record["method"] == method else {}
            for step, value in zip(curves.get("step", []), curves.get(name, []), strict=False):
                if step is not None and value is not None:
                    points.setdefault(step, []).append(value)
        return points


def _columns(labels: Sequence[str], width: float) -> int:
    """Columns of a legend that fits into so many inches, in as few rows as that takes."""
    rows = math.ceil(sum(0.5 + 0.065 * len(label) for label in labels) / width)
    return math.ceil(len(labels) / rows)


def _style(index: int, hollow: bool = False) -> dict[str, Any]:
    colour = COLOURS[index % len(COLOURS)]
    style = {
        "color": colour,
        "marker": MARKERS[index % len(MARKERS)],
        "markerfacecolor": "white" if hollow else colour,
    }
    return style | {"markersize": 4.5, "linestyle": "none", "linewidth": 1.2, "elinewidth": 1, "capsize": 1.5}

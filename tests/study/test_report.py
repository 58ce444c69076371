"""The report of a robustness study, from arms whose every number is worked out by hand."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from optical_hf.study.figures import DPI, _columns, _Drawing
from optical_hf.study.measures import study_measures
from optical_hf.study.report import render_report, write_report
from optical_hf.study.results import Grid, View, read_results
from optical_hf.study.tables import number, percent, signed, with_interval

COMMITTED = Path(__file__).parents[2] / "examples" / "robustness"
NUMBER = re.compile(r"[+-]?\d*\.?\d+")
SETS = ("cross", "parallel")
ROTATIONS = {"first": {"seen": ["yo"], "unseen": ["sw"]}, "second": {"seen": ["sw"], "unseen": ["yo"]}}
# Scores of the two queries of each pair.
ZERO = {
    "cross": {("yo", "en"): [0.4, 0.6], ("sw", "en"): [0.2, 0.4]},
    "parallel": {
        ("en", "en"): [0.7, 0.9],
        ("en", "yo"): [0.5, 0.7],
        ("yo", "en"): [0.4, 0.6],
        ("yo", "yo"): [0.3, 0.5],
    },
}
CEILING = {
    "cross": {("yo", "en"): [0.9, 0.9], ("sw", "en"): [0.3, 0.308]},
    "parallel": {(q, d): ZERO["parallel"]["en", d] for q, d in ZERO["parallel"]},
}
# Gains by method: of seen and unseen yo and sw in `cross`, by seed; `mse` gains nothing.
CROSS = {
    ("yo", True): (0.1, 0.2),
    ("yo", False): (-0.05, -0.05),
    ("sw", True): (0.06, 0.06),
    ("sw", False): (0.02, 0.02),
}
PARALLEL = {("yo", "en", True): 0.1, ("yo", "yo", True): 0.021, ("yo", "en", False): 0.0, ("yo", "yo", False): 0.02}
BIAS = {"zero": {"yo": [4, 6], "en": [1, 1]}, True: {"yo": [2, 4], "en": [1, 3]}, False: {"yo": [4, 4], "en": [1, 3]}}


def gain(method, name, pair, rotation, seed):
    if method == "mse":
        return 0.0
    seen = pair[0] in ROTATIONS[rotation]["seen"]
    if pair[0] == "en":
        return -0.01
    if name == "parallel":
        return PARALLEL[(*pair, seen)]
    if method == "half":
        return 0.08 if seen else 0.03
    return CROSS[pair[0], seen][seed - 1]


def scored(values):
    return {"ndcg@10": sum(values) / len(values), "per_query": {"ndcg@10": values, "recall@100": [0.5, 1.0]}}


def write_arm(folder, method, rotation=None, seed=None, base=None, sets=SETS, pairs=100):
    name = f"{rotation}-{method}-{seed}" if rotation else method
    path = folder / "arms" / name
    path.mkdir(parents=True)
    for evaluation_set in sets:
        rows = []
        for pair, start in (CEILING if method == "ceiling" else ZERO)[evaluation_set].items():
            shift = gain(method, evaluation_set, pair, rotation, seed) if rotation else 0.0
            rows.append({"query_language": pair[0], "document_language": pair[1], "qids": ["q1", "q2"]})
            rows[-1] |= {"maxsim": scored([value + shift for value in start]), "pooled": scored([0.25, 0.25])}
        bias = None
        if evaluation_set == "parallel" and method != "ceiling":
            key = "zero" if not rotation or method == "mse" else "yo" in ROTATIONS[rotation]["seen"]
            bias = {scorer: {"per_query": BIAS[key]} for scorer in ("maxsim", "pooled")}
        content = {"set": evaluation_set, "protocol": "all of it", "pairs": rows, "language_bias": bias}
        (path / f"{evaluation_set}.json").write_text(json.dumps(content))
    record = {"arm": name, "rotation": rotation, "method": method, "seed": seed, "base": base, "sets": list(sets)}
    record |= ROTATIONS[rotation] if rotation else {"seen": [], "unseen": []}
    record |= {"options": {"loss": "mse" if method == "mse" else "ot"}, "pairs_per_language": pairs}
    record |= {"steps": 20 if rotation else 0, "training_seconds": 90.0, "evaluation_seconds": 30.0}
    curves = {"step": [10, 20], "vector_spread": [0.5, 0.6], "plan_entropy": [0.75, None]}
    record["curves"] = curves if method == "ot" else {}
    (path / "arm.json").write_text(json.dumps(record))


def write_study(folder):
    """Two methods in two rotations and seeds, and a lever in one of each."""
    for method in ("zero_shot", "ceiling"):
        write_arm(folder, method)
    arms = {name: SimpleNamespace(method=SimpleNamespace(sets=SETS)) for name in ("zero_shot", "ceiling")}
    cells = [(r, m, s) for s in (1, 2) for r in ROTATIONS for m in ("ot", "mse")] + [("first", "half", 1)]
    for rotation, method, seed in cells:
        sets = ("cross",) if method == "half" else SETS
        arms[f"{rotation}-{method}-{seed}"] = SimpleNamespace(method=SimpleNamespace(sets=sets))
        base, pairs = ("ot", 50) if method == "half" else (None, 100)
        write_arm(folder, method, rotation, seed, base, sets, pairs)
    config = {"teacher": None, "bitext": {"yo": "/home/someone/yo.tsv"}, "rotations": ROTATIONS, "seeds": [1, 2]}
    levers = {"half": SimpleNamespace(base="ot")}
    methods = {"ot": None, "mse": None}
    return SimpleNamespace(
        config=config, rotations=ROTATIONS, methods=methods, levers=levers, evaluation=dict.fromkeys(SETS), arms=arms
    )


@pytest.fixture
def study(tmp_path):
    return write_study(tmp_path)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return read_results(folder, write_study(folder).arms, list(ROTATIONS), SETS)


@pytest.fixture(scope="module")
def measures(results):
    return study_measures(results, ["ot", "mse"], {"half": "ot"})


def row_of(rows, **wanted):
    [row] = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return row


def test_scores_gains_and_gap_closed(measures):
    seen = row_of(measures["groups"], view="cross", status="seen", method="ot")
    assert seen["maxsim ndcg@10"]["value"] == pytest.approx((0.65 + 0.36) / 2)
    assert seen["gain maxsim ndcg@10"]["value"] == pytest.approx((0.15 + 0.06) / 2)
    # Gains are the same for both queries: only the draw of the seeds is left, of which two in four are alike.
    assert seen["gain maxsim ndcg@10"]["interval"] == pytest.approx([(0.1 + 0.06) / 2, (0.2 + 0.06) / 2])
    assert seen["gain maxsim ndcg@10 by seed"] == pytest.approx([(0.1 + 0.06) / 2, (0.2 + 0.06) / 2])
    assert seen["closed"] == pytest.approx((0.505 - 0.4) / (0.602 - 0.4))
    assert seen["maxsim recall@100"]["value"] == 0.75 and seen["pooled ndcg@10"]["value"] == 0.25
    assert seen["gain pooled ndcg@10"] == {"value": 0.0, "interval": [0.0, 0.0]}
    languages = {
        row["languages"][0]: row
        for row in measures["languages"]
        if (row["view"], row["status"], row["method"]) == ("cross", "seen", "ot")
    }
    assert languages["yo"]["closed"] == pytest.approx(0.15 / 0.4)
    assert languages["sw"]["closed"] is None  # the ceiling is .004 above zero-shot
    assert row_of(measures["groups"], view="all sets", status="seen", method="ot")["gain maxsim ndcg@10"][
        "value"
    ] == pytest.approx((0.105 + 0.0605) / 2)
    english = row_of(measures["groups"], view="all sets", status="english", method="ot")
    assert english["gain maxsim ndcg@10"]["value"] == pytest.approx(-0.01) and english["sets"] == ["parallel"]


def test_views_of_parallel_passages(measures):
    gains = {
        view: row_of(measures["groups"], view=view, status="seen", method="ot")["gain maxsim ndcg@10"]["value"]
        for view in ("parallel", "parallel, English passages", "parallel, own language")
    }
    assert list(gains.values()) == pytest.approx([0.0605, 0.1, 0.021])
    pair = row_of(
        measures["pairs"], set="parallel", method="ot", rotation="second", query_language="yo", document_language="en"
    )
    assert pair["status"] == "unseen" and pair["gain"] == pytest.approx(0.0) and pair["closed"] == pytest.approx(0.0)
    view = View("", (), "other")
    assert [view.holds(*pair) for pair in (("yo", "sw"), ("yo", "yo"), ("yo", "en"), ("en", "sw"), ("yo", None))] == [
        True, False, False, True, False,
    ]  # fmt: skip


def test_unseen_against_seen(measures):
    row = row_of(measures["robustness"], view="cross", method="ot")
    assert row["rotated"]["value"] == pytest.approx((-0.2 - 0.04) / 2)
    assert row["rotated"]["interval"] == pytest.approx([(-0.25 - 0.04) / 2, (-0.15 - 0.04) / 2])
    assert row["rotated"]["languages"] == ["yo", "sw"]
    assert row["raw"]["value"] == pytest.approx(0.385 - 0.505)
    assert row["raw"]["interval"] == pytest.approx(row["rotated"]["interval"])  # the same queries on both sides
    assert row["of_zero_shot"]["value"] == pytest.approx((0.45 / 0.5 + 0.32 / 0.3) / 2 - (0.65 / 0.5 + 0.36 / 0.3) / 2)
    ceiling = (0.45 / 0.9 + 0.32 / 0.304) / 2 - (0.65 / 0.9 + 0.36 / 0.304) / 2
    assert row["of_ceiling"]["value"] == pytest.approx(ceiling)
    assert row["retention"] == pytest.approx(-0.015 / 0.105)
    assert row_of(measures["robustness"], view="cross", method="mse")["retention"] is None
    # `sw` is not in the parallel set, so the languages of the two sets differ.
    everything = row_of(measures["robustness"], view="all sets", method="ot")
    assert everything["rotated"]["value"] == pytest.approx((-0.12 + (0.01 - 0.0605)) / 2)


def test_tests_and_contrasts(measures):
    tests = [
        row
        for row in measures["tests"]
        if (row["view"], row["method"], row["against"]) == ("cross", "ot", "zero_shot")
    ]
    assert {(row["language"], row["status"]): row["difference"] for row in tests} == pytest.approx(
        {("yo", "seen"): 0.15, ("sw", "seen"): 0.06, ("yo", "unseen"): -0.05, ("sw", "unseen"): 0.02}
    )
    for row in tests:  # two queries that differ alike: half of the four assignments of signs
        assert row["p"] == pytest.approx(0.5, abs=0.03) and row["holm"] == pytest.approx(1.0, abs=0.06)
        assert not row["significant"]
    contrast = row_of(measures["contrasts"], view="cross", status="unseen", method="ot", against="mse")
    assert contrast["value"] == pytest.approx(-0.015) and contrast["interval"] == pytest.approx([-0.015, -0.015])


def test_language_bias(measures):
    values = {
        (row["status"], row["method"]): row["maxsim"]["value"] for row in measures["bias"] if row["set"] == "parallel"
    }
    assert values["seen", "zero_shot"] == 5 and values["seen", "ot"] == 3 and values["unseen", "ot"] == 4
    assert values["english", "ot"] == 2 and values["english", "zero_shot"] == 1


def test_lever_beside_its_base_on_what_both_have(measures):
    row = row_of(measures["levers"], view="all sets")
    assert (row["rotations"], row["seeds"], row["sets"]) == (["first"], [1], ["cross"])
    # Yoruba is seen and Swahili unseen in this rotation; seed 2, where the base gained twice as much, is left aside.
    assert row["seen"]["base_gain"]["value"] == pytest.approx(0.1) and row["seen"]["gain"]["value"] == pytest.approx(
        0.08
    )
    assert row["kept"]["value"] == pytest.approx(0.8) and row["kept"]["interval"] == pytest.approx([0.8, 0.8])
    assert row["unseen"]["change"]["value"] == pytest.approx(0.01)


def test_report_and_figures(study, tmp_path):
    write_report(study, tmp_path)
    first = {path: path.read_bytes() for path in [*tmp_path.glob("report.*"), *tmp_path.glob("figures/*")]}
    names = {path.name for path in first}
    assert names == {
        "report.json", "report.md", "pairs-parallel-first.png", "pairs-parallel-second.png", "gain-cross.png",
        "gain-parallel.png", "bitext-size.png", "training.png",
    }  # fmt: skip
    for path in tmp_path.glob("figures/*"):
        with Image.open(path) as image:
            assert image.width > 3 * DPI and path.stat().st_size < 150_000
    text = (tmp_path / "report.md").read_text()
    assert "- **Seen languages**: `ot` gains most: +.083 [+.070, +.095] over zero-shot, from .425 to .508." in text
    assert (
        "- **Languages never seen**: `mse` is best, but its interval includes zero: +.000 [+.000, +.000] over" in text
    )
    assert "from .425 to .425. After it: `ot` -.003 [-.003, -.003].\n" in text
    assert "- **The same language, unseen minus seen**: `ot` -.085 [-.098, -.073], keeps -3 % of the gain;" in text
    assert (
        "- **`ot` minus another method**: `mse` seen +.083 [+.070, +.095], unseen -.003 [-.003, -.003] (tests:" in text
    )
    assert "and lose no unseen language significantly: 0 of 1.\n" in text
    assert "| yo | seen | .500 | .900 | **.650** +.150 | .500 +.000 |" in text
    assert "| half | ot | 1 x 1 (cross only) | +.080 [+.080, +.080] | +.100 | 80 % [80 %, 80 %] | +.030" in text
    assert "| ot | first second, 1 2 | 100 | 20 | 1.5 | 0.5 |" in text
    seeds = text[text.index("## Seeds") : text.index("## `ot` against the others")]
    assert "| seen | ot | +.080 | +.130 | .050 | yo .100 |" in seeds and "half" not in seeds  # of one seed
    assert "| seen | ot | +.070 | +.095 | .025 | cross yo .100 |" in seeds  # .0605 of `parallel`, in both seeds
    passages = text[text.index("## The language of the passages") : text.index("## Language bias")]
    assert (
        "### cross" not in passages and "| seen | ot | +.100 [+.100, +.100] | +.021 [+.021, +.021] | - |" in passages
    )
    assert "Not complete" not in text and "/home/someone" not in text and "nan" not in text
    assert "teacher: multilingual-e5-small-q4\nstudent: multilingual-e5-small-q4\n" in text
    assert "seen: [yo]" in text
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["missing"] == [] and report["sets"]["cross"] == {
        "protocol": "all of it",
        "queries": {"yo": 2, "sw": 2},
    }
    write_report(study, tmp_path)
    assert {path: path.read_bytes() for path in first} == first


def test_the_committed_report_is_what_its_json_gives():
    report = json.loads((COMMITTED / "report.json").read_text())
    rendered = render_report(report, list(report["config"]["methods"]), list(report["config"]["levers"]))
    committed = (COMMITTED / "report.md").read_text()
    # What the arms took and the captions of the figures are not in report.json.
    measures, committed_measures = rendered.partition("## Evaluation")[0], committed.partition("## Figures")[0]
    assert NUMBER.sub("0", measures) == NUMBER.sub("0", committed_measures)
    numbers, expected = (list(map(float, NUMBER.findall(text))) for text in (measures, committed_measures))
    # report.json has five decimals, so what lies half way may be rounded the other way.
    assert len(numbers) > 4000 and numbers == pytest.approx(expected, abs=0.00101)
    assert sum(map(float.__ne__, numbers, expected)) < 10
    for start, end in (("## Evaluation sets", "## The study"), ("```yaml", None)):
        parts = [text.partition(start)[2].partition(end or "\0")[0] for text in (rendered, committed)]
        assert parts[0] == parts[1] and len(parts[0]) > 400


def test_heat_map_marks_what_was_trained(results, measures):
    from matplotlib.figure import Figure

    figure, _ = _Drawing(results, measures, Figure).heat_maps("parallel", "first", ["ot", "mse"])
    panel = figure.axes[0]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["■ yo", "  en"]
    assert [text.get_text() for text in panel.texts] == ["+.021", "+.100", "-.010", "-.010"]
    [box] = panel.patches  # Yoruba questions, English passages
    assert box.get_x() + box.get_width() / 2 == pytest.approx(
        1
    ) and box.get_y() + box.get_height() / 2 == pytest.approx(0)


def test_bitext_size_only_compares_what_differs_in_nothing_else(results, measures):
    from matplotlib.figure import Figure

    drawing = _Drawing(results, measures, Figure)
    figure, _ = drawing.sizes(["ot", "mse", "half"])
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["50", "100"]
    assert drawing.sizes(["ot", "mse"]) is None
    assert drawing.training(["mse"]) is None


def test_incomplete_study(study, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    (tmp_path / "arms/second-ot-2/arm.json").unlink()
    shutil.rmtree(tmp_path / "arms/ceiling")
    write_report(study, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "**Not complete.** Missing arms: ceiling, second-ot-2." in text
    assert "Complete, but left out because a rotation does not have this seed yet: first-ot-2." in text
    report = json.loads((tmp_path / "report.json").read_text())
    row = row_of(report["groups"], view="cross", status="seen", method="ot")
    assert row["seeds"] == [1] and row["gain maxsim ndcg@10"]["value"] == pytest.approx(0.08) and row["closed"] is None
    for path in tmp_path.glob("arms/*/arm.json"):
        path.unlink()
    write_report(study, tmp_path)
    assert "No arm of a method is complete." in (tmp_path / "report.md").read_text()


def test_report_without_zero_shot(study, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    shutil.rmtree(tmp_path / "arms/zero_shot")
    write_report(study, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "Missing arms: zero_shot." in text and "| ot | .508 [" in text and "## Seeds" not in text


def test_without_matplotlib(study, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    write_report(study, tmp_path)
    assert 'pip install "optical-hf[study]"' in caplog.text
    assert "## Figures" not in (tmp_path / "report.md").read_text() and not (tmp_path / "figures").exists()


def test_a_legend_is_no_wider_than_its_figure():
    labels = ["0123456789"] * 6  # 1.15 inches each
    assert [_columns(labels, width) for width in (7, 6.8, 3.5, 1.2)] == [6, 3, 3, 1]


def test_grid_without_a_seed_in_every_rotation(results):
    cells = {("first", "ot", 2), ("second", "ot", 1)}
    results = replace(results, arms={cell: arm for cell, arm in results.arms.items() if cell not in cells})
    assert results.grid("ot") == Grid(("first",), (1,))
    assert results.grid("ot", "mse") == Grid(("first",), (1,)) and results.grid("mse") == Grid(
        ("first", "second"), (1, 2)
    )
    assert not results.grid("nothing")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda pair: pair.update(qids=["q2", "q1"]), "cross.json and .* were measured on different queries"),
        (lambda pair: pair.update(qids=["q1"]), "has 1 query ids but not as many scores .yo queries over en"),
        (lambda pair: pair["maxsim"]["per_query"].update({"ndcg@10": [0.5, float("nan")]}), "are not numbers"),
        (lambda pair: pair.pop("pooled"), "first-ot-1/cross.json lacks a part .'pooled'"),
    ],
)
def test_broken_arm(study, tmp_path, change, message):
    path = tmp_path / "arms/first-ot-1/cross.json"
    content = json.loads(path.read_text())
    change(content["pairs"][0])
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        write_report(study, tmp_path)
    assert not (tmp_path / "report.json").exists()


def test_cut_off_file(study, tmp_path):
    (tmp_path / "arms/first-ot-1/cross.json").write_text('{"pairs": [')
    with pytest.raises(ValueError, match="first-ot-1/cross.json cannot be read .*: remove the arm's folder"):
        write_report(study, tmp_path)


def test_numbers():
    assert [number(value) for value in (0.6966, -0.0123, 1.0, 0.0, -0.0001, None)] == [
        ".697", "-.012", "1.000", ".000", ".000", "-",
    ]  # fmt: skip
    # A loss that rounds to nothing stays a loss, but for what the rounding of sums leaves.
    assert [number(value, sign=True) for value in (0.0123, -0.0001, -1e-17, -0.0, 0.0001, -1.5)] == [
        "+.012", "-.000", "+.000", "+.000", "+.000", "-1.500",
    ]  # fmt: skip
    assert percent(0.345) == "34 %" and percent(None) == "-"
    assert with_interval({"value": 0.1, "interval": [-0.05, 0.25]}, signed) == "+.100 [-.050, +.250]"

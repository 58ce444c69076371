"""The measures of a robustness study as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..metrics import NDCG
from .measures import GAIN, LEVEL, PRIMARY, SEED_GAINS, SMALLEST_GAP, Row
from .results import CEILING, OVERALL, RECALL, STATUSES, ZERO_SHOT

LABELS = {ZERO_SHOT: "zero-shot", CEILING: "ceiling"}
TITLES = {"seen": "seen", "unseen": "never seen", "english": "English questions"}


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


def with_interval(found: Mapping[str, Any] | None, sign: bool = False) -> str:
    """An estimate and its interval: `+.012 [+.004, +.020]`."""
    if not found or found["value"] is None:
        return "-"
    low, high = found["interval"]
    return f"{number(found['value'], sign)} [{number(low, sign)}, {number(high, sign)}]"


def percent(value: float | None) -> str:
    """A share: `35 %`."""
    return "-" if value is None else f"{value:.0%}".replace("%", " %")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table, and an empty line; nothing if there are no rows."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if not lines:
        return []
    return [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns), *lines, ""]


def select(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """The rows that have these values."""
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def group_tables(report: Mapping[str, Any], view: str, methods: Sequence[str]) -> list[str]:
    """Scores and gains of the seen, the unseen and English questions of a view."""
    columns = ["", "nDCG@10", "gain", "gap closed", "Recall@100", "pooled nDCG@10", "gain", "pooled Recall@100"]
    rows: list[Sequence[str]] = []
    for status in STATUSES:
        found = {row["method"]: row for row in select(report["groups"], view=view, status=status)}
        # The ceiling of English questions is their zero-shot.
        names = [name for name in (ZERO_SHOT, *((CEILING,) * (status != "english")), *methods) if name in found]
        if not names:
            continue
        first = found[names[0]]
        rows.append((f"**{TITLES[status]}**: {' '.join(first['languages'])}", *[""] * 7))
        for name in names:
            row = found[name]
            where = "" if row["sets"] == first["sets"] else f" ({' '.join(row['sets'])} only)"
            rows.append(
                (
                    f"{LABELS.get(name, name)}{where}",
                    with_interval(row[PRIMARY]),
                    with_interval(row.get(GAIN), sign=True),
                    "-" if name in LABELS else percent(row["closed"]),
                    number(row[f"maxsim {RECALL}"]["value"]),
                    number(row[f"pooled {NDCG}"]["value"]),
                    with_interval(row.get(f"gain pooled {NDCG}"), sign=True),
                    number(row[f"pooled {RECALL}"]["value"]),
                )
            )
    return table(columns, rows)


def robustness_table(report: Mapping[str, Any], view: str, names: Sequence[str]) -> list[str]:
    """Unseen against seen, in every way it is measured."""
    columns = [
        "",
        "same language",
        "languages",
        "gain",
        "gain kept",
        "raw",
        "share of zero-shot",
        "share of the ceiling",
    ]
    return table(
        columns,
        [
            (
                row["method"],
                with_interval(row["rotated"], sign=True),
                str(len(row["rotated"]["languages"])),
                with_interval(row["gain"], sign=True),
                percent(row["retention"]),
                with_interval(row["raw"], sign=True),
                with_interval(row["of_zero_shot"], sign=True),
                with_interval(row["of_ceiling"], sign=True),
            )
            for row in select(report["robustness"], view=view)
            if row["method"] in names
        ],
    )


def language_table(report: Mapping[str, Any], view: str, methods: Sequence[str]) -> list[str]:
    """Each language of a view: zero-shot, the ceiling, and each method's score and gain."""
    found = {
        (row["status"], row["languages"][0], row["method"]): row for row in select(report["languages"], view=view)
    }
    stars = {
        (row["status"], row["language"], row["method"])
        for row in select(report["tests"], view=view, against=ZERO_SHOT, significant=True)
    }
    rows: list[Sequence[str]] = []
    for status in STATUSES:
        for language in dict.fromkeys(key[1] for key in found if key[0] == status):
            keys = {name: (status, language, name) for name in (ZERO_SHOT, CEILING, *methods)}
            values = {name: found[key][PRIMARY]["value"] if key in found else None for name, key in keys.items()}
            best = max((value for name in methods if (value := values[name]) is not None), default=None)
            cells = []
            for name in methods:
                if values[name] is None:
                    cells.append("-")
                    continue
                text = f"**{number(values[name])}**" if values[name] == best else number(values[name])
                gain = number(found[keys[name]][GAIN]["value"], sign=True)
                cells.append(f"{text} {gain}{'*' if keys[name] in stars else ''}")
            rows.append((language, TITLES[status], number(values[ZERO_SHOT]), number(values[CEILING]), *cells))
    return table(("", "", "zero-shot", "ceiling", *methods), rows)


def contrast_table(report: Mapping[str, Any], first: str, view: str) -> list[str]:
    """The first method against every other, and the languages in which the difference is significant."""
    rows = []
    for row in select(report["contrasts"], view=view, method=first):
        if row["against"] != ZERO_SHOT:
            wanted = {key: row[key] for key in ("view", "status", "method", "against")}
            tests = select(report["tests"], **wanted)
            found = [
                f"{one['language']} {number(one['difference'], sign=True)}" for one in tests if one["significant"]
            ]
            tally = f"{len(found)} of {len(tests)}{': ' if found else ''}{', '.join(found)}" if tests else ""
            rows.append((row["against"], TITLES[row["status"]], with_interval(row, sign=True), tally))
    return table(("against", "", "difference", "significant"), rows)


def passages_table(report: Mapping[str, Any], name: str, methods: Sequence[str]) -> list[str]:
    """Gains in a set of parallel passages by the language of the passages."""
    kinds = [view for view in dict.fromkeys(row["view"] for row in report["groups"]) if view.startswith(f"{name}, ")]
    rows = []
    for status in STATUSES:
        for method in methods:
            cells = []
            for view in kinds:
                found = select(report["groups"], view=view, status=status, method=method)
                cells.append(with_interval(found[0].get(GAIN), sign=True) if found else "-")
            if set(cells) - {"-"}:
                rows.append((TITLES[status], method, *cells))
    return table(("questions", "", *(kind.removeprefix(f"{name}, ") for kind in kinds)), rows)


def bias_table(report: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Language bias by method and status."""
    rows = []
    for row in report["bias"]:
        if row["method"] in (ZERO_SHOT, *names):
            cells = [_ranks(row[scorer]) for scorer in ("maxsim", "pooled")]
            rows.append((row["set"], TITLES[row["status"]], LABELS.get(row["method"], row["method"]), *cells))
    return table(("", "questions", "", "MaxSim", "pooled"), rows)


def lever_table(report: Mapping[str, Any], view: str) -> list[str]:
    """Each lever beside its base."""
    columns = ["lever", "base", "rotations x seeds", "seen gain", "of base", "kept"]
    columns += ["unseen gain", "of base", "unseen change", "English change"]
    rows: list[Sequence[str]] = []
    for row in select(report["levers"], view=view):
        seen, unseen, english = (row.get(status, {}) for status in STATUSES)
        kept = row.get("kept")
        where = (
            f" ({' '.join(row['sets'])} only)" if view == OVERALL and len(row["sets"]) < len(report["sets"]) else ""
        )
        rows.append(
            (
                row["lever"],
                row["base"],
                f"{len(row['rotations'])} x {len(row['seeds'])}{where}",
                with_interval(seen.get("gain"), sign=True),
                number(seen["base_gain"]["value"], sign=True) if seen else "-",
                f"{percent(kept['value'])} [{percent(kept['interval'][0])}, {percent(kept['interval'][1])}]"
                if kept
                else "-",
                with_interval(unseen.get("gain"), sign=True),
                number(unseen["base_gain"]["value"], sign=True) if unseen else "-",
                with_interval(unseen.get("change"), sign=True),
                with_interval(english.get("change"), sign=True),
            )
        )
    return table(columns, rows)


def seed_table(report: Mapping[str, Any], view: str, names: Sequence[str]) -> list[str]:
    """The gain in each seed of what has several, and how far they are apart."""
    rows: list[Sequence[str]] = []
    seeds = sorted({seed for row in report["groups"] if row["method"] in names for seed in row["seeds"]})
    views = list(report["sets"]) if view == OVERALL else [view]
    for status in STATUSES:
        for row in select(report["groups"], view=view, status=status):
            if row["method"] not in names or len(row["seeds"]) < 2 or SEED_GAINS not in row:
                continue
            gains = dict(zip(row["seeds"], row[SEED_GAINS], strict=True))
            languages = select(report["languages"], status=status, method=row["method"])
            widest = max((one for one in languages if one["view"] in views and SEED_GAINS in one), key=_apart)
            where = [*([widest["view"]] if len(views) > 1 else []), *widest["languages"]]
            rows.append(
                (
                    TITLES[status],
                    row["method"],
                    *(number(gains.get(seed), sign=True) for seed in seeds),
                    number(_apart(row)),
                    f"{' '.join(where)} {number(_apart(widest))}",
                )
            )
    return table(("questions", "", *(f"seed {seed}" for seed in seeds), "apart", "a language, at most"), rows)


def _apart(row: Row) -> float:
    return max(row[SEED_GAINS]) - min(row[SEED_GAINS])


def _ranks(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return "-"
    return f"{found['value']:.1f} [{found['interval'][0]:.1f}, {found['interval'][1]:.1f}]"


INTRODUCTION = (
    "nDCG@10 by MaxSim, where nothing else is said. Means are over evaluation sets, which weigh the same, of",
    "means over their languages, which weigh the same; a language that rotates is in both groups. In brackets,",
    "95 % intervals by bootstrap over queries and seeds (of one seed, over queries only: nothing of how trainings",
    "vary is in them). *Gap closed*: of the way from zero-shot to the",
    f"ceiling, the same questions in English, where it is {number(SMALLEST_GAP)} or more. Tests are paired",
    f"randomisation tests by language, p < {number(LEVEL)} after Holm's correction over the languages of one",
    "evaluation set that are seen, or never seen, in one comparison.",
)
NOTES = {
    "Unseen against seen": [
        "All columns are unseen minus seen, but for *gain kept*: the gain of the unseen as a share of that of the",
        "seen. *Same language*: of each language, its score in rotations that do not see it minus that in those",
        "that do. It is the cleanest, since how hard a language is cancels. *Raw*: of all languages. *Share*: each",
        "pair's score is first divided by that of zero-shot, or of the ceiling where there is one.",
        "",
    ],
    "Levers": [
        "Each beside its base, in the rotations and seeds that both have. *Kept*: the seen gain as a share of the",
        "base's; its interval is that of the change alone.",
        "",
    ],
    "Seeds": [
        "The gain over zero-shot of each seed of training, and how far seeds are apart: in the mean, and in the one",
        "language where they are apart most.",
        "",
    ],
    "Language by language": [
        "An asterisk: differs significantly from zero-shot. Bold: the best of the methods, even if worse than",
        "zero-shot.",
        "",
    ],
    "The language of the passages": [
        "Gain over zero-shot. Seen questions on English passages are the pairs that the bitext has; their pairs",
        "with other languages were never seen either.",
        "",
    ],
    "Language bias": [
        "How many ranks apart the translations of a relevant passage are, in one list of all languages; lower is",
        "better.",
        "",
    ],
}

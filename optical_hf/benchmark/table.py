"""A benchmark as a table."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any


def format_table(record: Mapping[str, Any]) -> str:
    """Lay out what [`run_benchmark`] returns, in Markdown.

    Args:
        record (`dict`): the record.
    """
    clock = "wall clock" if record["device"] == "cuda" else "processor"
    lines = [
        f"`{record['command']}`, {record['date']}",
        "",
        f"{record['machine']}; threads: {record['threads']}, rounds: {record['rounds']}; seconds of the {clock}. "
        + " ".join(
            f"Matrix products in {dtype}: {start / 1e9:,.1f} GFLOP/s at the start, {end / 1e9:,.1f} at the end."
            for dtype, (start, end) in record["matrix_rates"].items()
        ),
        "",
        ", ".join(f"{name} {number or 'not installed'}" for name, number in record["versions"].items()),
        "",
        "| | ours | peer | | times as fast | of the matrix rate | |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [format_row(entry) for entry in record["comparisons"]]
    lines += ["", "Times as fast: the peer's time by ours; the median of the rounds, the least and the most."]
    if any(entry["missing"] for entry in record["comparisons"]):
        lines.append("Peers that were not measured: `pip install 'optical-hf[bench]'`.")
    return "\n".join(lines)


def format_row(entry: Mapping[str, Any]) -> str:
    """Lay out one comparison of the record."""
    ours, theirs, ratios = entry["ours"], entry["theirs"], entry["ratios"]
    theirs_shown = f"not measured: {entry['missing']}" if entry["missing"] else seconds(theirs) if theirs else ""
    rate = f", {entry['amount'] / median(ours):,.0f} {entry['unit']} a second" if entry["amount"] else ""
    cells = [
        entry["name"],
        seconds(ours) + rate,
        entry["peer"] or "",
        theirs_shown,
        f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else "",
        f"{entry['share']:.0%}" if entry["share"] is not None else "",
        "; ".join(entry["notes"]),
    ]
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def seconds(times: list[float]) -> str:
    """Write the median of some seconds, below one of them in thousandths."""
    if not times:
        return "not measured"
    middle = median(times)
    return f"{middle:.2f} s" if middle >= 1 else f"{1000 * middle:.3g} ms"

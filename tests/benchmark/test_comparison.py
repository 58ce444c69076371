"""Rounds that alternate, and the ratios that are made of them."""

from __future__ import annotations

import pytest

from optical_hf.benchmark.comparison import Comparison, check_equal, compare
from optical_hf.benchmark.table import format_row


def entry(comparison: Comparison, rate: float = 1.0) -> dict[str, object]:
    return {**vars(comparison), "ratios": comparison.ratios, "share": comparison.share(rate)}


def test_rounds_alternate_after_a_warm_up_of_both():
    order: list[str] = []
    compare("x", lambda: order.append("ours"), "peer", lambda: lambda: order.append("peer"), rounds=3)
    assert order == ["ours", "peer"] * 4
    order.clear()
    alone = compare("x", lambda: order.append("ours"), rounds=2, now=lambda: 0.0)
    assert (alone.ours, alone.theirs, order) == ([0.0, 0.0], [], ["ours"] * 3)


def test_the_ratio_is_the_median_of_the_rounds():
    # Ours takes 1, 2 and 4 seconds, the peer 3, 3 and 2; between them the clock goes on.
    clock = iter([0.0, 1.0, 10.0, 13.0, 20.0, 22.0, 30.0, 33.0, 40.0, 44.0, 50.0, 52.0])
    comparison = compare(
        "x",
        lambda: None,
        "peer",
        lambda: lambda: None,
        rounds=3,
        now=lambda: next(clock),
        flops=3.0,
        amount=8,
        unit="y",
    )
    assert (comparison.ours, comparison.theirs) == ([1.0, 2.0, 4.0], [3.0, 3.0, 2.0])
    assert comparison.ratios == [3.0, 1.5, 0.5]
    assert comparison.share(2.0) == 3.0 / 2.0 / 2.0
    assert format_row(entry(comparison, 2.0)) == (
        "| x | 2.00 s, 4 y a second | peer | 3.00 s | 1.50 (0.50 to 3.00) | 75% |  |"
    )


def test_a_peer_that_is_not_installed_is_said():
    def make_peer():
        import no_such_peer

        return no_such_peer.run

    comparison = compare(
        "x", lambda: 5, "peer", make_peer, rounds=2, now=lambda: 0.25, notes=lambda ours, peer: [f"{ours} and {peer}"]
    )
    assert (comparison.theirs, comparison.ratios) == ([], [])
    assert format_row(entry(comparison)) == (
        "| x | 0 ms | peer | not measured: No module named 'no_such_peer' |  |  | 5 and None |"
    )


def test_unequal_results_are_not_compared():
    check_equal("scores", [1.0, 2.0], [1.0, 2.00001], 1e-4)
    check_equal("scores", [1.0], None, 0.0)
    for theirs in ([1.0, 2.1], [1.0], [1.0, float("nan")]):
        with pytest.raises(RuntimeError, match="scores: ours and the peer's are not equal"):
            check_equal("scores", [1.0, 2.0], theirs, 1e-4)

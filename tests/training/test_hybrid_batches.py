from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest

from optical_hf.training.hybrid_batches import HybridSampler

PAIRS = [("sw", "sw")] * 60 + [("te", "te")] * 30 + [("sw", "en")] * 50 + [("te", "en")] * 20 + [("en", "te")] * 10


def trainer(seed: int = 0, epoch: float = 0.0) -> SimpleNamespace:
    return SimpleNamespace(args=SimpleNamespace(seed=seed, data_seed=None), state=SimpleNamespace(epoch=epoch))


def sampler(alpha: float, size: int = 4, pairs=PAIRS, temperature: float = 1.0, **options) -> HybridSampler:
    return HybridSampler(pairs, size, alpha, trainer(**options), temperature)


def batches(made: HybridSampler) -> list[list[int]]:
    rows = list(made)
    assert len(rows) == len(made)
    return [rows[start : start + made.batch_size] for start in range(0, len(rows), made.batch_size)]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_shares_of_ten_thousand_batches_are_those_asked_for(alpha):
    kinds: Counter = Counter()
    for epoch in range(300):
        for batch in batches(sampler(alpha, epoch=epoch)):
            (pair,) = {PAIRS[row] for row in batch}
            assert len(set(batch)) == 4
            kinds[pair] += 1
    total = kinds.total()
    assert total >= 300 * 80 // 4
    rows = Counter(PAIRS)
    for alike, share in ((True, alpha), (False, 1 - alpha)):
        of_kind = {pair: count for pair, count in rows.items() if (pair[0] == pair[1]) is alike}
        for pair, count in of_kind.items():
            expected = share * count / sum(of_kind.values())
            error = (expected * (1 - expected) / total) ** 0.5
            assert abs(kinds[pair] / total - expected) <= 3 * error


def test_temperature_evens_pairs_out():
    kinds = Counter(
        PAIRS[batch[0]] for epoch in range(100) for batch in batches(sampler(0.0, 2, epoch=epoch, temperature=1e9))
    )
    assert max(kinds.values()) < 1.15 * min(kinds.values()) and len(kinds) == 3


def test_rows_of_a_pair_come_equally_often():
    pairs = [("sw", "sw")] * 10 + [("sw", "en")] * 7
    for epoch in range(20):
        drawn = Counter(row for batch in batches(sampler(0.5, 3, pairs, epoch=epoch)) for row in batch)
        for rows in (range(10), range(10, 17)):
            counts = [drawn[row] for row in rows]
            assert max(counts) - min(counts) <= 1


def test_order_follows_from_seed_and_epoch():
    assert list(sampler(0.5)) == list(sampler(0.5)) == list(sampler(0.5, epoch=0.9))
    orders = [list(sampler(0.5, seed=seed, epoch=epoch)) for seed in (0, 1) for epoch in (0.0, 1.0)]
    assert all(one != other for i, one in enumerate(orders) for other in orders[:i])


@pytest.mark.parametrize(
    ("alpha", "size", "pairs", "message"),
    [
        (-0.1, 4, PAIRS, "`alpha` is -0.1; it has to lie between 0 and 1"),
        (1.5, 4, PAIRS, "`alpha` is 1.5"),
        (float("nan"), 4, PAIRS, "`alpha` is nan"),
        (0.5, 4, [("sw", "en")] * 8, "there is no monolingual row, of 8"),
        (0.5, 4, [("sw", "sw")] * 8, "there is no cross-lingual row, of 8"),
        (0.5, 12, PAIRS, "en-te has 10 rows, fewer than the 12 of a batch"),
    ],
)
def test_batches_that_cannot_be_made_are_refused(alpha, size, pairs, message):
    with pytest.raises(ValueError, match=message):
        sampler(alpha, size, pairs)


def test_rows_that_take_no_part_are_warned_of(caplog):
    assert {PAIRS[row] for row in sampler(1.0, 12)} == {("sw", "sw"), ("te", "te")}
    assert "the 80 cross-lingual rows are not trained on" in caplog.text

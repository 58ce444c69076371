"""Which batches a step is measured on, and which parts of it are told apart."""

from __future__ import annotations

import pytest
from trainers import make_bitext

from optical_hf.benchmark.step import StepSeconds, spread_batches, step_parts, train_between


def test_batches_are_of_like_length_from_the_shortest_to_the_longest():
    pairs = make_bitext(40)
    rows = spread_batches(pairs, 4, 3)
    lengths = sorted(len(text) for text in pairs["translation"])
    assert [len(text) for text in rows["translation"]] == [*lengths[:4], *lengths[18:22], *lengths[-4:]]


def test_the_first_step_is_left_out(build):
    trainer, steps = build(make_bitext(16), max_steps=4), []
    train_between(
        trainer, lambda: steps.append(trainer.state.global_step), lambda: steps.append(trainer.state.global_step)
    )
    assert steps == [1, 4]
    clock = iter([5.0, 8.0])
    watch = StepSeconds(lambda: next(clock), 3)
    watch.train(trainer)
    assert watch.total == 1.0


def test_parts_of_a_step_are_counted_between_their_ends(build):
    # A clock that counts its readings: three parts a step, each of one tick, of 9 or 10 in all.
    ticks = iter(range(1000))
    trainer = build(make_bitext(16), max_steps=4)
    parts = step_parts(trainer, lambda: float(next(ticks)))
    steps, readings = 3, 7  # two a part, and one more where the gradient of the other vectors arrives
    assert parts == pytest.approx(dict.fromkeys(("forward", "backward", "optimizer"), steps / (steps * readings + 1)))
    assert not trainer.model._forward_hooks and not trainer.model._forward_pre_hooks
    assert trainer.accelerator.backward.__name__ == "backward"

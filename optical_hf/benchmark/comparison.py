"""One measurement: ours and a peer's, timed in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch

Now = Callable[[], float]  # the seconds on a clock


@dataclass(kw_only=True)
class Comparison:
    """What was measured.

    Args:
        name (`str`): what was done.
        ours (`list[float]`): seconds of every round.
        peer (`str`, *optional*): what does the same.
        theirs (`list[float]`, *optional*): seconds of its rounds.
        missing (`str`, *optional*): why the peer was not measured.
        amount, unit (`float` and `str`, *optional*): how much a round of ours does, such as so many `"lines"`.
        flops (`float`, *optional*): floating-point operations of a round of ours, those of its matrix products.
        dtype (`str`, *optional*, defaults to `"float32"`): what it multiplies in.
        notes (`list[str]`, *optional*): what else there is to say.
    """

    name: str
    ours: list[float]
    peer: str | None = None
    theirs: list[float] = field(default_factory=list)
    missing: str | None = None
    amount: float | None = None
    unit: str = ""
    flops: float | None = None
    dtype: str = "float32"
    notes: list[str] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """`list[float]`: by round, how many times as long as ours the peer took; empty without one."""
        return [theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=False)]

    def share(self, rate: float) -> float | None:
        """Share of the machine's matrix rate that ours reaches, where its operations were counted."""
        return None if self.flops is None else self.flops / median(self.ours) / rate


def cpu_now() -> float:
    """Seconds that the processor has worked for this process, all of its threads together."""
    return time.process_time()


def card_now() -> float:
    """Seconds on the wall, once the card has done all that it was told to."""
    torch.cuda.synchronize()
    return time.perf_counter()


def compare(
    name: str,
    ours: Callable[[], Any],
    peer: str | None = None,
    make_peer: Callable[[], Callable[[], Any]] | None = None,
    *,
    rounds: int,
    now: Now = cpu_now,
    notes: Callable[[Any, Any], Sequence[str]] | None = None,
    **more: Any,
) -> Comparison:
    """Time ours, the peer, ours, the peer and so on, since a machine is not as fast at one time as at another.

    Both are warmed up before. A peer that is not installed is left out, and said.

    Args:
        name (`str`): what is done.
        ours (`Callable`): does it.
        peer (`str`, *optional*): who else does.
        make_peer (`Callable`, *optional*): imports the peer and returns what does it.
        rounds (`int`): how often each is timed.
        now (`Callable`, *optional*): the clock; by default the processor's seconds.
        notes (`Callable`, *optional*): takes what both return (`None` without a peer) and returns notes. It raises
            an error if they do not agree.
        more: the other fields of [`Comparison`].
    """
    theirs, missing = None, None
    if make_peer is not None:
        try:
            theirs = make_peer()
        except ImportError as error:
            missing = str(error)
    results = ours(), None if theirs is None else theirs()
    said = [] if notes is None else list(notes(*results))
    del results
    times: tuple[list[float], list[float]] = [], []
    for _ in range(rounds):
        for call, seconds in zip((ours, theirs), times, strict=True):
            if call is not None:
                began = now()
                call()
                seconds.append(now() - began)
    return Comparison(name=name, ours=times[0], peer=peer, theirs=times[1], missing=missing, notes=said, **more)


def check_equal(what: str, ours: Any, theirs: Any, atol: float) -> None:
    """Refuse to compare the times of two that do not give the same numbers."""
    if theirs is None:
        return
    first, second = (torch.as_tensor(numbers, dtype=torch.float64) for numbers in (ours, theirs))
    if first.shape != second.shape or not torch.allclose(first, second, rtol=0, atol=atol):
        raise RuntimeError(f"{what}: ours and the peer's are not equal, so their times cannot be compared.")

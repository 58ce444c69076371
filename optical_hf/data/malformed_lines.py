"""The lines of training data that cannot be read."""

from __future__ import annotations

_MOST_NAMED = 20


class MalformedLines:
    """The lines that could not be read, of all sources: at most 20 are named, all are counted.

    Args:
        at_once (`bool`):
            Whether the first malformed line raises, rather than `raise_if_any` in the end.
        what (`str`, *optional*, defaults to `"bitext"`):
            What they are lines of, for the error.
    """

    def __init__(self, at_once: bool = False, what: str = "bitext") -> None:
        self.at_once, self.what = at_once, what
        self.count = 0
        self.named: list[str] = []

    def add(self, place: str, problem: str) -> None:
        """Note a line.

        Args:
            place (`str`): the file and where in it.
            problem (`str`): what is wrong there, and what to do.
        """
        self.count += 1
        if len(self.named) < _MOST_NAMED:
            self.named.append(f"{place}: {problem}")
        if self.at_once:
            self.raise_if_any()

    def raise_if_any(self) -> None:
        """Raise what was noted.

        Raises:
            ValueError: naming the lines.
        """
        if self.count:
            more = [f"... and {self.count - len(self.named)} more"] if self.count > len(self.named) else []
            lines = "line" if self.count == 1 else "lines"
            raise ValueError(
                "\n  ".join(
                    [f"{self.count} malformed {lines} in the {self.what}; correct or delete:", *self.named, *more]
                )
            )

"""Docstrings in the style of Hugging Face, made readable for mkdocstrings: links, types, and headings in arguments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import griffe

# The type of an argument, which is shown as code: `float`, *optional*, or [`OpticalStudent`].
TYPE = re.compile(r"^(    \*{0,2}\w+(?:, \w+)*) \((.*?)\):(?= |$)", re.MULTILINE)
LINK = re.compile(r"\[`~?([\w.]+)`\](?!\()")
TIP = re.compile(r"^</?Tip.*>\n*", re.MULTILINE)
EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)
HEADING = re.compile(r"^ *> .*\n\n?", re.MULTILINE)  # "> Parameters that control ..." between two arguments


class HuggingFaceDocstrings(griffe.Extension):
    """Turn [`Name`] into a link to the page of that name, or into code where there is none."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Change every docstring of the package."""
        objects = list(documented(pkg))
        places = {item.name: item.path for item in objects}
        places |= {f"{item.parent.name}.{item.name}": item.path for item in objects if item.parent is not None}
        for item in objects:
            assert item.docstring is not None
            text = TYPE.sub(plain_type, item.docstring.value)
            text = EXAMPLE.sub("Examples:", HEADING.sub("", TIP.sub("", text)))
            item.docstring.value = LINK.sub(lambda link: linked(link[1], places), text)


def plain_type(argument: re.Match[str]) -> str:
    """Write an argument's type without marks of Markdown."""
    kind = LINK.sub(r"\1", argument[2])
    return f"{argument[1]} ({kind.replace('`', '').replace('*', '')}):"


def documented(item: griffe.Object) -> Iterator[griffe.Object]:
    """Yield what has a docstring, from an object down."""
    if item.docstring is not None:
        yield item
    for member in item.members.values():
        if isinstance(member, griffe.Object) and not member.name.startswith("_"):
            yield from documented(member)


def linked(name: str, places: dict[str, str]) -> str:
    """Write a name as a link, if it is one of the package."""
    place = places.get(".".join(name.split(".")[-2:])) or places.get(name.split(".")[-1])
    return f"[`{name}`][{place}]" if place else f"`{name}`"

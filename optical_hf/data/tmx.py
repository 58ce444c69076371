"""TMX 1.4b, the exchange format of translation memories."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree

from .bitext_rows import choose_tag, is_full, tag_language
from .malformed_lines import MalformedLines
from .text_files import DAMAGE, open_bytes

_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
# They hold what the original file's format had in this place; a sub-flow (<sub>) within them, such as a footnote, is
# no part of the sentence. All others, such as <hi>, XLIFF's <g> and <mrk>, or HTML's <b>, mark up the sentence itself.
_CODES = frozenset(("bpt", "ept", "it", "ph", "ut"))


def read_tmx(path: str, language: str, malformed: MalformedLines) -> Iterator[tuple[str, str]]:
    """Yield the pairs of every translation unit that has English and the language.

    Args:
        path (`str`): the file, plain or compressed.
        language (`str`): as `language_code` gives it.
        malformed ([`MalformedLines`]): notes where the file cannot be read, and units with several variants of a
            language that have the same right, see [`choose_tag`].
    """
    body: ElementTree.Element | None = None
    units = 0
    with open_bytes(path) as file:
        events = ElementTree.iterparse(file, events=("start", "end"))
        while True:
            try:
                event, element = next(events)
            except StopIteration:
                return
            except ElementTree.ParseError as error:
                malformed.add(f"{path}:{error.position[0]}", f"not well-formed TMX ({error})")
                return
            except DAMAGE:
                malformed.add(path, "the file is cut off or damaged; fetch it again")
                malformed.raise_if_any()
            except (LookupError, ValueError) as error:  # an encoding that is unknown, or not read by expat
                malformed.add(path, f"cannot be read as XML ({error}); convert the file to UTF-8")
                return
            tag = _local_name(element)
            if event == "start" and tag == "body":
                body = element
            elif event == "end" and tag == "tu":
                units += 1
                try:
                    pairs = _unit_pairs(element, language)
                except ValueError as error:
                    malformed.add(f"{path}, translation unit {units}", str(error))
                    continue
                finally:
                    if body is not None:
                        body.clear()  # keeps memory flat however long the file is
                yield from pairs


def _local_name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _unit_pairs(unit: ElementTree.Element, language: str) -> list[tuple[str, str]]:
    texts: dict[str, list[str]] = {}
    for variant in unit.iterfind("{*}tuv"):
        tag = variant.get(_XML_LANG) or variant.get("lang") or ""
        segment = variant.find("{*}seg")
        if segment is not None and tag_language(tag) in ("en", language):
            texts.setdefault(tag, []).append(_segment_text(segment))
    joined = {tag: "".join(segments) for tag, segments in texts.items()}
    english, translation = choose_tag(joined, "en"), choose_tag(joined, language)
    if english is None or translation is None:
        return []
    first = next(filter(is_full, texts[english]), "")
    return [(first, text) for text in texts[translation]]


def _segment_text(segment: ElementTree.Element) -> str:
    parts = [segment.text or ""]
    # A list in place of recursion, which would end at a depth of a thousand.
    waiting: list[ElementTree.Element | str] = list(reversed(segment))
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            parts.append(item)
            continue
        waiting.append(item.tail or "")
        if _local_name(item) not in _CODES:
            parts.append(item.text or "")
            waiting += reversed(item)
    return "".join(parts)

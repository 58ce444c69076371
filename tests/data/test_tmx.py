"""TMX 1.4b: inline elements, variants of a language, and what cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from optical_hf.data.malformed_lines import MalformedLines
from optical_hf.data.tmx import read_tmx


def unit(*variants: tuple[str, str]) -> str:
    return "<tu>" + "".join(f'<tuv xml:lang="{tag}"><seg>{text}</seg></tuv>' for tag, text in variants) + "</tu>\n"


def pairs_of(path: Path, *units: str, language: str = "sw", header: str = "") -> list[tuple[str, str]]:
    path.write_text(f'{header}<tmx version="1.4"><header/><body>\n{"".join(units)}</body></tmx>', encoding="utf-8")
    malformed = MalformedLines()
    pairs = list(read_tmx(str(path), language, malformed))
    malformed.raise_if_any()
    return pairs


@pytest.mark.parametrize(
    ("segment", "text"),
    [
        ('Press the <g id="1">red button</g> now.', "Press the red button now."),
        ("Good <hi>morn<hi>ing</hi></hi>.", "Good morning."),
        ('A <mrk mtype="term">term</mrk> here', "A term here"),
        ("H<sub>2</sub>O and <b>bold</b>", "H2O and bold"),
        ('<bpt i="1">&lt;b&gt;</bpt>Bold<ept i="1">&lt;/b&gt;</ept>!', "Bold!"),
        ('One<ph>&lt;img alt="<sub>a <hi>footnote</hi></sub>"&gt;</ph> two<it pos="end">x</it><ut>y</ut>', "One two"),
        ('Line <x id="2"/>and <bx/>more<ex/>', "Line and more"),
        ("No <!-- comment --><?pi x?>text", "No text"),
    ],
)
def test_only_codes_are_left_out_of_a_segment(tmp_path: Path, segment: str, text: str) -> None:
    assert pairs_of(tmp_path / "b.tmx", unit(("en", segment), ("sw", "Bonyeza."))) == [(text, "Bonyeza.")]


def test_a_segment_nested_without_end_is_read(tmp_path: Path) -> None:
    segment = "<g>" * 10_000 + "deep" + "</g>x" * 10_000
    assert pairs_of(tmp_path / "b.tmx", unit(("en", segment), ("sw", "B"))) == [("deep" + "x" * 10_000, "B")]


@pytest.mark.parametrize(
    ("variants", "pairs"),
    [
        ([("en", "A"), ("pt", "B"), ("pt-BR", "C")], [("A", "B")]),
        ([("en", ""), ("en-GB", "A"), ("pt-BR", "C"), ("pt", " ")], [("A", "C")]),
        ([("en", "A"), ("pt", "B"), ("pt", "C")], [("A", "B"), ("A", "C")]),
        ([("en", "\u200b"), ("en", "A"), ("pt", "B")], [("A", "B")]),
        ([("en", "A"), ("pt-BR", "")], [("A", "")]),
        ([("en", "A"), ("de", "B")], []),
    ],
)
def test_variants_are_chosen_as_in_rows(tmp_path: Path, variants: list, pairs: list) -> None:
    assert pairs_of(tmp_path / "b.tmx", unit(*variants), language="pt") == pairs


def test_two_variants_of_the_same_right_are_named_with_their_unit(tmp_path: Path) -> None:
    path = tmp_path / "b.tmx"
    units = [unit(("en", "A"), ("zh", "一")), unit(("en", "A"), ("zh-CN", "一"), ("zh-TW", "二"))]
    with pytest.raises(ValueError, match=rf"{path}, translation unit 2: 'zh-CN' and 'zh-TW' are all 'zh'; keep one"):
        pairs_of(path, *units, language="zh")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            "<?xml version='1.0' encoding='GB2312'?>",
            r"b\.tmx: cannot be read as XML \(multi-byte encodings are not",
        ),
        ("<?xml version='1.0' encoding='klingon'?>", r"b\.tmx: cannot be read as XML \(unknown encoding: klingon\)"),
        ("<?xml version='1.0' encoding='utf-16'?>", r"b\.tmx:1: not well-formed TMX \(encoding specified"),
        ("&", r"b\.tmx:1: not well-formed TMX"),
    ],
)
def test_files_that_are_no_xml_in_an_encoding_we_read(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pairs_of(tmp_path / "b.tmx", unit(("en", "A"), ("sw", "B")), header=header)


def test_utf_16_is_read(tmp_path: Path) -> None:
    path = tmp_path / "b.tmx"
    text = f"<?xml version='1.0' encoding='utf-16'?><tmx><body>{unit(('en', 'A'), ('yo', 'ọ́'))}</body></tmx>"
    path.write_bytes(text.encode("utf-16"))
    assert list(read_tmx(str(path), "yo", MalformedLines())) == [("A", "ọ́")]


def test_entities_that_multiply_are_refused(tmp_path: Path) -> None:
    entities = '<!ENTITY a0 "aaaaaaaaaa">' + "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10))
    with pytest.raises(ValueError, match=r"b\.tmx:\d+: not well-formed TMX \(limit on input amplification"):
        pairs_of(tmp_path / "b.tmx", unit(("en", "&a9;"), ("sw", "B")), header=f"<!DOCTYPE tmx [{entities}]>")

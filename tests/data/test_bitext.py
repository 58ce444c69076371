from __future__ import annotations

import bz2
import gzip
import json
import logging
import lzma
import math
import pickle
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from datasets import Dataset, DatasetDict

from optical_hf.data.bitext import load_bitext, parse_bitext_arguments
from optical_hf.data.bitext_readers import find_source
from optical_hf.data.bitext_sampling import balance_languages, hold_out, language_probabilities
from optical_hf.data.languages import language_code

PAIRS = [("Good morning.", "Ẹ káàárọ̀."), ("The child is reading.", "Ọmọ náà ń kàwé.")]
TMX = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4"><header segtype="sentence"/><body>
<tu><tuv xml:lang="en-GB"><seg>Good <hi>morning</hi>.</seg></tuv><tuv xml:lang="YO"><seg>Ẹ káàárọ̀.</seg></tuv></tu>
<tu><tuv xml:lang="de"><seg>Guten Tag.</seg></tuv><tuv xml:lang="en"><seg>Good day.</seg></tuv></tu>
<tu><tuv lang="yor"><seg>Ọmọ <bpt i="1">&lt;b&gt;</bpt>náà<ept i="1">&lt;/b&gt;</ept> ń kàwé.</seg></tuv>
<tuv lang="eng"><seg>The child is reading.</seg></tuv></tu>
</body></tmx>
"""


def write(path: Path, text: str | bytes) -> Path:
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def tsv(pairs: list[tuple[str, str]]) -> str:
    return "".join(f"{english}\t{translation}\n" for english, translation in pairs)


def pairs_of(dataset: Dataset) -> list[tuple[str, str]]:
    return [(row["english"], row["translation"]) for row in dataset]


def counts(kept: int = 0, **dropped: int) -> dict[str, int]:
    return {"kept": kept, "empty": 0, "identical": 0, "long": 0, "mismatched": 0, "duplicate": 0} | dropped


@pytest.mark.parametrize(
    ("code", "expected"),
    [("SWA", "sw"), ("sw", "sw"), ("swh", "sw"), ("yor", "yo"), ("ceb", "ceb"), ("en", "en"), ("cmn", "zh")]
    + [("ger", "de"), ("iw", "he"), ("tl", "tl"), ("fil", "tl"), ("fuv", "fuv"), ("sh", "sr")],
)
def test_language_code(code: str, expected: str) -> None:
    assert language_code(code) == expected


@pytest.mark.parametrize("code", ["xq", "", "english", "en-US", "sw_KE", "und", "mul", "qaa", "e1", "i-klingon"])
def test_language_code_rejects(code: str) -> None:
    with pytest.raises(ValueError, match=f"^'{code}' is not a language code; use ISO 639-1 such as 'sw'"):
        language_code(code)


def test_parse_bitext_arguments() -> None:
    assert parse_bitext_arguments(["sw=a.tsv", "yo=b=1.tsv", "yor=owner/name:en-yo"]) == {
        "sw": ["a.tsv"],
        "yo": ["b=1.tsv", "owner/name:en-yo"],
    }


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("a.tsv", r"--bitext a\.tsv: write language=source"),
        ("sw=", "--bitext sw=: write language=source"),
        ("=a.tsv", "'' is not a language code"),
        ("xq=a.tsv", "'xq' is not a language code"),
        ("eng=a.tsv", "'en' cannot be its language"),
    ],
)
def test_parse_bitext_arguments_rejects(argument: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_bitext_arguments(["yo=b.tsv", argument])


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("kind", ["tsv", "english", "non_english", "dictionary", "tmx", "comma", "prefix"])
def test_every_file_format_gives_the_same_pairs(tmp_path: Path, kind: str, end: str) -> None:
    rows: list[dict] = []
    if kind == "tsv":
        source = str(write(tmp_path / f"b.tsv{end}", "\ufeff" + tsv(PAIRS).replace("\n", "\r\n")))
    elif kind == "tmx":
        source = str(write(tmp_path / f"b.tmx{end}", TMX))
    elif kind in ("comma", "prefix"):
        sides = [
            write(tmp_path / f"corpus.en-yo.{language}{end}", "\n".join(lines))
            for language, lines in zip(("en", "yo"), zip(*PAIRS, strict=True), strict=True)
        ]
        source = ",".join(map(str, sides)) if kind == "comma" else str(tmp_path / "corpus.en-yo")
    else:
        for english, yoruba in PAIRS:
            if kind == "dictionary":
                rows.append({"translation": {"en": english, "yo": yoruba}})
            else:
                rows.append({"english": english, "translation" if kind == "english" else kind: yoruba, "id": 7})
        source = str(write(tmp_path / f"b.jsonl{end}", "\n\n".join(map(json.dumps, rows))))
    bitext = load_bitext({"yo": source})
    assert bitext.dataset.column_names == ["english", "translation", "language"]
    assert pairs_of(bitext.dataset) == PAIRS
    assert bitext.dataset["language"][:] == ["yo", "yo"]
    assert bitext.counts == {"yo": counts(kept=2)}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("form", ["dataset", "dictionary of splits", "folder of files"])
def test_dataset_folders(tmp_path: Path, form: str, streaming: bool) -> None:
    folder = tmp_path / "folder"
    english, yoruba = zip(*PAIRS, strict=True)
    dataset = Dataset.from_dict({"english": english, "non_english": yoruba})
    nested = Dataset.from_list([{"translation": {"en": e, "yo": y}} for e, y in PAIRS])
    if form == "dataset":
        nested.save_to_disk(folder)
    elif form == "dictionary of splits":
        DatasetDict({"train": dataset.select([1]), "validation": dataset}).save_to_disk(folder)
    else:
        folder.mkdir()
        write(folder / "validation.jsonl", "\n".join(json.dumps(row) for row in dataset))
        write(folder / "train.jsonl", json.dumps({"english": "x", "non_english": "y"}))
    bitext = load_bitext({"yo": folder}, split="validation", streaming=streaming)
    assert pairs_of(bitext.dataset) == PAIRS


def test_dataset_folder_errors(tmp_path: Path) -> None:
    DatasetDict({"dev": Dataset.from_dict({"english": ["a"], "translation": ["b"]})}).save_to_disk(tmp_path / "splits")
    with pytest.raises(ValueError, match=r"splits: folder cannot be read \(no split 'train' among \['dev'\]\)"):
        load_bitext({"yo": tmp_path / "splits"})
    Dataset.from_dict({"source": ["a"] * 3, "target": ["b"] * 3}).save_to_disk(tmp_path / "columns")
    with pytest.raises(
        ValueError, match=r"1 malformed line .*\n.*columns, row 1: the keys are \['source', 'target'\]"
    ):
        load_bitext({"yo": tmp_path / "columns"})


def test_text_is_composed_and_spaces_collapsed(tmp_path: Path) -> None:
    # o + dot below + acute has a composed dot below only; a decomposed "é" becomes one character.
    path = write(tmp_path / "b.tsv", " The\u00a0 cafe\u0301 \tO\u0323\u0301mo\u0323\u3000 na\u0301a\u0300 \n")
    row = load_bitext({"yo": path}).dataset[0]
    assert row == {"english": "The caf\u00e9", "translation": "\u1ecc\u0301m\u1ecd n\u00e1\u00e0", "language": "yo"}


@pytest.mark.parametrize("streaming", [False, True])
def test_filters_count_every_reason(tmp_path: Path, streaming: bool) -> None:
    first = write(
        tmp_path / "first.tsv",
        tsv(
            [
                ("One two three four.", "Ọkan méjì mẹ́ta mẹ́rin."),
                ("", "Òfo."),
                ("Empty.", " \u3000"),
                ("Associated Press", "ASSOCIATED PRESS"),
                ("One two three four five.", "Ọkan méjì."),  # five words: too long
                ("Yes.", "Bẹ́ẹ̀ ni, ọ̀rẹ́ mi."),  # short: tolerated
                ("y" * 14, "n" * 62),  # (62 + 10) / (14 + 10) is 3
                ("y" * 14, "n" * 63),
                ("One two three four.", "Ọkan méjì mẹ́ta mẹ́rin."),
            ]
        )
        + "\n",  # an empty line is an empty pair
    )
    second = write(
        tmp_path / "second.tsv",
        tsv([("One  two three four. ", "Ọkan méjì mẹ́ta mẹ́rin."), ("One two three four.", "Ọ̀kan.")]),
    )
    bitext = load_bitext({"yor": [str(first), second]}, max_words=4, streaming=streaming)
    assert pairs_of(bitext.dataset) == [
        ("One two three four.", "Ọkan méjì mẹ́ta mẹ́rin."),
        ("Yes.", "Bẹ́ẹ̀ ni, ọ̀rẹ́ mi."),
        ("y" * 14, "n" * 62),
        ("One two three four.", "Ọ̀kan."),
    ]
    assert bitext.counts == {"yo": counts(kept=4, empty=3, identical=1, long=1, mismatched=1, duplicate=2)}


@pytest.mark.parametrize(
    ("language", "text", "kept"),
    [
        # One run of Han is a word, and each two characters are another: 1 + 3 and 1 + 4.
        ("zh", "这是一本新", True),
        ("zh", "这是一本新书籍了", False),
        ("th", "หนังสือเล่มนี้ดี", True),  # 1 + 16 // 5
        ("th", "หนังสือเล่มนี้ดีมาก" + "ๆ", False),  # 1 + 20 // 5
    ],
)
def test_words_of_scripts_without_spaces(tmp_path: Path, language: str, text: str, kept: bool) -> None:
    path = write(tmp_path / "b.tsv", tsv([("This is new.", text), ("Yes, it is.", "X")]))
    assert load_bitext({language: path}, max_words=4).counts[language] == counts(kept=1 + kept, long=1 - kept)


def test_wide_characters_count_twice_in_lengths(tmp_path: Path) -> None:
    # 80 + 10 characters to 2 * 10 + 10 is 3; as 80 + 10 to 10 + 10 it would be mismatched.
    path = write(tmp_path / "b.tsv", tsv([("y" * 80, "书" * 10), ("y" * 81, "书" * 10)]))
    assert load_bitext({"zh": path}).counts["zh"] == counts(kept=1, mismatched=1)


def test_counts_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="optical_hf.data.bitext")
    few = write(tmp_path / "few.tsv", tsv([*PAIRS, ("Same.", "Same.")]))
    most = write(tmp_path / "most.tsv", tsv([PAIRS[0], ("Same.", "Same."), ("", "x")]))
    load_bitext({"yo": few, "sw": most})
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "Bitext en-yo: 2 of 3 pairs kept; dropped: 1 identical."),
        ("WARNING", "Bitext en-sw: 1 of 3 pairs kept; dropped: 1 empty, 1 identical."),
    ]


@pytest.mark.parametrize("streaming", [False, True])
def test_no_pair_left(tmp_path: Path, streaming: bool) -> None:
    path = write(tmp_path / "b.tsv", "Same.\tSame.\n")
    message = "Bitext en-yo: 0 of 1 pairs kept; dropped: 1 identical. No pair is left"
    with pytest.raises(ValueError, match=message):
        list(load_bitext({"yo": path}, streaming=streaming).dataset)


@pytest.mark.parametrize(
    ("name", "content", "problems"),
    [
        (
            "b.tsv",
            b"Good.\tDara.\nno tab\na\tb\tc\n\xffx\ty\n",
            [
                "{path}:2: no tab; a line is english<TAB>translation",
                "{path}:3: 3 columns; a line is english<TAB>translation",
                "{path}:4: not UTF-8 at byte 1; convert the file to UTF-8",
            ],
        ),
        (
            "b.jsonl",
            b'{"english": "a", "translation": "b"}\n{"english": \n["a", "b"]\n{"en": "a", "yo": "b"}\n'
            b'{"translation": {"en": "a", "sw": "b"}}\n{"english": "a", "translation": 3}\n{"translation": "b"}\n',
            [
                "{path}:2: not JSON (Expecting value, column 13); a line is one JSON object",
                "{path}:3: a list, not an object with the keys 'english' and 'translation'",
                "{path}:4: the keys are ['en', 'yo']; they must be 'english' and 'translation' (or 'non_english'), or "
                "'translation' with an object of 'en' and 'yo'",
                "{path}:5: 'translation' has the languages ['en', 'sw'], not 'en' and 'yo'",
                "{path}:6: 3 is not a text",
                "{path}:7: the keys are ['translation']; they must be 'english' and 'translation' (or 'non_english'), "
                "or 'translation' with an object of 'en' and 'yo'",
            ],
        ),
        (
            "b.tmx",
            TMX.replace("</seg></tuv></tu>\n</body>", "</tuv></tu>\n</body>").encode(),
            ["{path}:7: not well-formed TMX (mismatched tag: line 7, column 44)"],
        ),
    ],
)
def test_malformed_lines_are_all_named(tmp_path: Path, name: str, content: bytes, problems: list[str]) -> None:
    path = write(tmp_path / name, content)
    lines = "line" if len(problems) == 1 else "lines"
    expected = [f"{len(problems)} malformed {lines} in the bitext; correct or delete:"]
    expected += [problem.format(path=path) if "{path}" in problem else problem for problem in problems]
    with pytest.raises(ValueError) as error:
        load_bitext({"yo": path})
    assert str(error.value) == "\n  ".join(expected)
    # A stream stops at the first one, after the pairs before it.
    rows = iter(load_bitext({"yo": path}, streaming=True).dataset)
    with pytest.raises(ValueError) as error:
        assert [next(rows)["language"] for _ in range(5)] == []
    assert str(error.value) == "\n  ".join(["1 malformed line in the bitext; correct or delete:", expected[1]])


def test_malformed_lines_are_counted_beyond_twenty(tmp_path: Path) -> None:
    first = write(tmp_path / "first.tsv", "x\n" * 12)
    second = write(tmp_path / "second.tsv", "x\n" * 12)
    with pytest.raises(ValueError) as error:
        load_bitext({"yo": first, "sw": second})
    lines = str(error.value).split("\n  ")
    assert len(lines) == 22
    assert lines[0] == "24 malformed lines in the bitext; correct or delete:"
    assert lines[20] == f"{second}:8: no tab; a line is english<TAB>translation"
    assert lines[21] == "... and 4 more"


@pytest.mark.parametrize(("english", "yoruba"), [(3, 2), (2, 5)])
def test_moses_files_of_different_length(tmp_path: Path, english: int, yoruba: int) -> None:
    lengths = {write(tmp_path / "c.en", "a\n" * english): english, write(tmp_path / "c.yo", "b\n" * yoruba): yoruba}
    (shorter, few), (longer, many) = sorted(lengths.items(), key=lambda item: item[1])
    with pytest.raises(ValueError) as error:
        load_bitext({"yo": tmp_path / "c"})
    assert str(error.value).split("\n  ")[1:] == [
        f"{shorter}:3: ends after {few} lines, {longer} after {many}; line n of both must be a pair"
    ]


def test_an_undecodable_moses_line_keeps_the_files_aligned(tmp_path: Path) -> None:
    write(tmp_path / "c.en", b"one\n\xff\nthree\n")
    write(tmp_path / "c.yo", "ọkan\nméjì\nmẹ́ta\n")
    with pytest.raises(ValueError) as error:
        load_bitext({"yo": tmp_path / "c"})
    assert str(error.value).split("\n  ")[1:] == [f"{tmp_path}/c.en:2: not UTF-8 at byte 1; convert the file to UTF-8"]


@pytest.mark.parametrize("name", ["b.tsv", "b.jsonl", "b.tmx"])
@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_damaged_compressed_files(tmp_path: Path, name: str, compress: Callable[[bytes], bytes]) -> None:
    rows = [(f"Good morning {i}.", f"Ẹ káàárọ̀ {i}.") for i in range(9)]
    contents = {
        "b.tsv": tsv(rows),
        "b.jsonl": "".join(json.dumps({"english": e, "translation": y}) + "\n" for e, y in rows),
        "b.tmx": TMX,
    }
    path = write(tmp_path / name, compress(contents[name].encode())[:-12])
    with pytest.raises(ValueError, match=r"1 malformed line in the bitext") as error:
        load_bitext({"yo": path})
    problem = str(error.value).split("\n  ")[1]
    assert re.fullmatch(rf"{path}(:\d+)?: the file is cut off or damaged( here)?; fetch it again", problem)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, bytes])
@pytest.mark.parametrize("name", ["b.tsv", "b.tsv.gz", "b.tsv.bz2", "b.tsv.xz"])
def test_the_first_bytes_tell_how_a_file_is_compressed(
    tmp_path: Path, name: str, compress: Callable[[bytes], bytes]
) -> None:
    (tmp_path / name).write_bytes(compress(tsv(PAIRS).encode()))
    assert pairs_of(load_bitext({"yo": tmp_path / name}).dataset) == PAIRS


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"PK\x03\x04", "a zip archive"),
        (b"\x28\xb5\x2f\xfd", "compressed by Zstandard"),
        (b"PAR1", "a parquet file"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        (b"\x04\x22\x4d\x18", "compressed by LZ4"),
    ],
)
def test_other_archives_are_named(tmp_path: Path, start: bytes, what: str) -> None:
    path = write(tmp_path / "b.tsv", start + b"\x00\xff\n")
    with pytest.raises(ValueError, match=rf"b\.tsv is {what}: unpack it, or compress it by gzip, bzip2 or xz"):
        load_bitext({"yo": path})


@pytest.mark.parametrize(
    ("language", "names", "expected"),
    [
        ("swh", ["m.en", "m.swh"], ("m.en", "m.swh")),
        ("sw", ["m.eng", "m.swh"], ("m.eng", "m.swh")),
        ("sw", ["m.en", "m.sw", "m.swh", "m.sw_KE"], ("m.en", "m.sw")),
        ("sw", ["m.en_GB", "m.en.bak", "m.sw_KE.xz", "m.txt"], ("m.en_GB", "m.sw_KE.xz")),
        ("sw", ["m.en", "m.en.gz", "m.sw.bz2"], ("m.en", "m.sw.bz2")),
    ],
)
def test_sides_are_found_by_any_tag_of_their_language(
    tmp_path: Path, language: str, names: list[str], expected: tuple[str, str]
) -> None:
    for name in names:
        (tmp_path / name).write_text("a\n")
    (source,) = parse_bitext_arguments([f"{language}={tmp_path}/m"])["sw"]
    assert find_source(source, "sw") == ("moses", tuple(f"{tmp_path}/{name}" for name in expected))


def test_sides_with_two_tags_of_a_language(tmp_path: Path) -> None:
    for name in ("m.en", "m.zh_Hans", "m.zh_Hant"):
        (tmp_path / name).write_text("a\n")
    with pytest.raises(ValueError, match=r"/m: the endings 'zh_Hans' and 'zh_Hant' are all 'zh'; keep one, .* or "):
        load_bitext({"zh": tmp_path / "m"})


def test_two_compressed_sides(tmp_path: Path) -> None:
    for name, side in zip(("z.en.xz", "z.yo.xz"), zip(*PAIRS, strict=True), strict=True):
        (tmp_path / name).write_bytes(lzma.compress("\n".join(side).encode()))
    assert pairs_of(load_bitext({"yo": f"{tmp_path}/z.en.xz,{tmp_path}/z.yo.xz"}).dataset) == PAIRS
    with pytest.raises(ValueError, match="names the English file second"):
        load_bitext({"yo": f"{tmp_path}/z.yo.xz,{tmp_path}/z.en.xz"})


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("english\ttranslation", "{english}\t{yoruba}"),
        ("non_english\tid\tenglish", "{yoruba}\t7\t{english}"),
        ("\ufeffenglish\ttranslation\tnon_english", "{english}\t{yoruba}\tunused"),
    ],
)
def test_the_first_line_of_tsv_may_name_its_columns(tmp_path: Path, header: str, line: str) -> None:
    lines = [line.format(english=english, yoruba=yoruba) for english, yoruba in PAIRS]
    path = write(tmp_path / "b.tsv", "\n".join([header, *lines]))
    assert pairs_of(load_bitext({"yo": path}).dataset) == PAIRS
    if header.count("\t") == 2:
        path.write_text("\n".join([header, *lines, "a\tb"]))
        with pytest.raises(ValueError, match=r"b\.tsv:4: 2 columns; the first line has 3"):
            load_bitext({"yo": path})


def test_a_byte_order_mark_within_joined_files_is_no_text(tmp_path: Path) -> None:
    lines = [json.dumps({"english": e, "translation": y}) for e, y in PAIRS]
    path = write(tmp_path / "b.jsonl", "".join(f"\ufeff{line}\n" for line in lines))
    assert pairs_of(load_bitext({"yo": path}).dataset) == PAIRS


@pytest.mark.parametrize("streaming", [False, True])
def test_what_cannot_be_seen_is_no_text(tmp_path: Path, streaming: bool) -> None:
    # Soft hyphens, marks of direction and of byte order go; the non-joiner of Persian stays.
    persian = "می\u200cخواهم بروم"
    rows = [
        ("I want to go.", persian),
        ("\u200b", "\u0628"),
        ("Yes.", "\ufeff\u200e \u2060"),
        ("I want\ufeff to go.", persian),
        ("\u200eI wa\u00adnt to\u200b go.", f"\u202b{persian}\u200c\u202c"),
        ("I want to go.", persian.replace("\u200c", "")),
    ]
    bitext = load_bitext({"fa": write(tmp_path / "b.tsv", tsv(rows))}, streaming=streaming)
    assert pairs_of(bitext.dataset) == [rows[0], rows[5]]
    assert bitext.counts["fa"] == counts(kept=2, empty=2, duplicate=2)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_side_of_too_many_characters_is_never_normalised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streaming: bool
) -> None:
    given: list[int] = []

    def normalize(form: str, text: str) -> str:
        given.append(len(text))
        return unicodedata.normalize(form, text)

    monkeypatch.setattr("optical_hf.data.characters.unicodedata", SimpleNamespace(normalize=normalize))
    marks = "a" + "\u0301\u0316" * 32_000  # 128 kB
    rows = [("Good.", marks), (marks, "Dara."), ("x" * 256, "y" * 256), ("x" * 257, "y" * 256), ("", marks)]
    bitext = load_bitext({"yo": write(tmp_path / "b.tsv", tsv(rows))}, max_words=4, streaming=streaming)
    assert [len(row["english"]) for row in bitext.dataset] == [256]
    assert bitext.counts["yo"] == counts(kept=1, long=3, empty=1)
    assert given == [256, 256]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("b.tsv", "", "holds no pair; give another file"),
        ("b.jsonl", "\n", "holds no pair; give another file"),
        (
            "b.tmx",
            TMX.replace("YO", "sw").replace("yor", "sw"),
            "no translation unit with both xml:lang 'en' and 'yo'",
        ),
    ],
)
def test_empty_files(tmp_path: Path, name: str, content: str, message: str, streaming: bool) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(ValueError, match=f"{name}: .*{message}"):
        list(load_bitext({"yo": path}, streaming=streaming).dataset)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (
            "missing.tsv",
            FileNotFoundError,
            r"^missing\.tsv: no such file or folder \(bitext of 'yo'\); use english<TAB>",
        ),
        ("missing/corpus.tsv.gz", FileNotFoundError, r"^missing/corpus\.tsv\.gz: no such file"),
        ("{tmp}/corpus", FileNotFoundError, "corpus: no such file"),
        ("{tmp}/c.en,{tmp}/missing.yo", FileNotFoundError, r"missing\.yo: no such file, given as one side"),
        ("{tmp}/c.yo,{tmp}/c.en", ValueError, "names the English file second; write '.*c.en,.*c.yo'"),
        ("{tmp}/b.csv", ValueError, r"b\.csv: not a known bitext format; use english<TAB>translation in a \.tsv"),
    ],
)
def test_sources_are_checked_at_once(
    tmp_path: Path, source: str, error: type[Exception], message: str, streaming: bool
) -> None:
    for name in ("c.en", "c.yo", "b.csv"):
        write(tmp_path / name, "a\n")
    with pytest.raises(error, match=message):
        load_bitext({"yo": source.format(tmp=tmp_path)}, streaming=streaming)


def test_hub_names_and_configs(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def load_dataset(*arguments: str, **options: object) -> Dataset:
        calls.append((arguments, options))
        if arguments[0] == "owner/missing":
            raise FileNotFoundError("Dataset 'owner/missing' doesn't exist on the Hub")
        return Dataset.from_list([{"translation": {"en": "Good.", "sw": "Nzuri."}}])

    monkeypatch.setattr("optical_hf.data.bitext_datasets.load_dataset", load_dataset)
    builder = SimpleNamespace(config=SimpleNamespace(data_files={"test": ["hf://datasets/owner/pairs/test.parquet"]}))
    monkeypatch.setattr("optical_hf.data.bitext_datasets.load_dataset_builder", lambda *arguments: builder)
    assert pairs_of(load_bitext({"sw": "owner/pairs:en-sw"}, split="test").dataset) == [("Good.", "Nzuri.")]
    with pytest.raises(
        ValueError, match=r"^owner/missing: no such file here, and the Hub gives no such dataset \(Data"
    ):
        load_bitext({"sw": "owner/missing"})
    assert calls == [
        (("owner/pairs", "en-sw"), {"split": "test", "streaming": False}),
        (("owner/missing",), {"split": "train", "streaming": False}),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_ratio": 0.5}, "max_ratio must be a number of at least 1 and at most inf, got 0.5"),
        ({"sources": {}}, "No bitext given"),
        ({"sources": {"yo": []}}, "No source given for language 'yo'"),
        ({"sources": {"en": "b.tsv"}}, "'en' cannot be its language"),
    ],
)
def test_bad_arguments(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_bitext(**({"sources": {"yo": "b.tsv"}} | options))


@pytest.fixture
def two_languages(tmp_path: Path) -> dict[str, Path]:
    return {
        language: write(tmp_path / f"{language}.tsv", tsv([(f"English {i}", f"{language} {i}") for i in range(size)]))
        for language, size in {"sw": 16, "yo": 4}.items()
    }


def test_stream_equals_dataset_and_can_be_read_again(two_languages: dict[str, Path]) -> None:
    loaded, streamed = (load_bitext(two_languages, streaming=streaming) for streaming in (False, True))
    rows = list(streamed.dataset)
    assert streamed.dataset.column_names == ["english", "translation", "language"]
    assert [row["language"] for row in rows[:4]] == ["sw", "yo", "sw", "yo"]
    assert sorted(rows, key=lambda row: row["language"]) == list(loaded.dataset)
    assert streamed.counts == loaded.counts == {"sw": counts(kept=16), "yo": counts(kept=4)}
    assert list(streamed.dataset) == rows == list(pickle.loads(pickle.dumps(streamed.dataset)))
    assert streamed.counts == loaded.counts


@pytest.mark.parametrize(("streaming", "kept"), [(False, 2), (True, 3)])
def test_only_streams_remember_a_limited_number_of_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streaming: bool, kept: int
) -> None:
    monkeypatch.setattr("optical_hf.data.bitext._MOST_REMEMBERED", 1)
    path = write(tmp_path / "b.tsv", tsv([*PAIRS, *PAIRS]))
    bitext = load_bitext({"yo": path}, streaming=streaming)
    assert len(list(bitext.dataset)) == kept
    assert bitext.counts["yo"] == counts(kept=kept, duplicate=4 - kept)


@pytest.mark.parametrize(("temperature", "share"), [(math.inf, 0.5), (2.0, 1 / 3)])
def test_stream_with_temperature(two_languages: dict[str, Path], temperature: float, share: float) -> None:
    rows = []
    for seed in range(20):
        one = list(load_bitext(two_languages, streaming=True, temperature=temperature, seed=seed).dataset)
        assert {(row["english"], row["language"]) for row in one} == {
            (f"English {i}", language) for language, size in {"sw": 16, "yo": 4}.items() for i in range(size)
        }
        rows += one
    assert sum(row["language"] == "yo" for row in rows) / len(rows) == pytest.approx(share, abs=0.08)
    again = load_bitext(two_languages, streaming=True, temperature=temperature, seed=19).dataset
    assert list(again) == one


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [(1.0, {"sw": 0.8, "yo": 0.2}), (2.0, {"sw": 2 / 3, "yo": 1 / 3}), (math.inf, {"sw": 0.5, "yo": 0.5})],
)
def test_language_probabilities(temperature: float, expected: dict[str, float]) -> None:
    assert language_probabilities({"sw": 16, "yo": 4}, temperature) == pytest.approx(expected)


def test_language_probabilities_rejects_an_empty_language() -> None:
    with pytest.raises(ValueError, match="Language 'yo' has 0 pairs"):
        language_probabilities({"sw": 16, "yo": 0}, 1.0)


@pytest.mark.parametrize(
    ("temperature", "sizes"),
    # Of 20 rows: 16 and 4; 13.33 and 6.67; 10 and 10; below 1 the larger language grows: 256 / 272 of 20 is 18.8.
    [(1.0, (16, 4)), (2.0, (13, 7)), (math.inf, (10, 10)), (0.5, (19, 1))],
)
def test_balanced_languages_repeat_whole_permutations(
    two_languages: dict[str, Path], temperature: float, sizes: tuple[int, int]
) -> None:
    dataset = load_bitext(two_languages).dataset
    balanced = balance_languages(dataset, temperature, seed=3)
    rows = Counter((row["language"], row["english"]) for row in balanced)
    assert sum(rows.values()) == 20
    for language, available, size in zip(("sw", "yo"), (16, 4), sizes, strict=True):
        times = [count for (row_language, _), count in rows.items() if row_language == language]
        assert sum(times) == size
        assert len(times) == min(size, available)
        assert max(times) - min(times) <= 1
    assert balanced[:] == balance_languages(dataset, temperature, seed=3)[:]
    assert balanced[:] != balance_languages(dataset, temperature, seed=4)[:]
    if temperature != 1.0:
        assert load_bitext(two_languages, temperature=temperature, seed=3).dataset[:] == balanced[:]


def multi_parallel() -> Dataset:
    rows = [(f"Shared {i}", language) for i in range(10) for language in ("sw", "yo", "zu")]
    rows += [(f"Only sw {i}", "sw") for i in range(30)] + [("Shared 0", "sw"), ("Shared 1", "zu"), ("Shared 2", "zu")]
    columns = {"english": [english for english, _ in rows], "language": [language for _, language in rows]}
    return Dataset.from_dict(columns | {"translation": [f"{language} {i}" for i, (_, language) in enumerate(rows)]})


@pytest.mark.parametrize("seed", range(5))
def test_hold_out_leaks_no_english_sentence(seed: int) -> None:
    dataset = multi_parallel()
    train, held_out = hold_out(dataset, 4, seed=seed)
    assert Counter(held_out["language"]) == {"sw": 4, "yo": 4, "zu": 4}
    assert len(set(zip(held_out["english"], held_out["language"], strict=True))) == 12
    held_sentences = set(held_out["english"])
    assert not held_sentences & set(train["english"])
    # Of several translations of a sentence the first is held out: these three are others.
    assert not {"sw 60", "zu 61", "zu 62"} & set(held_out["translation"])
    # What is in neither part shares a held-out sentence, and nothing is in both.
    used = Counter([*train["translation"], *held_out["translation"]])
    assert set(used.values()) == {1}
    for row in dataset:
        assert row["translation"] in used or row["english"] in held_sentences
    again = hold_out(dataset, 4, seed=seed)
    assert (again[0][:], again[1][:]) == (train[:], held_out[:])
    assert hold_out(dataset, 4, seed=seed + 1)[1][:] != held_out[:]


def test_hold_out_shares_sentences_between_languages() -> None:
    dataset = multi_parallel().select(range(30))  # ten sentences in three languages
    train, held_out = hold_out(dataset, 4)
    assert (len(train), len(held_out), len(set(held_out["english"]))) == (18, 12, 4)


def test_hold_out_rejects() -> None:
    with pytest.raises(ValueError, match="Language 'yo' has 10 different English sentences: too few to hold out 10"):
        hold_out(multi_parallel(), 10)


def test_hold_out_rejects_an_empty_training_language() -> None:
    # yo's two sentences are both of sw's; some seed holds both of them out.
    dataset = Dataset.from_dict(
        {"english": ["a", "b", "b", "c", "a", "c"], "language": ["yo", "yo", *["sw"] * 2, *["zu"] * 2]}
    )
    with pytest.raises(ValueError, match=r"leaves none of \[.*\] to train on, because languages share"):
        for seed in range(20):
            hold_out(dataset, 1, seed=seed)

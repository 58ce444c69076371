"""One reader for the arguments of all commands: the command line, a file, and what is wrong with either."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from optical_hf import OpticalTrainingArguments
from optical_hf.arguments import ArgumentReader


@dataclass
class Given:
    """What is given."""

    folder: str = field(metadata={"help": "A folder."})
    bitext: list[str] = field(default_factory=list, metadata={"help": "language=file ..."})
    query_prefix: str | None = field(default=None, metadata={"help": "A prefix."})
    count: int = field(default=3, metadata={"help": "A number."})
    wide: bool = field(default=True, metadata={"help": "A switch."})
    options: dict | str | None = field(default=None, metadata={"help": "JSON."})


@pytest.fixture
def reader() -> ArgumentReader:
    return ArgumentReader(Given, prog="give", description="Give it.", positionals=("folder",))


def test_the_command_line_replaces_the_file_and_the_file_the_defaults(reader, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(
        "folder: a\nbitext:\n  no: [x.tsv, y.tsv]\n  sw: z.tsv\ncount: 5\nwide: false\nquery_prefix: ''\n"
    )
    defaults = {"folder": "b", "options": {"a": 1}}
    [given] = reader.read([f"--config={config}", "--count", "7"], defaults, without="count")
    assert given == Given("a", ["no=x.tsv", "no=y.tsv", "sw=z.tsv"], "", 7, False)
    [given] = reader.read([f"--config={config}"], defaults, without="options")
    assert given == Given("a", ["no=x.tsv", "no=y.tsv", "sw=z.tsv"], "", 5, False, '{"a": 1}')


def test_names_with_dashes_places_and_switches(reader):
    assert reader.read(["out", "--query-prefix=q: ", "--no_wide"]) == [Given("out", query_prefix="q: ", wide=False)]
    assert reader.read(["--folder", "out", "--wide", "no", "--query_prefix", ""]) == [Given("out", [], "", 3, False)]
    assert reader.read(["--count", "7", "--folder", "out"]) == [Given("out", count=7)]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--wide out", Given("out")),
        ("--wide no out", Given("out", wide=False)),
        ("--no_wide out --count 7", Given("out", count=7, wide=False)),
        ("--count 7 out --wide", Given("out", count=7)),
        ("--count=7 out", Given("out", count=7)),
        ("out --bitext a=b c=d", Given("out", ["a=b", "c=d"])),
        ("--bitext a=b c=d --wide out", Given("out", ["a=b", "c=d"])),
        ("--query_prefix no --folder=out", Given("out", query_prefix="no")),
    ],
)
def test_what_stands_without_its_name_may_stand_anywhere(reader, words, expected):
    assert reader.read(words.split()) == [expected]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--folder is needed"),
        (
            ["out", "--bitext", "a=b", "--bitext", "c=d"],
            "--bitext is there twice: give it once, with all",
        ),
        (["out", "--query_prefix=a", "--query-prefix=b"], "--query_prefix is there twice"),
        (["out", "--count", "three"], "--count.*invalid int value: 'three'"),
        (["out", "--bitext"], "--bitext: expected at least one argument"),
        (["out", "--bitexts", "a=b"], "there is no argument --bitexts; did you mean --bitext?"),
        (["out", "further"], "there is no argument further; see --help"),
        (["--folder", "out", "further"], "there is no argument further; see --help"),
        (["--wid", "out"], "there is no argument --wid; did you mean --wide"),
        (["out", "--config", "nowhere.yaml"], "There is no file nowhere.yaml"),
    ],
)
def test_what_is_wrong_is_named(reader, words, message):
    with pytest.raises((ValueError, OSError), match=message):
        reader.read(words)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("count: x", "config.yaml: argument --count.*invalid int value: 'x'"),
        ("cout: 1", "config.yaml: there is no argument --cout=1; did you mean --count"),
        ("count: 1\ncount: 2", "the key 'count' is there twice"),
        ("- count", "write `name: value` lines"),
        ("a: [", "is no YAML"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(reader, tmp_path, text, message):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        reader.read(["out", f"--config={tmp_path}/config.yaml"])


def test_help_lists_what_is_inherited_last(capsys):
    reader = ArgumentReader(Given, OpticalTrainingArguments, prog="give", description="Give it.")
    with pytest.raises(SystemExit) as ended:
        reader.read(["--help"])
    text = capsys.readouterr().out
    assert ended.value.code is None and text.startswith("usage: give [--name value ...]")
    titles = [
        "What is given:",
        "How it is distilled: arguments of OpticalDistillationTrainer:",
        "Arguments of both trainers:",
        "As in TrainingArguments:",
    ]
    places = [text.index(f"\n{title}\n") for title in [*titles, "Other:"]]
    assert places == sorted(places)
    assert places[1] < text.index("--epsilon EPSILON") < places[2] < text.index("--dropout DROPOUT") < places[3]
    assert places[3] < text.index("--adam_beta1 ADAM_BETA1") < places[4]
    assert "A number. (default: 3)" in text and "--output-dir" not in text and "--no_wide" not in text

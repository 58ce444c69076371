"""YAML files that would take all time or memory, or lead to errors of another kind: they are named instead."""

from __future__ import annotations

import pytest
import yaml

from optical_hf.yaml_files import read_yaml

ALIASES = "a: &a [x, x, x, x, x, x, x, x]\n"
ALIASES += "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 8)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!int ''", "is no YAML"),
        ("a: !!bool x", "is no YAML"),
        ("a: !!timestamp x", "is no YAML"),
        ("a: " + "1" * 5000, "is no YAML: Exceeds the limit"),
        ("? [a]\n: b", "is no YAML"),
        ("- " * 50_000, "is no YAML"),
        ("a: " + "[" * 90_000, "is no YAML: brackets are nested too deeply"),
        ("a: &a [*a]", "holds more than 100000 values"),
        (ALIASES, "holds more than 100000 values"),
        ("a: 1\nb: 2\na: 3", "the key 'a' is there twice"),
        ("[a, b]", "write `name: value` lines"),
        ("a: \xff", "is no YAML"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, text, message):
    path = tmp_path / "study.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=f"{path}.* {message}|{path}: {message}|{message}") as raised:
        read_yaml(path)
    assert str(raised.value).startswith(str(path))


def test_aliases_and_brackets_may_be_used(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("a: &a [1, {b: no}]\nc: *a\nd: " + "[" * 90 + "]" * 90)
    settings = read_yaml(path)
    assert settings["a"] == settings["c"] == [1, {"b": "no"}]
    assert settings["d"] == yaml.safe_load("[" * 90 + "]" * 90)

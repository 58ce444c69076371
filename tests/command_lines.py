"""Commands of `optical-hf` in the process of the tests."""

from __future__ import annotations

import sys

import pytest

from optical_hf.commands import __main__ as optical


@pytest.fixture
def call(monkeypatch, capsys):
    """Run `optical-hf` with some words; what it prints, or the error it ends with."""

    def run(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["optical-hf", *map(str, words)])
        try:
            optical.main()
        except SystemExit as ended:
            return str(ended.code)
        return capsys.readouterr().out

    return run

"""Every code block of the README, of CONTRIBUTING and of docs/ runs, or says why it is not run here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from code_blocks import RUN, SHOWN, Block, all_blocks, pages

BLOCKS = all_blocks()


@pytest.fixture(scope="session")
def results(tmp_path_factory) -> dict[str, str | None]:
    """What went wrong in each block that was run, by page and line."""
    folder = tmp_path_factory.mktemp("code-blocks")
    script = Path(__file__).with_name("code_blocks.py")
    environment = {**os.environ, "WORLD_SIZE": "1"}
    done = subprocess.run(
        [sys.executable, str(script), str(folder)], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-6000:]
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    return {row["name"]: row["error"] for row in rows}


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in RUN], ids=lambda block: block.name)
def test_block_runs_or_says_why_not(block: Block, results):
    if block.reason is None:
        assert results[block.name] is None, results[block.name]
    else:
        assert len(block.reason.split()) > 1 and block.name not in results


def test_no_block_is_overlooked():
    text = "".join(page.read_text(encoding="utf-8") for page in pages())
    assert text.count("```") == 2 * len(BLOCKS)
    assert text.count("\n<!-- not run") == sum(block.reason is not None for block in BLOCKS)
    assert {block.language for block in BLOCKS} <= {*RUN, *SHOWN}
    run = [block for block in BLOCKS if block.language in RUN and block.reason is None]
    assert {"README.md", "docs/index.md", "docs/guides/gpus.md", "docs/results.md"} <= {block.page for block in run}

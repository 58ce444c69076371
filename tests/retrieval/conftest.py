"""The fixtures of the tests of indexes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from indexes import PASSAGES

from optical_hf import OpticalTeacher
from optical_hf.models.modeling_optical import OpticalModel
from optical_hf.retrieval.index.build import PassageIndex, build_index


@pytest.fixture(scope="session")
def teacher(tiny_encoder) -> OpticalTeacher:
    return OpticalTeacher.from_checkpoint(tiny_encoder, document_prefix="passage: ", query_prefix="query: ")


@pytest.fixture(scope="session")
def index(teacher, tmp_path_factory) -> PassageIndex:
    """Five shards of the 23 passages. Do not write to its folder."""
    return build_index(teacher, PASSAGES, tmp_path_factory.mktemp("index"), shard_size=5, batch_size=2)


@pytest.fixture
def copy(index, tmp_path) -> Path:
    """A copy of the index's folder, to be spoilt."""
    return Path(shutil.copytree(index.folder, tmp_path / "copy"))


@pytest.fixture
def encoded(monkeypatch) -> list[str]:
    """Every text that is encoded from now on."""
    texts: list[str] = []
    encode = OpticalModel._encode

    def record(model, given, *args, **options):
        texts.extend(given)
        return encode(model, given, *args, **options)

    monkeypatch.setattr(OpticalModel, "_encode", record)
    return texts

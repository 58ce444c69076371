"""Bitext in folders and on the Hub: TSV and JSON lines are read there as they are by themselves."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from hub_server import HubServer, Repository, Stored
from huggingface_hub import HfFileSystem

from optical_hf.data.bitext import load_bitext

# Quotation marks that never close, texts that pandas takes for a missing value, a number and a date.
PAIRS = [
    ('"A sentence', "Tafsiri"),
    ("Said he: ok", '"Sawa'),
    ("NA", "hakuna"),
    ("null values", "None"),
    ("12", "kumi na mbili"),
    ("2019-01-01", "siku ya kwanza"),
]
TSV = "".join(f"{english}\t{swahili}\n" for english, swahili in PAIRS)
JSONL = "".join(json.dumps({"english": english, "translation": swahili}) + "\n" for english, swahili in PAIRS)


def pairs_of(source: str | Path, streaming: bool = False, split: str = "train") -> list[tuple[str, str]]:
    dataset = load_bitext({"sw": source}, streaming=streaming, split=split).dataset
    return [(row["english"], row["translation"]) for row in dataset]


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.tsv", f"english\ttranslation\n{TSV}"),
        ("train.tsv", TSV),
        ("data/train-00000-of-00001.tsv.gz", TSV),
        ("train.jsonl", JSONL),
        ("train.csv", "english,translation\n" + "".join(f'"{e}",{s}\n' for e, s in PAIRS if '"' not in e + s)),
    ],
)
def test_a_folder_gives_what_its_file_gives(tmp_path: Path, name: str, content: str, streaming: bool) -> None:
    path = tmp_path / "folder" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    expected = [pair for pair in PAIRS if '"' not in "".join(pair)] if name.endswith(".csv") else PAIRS
    assert pairs_of(tmp_path / "folder", streaming) == expected
    if not name.endswith(".csv"):
        assert pairs_of(path, streaming) == PAIRS


def test_tsv_in_an_archive_of_a_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
        archive.writestr("pairs.tsv", f"english\ttranslation\n{TSV}")
    assert pairs_of(tmp_path) == PAIRS


def test_thirty_lines_with_stray_quotation_marks_are_thirty_pairs(tmp_path: Path) -> None:
    lines = [f'"Sentence {number}\tTafsiri ya {number}' for number in range(30)]
    (tmp_path / "train.tsv").write_text("\n".join(["english\ttranslation", *lines]))
    assert ["\t".join(pair) for pair in pairs_of(tmp_path)] == lines


def test_malformed_lines_in_a_folder_are_named_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(JSONL + "{}\n")
    with pytest.raises(ValueError, match=rf"{tmp_path}/train\.jsonl:7: the keys are \[\]; they must be"):
        pairs_of(tmp_path)
    with pytest.raises(ValueError, match=r"folder cannot be read \(no split 'dev' among \['train'\]\)"):
        pairs_of(tmp_path, split="dev")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["parquet", "json", "csv", "zip", "arrow", "state"])
def test_damaged_files_of_a_folder_are_named(tmp_path: Path, kind: str, streaming: bool) -> None:
    columns = {"english": [f"Good {i}" for i in range(500)], "translation": [f"nzuri {i}" for i in range(500)]}
    if kind in ("arrow", "state"):
        Dataset.from_dict(columns).save_to_disk(tmp_path)
        path = next(tmp_path.glob("*.arrow")) if kind == "arrow" else tmp_path / "state.json"
    else:
        path = tmp_path / f"train-00001-of-00002.{kind}"
    if kind == "parquet":
        for name in ("train-00000-of-00002.parquet", path.name):
            pq.write_table(pa.table(columns), tmp_path / name)
        whole = path.read_bytes()
        path.write_bytes(whole[:100] + b"\xff" * 200 + whole[300:])
    elif kind == "json":
        path.write_text('{"english": "a", "translation": "b"}\n{"english": "a", \n')
    elif kind == "csv":
        path.write_text('english,translation\na,b\n"never closed,b\n')
    else:
        if kind == "zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("x.csv", "english,translation\n" + "a,b\n" * 500)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"^{tmp_path}: {path.name} cannot be read \(.+\); use english<TAB>"):
        pairs_of(tmp_path, streaming)


def test_datasets_of_the_hub(hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("datasets.config.HF_ENDPOINT", hub.url)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("datasets.config.USE_PARQUET_EXPORT", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    card = "---\nconfigs:\n- config_name: en-sw\n  data_files:\n  - {split: train, path: pairs.tsv}\n---\n"
    repository = hub.repositories["datasets", "writer/pairs"] = Repository(False, None)
    files = {"README.md": Stored(card.encode(), False), "pairs.tsv": Stored(TSV.encode(), False)}
    repository.add("main", "pairs", files)
    HfFileSystem.clear_instance_cache()
    assert pairs_of("writer/pairs:en-sw", streaming=True) == PAIRS
    assert not list((tmp_path / "hub").rglob("pairs.tsv"))
    assert pairs_of("writer/pairs:en-sw") == PAIRS
    HfFileSystem.clear_instance_cache()
    for module in ("huggingface_hub.constants", "datasets.config"):
        monkeypatch.setattr(f"{module}.HF_HUB_OFFLINE", True)
    requests = len(hub.requests)
    assert pairs_of("writer/pairs:en-sw") == PAIRS
    assert len(hub.requests) == requests
    with pytest.raises(ValueError, match=r"^writer/other: no such file here, and the Hub gives no such dataset"):
        pairs_of("writer/other")

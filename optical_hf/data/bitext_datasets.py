"""Bitext in datasets of Hugging Face: folders, and repositories of the Hub."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import DatasetDict, load_dataset, load_dataset_builder, load_from_disk
from huggingface_hub import HfFileSystem, hf_hub_download, snapshot_download

from .bitext_files import FORMATS, file_kind, read_text_file
from .bitext_rows import row_pair
from .malformed_lines import MalformedLines

_KINDS = {".arrow": "arrow", ".csv": "csv", ".json": "json", ".parquet": "parquet"}
_SAVED = ("state.json", "dataset_info.json", "dataset_dict.json")  # beside the .arrow files of `save_to_disk`


def read_dataset(
    paths: tuple[str, ...], language: str, malformed: MalformedLines, split: str, streaming: bool
) -> Iterator[tuple[str, str]]:
    """Yield the pairs of a dataset. TSV and JSON lines in it are read as such files are by themselves.

    Args:
        paths (`tuple[str, ...]`): a folder, or a name on the Hub and perhaps a configuration.
        language (`str`): of the translations, as `language_code` gives it.
        malformed ([`MalformedLines`]): notes the lines of files that cannot be read, and a row of a dataset.
        split (`str`): the split.
        streaming (`bool`): whether the dataset is streamed rather than downloaded.

    Raises:
        ValueError: if the dataset or the split is not there, or a file is damaged.
    """
    folder, name = Path(paths[0]), ":".join(paths)
    rows = enumerate(_rows(paths, split, streaming), start=1)
    while True:
        try:
            number, row = next(rows)
        except StopIteration:
            return
        except Exception as error:  # a damaged file raises what the library of its format happens to raise
            where = "no such file here, and the Hub gives no such dataset"
            if folder.is_dir():
                # A plain ValueError is about the split: no file is to blame.
                searched = type(error) is not ValueError and not isinstance(error, FileNotFoundError)
                damaged = _damaged_file(folder) if searched else None
                where = f"{damaged} cannot be read" if damaged else "folder cannot be read"
            raise ValueError(f"{name}: {where} ({error.__cause__ or error}); {FORMATS}.") from error
        if isinstance(row, str):  # a file of text
            yield from read_text_file(row, language, malformed)
            continue
        try:
            pair = row_pair(row, language)
        except ValueError as error:  # the columns are those of every row
            malformed.add(f"{name}, row {number}", str(error))
            return
        yield pair


def _rows(paths: tuple[str, ...], split: str, streaming: bool) -> Iterator[Any]:
    """Yield the rows of a dataset or, if it is of TSV or JSON lines, the paths of its files."""
    files: dict[str, list[str]] = {}
    if any((Path(paths[0]) / file).is_file() for file in ("state.json", "dataset_dict.json")):
        dataset: Any = load_from_disk(paths[0])
        if isinstance(dataset, DatasetDict):
            if split not in dataset:
                raise ValueError(f"no split '{split}' among {sorted(map(str, dataset))}")
            dataset = dataset[split]
    else:
        config = _builder(paths).config
        for key, names in (getattr(config, "data_files", None) or {}).items():
            files[str(key)] = [str(name) for name in names]
        every = [name for names in files.values() for name in names]
        if every and all(file_kind(name) in ("tsv", "jsonl") and _is_openable(name) for name in every):
            if split not in files:
                raise ValueError(f"no split '{split}' among {sorted(files)}")
            yield from files[split] if streaming else map(_downloaded, files[split])
            return
        # In archives and beside CSV: the text "NA" is no missing value, and quotation marks in TSV are text.
        options: dict[str, Any] = {"keep_default_na": False} if hasattr(config, "keep_default_na") else {}
        if getattr(config, "sep", None) == "\t":
            options["quoting"] = csv.QUOTE_NONE
        dataset = load_dataset(*paths, split=split, streaming=streaming, **options)
    yield from dataset


def _builder(paths: tuple[str, ...]) -> Any:
    try:
        return load_dataset_builder(*paths)
    except ConnectionError as error:
        # What an earlier call left in the Hub's cache needs no connection.
        try:
            folder = snapshot_download(paths[0], repo_type="dataset", local_files_only=True)
        except OSError:
            raise error from None
        return load_dataset_builder(folder, *paths[1:])


def _is_openable(name: str) -> bool:
    return name.startswith("hf://") or "://" not in name


def _downloaded(name: str) -> str:
    if not name.startswith("hf://"):
        return name
    file: Any = HfFileSystem().resolve_path(name)
    return hf_hub_download(file.repo_id, file.path_in_repo, repo_type="dataset", revision=file.revision)


def _damaged_file(folder: Path) -> str | None:
    """Name the first file of a folder that cannot be read by itself."""
    for file in sorted(folder.rglob("*")):
        try:
            if file.name in _SAVED:
                json.loads(file.read_bytes())
            elif file.suffix == ".zip":
                with zipfile.ZipFile(file) as archive:
                    if archive.testzip():
                        return file.name
            elif kind := _KINDS.get(file.suffix):
                for _ in load_dataset(kind, data_files=str(file), split="train", streaming=True):
                    pass
        except Exception:
            return file.name
    return None

"""The files of a passage index, each of which appears under its name only once it is complete.

`index.json` holds the model's fingerprint, the options, and the list of shards when all are there. Each shard is a
safetensors file of `tokens`, `offsets` and `pooled` (with int8 `scales`) and a JSON file of docids. The rotation to a
lower dimension is in `rotation.safetensors`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...files import replacing

MANIFEST = "index.json"
ROTATION = "rotation.safetensors"
_METADATA_KEY = "optical_hf"
_DTYPES: dict[str, type[np.generic]] = {"F16": np.float16, "I8": np.int8, "I64": np.int64}


@dataclass(frozen=True)
class IndexShard:
    """One shard of a [`PassageIndex`]: a safetensors file of vectors, and the JSON file of its docids beside it.

    Only the header is in memory. Vectors are read into memory of their own and not mapped, since the pages of a
    mapped file that were read once count as the process's memory for as long as it is mapped.

    Args:
        path (`Path`): the safetensors file.
        tensors (`dict`): by name, the tensor's type, shape, and position in the file.
        metadata (`dict`): fingerprints of the `index` and of the `passages` that the shard was made for.
    """

    path: Path
    tensors: dict[str, tuple[type[np.generic], tuple[int, ...], int]]
    metadata: dict[str, str]

    @classmethod
    def open(cls, path: Path) -> IndexShard:
        """Read a shard's header.

        Raises:
            ValueError: naming the file, if it is cut off or no shard.
        """
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                start = 8 + int.from_bytes(file.read(8), "little")
                if start > size:
                    raise ValueError(f"it ends after {size} bytes, before its header does")
                header = json.loads(file.read(start - 8))
            metadata = json.loads(header.pop("__metadata__")[_METADATA_KEY])
            tensors, end = {}, start
            for name, entry in header.items():
                first, last = entry["data_offsets"]
                kind, shape = _DTYPES[entry["dtype"]], tuple(entry["shape"])
                if last - first != prod(shape) * np.dtype(kind).itemsize:
                    raise ValueError(f"{name!r} has another size than its shape {shape}")
                tensors[name] = (kind, shape, start + first)
                end = max(end, start + last)
            if size != end:
                raise ValueError(f"it has {size} bytes and should have {end}")
            shard = cls(path, tensors, {"index": metadata["index"], "passages": metadata["passages"]})
            if len(shard) < 1:
                raise ValueError("it holds no passage")
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise shard_error(path, error) from error
        return shard

    def __len__(self) -> int:
        return self.tensors["pooled"][1][0]

    def read(self, name: str, start: int, stop: int) -> Tensor:
        """Read rows of one tensor."""
        kind, shape, position = self.tensors[name]
        width = prod(shape[1:])
        count = (stop - start) * width
        found = np.fromfile(self.path, kind, count, offset=position + start * width * np.dtype(kind).itemsize)
        if len(found) != count:
            raise shard_error(self.path, ValueError(f"{name!r} ends after {len(found)} of {count} numbers"))
        return torch.from_numpy(found).view(stop - start, *shape[1:])

    def offsets(self) -> Tensor:
        """Where each passage's token vectors begin, and where the last one's end: `(passages + 1,)`."""
        offsets = self.read("offsets", 0, len(self) + 1)
        if offsets[0] != 0 or offsets[-1] != self.tensors["tokens"][1][0] or (offsets.diff() < 1).any():
            raise shard_error(self.path, ValueError("its offsets do not fit its token vectors"))
        return offsets

    def token_vectors(self, offsets: Tensor) -> list[Tensor]:
        """Token vectors of consecutive passages, given their part of `offsets`; those stored in int8 as float32."""
        first, last = int(offsets[0]), int(offsets[-1])
        vectors = self.read("tokens", first, last)
        if "scales" in self.tensors:
            vectors = vectors.float().mul_(self.read("scales", first, last).float()[:, None])
        return list(vectors.split(offsets.diff().tolist()))

    def docids(self) -> list[str]:
        """The passages' ids, in the order of their vectors."""
        path = self.path.with_suffix(".json")
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored["passages"] != self.metadata["passages"] or len(stored["docids"]) != len(self):
                raise ValueError(f"it does not belong to {self.path.name}")
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise shard_error(path, error) from error
        return stored["docids"]


def shard_error(path: Path, error: Exception) -> ValueError:
    """Say which file of an index is damaged, and what to do."""
    return ValueError(
        f"{path} is damaged or missing ({type(error).__name__}: {error}). "
        f"Delete {path.with_suffix('').name}.* and build the index again: only what is missing is encoded."
    )


def shard_path(folder: Path, number: int) -> Path:
    """Name the file of a shard's vectors."""
    return folder / f"shard-{number:05d}.safetensors"


def fingerprint(value: Any) -> str:
    """Hash what JSON can say."""
    return blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()


def settings_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What an index was made by: the part of its manifest that is there from the beginning."""
    return {name: manifest[name] for name in ("model", "role", "options")}


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Read `index.json`, or return `None` if there is none.

    Raises:
        ValueError: if it is not an index's.
    """
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        settings_of(manifest)
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path} is not an index's ({error}). Choose another folder, or delete this one.") from error
    return manifest


def read_rotation(folder: Path, index: str, passages: str) -> Tensor:
    """Read the rotation made for an index and its first shard, given by their fingerprints."""
    path = folder / ROTATION
    try:
        with safe_open(path, "pt") as file:
            metadata, rotation = json.loads(file.metadata()[_METADATA_KEY]), file.get_tensor("rotation")
    except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
        raise shard_error(path, error) from error
    check_belongs(path, metadata, index, passages)
    return rotation


def check_belongs(path: Path, metadata: Mapping[str, str], index: str, passages: str) -> None:
    """Raise an error if a file was made for another index or for other passages than these fingerprints say."""
    for name, wanted in (("index", index), ("passages", passages)):
        if metadata[name] != wanted:
            what = {"index": "by another model or with other options", "passages": "of other passages"}[name]
            raise ValueError(f"{path} was made {what}. Choose another folder, or delete this one.")


def write_tensors(path: Path, tensors: dict[str, Tensor], index: str, passages: str) -> None:
    """Write a shard or a rotation, with the fingerprints of what it was made for."""
    # One entry of metadata, since several would come in any order.
    metadata = {_METADATA_KEY: json.dumps({"index": index, "passages": passages})}
    with replacing(path) as partial:
        save_file(tensors, partial, metadata)

"""The files of a passage index, each of which appears under its name only once it is complete.

`index.json` holds the model's fingerprint, the options, and the list of shards when all are there. Each shard is a
safetensors file of `tokens`, `offsets` and `pooled` (with int8 `scales`) and a JSON file of docids. The rotation to a
lower dimension is in `rotation.safetensors`. Every file of tensors holds checksums of them, and a shard also those of
its docids and its rotation.

Files are written under the lock of the folder only (`.lock`, an empty file), and never again: so builds that share a
folder use each other's files, and a finished index is only read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...files import replacing

MANIFEST = "index.json"
ROTATION = "rotation.safetensors"
LOCK = ".lock"
_OPTIONS = {"shard_size", "pool_factor", "dim", "dtype", "single"}
_METADATA_KEY = "optical_hf"
_DTYPES: dict[str, type[np.generic]] = {"F16": np.float16, "I8": np.int8, "I64": np.int64}
# What reading a damaged file of JSON or tensors may raise.
_DAMAGE = (
    *(OSError, SafetensorError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError),
)


@dataclass(frozen=True)
class IndexShard:
    """One shard of a [`PassageIndex`]: a safetensors file of vectors, and the JSON file of its docids beside it.

    Only the header is in memory. Vectors are read into memory of their own and not mapped, since the pages of a
    mapped file that were read once count as the process's memory for as long as it is mapped.

    Args:
        path (`Path`): the safetensors file.
        tensors (`dict`): by name, the tensor's type, shape, and position in the file.
        metadata (`dict`): fingerprints of the `index` and of the `passages` that the shard was made for.
        checksums (`dict`): of each tensor, of the `docids` and of the `rotation`; empty if it is of version 0.1.
    """

    path: Path
    tensors: dict[str, tuple[type[np.generic], tuple[int, ...], int]]
    metadata: dict[str, str]
    checksums: dict[str, str] = field(default_factory=dict)
    # Of each tensor, how many rows were read in order from the first on, and their checksum.
    _checked: dict[str, tuple[int, xxhash.xxh3_64]] = field(default_factory=dict, repr=False, compare=False)

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
                if first < 0 or min(shape) < 1 or last - first != prod(shape) * np.dtype(kind).itemsize:
                    raise ValueError(f"{name!r} has another size than its shape {shape}")
                tensors[name] = (kind, shape, start + first)
                end = max(end, start + last)
            if size != end:
                raise ValueError(f"it has {size} bytes and should have {end}")
            _check_shapes({name: shape for name, (_, shape, _) in tensors.items()})
            names = {"index": metadata["index"], "passages": metadata["passages"]}
            checksums = dict(metadata.get("checksums", {}))
            if checksums and not tensors.keys() <= checksums.keys():
                raise ValueError("its checksums are not whole")
            return cls(path, tensors, names, checksums)
        except _DAMAGE as error:
            raise shard_error(path, error) from error

    def __len__(self) -> int:
        return self.tensors["pooled"][1][0]

    def read(self, name: str, start: int, stop: int) -> Tensor:
        """Read rows of one tensor.

        When all rows have been read in order, from the first to the last, in whatever pieces, they are compared with
        their checksum, once for each time the shard was opened.

        Raises:
            ValueError: naming the file, if it is cut off, or these are not the vectors that were written.
        """
        kind, shape, position = self.tensors[name]
        width = prod(shape[1:])
        count = (stop - start) * width
        try:
            values = np.fromfile(self.path, kind, count, offset=position + start * width * np.dtype(kind).itemsize)
            if len(values) != count:
                raise ValueError(f"{name!r} ends after {len(values)} of {count} numbers")
            rows, checksum = self._checked.get(name, (0, _begin(np.dtype(kind).name, shape)))
            if start == rows and name in self.checksums:
                checksum = checksum.copy()
                checksum.update(values.data)
                if stop == shape[0] and checksum.hexdigest() != self.checksums[name]:
                    raise ValueError(f"{name!r} has another checksum than it was written with")
                self._checked[name] = (stop, checksum)
        except (OSError, ValueError) as error:
            raise shard_error(self.path, error) from error
        return torch.from_numpy(values).view(stop - start, *shape[1:])

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
        """The passages' ids, in the order of their vectors.

        Raises:
            ValueError: naming the file, if it is damaged or another shard's.
        """
        path = self.path.with_suffix(".json")
        try:
            content = path.read_bytes()
            stored = json.loads(content)
            docids = stored["docids"]
            if stored["passages"] != self.metadata["passages"] or len(docids) != len(self):
                raise ValueError(f"it does not belong to {self.path.name}")
            if self.checksums.get("docids", checksum_of(content)) != checksum_of(content):
                raise ValueError(f"it has another checksum than {self.path.name} says")
            if not isinstance(docids, list) or not all(isinstance(docid, str) for docid in docids):
                raise ValueError("its docids are no strings")
        except _DAMAGE as error:
            raise shard_error(path, error) from error
        return docids

    def check_rotation(self, rotation: Tensor | None) -> None:
        """Refuse a rotation that is not the one the shard's token vectors were brought to a lower dimension by.

        Raises:
            ValueError: naming both files.
        """
        if rotation is not None and self.checksums.get("rotation", checksum_of(rotation)) != checksum_of(rotation):
            raise ValueError(
                f"{self.path} was made with another rotation than {ROTATION} beside it, which was made anew: delete "
                f"{self.path.parent}, and build the index again."
            )


def _check_shapes(shapes: Mapping[str, tuple[int, ...]]) -> None:
    passages, _ = shapes["pooled"]
    if "tokens" not in shapes:
        expected = {"pooled"}
    else:
        vectors, _ = shapes["tokens"]
        expected = {"pooled", "tokens", "offsets"} | ({"scales"} & shapes.keys())
        if shapes["offsets"] != (passages + 1,) or shapes.get("scales", (vectors,)) != (vectors,):
            raise ValueError("the shapes of its tensors do not fit together")
    if shapes.keys() != expected:
        raise ValueError(f"it holds {', '.join(sorted(shapes))}, and should hold {', '.join(sorted(expected))}")


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


def checksum_of(content: bytes | Tensor) -> str:
    """Hash the content of a file, or a tensor, by XXH3: against damage, 28 GB a second on one core of an AMD EPYC."""
    if not isinstance(content, Tensor):
        return xxhash.xxh3_64_hexdigest(content)
    checksum = _begin(str(content.dtype).removeprefix("torch."), tuple(content.shape))
    checksum.update(content.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return checksum.hexdigest()


def _begin(dtype: str, shape: tuple[int, ...]) -> xxhash.xxh3_64:
    return xxhash.xxh3_64(f"{dtype} {shape} ".encode())


def settings_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What an index was made by: the part of its manifest that is there from the beginning."""
    return {name: manifest[name] for name in ("model", "role", "options")}


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Read `index.json`, or return `None` if there is none.

    Raises:
        ValueError: if it is damaged, or not an index's.
    """
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        settings = settings_of(manifest)
        if not isinstance(settings["model"], dict) or not _OPTIONS <= settings["options"].keys():
            raise ValueError("its model or its options are not whole")
        entries = manifest.get("shards", [{"passages": 1, "fingerprint": ""}])
        kinds = [(type(entry["passages"]), type(entry["fingerprint"])) for entry in entries]
        if set(kinds) != {(int, str)}:
            raise ValueError("its list of shards is not whole")
    except _DAMAGE as error:
        raise ValueError(
            f"{path} is damaged, or not an index's ({type(error).__name__}: {error}). Delete the file and build the "
            "index again: what is there is not encoded again. Or choose another folder."
        ) from error
    return manifest


def read_tensors(path: Path, index: str, passages: str) -> dict[str, Tensor]:
    """Read a whole file of tensors, made for what these fingerprints say, and compare them with their checksums.

    Raises:
        ValueError: if it is damaged, or was made for something else.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = json.loads(file.metadata()[_METADATA_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        made_for = {name: metadata[name] for name in ("index", "passages")}
        for name, checksum in metadata.get("checksums", {}).items():
            if checksum_of(tensors[name]) != checksum:
                raise ValueError(f"{name!r} has another checksum than it was written with")
    except _DAMAGE as error:
        raise shard_error(path, error) from error
    check_belongs(path, made_for, index, passages)
    return tensors


def read_rotation(folder: Path, index: str, passages: str) -> Tensor:
    """Read the rotation made for an index and its first shard, given by their fingerprints."""
    path = folder / ROTATION
    tensors = read_tensors(path, index, passages)
    if tensors.keys() != {"rotation"} or tensors["rotation"].ndim != 2:
        raise shard_error(path, ValueError(f"it holds {', '.join(sorted(tensors)) or 'nothing'}"))
    return tensors["rotation"]


def check_belongs(path: Path, metadata: Mapping[str, str], index: str, passages: str) -> None:
    """Raise an error if a file was made for another index or for other passages than these fingerprints say."""
    if metadata["index"] != index:
        raise ValueError(
            f"{path} was made by another model or with other options than {MANIFEST} says, or one of the two is "
            "damaged. Choose another folder, or delete this one."
        )
    if metadata["passages"] != passages:
        raise ValueError(
            f"{path} was made of other passages than are given, or than {MANIFEST} says. Choose another folder, or "
            "delete this one."
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only one who writes to an index.

    Raises:
        OSError: if the folder cannot be written.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire()
    except OSError as error:
        raise OSError(f"The folder of the index, {folder}, cannot be written ({error}): choose another.") from error
    try:
        yield
    finally:
        lock.release()


def write_tensors(path: Path, tensors: dict[str, Tensor], index: str, passages: str, **checksums: str) -> None:
    """Write tensors with their checksums and the fingerprints of what they were made for.

    Args:
        path (`Path`): the file.
        tensors (`dict[str, torch.Tensor]`): by name.
        index, passages (`str`): the fingerprints.
        checksums: of what else belongs to them, such as `docids`.

    Raises:
        OSError: if there is no room, or the folder cannot be written.
    """
    # One entry of metadata, since several would come in any order.
    checksums |= {name: checksum_of(tensor) for name, tensor in tensors.items()}
    metadata = {_METADATA_KEY: json.dumps({"index": index, "passages": passages, "checksums": checksums})}
    try:
        with replacing(path) as partial:
            save_file(tensors, partial, metadata)
    except SafetensorError as error:
        raise OSError(f"{path} could not be written ({error}).") from error


def write_shard(
    path: Path, docids: list[str], tensors: dict[str, Tensor], index: str, passages: str, rotation: Tensor | None
) -> None:
    """Write a shard: first the docids, then the tensors, which hold the checksum of the docids and the rotation."""
    content = (json.dumps({"passages": passages, "docids": docids}, ensure_ascii=False) + "\n").encode("utf-8")
    with replacing(path.with_suffix(".json")) as partial:
        partial.write_bytes(content)
    more = {} if rotation is None else {"rotation": checksum_of(rotation)}
    write_tensors(path, tensors, index, passages, docids=checksum_of(content), **more)

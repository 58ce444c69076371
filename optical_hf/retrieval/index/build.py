"""A corpus encoded once into shards of vectors on disk: streaming, resumable, compressed, by several processes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import PartialState
from torch import Tensor
from tqdm.auto import tqdm

from ...files import write_json
from ...launching import check_world_size
from ...models.modeling_optical import OpticalModel
from .compression import fit_rotation, pool_tokens, quantize
from .exact import PassageIndex
from .shards import (
    MANIFEST,
    ROTATION,
    IndexShard,
    check_belongs,
    fingerprint,
    read_manifest,
    read_rotation,
    settings_of,
    shard_path,
    write_tensors,
)

__all__ = ["PassageIndex", "build_index", "model_fingerprint"]

ROTATION_PASSAGES = 1000  # of the first shard: some 100,000 token vectors, for a matrix of a few hundred rows
Passages = Sequence[tuple[str, str]]


@torch.no_grad()
def build_index(
    model: OpticalModel,
    passages: Iterable[tuple[str, str]] | Mapping[str, str],
    folder: str | os.PathLike[str],
    *,
    shard_size: int = 10_000,
    batch_size: int = 32,
    pool_factor: int = 1,
    dim: int | None = None,
    dtype: str = "float16",
    single: bool = False,
) -> PassageIndex:
    """Encode a corpus into an index, or go on with one that was interrupted: finished shards are not encoded again.

    Every process launched by Accelerate has to call this with the same passages; shard `i` is made by process
    `i % num_processes`, from the same batches as by one process.

    Args:
        model ([`OpticalTeacher`] or [`OpticalStudent`]):
            Encodes the passages, in the role `"document"`, on the device it is on.
        passages (iterable of `(docid, text)`, or `Mapping[str, str]`):
            Read once, one shard at a time; see [`trec.iter_passages`].
        folder (`str` or `Path`):
            Where the index is written.
        shard_size (`int`, *optional*, defaults to 10,000):
            Passages a shard. Within it, passages of similar length are encoded together. Vectors of a shard are held
            in memory: 130 tokens of 384 dimensions a passage make 1 GB.
        batch_size (`int`, *optional*, defaults to 32):
            Passages a forward pass; may change when an interrupted build goes on.
        pool_factor (`int`, *optional*, defaults to 1):
            Keep one token vector in so many: those near to each other (Ward's clustering, by passage) are replaced
            by their mean, as in [Clavié et al., 2024](https://arxiv.org/abs/2409.14683).
        dim (`int`, *optional*):
            Dimension that token vectors are brought to, by the rotation that keeps most of the first shard's vectors.
            By default the model's own.
        dtype (`str`, *optional*, defaults to `"float16"`):
            Type that token vectors are stored in; `"int8"` with one scale a vector.
        single (`bool`, *optional*, defaults to `False`):
            Store pooled vectors only, which are always there, whole and in half precision.

    Returns:
        [`PassageIndex`]: the finished index.

    Raises:
        ValueError: if an option is wrong, there are no passages, a docid is repeated, a vector is not finite, or the
            folder holds an index of another model, of other options (both named), or of other passages.

    Example:

    ```python
    >>> index = build_index(teacher, iter_passages("docs.jsonl.gz"), "index", dim=96, pool_factor=2, dtype="int8")
    >>> run = index.search(student.encode_tokens(list(topics.values()), "query"), list(topics), k=100)
    ```
    """
    state = PartialState()
    check_world_size(state.num_processes)
    options = {"shard_size": shard_size, "pool_factor": pool_factor, "dim": dim, "dtype": dtype, "single": single}
    _check_options(options, batch_size, model.config.output_dim)
    settings = {"model": model_fingerprint(model), "role": "document", "options": options}
    folder, made_for = Path(folder), fingerprint(settings)
    _check_settings(folder, settings)
    total = len(passages) if isinstance(passages, Sized) else None
    windows = _windows(passages.items() if isinstance(passages, Mapping) else passages, shard_size)
    first = next(windows, None)
    if first is None:
        raise ValueError(f"There are no passages: no index was written to {folder}.")
    folder.mkdir(parents=True, exist_ok=True)
    if state.is_main_process and read_manifest(folder) is None:
        write_json(folder / MANIFEST, settings)

    rotation = None
    if dim is not None:
        path, text = folder / ROTATION, fingerprint(first)
        if state.is_main_process and not path.exists():
            sample = first[:: -(-len(first) // ROTATION_PASSAGES)]
            vectors = (torch.cat(tokens) for _, tokens, _ in _encode(model, sample, batch_size))
            write_tensors(path, {"rotation": fit_rotation(vectors, dim)}, made_for, text)
        state.wait_for_everyone()
        rotation = read_rotation(folder, made_for, text)

    count = seen = 0
    with tqdm(
        total=total, desc="Encoding passages", unit="passage", delay=2, disable=not state.is_main_process
    ) as bar:
        for number, window in enumerate(chain([first], windows)):
            count += 1
            if number % state.num_processes == state.process_index:
                path, text = shard_path(folder, number), fingerprint(window)
                if not _is_finished(path, made_for, text):
                    docids, tensors = _make_shard(model, window, batch_size, rotation, options, bar)
                    write_json(path.with_suffix(".json"), {"passages": text, "docids": docids})
                    write_tensors(path, tensors, made_for, text)
            seen += len(window)
            bar.update(seen - bar.n)
            if count % state.num_processes == 0:
                state.wait_for_everyone()  # in step, since waiting long for the others is an error under NCCL
    state.wait_for_everyone()
    if state.is_main_process:
        _finish(folder, settings, count)
    state.wait_for_everyone()
    return PassageIndex.load(folder)


def _check_options(options: Mapping[str, Any], batch_size: int, model_dim: int) -> None:
    numbers = {"batch_size": batch_size, "shard_size": options["shard_size"], "pool_factor": options["pool_factor"]}
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"`{name}` is {value}; it has to be positive.")
    dim = options["dim"]
    if dim is not None and not 1 <= dim <= model_dim:
        raise ValueError(f"`dim` is {dim}; the model's vectors have {model_dim} dimensions.")
    if options["dtype"] not in ("float16", "int8"):
        raise ValueError(f"`dtype` is {options['dtype']!r}; it has to be 'float16' or 'int8'.")
    if options["single"] and (dim, options["pool_factor"], options["dtype"]) != (None, 1, "float16"):
        raise ValueError("`dim`, `pool_factor` and `dtype` are for token vectors, of which `single` stores none.")


def _windows(passages: Iterable[tuple[str, str]], size: int) -> Iterator[Passages]:
    stream = iter(passages)
    # Hashes, sorted: eight bytes a passage, where the ids would take a hundred. The last one is a sentinel.
    known = np.array([np.iinfo(np.int64).max])
    while window := list(islice(stream, size)):
        for docid, text in window:
            if not isinstance(docid, str) or not isinstance(text, str):
                raise ValueError(f"Passage {docid!r}: docid and text have to be strings.")
        hashes = np.fromiter((hash(docid) for docid, _ in window), np.int64, len(window))
        order = hashes.argsort()
        hashes = hashes[order]
        places = known.searchsorted(hashes)
        twice = known[places] == hashes
        twice[1:] |= hashes[1:] == hashes[:-1]
        if twice.any():
            raise ValueError(f"Document id {window[order[twice.argmax()]][0]!r} is there twice.")
        known = np.insert(known, places, hashes)
        yield window


def _encode(
    model: OpticalModel, window: Passages, batch_size: int, single: bool = False
) -> Iterator[tuple[Sequence[str], list[Tensor], Tensor]]:
    # Batches depend on the window only, so that any process makes the same shard of it.
    ordered = sorted(window, key=lambda passage: len(passage[1]), reverse=True)
    for start in range(0, len(ordered), batch_size):
        docids, texts = zip(*ordered[start : start + batch_size], strict=True)
        tokens: list[Tensor] = []
        if single:
            pooled = model.encode_pooled(texts, "document", batch_size=batch_size, show_progress=False)
        else:
            tokens, pooled = model.encode_both(texts, "document", batch_size=batch_size, show_progress=False)
        for vectors in (pooled, tokens):
            for docid, vector in zip(docids, vectors, strict=False):  # `single` has no tokens
                if not vector.isfinite().all():
                    raise ValueError(f"The model gives NaN or infinity for the passage {docid!r}.")
        yield docids, tokens, pooled


def _make_shard(
    model: OpticalModel,
    window: Passages,
    batch_size: int,
    rotation: Tensor | None,
    options: Mapping[str, Any],
    bar: tqdm[Any],
) -> tuple[list[str], dict[str, Tensor]]:
    docids: list[str] = []
    lengths = [0]
    parts: dict[str, list[Tensor]] = {"pooled": []}
    for chosen, tokens, pooled in _encode(model, window, batch_size, options["single"]):
        docids += chosen
        parts["pooled"].append(pooled.half())
        if tokens:
            if rotation is not None:
                tokens = [F.normalize(one @ rotation, dim=1) for one in tokens]
            tokens = [pool_tokens(one, options["pool_factor"]) for one in tokens]
            lengths += [len(one) for one in tokens]
            vectors = torch.cat(tokens)
            stored = quantize(vectors) if options["dtype"] == "int8" else (vectors.half(),)
            for name, part in zip(("tokens", "scales"), stored, strict=False):
                parts.setdefault(name, []).append(part)
        bar.update(len(chosen))
    tensors = {name: torch.cat(parts.pop(name)) for name in list(parts)}
    if not options["single"]:
        tensors["offsets"] = torch.tensor(lengths).cumsum(0)
    return docids, tensors


def model_fingerprint(model: OpticalModel) -> dict[str, Any]:
    """What decides on a model's passage vectors: its configuration, without what is for queries, and its weights."""
    names = ("_name_or_path", "architectures", "attend_to_expansion", "auto_map", "dtype", "transformers_version")
    config = {
        name: value
        for name, value in _flat(model.config.to_dict()).items()
        if not name.startswith("query_") and name.split(".")[-1] not in names
    }
    digest = blake2b(digest_size=16)
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return {"config": json.loads(json.dumps(config, default=str)), "weights": digest.hexdigest()}


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    manifest = read_manifest(folder)
    if manifest is None:
        return
    there, here = _flat(settings_of(manifest)), _flat(settings)
    differing = [name for name in there | here if there.get(name) != here.get(name)]
    if differing:
        listed = "; ".join(f"{name} is {there.get(name)!r} there, {here.get(name)!r} here" for name in differing)
        raise ValueError(f"{folder} holds another model's index or one with other options: {listed}.")


def _is_finished(path: Path, index: str, passages: str) -> bool:
    if not path.exists() or not path.with_suffix(".json").exists():
        return False
    check_belongs(path, IndexShard.open(path).metadata, index, passages)
    return True


def _finish(folder: Path, settings: Mapping[str, Any], count: int) -> None:
    if shard_path(folder, count).exists():
        raise ValueError(f"{shard_path(folder, count)} is there, but the passages end before it: it is of others.")
    shards = [IndexShard.open(shard_path(folder, number)) for number in range(count)]
    entries = [{"passages": len(shard), "fingerprint": shard.metadata["passages"]} for shard in shards]
    write_json(folder / MANIFEST, {**settings, "shards": entries})

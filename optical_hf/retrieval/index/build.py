"""A corpus encoded once into shards of vectors on disk: streaming, resumable, compressed, by several processes."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import PartialState
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from ...bounds import check_count
from ...files import remove_abandoned, scratch, write_json
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
    locked,
    read_manifest,
    read_rotation,
    settings_of,
    shard_path,
    write_shard,
    write_tensors,
)

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

__all__ = ["PassageIndex", "build_index", "check_options", "model_fingerprint"]

logger = logging.getLogger(__name__)

ROTATION_PASSAGES = 1000  # of the first shard: some 100,000 token vectors, for a matrix of a few hundred rows
# Of a configuration, what does not change a passage's vectors, at any depth; nor does what is for queries.
_WITHOUT_EFFECT = {
    "_name_or_path",
    "architectures",
    "attend_to_expansion",
    "auto_map",
    "dtype",
    "transformers_version",
}
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
    `i % num_processes`, from the same batches as by one process. Builds that know nothing of each other may share the
    folder: the first to finish a shard writes it, and the others use it. A finished index is only read.

    The index of version 0.1 does not say by which tokenizer it was made. It is taken to be the model's, with a
    warning: hours of encoding would be too much for what is almost always true.

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
    check_options(options, batch_size, model.config.output_dim)
    settings = {"model": model_fingerprint(model), "role": "document", "options": options}
    folder = Path(folder)
    _check_settings(folder, settings)
    total = len(passages) if isinstance(passages, Sized) else None
    windows = _windows(passages.items() if isinstance(passages, Mapping) else passages, shard_size)
    first = next(windows, None)
    if first is None:
        raise ValueError(f"There are no passages: no index was written to {folder}.")
    folder.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder)
    if state.is_main_process and "shards" not in (read_manifest(folder) or {}):
        with locked(folder):  # even if nothing is written yet: a folder that cannot be written shows now
            if read_manifest(folder) is None:
                write_json(folder / MANIFEST, settings)
    state.wait_for_everyone()
    settings = _check_settings(folder, settings, warn=True)
    made_for = fingerprint(settings)

    rotation = None
    if dim is not None:
        path, text = folder / ROTATION, fingerprint(first)
        if state.is_main_process and not path.exists():
            sample = first[:: -(-len(first) // ROTATION_PASSAGES)]
            vectors = (torch.cat(tokens) for _, tokens, _ in _encode(model, sample, batch_size))
            fitted = fit_rotation(vectors, dim)
            with locked(folder):
                if not path.exists():  # as by another build meanwhile
                    write_tensors(path, {"rotation": fitted}, made_for, text)
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
                if not _is_finished(path, made_for, text, rotation):
                    docids, tensors = _make_shard(model, window, batch_size, rotation, options, bar)
                    with locked(folder):
                        if not _is_finished(path, made_for, text, rotation):
                            write_shard(path, docids, tensors, made_for, text, rotation)
            seen += len(window)
            bar.update(seen - bar.n)
            if count % state.num_processes == 0:
                state.wait_for_everyone()  # in step, since waiting long for the others is an error under NCCL
    state.wait_for_everyone()
    if state.is_main_process:
        _finish(folder, settings, count)
    state.wait_for_everyone()
    return PassageIndex.load(folder)


def check_options(options: Mapping[str, Any], batch_size: int = 1, model_dim: int | None = None) -> None:
    """Refuse options of [`build_index`] that are wrong.

    Args:
        options (`Mapping[str, Any]`): all of `shard_size`, `pool_factor`, `dim`, `dtype`, `single`.
        batch_size (`int`, *optional*): likewise.
        model_dim (`int`, *optional*): the largest `dim`, if the model is known.

    Raises:
        ValueError: naming the option, its value, and what is allowed.
    """
    dim = options["dim"]
    check_count("batch_size", batch_size)
    check_count("shard_size", options["shard_size"])
    check_count("pool_factor", options["pool_factor"])
    if dim is not None:
        check_count("dim", dim)
        if model_dim is not None and dim > model_dim:
            raise ValueError(f"dim is {dim}; the model's vectors have {model_dim} dimensions.")
    if options["dtype"] not in ("float16", "int8"):
        raise ValueError(f"dtype is {options['dtype']!r}; it has to be 'float16' or 'int8'.")
    if options["single"] and (dim, options["pool_factor"], options["dtype"]) != (None, 1, "float16"):
        raise ValueError("dim, pool_factor and dtype are for token vectors, of which `single` stores none.")


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
                tokens = [F.normalize(vectors @ rotation, dim=1) for vectors in tokens]
            tokens = [pool_tokens(vectors, options["pool_factor"]) for vectors in tokens]
            lengths += [len(vectors) for vectors in tokens]
            joined = torch.cat(tokens)
            stored = quantize(joined) if options["dtype"] == "int8" else (joined.half(),)
            for name, part in zip(("tokens", "scales"), stored, strict=False):
                parts.setdefault(name, []).append(part)
        bar.update(len(chosen))
    tensors = {name: torch.cat(parts.pop(name)) for name in list(parts)}
    if not options["single"]:
        tensors["offsets"] = torch.tensor(lengths).cumsum(0)
    return docids, tensors


def model_fingerprint(model: OpticalModel | CrossEncoder) -> dict[str, Any]:
    """What decides on a model's passage vectors: its configuration (not what is for queries), tokenizer and weights.

    Args:
        model ([`OpticalTeacher`], [`OpticalStudent`] or `CrossEncoder`): the model.

    Returns:
        `dict`: `config`, flat and without what decides on nothing, and hashes of `tokenizer` and `weights`.
    """
    own: Any = model.config
    config = {
        name: value
        for name, value in _flat(own.to_dict()).items()
        if not name.startswith("query_") and not _WITHOUT_EFFECT.intersection(name.split("."))
    }
    digest = blake2b(digest_size=16)
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return {
        "config": json.loads(json.dumps(config, default=str)),
        "tokenizer": _tokenizer_fingerprint(model.tokenizer),
        "weights": digest.hexdigest(),
    }


def _tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    described: dict[str, Any] = {
        "truncation_side": tokenizer.truncation_side,
        "split_special_tokens": tokenizer.split_special_tokens,
    }
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        described |= json.loads(backend.to_str())
        described |= {"truncation": None, "padding": None}  # left there by the last call
    else:
        with scratch(gettempdir(), "optical-hf-vocabulary") as folder:
            files = [Path(path) for path in tokenizer.save_vocabulary(str(folder))]
            described["files"] = {path.name: blake2b(path.read_bytes()).hexdigest() for path in files}
        described |= {"class": type(tokenizer).__name__, "added": tokenizer.get_added_vocab()}
    return fingerprint(described)


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _check_settings(folder: Path, settings: dict[str, Any], warn: bool = False) -> dict[str, Any]:
    """Return the settings to go on with: those that are there, if there are some, and they fit."""
    manifest = read_manifest(folder)
    if manifest is None:
        return settings
    there = settings_of(manifest)
    old, new = _flat(there), _flat(settings)
    # Version 0.1 noted `auto_map` too.
    names = [name for name in old | new if not name.startswith("model.config.auto_map.")]
    differing = [name for name in names if old.get(name) != new.get(name)]
    if differing == ["model.tokenizer"] and "model.tokenizer" not in old:
        if warn:
            logger.warning(
                "The index in %s is of version 0.1, which did not note the tokenizer: it is taken to be this model's. "
                "If the tokenizer was another, delete the folder and build the index again.",
                folder,
            )
    elif differing:
        listed = "; ".join(f"{name} is {old.get(name)!r} there, {new.get(name)!r} here" for name in differing)
        raise ValueError(
            f"{folder} holds another model's index or one with other options: {listed}. Choose another folder, or "
            "delete this one."
        )
    return there


def _is_finished(path: Path, index: str, passages: str, rotation: Tensor | None) -> bool:
    if not path.exists() or not path.with_suffix(".json").exists():
        return False
    shard = IndexShard.open(path)
    check_belongs(path, shard.metadata, index, passages)
    shard.check_rotation(rotation)
    shard.docids()
    return True


def _finish(folder: Path, settings: Mapping[str, Any], count: int) -> None:
    if shard_path(folder, count).exists():
        raise ValueError(f"{shard_path(folder, count)} is there, but the passages end before it: it is of others.")
    shards = [IndexShard.open(shard_path(folder, number)) for number in range(count)]
    entries = [{"passages": len(shard), "fingerprint": shard.metadata["passages"]} for shard in shards]
    finished = {**settings, "shards": entries}
    if read_manifest(folder) != finished:  # not written for nothing: the disk may be read-only
        with locked(folder):
            write_json(folder / MANIFEST, finished)

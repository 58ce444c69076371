"""Exact search over the shards of a passage index, read from disk piece by piece, in bounded memory."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor
from tqdm.auto import tqdm

from ...bounds import check_count, check_memory
from ...data.retrieval_set import check_passages
from ..maxsim import maxsim
from ..search import Run, best_passages, check_ids, check_vectors
from .shards import (
    MANIFEST,
    IndexShard,
    check_belongs,
    fingerprint,
    read_manifest,
    read_rotation,
    settings_of,
    shard_error,
    shard_path,
)

logger = logging.getLogger(__name__)

# What a search holds at once, in bytes: counted from its own code, `maxsim` and `best_passages`, temporaries included.
_BYTES_PER_SIMILARITY = 32
_BYTES_PER_SCORE = 16
_BYTES_PER_RESULT = 200


@dataclass(frozen=True)
class PassageIndex:
    """A finished index: make it by [`build_index`], open it by [`~PassageIndex.load`].

    Args:
        folder (`Path`): where it lies.
        manifest (`dict`): what `index.json` holds.
        shards (`list[IndexShard]`): its shards, of which only the headers are in memory.
        rotation (`torch.Tensor` of shape `(model_dim, dim)`, *optional*): multiplies the queries' token vectors.
    """

    folder: Path
    manifest: dict[str, Any]
    shards: list[IndexShard]
    rotation: Tensor | None = None

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> PassageIndex:
        """Open an index: its headers are read and checked, its vectors are not.

        Args:
            folder (`str` or `Path`): where [`build_index`] wrote it.

        Raises:
            FileNotFoundError: if there is no index.
            ValueError: naming the file, if the index is unfinished, or a shard is missing, cut off or another index's.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        if manifest is None:
            raise FileNotFoundError(f"{folder} has no {MANIFEST}: make it by `optical-hf index` or `build_index`.")
        if "shards" not in manifest:
            raise ValueError(
                f"{folder / MANIFEST} has no list of shards: the index is unfinished: call `build_index` again, which "
                "goes on with it."
            )
        index, entries = fingerprint(settings_of(manifest)), manifest["shards"]
        shards = [IndexShard.open(shard_path(folder, number)) for number in range(len(entries))]
        rotation = None
        if manifest["options"]["dim"] is not None:
            rotation = read_rotation(folder, index, entries[0]["fingerprint"])
        for shard, entry in zip(shards, entries, strict=True):
            check_belongs(shard.path, shard.metadata, index, entry["fingerprint"])
            shard.check_rotation(rotation)
            shape = len(shard), "tokens" not in shard.tensors, _dims(shard)
            if shape != (entry["passages"], manifest["options"]["single"], _dims(shards[0])):
                raise shard_error(shard.path, ValueError(f"it has another shape than {MANIFEST} and the others say"))
            if not shard.checksums and "tokenizer" in manifest["model"]:
                raise shard_error(shard.path, ValueError("it has no checksums"))
        if without := sum(not shard.checksums for shard in shards):
            logger.warning(
                "%s: %d of %d shards are of version 0.1, without checksums: damage of their vectors goes unnoticed. "
                "Build the index anew in another folder to have them.",
                folder, without, len(shards),
            )  # fmt: skip
        return cls(folder, manifest, shards, rotation)

    def __len__(self) -> int:
        return sum(len(shard) for shard in self.shards)

    def search(
        self,
        query_vectors: Sequence[Tensor],
        query_ids: Sequence[str],
        k: int = 100,
        memory_gb: float = 4.0,
        candidates: Mapping[str, Collection[str]] | None = None,
    ) -> Run:
        """Find every query's best `k` passages by MaxSim, exactly, as [`retrieval.search`] does in memory.

        Under several processes each searches its own shards, and all of them have to call this and get the same run.

        Args:
            query_vectors (`list[Tensor]`):
                One `(query_tokens, dim)` tensor a query. Where they lie is where scores are computed.
            query_ids (`Sequence[str]`):
                The queries' ids.
            k (`int`, *optional*, defaults to 100):
                Results a query. Among equal scores, those that trec_eval would rank first are kept.
            memory_gb (`float`, *optional*, defaults to 4.0):
                Most that the search holds in a process, in 1e9 bytes, beside what was there before.
            candidates (`Mapping[str, Collection[str]]`, *optional*):
                The only document ids that may be found, by query id, such as those of a first stage. Those that are
                not in the index are warned of.

        Returns:
            `dict[str, dict[str, float]]`: the run, scores by query id and document id, best first.

        Raises:
            ValueError: if vectors and ids do not match, a query has no tokens, NaN or infinity, dimensions differ, a
                shard is damaged, none of the candidates is there, or `memory_gb` is too little for a single passage.
                Damage of vectors shows when the last ones of a shard are read: no run is returned that rests on it.
        """
        if self.manifest["options"]["single"]:
            raise ValueError(f"{self.folder} holds one vector a passage (`single=True`): use `search_pooled`.")
        dim = self.shards[0].tensors["tokens"][1][1] if self.rotation is None else len(self.rotation)
        _check(list(query_vectors), query_ids, k, memory_gb, dim)
        queries = [query.float() for query in query_vectors]
        if self.rotation is not None:
            queries = [F.normalize(query @ self.rotation.to(query.device), dim=-1) for query in queries]
        return _search(self.shards, queries, query_ids, k, memory_gb, candidates)

    def search_pooled(
        self,
        query_vectors: Tensor,
        query_ids: Sequence[str],
        k: int = 100,
        memory_gb: float = 4.0,
        candidates: Mapping[str, Collection[str]] | None = None,
    ) -> Run:
        """Find every query's best `k` passages by dot product of pooled vectors; else as [`~PassageIndex.search`].

        Args:
            query_vectors (`torch.Tensor` of shape `(queries, dim)`): one vector a query.
            query_ids, k, memory_gb, candidates: as in [`~PassageIndex.search`].
        """
        if not isinstance(query_vectors, Tensor):
            raise ValueError("query vectors: give one tensor (queries, dim), or search by token vectors.")
        _check(query_vectors, query_ids, k, memory_gb, self.shards[0].tensors["pooled"][1][1])
        return _search(self.shards, query_vectors.float(), query_ids, k, memory_gb, candidates)


def _dims(shard: IndexShard) -> dict[str, tuple[int, ...]]:
    return {name: shape[1:] for name, (_, shape, _) in shard.tensors.items()}


@torch.no_grad()
def _search(
    shards: Sequence[IndexShard],
    queries: list[Tensor] | Tensor,
    query_ids: Sequence[str],
    k: int,
    memory_gb: float,
    candidates: Mapping[str, Collection[str]] | None,
) -> Run:
    # MaxSim for a list of token vectors, dot product for one 2-D tensor. Shards go to the processes in turn.
    state = PartialState()
    own = shards[state.process_index :: state.num_processes]
    total = sum(len(shard) for shard in own)
    run: Run = {qid: {} for qid in query_ids}
    wanted = {docid for qid in query_ids for docid in (candidates or {}).get(qid, ())}
    there: set[str] = set()
    with tqdm(total=total, desc="Searching", unit="passage", delay=2, disable=not state.is_main_process) as bar:
        for shard in own:
            docids = shard.docids()
            there |= wanted.intersection(docids)
            single = isinstance(queries, Tensor)
            offsets = torch.arange(len(shard) + 1) if single else shard.offsets()
            rows, passages, similarities = _limits(shard, offsets, queries, k, memory_gb)
            for start, stop in _pieces(offsets, rows, passages):
                if isinstance(queries, Tensor):
                    scores = queries @ shard.read("pooled", start, stop).to(queries.device, torch.float32).T
                else:
                    vectors = shard.token_vectors(offsets[start : stop + 1])
                    scores = maxsim(queries, vectors, chunk_size=similarities)
                if not scores.isfinite().all():
                    raise shard_error(shard.path, ValueError("scores of its vectors are NaN or infinite"))
                if candidates is None:
                    found = best_passages(scores.cpu(), docids[start:stop], query_ids, k)
                else:
                    found = _chosen(scores.cpu(), docids[start:stop], query_ids, candidates)
                _merge(run, found, k)
                bar.update(stop - start)
    merged: Run = {qid: {} for qid in query_ids}
    for part, seen in gather_object([(run, there)]):
        _merge(merged, part, k)
        there |= seen
    if candidates is not None:
        named = [docid for qid in query_ids for docid in candidates.get(qid, ())]
        check_passages("candidates", named, there)
    return merged


def _chosen(
    scores: Tensor, docids: Sequence[str], query_ids: Sequence[str], candidates: Mapping[str, Collection[str]]
) -> Run:
    columns = {docid: column for column, docid in enumerate(docids)}
    return {
        qid: {docid: float(row[columns[docid]]) for docid in candidates.get(qid, ()) if docid in columns}
        for qid, row in zip(query_ids, scores, strict=True)
    }


def _check(queries: Sequence[Tensor] | Tensor, query_ids: Sequence[str], k: int, memory_gb: float, dim: int) -> None:
    check_count("k", k)
    check_memory("memory_gb", memory_gb)
    check_ids("query", queries, query_ids)
    check_vectors("query", queries, query_ids, dim)


def _limits(
    shard: IndexShard, offsets: Tensor, queries: list[Tensor] | Tensor, k: int, memory_gb: float
) -> tuple[int, int, int]:
    longest = int(offsets.diff().max())
    if isinstance(queries, Tensor):
        dim, query_length, vector = queries.shape[1], 1, 6 * queries.shape[1]
    else:
        dim, query_length = queries[0].shape[1], max(len(query) for query in queries)
        vector = 5 * dim + 6 if "scales" in shard.tensors else 2 * dim
    share = check_budget(memory_gb, len(queries), query_length, dim, k, longest, vector)
    # More similarities at once than 2 ** 24 would not be faster.
    similarities = min(1 << 24, int(share // _BYTES_PER_SIMILARITY))
    return int(share // vector), int(share // (_BYTES_PER_SCORE * len(queries))), similarities


def check_budget(
    memory_gb: float, queries: int, query_length: int, dim: int, k: int = 100, longest: int = 1, vector: int = 0
) -> float:
    """Refuse a budget of memory that is too little for the queries, whatever the passages are, or for these passages.

    A quarter of it each is for vectors, for similarities and for scores; the last one for the rest: queries, results,
    docids.

    Args:
        memory_gb (`float`): the budget in 1e9 bytes.
        queries, query_length, dim, k (`int`): number of queries, tokens of the longest, their size, and the results.
        longest, vector (`int`, *optional*): vectors of the longest passage, and bytes of one in memory.

    Returns:
        `float`: a quarter of the budget, in bytes.

    Raises:
        ValueError: with what is too large, and a budget that is enough.
    """
    share = memory_gb * 1e9 / 4
    needs = {
        "the vectors of the longest passage": longest * vector,
        "the similarities of the longest query and passage": _BYTES_PER_SIMILARITY * longest * max(query_length, dim),
        "the scores of one passage": _BYTES_PER_SCORE * queries,
        "the results": _BYTES_PER_RESULT * k * queries,
    }
    what, need = max(needs.items(), key=lambda item: item[1])
    if need > share:
        raise ValueError(
            f"memory_gb={memory_gb} is too little: {what} may take a quarter of it, and take {need / 1e9:.3g} GB. "
            f"Give at least {4.04 * need / 1e9:.2g}, or search for fewer queries or results at once."
        )
    return share


def _pieces(offsets: Tensor, rows: int, passages: int) -> Iterator[tuple[int, int]]:
    # Consecutive passages, at most so many at once and of at most so many vectors.
    start, count = 0, len(offsets) - 1
    while start < count:
        fitting = int(torch.searchsorted(offsets, offsets[start] + rows, right=True)) - 1
        stop = min(max(fitting, start + 1), start + passages, count)
        yield start, stop
        start = stop


def _merge(run: Run, found: Run, k: int) -> None:
    for qid, results in found.items():
        best = sorted(((score, docid) for docid, score in (run[qid] | results).items()), reverse=True)
        run[qid] = {docid: score for score, docid in best[:k]}

"""How much memory exact search over a large index takes, and for how long.

    python examples/benchmark_index_memory.py /folder/with/room

Generates 1,000,000 passages of 32 tokens in 96 dimensions as the shards of an index (6 GB, in a temporary folder that
is removed afterwards), searches 200 queries of 16 tokens within `--memory_gb 4`, prints the process's peak of resident
memory and the time, and checks that the first shard's answer is that of a search in memory. Exits with 1 if the peak
is above the budget or an answer differs.

Shards are read by plain reads and not mapped, and so the peak does not depend on the shards' size or number.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from optical_hf import search
from optical_hf.files import write_json
from optical_hf.retrieval.index.build import PassageIndex
from optical_hf.retrieval.index.shards import MANIFEST, fingerprint, shard_path, write_tensors

DIM, TOKENS, QUERIES, QUERY_TOKENS, SHARD_SIZE = 96, 32, 200, 16, 10_000


def generate_index(folder: Path, passages: int) -> None:
    """Write an index of random vectors, one shard at a time."""
    options = {"shard_size": SHARD_SIZE, "pool_factor": 1, "dim": None, "dtype": "float16", "single": False}
    settings = {"model": {"config": {"output_dim": DIM}, "weights": "random"}, "role": "document", "options": options}
    entries = []
    for number, start in enumerate(range(0, passages, SHARD_SIZE)):
        docids = [f"d{passage}" for passage in range(start, min(start + SHARD_SIZE, passages))]
        tensors = {
            "tokens": random_vectors(len(docids) * TOKENS, number).half(),
            "offsets": torch.arange(len(docids) + 1) * TOKENS,
            "pooled": random_vectors(len(docids), number).half(),
        }
        entries.append({"passages": len(docids), "fingerprint": fingerprint(docids)})
        path = shard_path(folder, number)
        write_json(path.with_suffix(".json"), {"passages": fingerprint(docids), "docids": docids})
        write_tensors(path, tensors, fingerprint(settings), fingerprint(docids))
    write_json(folder / MANIFEST, {**settings, "shards": entries})


def random_vectors(count: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed)), dim=1)


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9  # Linux counts in kibibytes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="Where the temporary folder is made.")
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--memory_gb", type=float, default=4.0)
    arguments = parser.parse_args()
    size = arguments.passages * TOKENS * DIM * 2
    if shutil.disk_usage(arguments.folder).free < 1.1 * size:
        parser.error(f"{arguments.folder} has no room for {1.1 * size / 1e9:.1f} GB.")

    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        # In a process of its own, so that this one's peak is the search's.
        generator = multiprocessing.get_context("spawn").Process(
            target=generate_index, args=(Path(folder), arguments.passages)
        )
        generator.start()
        generator.join()
        index = PassageIndex.load(folder)
        queries = list(random_vectors(QUERIES * QUERY_TOKENS, -1).split(QUERY_TOKENS))
        qids = [f"q{number}" for number in range(QUERIES)]
        before, start = peak_gb(), time.perf_counter()
        run = index.search(queries, qids, memory_gb=arguments.memory_gb)
        seconds, peak = time.perf_counter() - start, peak_gb()

        shard = index.shards[0]
        part = replace(index, shards=[shard]).search(queries, qids, memory_gb=arguments.memory_gb)
        docids = shard.docids()
        expected = search(queries, shard.token_vectors(shard.offsets()), docids, qids)

    difference = max(abs(part[qid][docid] - score) for qid in qids for docid, score in expected[qid].items())
    of_slice = set(docids)
    same = all(
        list(part[qid]) == list(expected[qid])
        and all(part[qid].get(docid) == score for docid, score in run[qid].items() if docid in of_slice)
        for qid in qids
    )
    print(f"{len(index):,} passages x {TOKENS} tokens x {DIM} dimensions, half precision: {size / 1e9:.2f} GB on disk")
    print(f"{QUERIES} queries x {QUERY_TOKENS} tokens: {seconds:.1f} s on {torch.get_num_threads()} threads")
    print(f"peak resident memory: {peak:.2f} GB ({before:.2f} GB before the search; budget {arguments.memory_gb} GB)")
    verdict = "same results" if same else "OTHER RESULTS"
    print(f"first {len(docids):,} passages, against the search in memory: difference {difference:.1e}, {verdict}")
    return 0 if same and difference < 1e-4 and peak <= arguments.memory_gb else 1


if __name__ == "__main__":
    raise SystemExit(main())

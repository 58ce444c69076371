"""Fuse TREC runs into one: by reciprocal ranks, or by a weighted sum of their scores.

    optical-hf fuse --runs bm25.trec maxsim.trec --output fused.trec
    optical-hf fuse --runs bm25.trec maxsim.trec --method sum --weights 0.2 0.8 --output fused.trec
    optical-hf fuse --runs bm25.trec maxsim.trec --method sum --qrels qrels.tsv --output fused.trec

With `--qrels` the weights are chosen by cross-validation over the judged queries: none is used on a query that it was
chosen on. They are printed with their nDCG@10, and written to `fused.trec.json`. Queries without judgement are fused
by the weights chosen on all judged ones.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..arguments import ArgumentReader
from ..bounds import MOST_SEED, check_count, check_fields
from ..data.trec_files import read_qrels, read_run, write_run
from ..files import write_json
from ..launching import run, start_logging
from ..retrieval.fusion import METHODS, NORMALISATIONS, CrossValidated, cross_validate, fuse


@dataclass
class FusionArguments:
    """What is fused, and how."""

    runs: list[str] = field(metadata={"help": "Two or more TREC runs."})
    output: str = field(metadata={"help": "TREC run to write."})
    method: str = field(
        default="rrf",
        metadata={"help": "Reciprocal rank fusion, or a sum of normalised scores.", "choices": list(METHODS)},
    )
    normalise: str = field(
        default="min-max",
        metadata={"help": "Of each query's scores, for --method sum.", "choices": list(NORMALISATIONS)},
    )
    weights: list[float] = field(
        default_factory=list, metadata={"help": "A weight a run, for --method sum; else equal ones."}
    )
    qrels: str | None = field(
        default=None, metadata={"help": "TREC judgements to choose the weights by, for --method sum."}
    )
    folds: int = field(default=5, metadata={"help": "Of the cross-validation, with --qrels."})
    seed: int = field(default=0, metadata={"help": "Of the folds."})

    def __post_init__(self) -> None:
        check_fields(self, check_count, "folds", least=2)
        check_fields(self, check_count, "seed", least=0, most=MOST_SEED)


def reader() -> ArgumentReader:
    """Return the reader of this command's arguments."""
    description = "Fuse TREC runs into one: by reciprocal ranks, or by a weighted sum of their scores."
    return ArgumentReader(FusionArguments, prog="optical-hf fuse", description=description)


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    [given] = reader().read(arguments)
    start_logging(True)
    if given.method == "rrf" and (given.weights or given.qrels):
        raise ValueError("--weights and --qrels are for --method sum: reciprocal rank fusion has no weights.")
    if given.weights and given.qrels:
        raise ValueError("Give either --weights, or --qrels to choose them by.")
    if not Path(given.output).absolute().parent.is_dir():
        raise ValueError(f"--output {given.output}: its folder is not there; make it first.")
    runs = [read_run(path) for path in given.runs]
    if given.qrels is None:
        fused = fuse(runs, given.method, given.normalise, given.weights or None, names=given.runs)
        write_run(fused, given.output)
    else:
        qrels = read_qrels(given.qrels)
        chosen = cross_validate(runs, qrels, given.normalise, given.folds, seed=given.seed, names=given.runs)
        fused = chosen.run
        record = {name: value for name, value in asdict(chosen).items() if name != "run"}
        names = [Path(path).name for path in given.runs]
        write_run(fused, given.output)
        write_json(
            f"{given.output}.json",
            {"runs": names, "normalise": given.normalise, "seed": given.seed, **record},
            indent=2,
        )
        print(format_table(chosen, names))
    print(f"{given.output} holds the run of {len(fused)} queries.")


def format_table(chosen: CrossValidated, names: Sequence[str]) -> str:
    """Lay out nDCG@10 and weights, those of every fold as their least and most."""
    width = max(len("cross-validated"), *map(len, names))
    lines = [f"{'':{width}}  ndcg@10  weight  in folds"]
    for name, ndcg, weight, folds in zip(
        names, chosen.run_ndcg, chosen.weights, zip(*chosen.fold_weights, strict=True), strict=True
    ):
        lines.append(f"{name:{width}}   {ndcg:.4f}    {weight:.2f}  {min(folds):.2f} to {max(folds):.2f}")
    lines.append(f"{'equal weights':{width}}   {chosen.equal_ndcg:.4f}")
    lines.append(f"{'cross-validated':{width}}   {chosen.ndcg:.4f}")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main, sys.argv[1:])

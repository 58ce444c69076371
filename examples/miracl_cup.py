"""The MIRACL-Cup pipeline (arXiv 2302.13400) from a first stage to an ensemble, with what every stage added.

    python examples/miracl_cup.py --languages sw te fi --data miracl_mini --output_dir cup \
        --bitext sw=en-sw.tsv te=en-te.tsv fi=en-fi.tsv

Every stage is a command of `optical-hf`, printed before it runs, so that each can be run by itself:

1. `bm25`, `zero-shot` and `first stage`: BM25, the model as it is by MaxSim, and the two fused by reciprocal ranks;
2. `distilled`: a student distilled from bitext reranks the first stage;
3. `cross-encoder`: trained on MIRACL's training questions with mined negatives, it reranks the first stage;
4. `fine-tuned`: the student, trained on the same rows, reranks the first stage;
5. `ensemble`: the runs of 1 to 4 summed up, all with one weight;
6. `weighted ensemble`: with weights that were not chosen on the query they are used on.

A stage that is done is not done again: stopped and started again, the pipeline goes on. `table.md` and `results.json`
in `--output_dir` hold nDCG@10 on the dev questions. `--data` is a folder as [`load_miracl`] reads it; without it
MIRACL comes from the Hub. Options of a training stand in YAML files: `--distil_config`, `--reranker_config`,
`--tuning_config`.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from optical_hf import load_miracl
from optical_hf.arguments import ArgumentReader
from optical_hf.bounds import check_count, check_fields
from optical_hf.data.trec_files import read_qrels, read_run, write_passages, write_qrels, write_topics
from optical_hf.evaluation.significance import bootstrap_interval
from optical_hf.files import read_json, write_json, write_text
from optical_hf.launching import run, writing
from optical_hf.metrics import NDCG
from optical_hf.metrics.miracl_ndcg.miracl_ndcg import score_run
from optical_hf.training.resuming import newest_checkpoint

STAGES = ("bm25", "zero-shot", "first stage", "distilled", "cross-encoder", "fine-tuned")
ENSEMBLES = ("ensemble", "weighted ensemble")


@dataclass
class CupArguments:
    """What the pipeline runs on."""

    output_dir: str = field(metadata={"help": "Folder of everything that is made."})
    languages: list[str] = field(default_factory=lambda: ["sw", "te", "fi"], metadata={"help": "Of MIRACL."})
    bitext: list[str] = field(default_factory=list, metadata={"help": "language=source ... for the distillation."})
    data: str | None = field(default=None, metadata={"help": "Folder of MIRACL's files; else the Hub."})
    protocol: str = field(default="judged", metadata={"help": "Passages that are searched: judged or full."})
    teacher: str = field(default="quickstart", metadata={"help": "What student and reranker are made from."})
    query_prefix: str = field(default="query: ", metadata={"help": "The teacher's."})
    document_prefix: str = field(default="passage: ", metadata={"help": "The teacher's."})
    document_length: int | None = field(default=None, metadata={"help": "Longest passage in tokens; else its own."})
    depth: int = field(default=50, metadata={"help": "Passages of the first stage that are reranked."})
    negatives: int = field(default=3, metadata={"help": "Negatives of a row."})
    distil_config: str | None = field(default=None, metadata={"help": "YAML file of `optical-hf distill`."})
    reranker_config: str | None = field(default=None, metadata={"help": "YAML file of `optical-hf train_reranker`."})
    tuning_config: str | None = field(default=None, metadata={"help": "YAML file of `optical-hf train`."})

    def __post_init__(self) -> None:
        check_fields(self, check_count, "depth", "negatives", "document_length")


class Pipeline:
    """The stages, in order; every method leaves its files below the output folder."""

    def __init__(self, given: CupArguments) -> None:
        self.given = given
        self.folder = Path(given.output_dir)
        self.options = ["--query_prefix", given.query_prefix, "--document_prefix", given.document_prefix]
        if given.document_length is not None:
            self.options += ["--document_length", str(given.document_length)]

    def run(self) -> None:
        """Run what is not done yet, and write the table."""
        self.check_options()
        for language in self.given.languages:
            self.write_data(language)
            self.first_stage(language)
        self.rerank("distilled", self.distil())
        rows = self.mine()
        self.rerank("cross-encoder", self.train_reranker(rows))
        self.rerank("fine-tuned", self.fine_tune(rows))
        for language in self.given.languages:
            runs = [str(self.run_file(language, stage)) for stage in STAGES[2:]]
            for stage in ENSEMBLES:
                output = self.run_file(language, stage)
                words = ["--runs", *runs, "--method", "sum", "--output", str(output)]
                if stage == "weighted ensemble":
                    words += ["--qrels", str(self.data(language, "dev.qrels.tsv"))]
                self.command(output, "fuse", *words)
        self.report()

    def check_options(self) -> None:
        """Refuse a folder of other options, whose files would be mixed in; of a training, once done."""
        path = self.folder / "options.json"
        here: dict[str, Any] = asdict(self.given)
        trainings = {"distil_config": "student", "reranker_config": "reranker", "tuning_config": "tuned"}
        for name in trainings:
            here[name] = here[name] and Path(here[name]).read_text(encoding="utf-8")
        there = read_json(path) if path.exists() else here
        open_still = [name for name, model in trainings.items() if not (self.folder / model / "results.json").exists()]
        differing = [name for name in here if there.get(name) != here[name] and name not in open_still]
        if differing:
            raise ValueError(f"{path}: begun with other {' and '.join(differing)}; choose another --output_dir.")
        write_json(path, here)

    def data(self, language: str, name: str) -> Path:
        return self.folder / "data" / f"{language}.{name}"

    def run_file(self, language: str, stage: str) -> Path:
        return self.folder / "runs" / f"{language}.{stage.replace(' ', '-')}.trec"

    def command(self, done: Path, name: str, *words: str) -> None:
        """Run a command of `optical-hf`, unless what it makes last is there."""
        if done.exists():
            return
        print(f"optical-hf {name} {shlex.join(words)}", flush=True)
        command = [sys.executable, "-m", "optical_hf.commands", name, *words]
        if code := subprocess.run(command).returncode:
            raise RuntimeError(f"`optical-hf {name}` ended with {code}; mend it, and start the pipeline again.")

    def write_data(self, language: str) -> None:
        """Write questions, judgements and passages of a language as the commands read them."""
        done = self.data(language, "passages.jsonl")  # written last
        if done.exists():
            return
        done.parent.mkdir(parents=True, exist_ok=True)
        (self.folder / "runs").mkdir(exist_ok=True)
        passages: dict[str, str] = {}
        for split in ("train", "dev"):
            loaded = load_miracl(language, self.given.protocol, split, self.given.data)
            write_topics(loaded.topics, self.data(language, f"{split}.topics.tsv"))
            write_qrels(loaded.qrels, self.data(language, f"{split}.qrels.tsv"))
            passages |= dict(loaded.iter_passages())
        write_passages(passages, done)

    def first_stage(self, language: str) -> None:
        """Search by BM25 and by the teacher, and fuse the two."""
        passages, topics = (str(self.data(language, name)) for name in ("passages.jsonl", "dev.topics.tsv"))
        models = {
            "bm25": (["--model", "bm25", "--language", language], []),
            "zero-shot": (["--model", self.given.teacher, *self.options], ["--model", self.given.teacher]),
        }
        for stage, (building, searching) in models.items():
            index, output = self.folder / "indexes" / f"{language}.{stage}", self.run_file(language, stage)
            if searching:
                searching += ["--query_prefix", self.given.query_prefix]
            if not output.exists():  # an index that is there is checked, which takes a moment
                never = self.folder / "no such file"
                self.command(never, "index", *building, "--passages", passages, "--index_dir", str(index))
            words = ["--index_dir", str(index), "--topics", topics, "--run", str(output), "--k", "100"]
            self.command(output, "search", *searching, *words)
        output = self.run_file(language, "first stage")
        runs = [str(self.run_file(language, stage)) for stage in models]
        self.command(output, "fuse", "--runs", *runs, "--method", "rrf", "--output", str(output))

    def train(self, name: str, command: str, config: str | None, *words: str) -> str:
        """Train a model, from its newest checkpoint if it was stopped; return its folder."""
        folder = self.folder / name
        options = ["--output_dir", str(folder), *words]
        if config is not None:
            options += ["--config", config]
        if newest_checkpoint(folder) is not None:
            options += ["--resume_from_checkpoint", "true"]
        self.command(folder / "results.json", command, *options)
        return str(folder)

    def distil(self) -> str:
        """Distil the student, in both roles: it will encode passages too."""
        teacher = [] if self.given.teacher == "quickstart" else ["--teacher", self.given.teacher]
        words = ["--bitext", *self.given.bitext, *teacher, *self.options]
        return self.train("student", "distill", self.given.distil_config, *words)

    def mine(self) -> dict[str, str]:
        """Make rows of the training questions, with negatives of BM25; return their files by language."""
        rows = {}
        for language in self.given.languages:
            parts = [
                str(self.data(language, name)) for name in ("train.topics.tsv", "passages.jsonl", "train.qrels.tsv")
            ]
            output = self.data(language, "rows.jsonl")
            words = ["--rows", f"{language}={','.join(parts)}", "--passages", parts[1], "--first_stage", "bm25"]
            words += ["--index_dir", str(self.folder / "indexes" / f"{language}.bm25"), "--output", str(output)]
            self.command(output, "mine", *words, "--negatives", str(self.given.negatives))
            rows[language] = str(output)
        return rows

    def train_reranker(self, rows: dict[str, str]) -> str:
        """Train the cross-encoder on the rows of all languages."""
        words = ["--model", self.given.teacher, "--rows", *(f"{language}={path}" for language, path in rows.items())]
        return self.train("reranker", "train_reranker", self.given.reranker_config, *words)

    def fine_tune(self, rows: dict[str, str]) -> str:
        """Train the student on the rows of all languages, to encode questions and passages."""
        words = ["--model", str(self.folder / "student"), "--negatives", str(self.given.negatives)]
        words += ["--rows", *(f"{language}={path}" for language, path in rows.items())]
        return self.train("tuned", "train", self.given.tuning_config, *words)

    def rerank(self, stage: str, model: str) -> None:
        """Rerank the first stage of every language by a model."""
        for language in self.given.languages:
            output = self.run_file(language, stage)
            passages, topics = (str(self.data(language, name)) for name in ("passages.jsonl", "dev.topics.tsv"))
            files = ["--run", str(self.run_file(language, "first stage")), "--topics", topics, "--passages", passages]
            k = ["--k", str(self.given.depth)]
            self.command(output, "rerank", "--model", model, *files, *k, "--output", str(output))

    def report(self) -> None:
        """Score every run, and write `results.json` and `table.md`."""
        stages = (*STAGES, *ENSEMBLES)
        scores: dict[str, list[list[float]]] = {stage: [] for stage in stages}
        for language in self.given.languages:
            qrels = read_qrels(self.data(language, "dev.qrels.tsv"))
            for stage in stages:
                found = read_run(self.run_file(language, stage))
                measured = score_run(found, qrels, [NDCG], per_query=True)["per_query"]
                scores[stage].append([row[NDCG] for row in measured.values()])
        columns = [
            f"{language} ({len(each)})" for language, each in zip(self.given.languages, scores["bm25"], strict=True)
        ]
        lines = [
            f"| stage | {' | '.join(columns)} | mean | against the first stage |",
            f"|---|{'---|' * len(columns)}---|---|",
        ]
        results = {}
        for stage in stages:
            means = [sum(each) / len(each) for each in scores[stage]]
            mean = sum(means) / len(means)
            low, high = bootstrap_interval(scores[stage])
            pairs = zip(scores[stage], scores["first stage"], strict=True)
            gains = [[own - other for own, other in zip(*pair, strict=True)] for pair in pairs]
            gain = sum(sum(each) / len(each) for each in gains) / len(gains)
            least, most = bootstrap_interval(gains)
            cells = " | ".join(f"{each:.3f}" for each in means)
            against = "-" if stage == "first stage" else f"{gain:+.3f} [{least:+.3f}, {most:+.3f}]"
            lines.append(f"| {stage} | {cells} | {mean:.3f} [{low:.3f}, {high:.3f}] | {against} |")
            results[stage] = {
                "ndcg@10": dict(zip(self.given.languages, means, strict=True)),
                "mean": mean,
                "interval": [low, high],
                "gain": gain,
                "gain_interval": [least, most],
            }
        write_json(self.folder / "results.json", results, indent=2)
        write_text(self.folder / "table.md", "\n".join(lines) + "\n")
        print("\n".join(lines))


def main(words: Sequence[str]) -> None:
    """Run the pipeline."""
    (given,) = ArgumentReader(CupArguments, prog="miracl_cup.py", description=__doc__).read(words)
    if not given.bitext:
        raise ValueError("--bitext is needed: the sentences that the student is distilled from, as sw=en-sw.tsv.")
    with writing(given.output_dir):
        Pipeline(given).run()


if __name__ == "__main__":
    run(main, sys.argv[1:])

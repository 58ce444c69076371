"""How much does distillation lose on languages it never saw? One command, from a study's file to its report.

    optical-hf study --config study.yaml --output_dir study

The file says which languages have bitext and which have none, in turn, with which methods, seeds and questions; see
`optical_hf.study.config` and `examples/robustness/study.yaml`. A study that was stopped goes on where it was; what is
complete is not done again (delete an arm's folder, and it is). `--arms first-ot-1` runs one arm alone, and
`--report_only` writes the report from what is there. On the CPU one process is best: each of several has the models.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import transformers

from ..arguments import ArgumentReader
from ..launching import run
from ..study.config import load_study
from ..study.report import write_report
from ..study.run import StudyRun


@dataclass
class StudyArguments:
    """Which study, and what of it is run."""

    config: str = field(metadata={"help": "The study's YAML file."})
    output_dir: str = field(metadata={"help": "Folder of its arms, its indexes and its report."})
    arms: list[str] = field(default_factory=list, metadata={"help": "Run these arms only, by name; else all."})
    report_only: bool = field(default=False, metadata={"help": "Run nothing: write the report of what is there."})


def reader() -> ArgumentReader:
    """Return the reader of this command's arguments."""
    description = "Run a study of what distillation gives and costs on languages with and without bitext."
    return ArgumentReader(StudyArguments, prog="optical-hf study", description=description)


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    [given] = reader().read(arguments)
    is_main = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(
        level=logging.INFO if is_main else logging.ERROR, format="%(asctime)s %(message)s", datefmt="%H:%M:%S"
    )
    # What is said of every model that is loaded would be said once an arm.
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    study = load_study(given.config)
    if given.report_only:
        if not (Path(given.output_dir) / "study.json").exists():
            raise FileNotFoundError(f"--report_only: {given.output_dir} holds no study.")
    else:
        StudyRun(study, given.output_dir, given.arms).run()
    if is_main:
        write_report(study, given.output_dir)
        print(f"The report is in {Path(given.output_dir) / 'report.md'}.")


if __name__ == "__main__":
    run(main, sys.argv[1:])

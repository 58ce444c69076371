"""Running a study's arms: training, evaluation, and going on where it was stopped.

An arm's folder holds `student/` once it is trained, `<set>.json` once a set is evaluated, and `arm.json` once all is
done. Each of them appears only when it is whole, and is not made again.
"""

from __future__ import annotations

import gc
import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import PrinterCallback, ProgressCallback, set_seed

from ..data.trec_files import iter_passages
from ..files import write_json
from ..launching import check_world_size, check_writable
from ..models.erasure import erase_language
from ..models.interpolation import interpolate
from ..models.modeling_optical import OpticalModel, OpticalStudent, OpticalTeacher
from ..quickstart.model import quickstart_model
from ..retrieval.index.build import PassageIndex, build_index
from ..training.distillation_trainer import OpticalDistillationTrainer
from .bitext import Pairs, load_pairs, monolingual_texts, record_pairs, select_pairs
from .config import Arm, Study, record_study
from .evaluate import evaluate_set
from .methods import training_arguments
from .sets import EvaluationSet

logger = logging.getLogger(__name__)


class StudyRun:
    """The arms of a study in one output folder: the teacher, its indexes and the bitext are shared by all of them.

    Every process launched by Accelerate has to make it and run the same arms; the first one writes.

    Args:
        study ([`Study`]): from [`load_study`].
        folder (`str` or `Path`): where its results are kept.
        names (`Sequence[str]`, *optional*): the arms to run; all of them by default.

    Raises:
        ValueError: before any model is loaded, if an arm does not exist, its base was not run, the folder holds
            another study or other bitext, or there is too little bitext.

    Example:

    ```python
    >>> StudyRun(load_study("study.yaml"), "study").run()
    ```
    """

    def __init__(self, study: Study, folder: str | Path, names: Sequence[str] = ()) -> None:
        self.study, self.folder = study, Path(folder)
        if unknown := [name for name in names if name not in study.arms]:
            raise ValueError(f"{study.path} has no arm {unknown[0]!r}; it has {', '.join(study.arms)}.")
        self.arms = [arm for arm in study.arms.values() if not names or arm.name in names]
        chosen = {arm.name for arm in self.arms}
        for arm in self.arms:
            there = arm.base in chosen or (self.folder / "arms" / str(arm.base) / "student").is_dir()
            if arm.method.derived and not there:
                raise ValueError(
                    f"{arm.name} is made from the student of {arm.base}, which does not exist: run it too."
                )
        # The first use of the device decides whether processes know of each other: the arguments say which it is.
        some = next(iter(study.methods.values()))
        check_world_size(training_arguments(some, self.folder, study.seeds[0]).world_size)
        self.state = PartialState()
        check_writable(self.folder, 0)
        record_study(study, self.folder, write=False)
        if any(not self._is_complete(arm) and arm.rotation for arm in self.arms):
            self.pairs: Pairs = load_pairs(study, self.arms)
            record_pairs(self.pairs, self.folder, write=self.state.is_main_process)
        self.state.wait_for_everyone()
        record_study(study, self.folder, write=self.state.is_main_process)
        self.state.wait_for_everyone()
        self._indexes: dict[tuple[str, str], PassageIndex] = {}

    def run(self) -> None:
        """Run every arm that is not complete."""
        for number, arm in enumerate(self.arms, start=1):
            if self._is_complete(arm):
                logger.info("Arm %d of %d, %s, is complete.", number, len(self.arms), arm.name)
                continue
            logger.info("Arm %d of %d, %s, starts.", number, len(self.arms), arm.name)
            started = time.time()
            scores = self._run_arm(arm)
            text = "Arm %d of %d, %s, took %.0f s. Mean nDCG@10: %s."
            logger.info(text, number, len(self.arms), arm.name, time.time() - started, scores)

    @cached_property
    def teacher(self) -> OpticalTeacher:
        """The teacher, on this process's device."""
        name = self.study.teacher or quickstart_model()
        teacher: OpticalTeacher = OpticalTeacher.from_checkpoint(name, **self.study.checkpoint).to(self.state.device)
        return teacher

    def start(self) -> OpticalStudent:
        """A student as it is before it is trained."""
        name = self.study.student or self.study.teacher or quickstart_model()
        student: OpticalStudent = OpticalStudent.from_checkpoint(name, **self.study.checkpoint)
        return student

    def _is_complete(self, arm: Arm) -> bool:
        path = self._folder(arm.name) / "arm.json"
        return path.exists() and set(json.loads(path.read_text(encoding="utf-8"))["sets"]) >= set(arm.method.sets)

    def _folder(self, name: str) -> Path:
        return self.folder / "arms" / name

    def _run_arm(self, arm: Arm) -> str:
        folder = self._folder(arm.name)
        folder.mkdir(parents=True, exist_ok=True)
        if arm.trained and not (folder / "student").is_dir():
            self._train(arm, folder)
            self._free()
        sets = [self.study.evaluation[name] for name in arm.method.sets]
        missing = [evaluation_set for evaluation_set in sets if not (folder / f"{evaluation_set.name}.json").exists()]
        if missing:
            self._evaluate(arm, folder, missing)
            self._free()
        if self.state.is_main_process:
            shutil.rmtree(folder / "index", ignore_errors=True)  # the student's own
            write_json(folder / "arm.json", self._record(arm, folder), indent=2)
        self.state.wait_for_everyone()
        return ", ".join(f"{name} {_mean_ndcg(folder / f'{name}.json')}" for name in arm.method.sets)

    def _free(self) -> None:
        gc.collect()  # a trainer and its student refer to each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _train(self, arm: Arm, folder: Path) -> None:
        assert arm.rotation is not None and arm.seed is not None
        train = select_pairs(self.pairs, arm.rotation.seen, arm.method.pairs, arm.seed)
        checkpoints = folder / "checkpoints"
        args = training_arguments(arm.method, checkpoints, arm.seed)
        if self.state.is_main_process:
            shutil.rmtree(folder / "student.partial", ignore_errors=True)
            for checkpoint in checkpoints.glob("checkpoint-*"):
                if not (checkpoint / "trainer_state.json").exists():  # it is written last: the rest was cut off
                    shutil.rmtree(checkpoint)
        self.state.wait_for_everyone()
        set_seed(arm.seed)
        trainer = OpticalDistillationTrainer(self.start(), self.teacher, args, train, loss=arm.method.loss or "")
        trainer.remove_callback(PrinterCallback)
        if not args.disable_tqdm:
            trainer.remove_callback(ProgressCallback)
            trainer.add_callback(_ProgressBar)
        output = trainer.train(resume_from_checkpoint=any(checkpoints.glob("checkpoint-*")))
        trainer.save_model(str(folder / "student.partial"))
        self.state.wait_for_everyone()
        if self.state.is_main_process:
            record = {"steps": trainer.state.global_step, "training_seconds": output.metrics["train_runtime"]}
            write_json(folder / "training.json", record | {"curves": _curves(trainer.state.log_history)})
            (folder / "student.partial").rename(folder / "student")
            shutil.rmtree(checkpoints, ignore_errors=True)
        self.state.wait_for_everyone()
        trainer.accelerator.free_memory()

    def _student(self, arm: Arm) -> OpticalModel:
        """The model that encodes an arm's questions."""
        if arm.method.name == "ceiling" or (arm.rotation is None and self.study.student is None):
            return self.teacher
        if arm.rotation is None:
            start: OpticalStudent = self.start().to(self.state.device)
            return start
        # From the folder even if it was trained just now: a run that was stopped and started again does the same.
        source = self._folder(arm.name if arm.trained else str(arm.base)) / "student"
        student: OpticalStudent = OpticalStudent.from_checkpoint(source).to(self.state.device)
        if arm.method.interpolation is not None:
            student = interpolate(self.start().to(self.state.device), student, arm.method.interpolation)
        if arm.method.erase_language:
            texts = monolingual_texts(self.pairs, self.study.pairs, arm.seed or 0)
            student = erase_language(student, texts)
        return student

    def _evaluate(self, arm: Arm, folder: Path, sets: Sequence[EvaluationSet]) -> None:
        model = self._student(arm)
        if arm.method.passages == "student":
            encoder, indexes, place = model, {}, folder / "index"
        else:
            encoder, indexes, place = self.teacher, self._indexes, self.folder / "indexes"
        for evaluation_set in sets:
            started, name = time.time(), evaluation_set.name
            for language, paths in evaluation_set.passages.items():
                if (name, language) not in indexes:
                    indexes[name, language] = build_index(encoder, iter_passages(paths), place / name / language)
            own = {language: indexes[name, language] for language in evaluation_set.passages}
            measured = evaluate_set(evaluation_set, model, own, in_english=arm.method.name == "ceiling")
            if self.state.is_main_process:
                write_json(folder / f"{name}.json", measured | {"seconds": time.time() - started})
            self.state.wait_for_everyone()

    def _record(self, arm: Arm, folder: Path) -> dict[str, Any]:
        training = {"steps": 0, "training_seconds": 0.0, "curves": {}}
        if arm.trained:
            training = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        measured = [json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in arm.method.sets]
        own = asdict(arm.method)
        names = ("loss", "interpolation", "erase_language", "passages")
        return {
            "arm": arm.name,
            "rotation": arm.rotation.name if arm.rotation else None,
            "method": arm.method.name,
            "seed": arm.seed,
            "base": arm.method.base,
            "seen": list(arm.rotation.seen) if arm.rotation else [],
            "unseen": list(arm.rotation.unseen) if arm.rotation else [],
            "options": {**own["options"], **{name: own[name] for name in names}},
            "pairs_per_language": arm.method.pairs,
            "steps": training["steps"],
            "training_seconds": training["training_seconds"],
            "evaluation_seconds": sum(part["seconds"] for part in measured),
            "curves": training["curves"],
            "sets": list(arm.method.sets),
        }


def _curves(history: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    logs = [entry for entry in history if "loss" in entry]
    names = dict.fromkeys(["step", *(name for entry in logs for name in entry)])
    return {name: [entry.get(name) for entry in logs] for name in names}


def _mean_ndcg(path: Path) -> str:
    values = [pair["maxsim"]["ndcg@10"] for pair in json.loads(path.read_text(encoding="utf-8"))["pairs"]]
    return f"{sum(values) / len(values):.4f}" if values else "-"


class _ProgressBar(ProgressCallback):
    """The bar alone: the curves keep what is logged."""

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        pass

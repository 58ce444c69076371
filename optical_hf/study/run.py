"""Running a study's arms: training, evaluation, and going on where it was stopped.

An arm's folder holds `student/` and `training.json` once it is trained, `<set>.json` once a set is evaluated, and
`arm.json` once all is done. Each of them appears only when it is whole, and is not made again.
"""

from __future__ import annotations

import gc
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import PrinterCallback, ProgressCallback, TrainerCallback, set_seed
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..data.trec_files import iter_passages
from ..files import remove_abandoned, scratch
from ..launching import check_world_size, check_writable
from ..metrics import NDCG
from ..models.erasure import erase_language
from ..models.interpolation import interpolate
from ..models.loading_optical import check_name
from ..models.modeling_optical import OpticalModel, OpticalStudent, OpticalTeacher
from ..quickstart.model import quickstart_model
from ..retrieval.index.build import PassageIndex, build_index
from ..training.distillation_trainer import OpticalDistillationTrainer
from ..training.resuming import newest_checkpoint
from .arm_files import SetScores, read_arm, read_scores, read_student, read_training
from .bitext import Pairs, load_pairs, monolingual_texts, record_pairs, select_pairs
from .config import Arm, Study, record_study
from .evaluate import evaluate_set
from .fingerprints import FILES, check_files
from .methods import training_arguments
from .records import folder_digests, read_record, write_record
from .sets import EvaluationSet

logger = logging.getLogger(__name__)

HISTORY_FILE = "training_history.json"  # of a checkpoint


class StudyRun:
    """The arms of a study in one output folder: the teacher, its indexes and the bitext are shared by all of them.

    Every process launched by Accelerate has to make it and run the same arms; the first one writes.

    Args:
        study ([`Study`]): from [`load_study`].
        folder (`str` or `Path`): where its results are kept.
        names (`Sequence[str]`, *optional*): the arms to run; all of them by default.

    Raises:
        ValueError: before any model is loaded, if an arm does not exist, its base was not run, the folder holds
            another study, other bitext, questions or models, or a damaged file, or there is too little bitext.

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
        files = check_files(study, self.folder)
        for arm in self.arms:
            remove_abandoned(self._folder(arm.name))
            self._check(arm)
        for name in (study.teacher, study.student):
            if name is not None and not all(map(self._is_complete, self.arms)):
                check_name(name)
        if any(not self._is_complete(arm) and arm.rotation for arm in self.arms):
            self.pairs: Pairs = load_pairs(study, self.arms)
            record_pairs(study, self.pairs, self.folder, write=self.state.is_main_process)
        self.state.wait_for_everyone()
        record_study(study, self.folder, write=self.state.is_main_process)
        if self.state.is_main_process:
            write_record(self.folder, FILES, files)
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
        there = (self._folder(arm.name) / "arm.json").exists()
        return there and set(read_arm(self.folder, arm.name)["sets"]) >= set(arm.method.sets)

    def _check(self, arm: Arm) -> None:
        """Read all that an arm has written: better to hear of a damaged file now than after the next arm."""
        folder = self._folder(arm.name)
        if (folder / "arm.json").exists():
            read_arm(self.folder, arm.name)
        for name in (arm.name, arm.base):
            if name is not None and (self._folder(name) / "student").is_dir():
                read_training(self.folder, name)
        for name in arm.method.sets:
            if (folder / f"{name}.json").exists():
                read_scores(self.folder, arm.name, name)

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
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        self.state.wait_for_everyone()
        measured = {name: read_scores(self.folder, arm.name, name) for name in arm.method.sets}
        if self.state.is_main_process:
            seconds = sum(scores.seconds for scores in measured.values())
            write_record(self.folder, f"arms/{arm.name}/arm.json", self._record(arm, seconds))
        self.state.wait_for_everyone()
        return ", ".join(f"{name} {_mean_ndcg(scores)}" for name, scores in measured.items())

    def _free(self) -> None:
        gc.collect()  # a trainer and its student refer to each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _train(self, arm: Arm, folder: Path) -> None:
        assert arm.rotation is not None and arm.seed is not None
        train = select_pairs(self.pairs, arm.rotation.seen, arm.method.pairs, arm.seed)
        checkpoints = folder / "checkpoints"
        args = training_arguments(arm.method, checkpoints, arm.seed)
        set_seed(arm.seed)
        trainer = OpticalDistillationTrainer(self.start(), self.teacher, args, train, loss=arm.method.loss or "")
        trainer.remove_callback(PrinterCallback)
        if not args.disable_tqdm:
            trainer.remove_callback(ProgressCallback)
            trainer.add_callback(_ProgressBar)
        checkpoint = newest_checkpoint(checkpoints)
        history = _History(checkpoint)
        trainer.add_callback(history)
        output = trainer.train(resume_from_checkpoint=checkpoint)
        with ExitStack() as stack:
            made = [str(stack.enter_context(scratch(folder, "student")))] if self.state.is_main_process else [""]
            student = Path(broadcast_object_list(made)[0]) / "student"
            trainer.save_model(str(student))
            self.state.wait_for_everyone()
            if self.state.is_main_process:
                record = {
                    "steps": trainer.state.global_step,
                    "training_seconds": history.seconds_before + output.metrics["train_runtime"],
                    "resumed_from": history.resumed_from,
                    "curves": _curves(trainer.state.log_history),
                    "student": folder_digests(student),
                }
                write_record(self.folder, f"arms/{arm.name}/training.json", record, indent=None)
                student.rename(folder / "student")
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
        source = arm.name if arm.trained else str(arm.base)
        student: OpticalStudent = read_student(self.folder, source).to(self.state.device)
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
                seconds = {"seconds": time.time() - started}
                write_record(self.folder, f"arms/{arm.name}/{name}.json", measured | seconds, indent=None)
            self.state.wait_for_everyone()

    def _record(self, arm: Arm, evaluation_seconds: float) -> dict[str, Any]:
        training: dict[str, Any] = {"steps": 0, "training_seconds": 0.0, "curves": {}}
        if arm.trained:
            training = read_training(self.folder, arm.name)
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
            "resumed_from": training.get("resumed_from", []),
            "evaluation_seconds": evaluation_seconds,
            "curves": training["curves"],
            "sets": list(arm.method.sets),
        }


def _curves(history: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    logs = [entry for entry in history if "loss" in entry]
    names = dict.fromkeys(["step", *(name for entry in logs for name in entry)])
    return {name: [entry.get(name) for entry in logs] for name in names}


def _mean_ndcg(measured: SetScores) -> str:
    values = [float(scores["maxsim", NDCG].mean()) for pair, scores, _ in measured.pairs if pair[1] is not None]
    return f"{sum(values) / len(values):.4f}" if values else "-"


class _History(TrainerCallback):
    """Keeps in every checkpoint how long the training took until then, and from which steps it was resumed.

    Args:
        checkpoint (`str`, *optional*): the one that is resumed.
    """

    def __init__(self, checkpoint: str | None) -> None:
        self.seconds_before, self.resumed_from = 0.0, list[int]()
        if checkpoint is not None:
            folder, step = Path(checkpoint), int(checkpoint.rpartition("-")[2])
            logger.info("The training goes on from step %d, from %s.", step, folder)
            try:
                before = read_record(folder, HISTORY_FILE, {"seconds": float, "resumed_from": list})
                self.seconds_before, self.resumed_from = before["seconds"], before["resumed_from"]
            except ValueError:
                logger.warning("%s does not say how long the training took until then: it counts as 0 s.", folder)
            self.resumed_from = [*self.resumed_from, step]
        self._started = time.time()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            seconds = self.seconds_before + time.time() - self._started
            write_record(folder, HISTORY_FILE, {"seconds": seconds, "resumed_from": self.resumed_from})


class _ProgressBar(ProgressCallback):
    """The bar alone: the curves keep what is logged."""

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        pass

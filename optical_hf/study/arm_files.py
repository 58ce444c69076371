"""The files in the folder of an arm: `training.json` and `student/`, `<set>.json`, and `arm.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metrics import NDCG
from ..models.modeling_optical import OpticalStudent
from .records import damaged, folder_digests, read_record

RECALL = "recall@100"
MEASURES = (NDCG, RECALL)
SCORERS = ("maxsim", "pooled")
BIAS = "language_bias"

Array = NDArray[np.float64]
LanguagePair = tuple[str, str | None]  # query and passage language; None: the passages of all languages in one list
PairScores = tuple[LanguagePair, dict[tuple[str, str], Array], list[str]]  # the last are the query ids

TRAINING_PARTS = {"steps": int, "training_seconds": float | int, "curves": dict}
SET_PARTS = {"protocol": str | None, "pairs": list, "language_bias": dict | None}
ARM_PARTS = {
    **{"arm": str, "rotation": str | None, "method": str, "seed": int | None, "seen": list, "sets": list},
    **{"options": dict, "pairs_per_language": int, "evaluation_seconds": float | int, **TRAINING_PARTS},
}


@dataclass(frozen=True)
class SetScores:
    """What `<set>.json` holds: the scores by query of each language pair, and the language bias of a parallel set."""

    protocol: str
    seconds: float
    pairs: list[PairScores]


def read_arm(folder: Path, arm: str) -> dict[str, Any]:
    """Read the `arm.json` of a complete arm.

    Args:
        folder (`Path`): of the study's output.
        arm (`str`): its name.

    Raises:
        ValueError: naming the file and what to do, if it is damaged or is another arm's.
    """
    name = f"arms/{arm}/arm.json"
    record = read_record(folder, name, ARM_PARTS)
    if record["arm"] != arm:
        raise damaged(folder, name, f"is of the arm {record['arm']!r}")
    for part in ("seen", "sets"):
        if not all(isinstance(value, str) for value in record[part]):
            raise damaged(folder, name, f"has {record[part]!r} as {part!r}")
    _check_curves(folder, name, record["curves"])
    return record


def read_training(folder: Path, arm: str) -> dict[str, Any]:
    """Read the `training.json` of an arm whose student is there.

    Raises:
        ValueError: naming the file and what to do, if it is damaged.
    """
    name = f"arms/{arm}/training.json"
    record = read_record(folder, name, TRAINING_PARTS)
    _check_curves(folder, name, record["curves"])
    return record


def read_student(folder: Path, arm: str) -> OpticalStudent:
    """Load the student of an arm, on the CPU.

    Raises:
        ValueError: naming the file and what to do, if a file of it has changed since it was trained, or cannot be
            loaded.
    """
    name = f"arms/{arm}/student"
    here = folder_digests(folder / name)
    for file, digest in read_training(folder, arm).get("student", {}).items():  # 0.1.0 wrote none
        if here.get(file) != digest:
            what = "has changed since it was trained" if file in here else "is missing"
            raise damaged(folder, f"{name}/{file}", what)
    try:
        student: OpticalStudent = OpticalStudent.from_checkpoint(folder / name)
        _ = student.tokenizer  # which is read when it is first used
    except Exception as error:  # tokenizers raise bare ones, and what a cut-off file leads to has no end
        raise damaged(folder, name, f"cannot be loaded ({type(error).__name__}: {error})") from error
    return student


def read_scores(folder: Path, arm: str, evaluation_set: str) -> SetScores:
    """Read the `<set>.json` of an arm.

    Args:
        folder (`Path`): of the study's output.
        arm, evaluation_set (`str`): their names.

    Raises:
        ValueError: naming the file and what to do, if it is damaged or a score is not one.
    """
    name = f"arms/{arm}/{evaluation_set}.json"
    content = read_record(folder, name, SET_PARTS)
    pairs: list[PairScores] = []
    try:
        for row in content["pairs"]:
            pair = (row["query_language"], row["document_language"])
            if not all(isinstance(language, str) for language in pair):
                raise TypeError(f"{pair} are not two languages")
            scores = {(s, m): np.array(row[s]["per_query"][m], dtype=np.float64) for s in SCORERS for m in MEASURES}
            pairs.append((pair, scores, [str(qid) for qid in row["qids"]]))
        bias = content["language_bias"] or {}
        for language in bias["maxsim"]["per_query"] if bias else ():
            scores = {(s, BIAS): np.array(bias[s]["per_query"][language], dtype=np.float64) for s in SCORERS}
            # Which queries have a bias at all depends on the judgements alone: their number has to agree.
            number = len(scores["maxsim", BIAS])
            pairs.append(((str(language), None), scores, [str(index) for index in range(number)]))
        seconds = float(content.get("seconds", 0.0))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise damaged(folder, name, f"lacks a part ({error})") from error
    for pair, scores, ids in pairs:
        for (_, measure), values in scores.items():
            if not ids or values.shape != (len(ids),):
                raise damaged(folder, name, f"has {len(ids)} query ids but not as many scores ({pair_name(pair)})")
            if not (values >= 0).all() or not np.isfinite(values).all() or (measure != BIAS and (values > 1).any()):
                raise damaged(folder, name, f"has scores that are not numbers from 0 to 1 ({pair_name(pair)})")
    return SetScores(content["protocol"] or "", seconds, pairs)


def pair_name(pair: LanguagePair) -> str:
    """Name a language pair in words."""
    return f"{pair[0]} queries over {pair[1] or 'all'} passages"


def _check_curves(folder: Path, name: str, curves: Mapping[str, Any]) -> None:
    for curve, values in curves.items():
        if not isinstance(values, list) or not all(isinstance(value, int | float | None) for value in values):
            raise damaged(folder, name, f"has {values!r} as the curve {curve!r}")

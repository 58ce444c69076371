"""A study of robustness in one YAML file: which languages have bitext, which methods, which questions; and its arms.

[`load_study`] checks all of it before any model is loaded. [`StudyRun`] then trains and evaluates the arms, and
[`write_report`] writes what they gave.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..bounds import MOST_SEED, check_count
from ..yaml_files import read_yaml
from .config_file import FileErrors, as_list
from .methods import REFERENCES, Method, read_methods
from .records import damaged, read_record, write_record
from .sets import EvaluationSet, find_bitext, read_set

STUDY_KEYS = (
    *("teacher", "student", "checkpoint", "max_words", "pairs", "bitext", "rotations", "seeds"),
    *("training", "methods", "levers", "evaluation"),
)
CHECKPOINT_KEYS = ("query_prefix", "document_prefix", "query_length", "document_length")
# What may be added to a study that has begun: arms that are complete do not depend on it.
GROWING = ("rotations", "methods", "levers", "evaluation")
# What has to stand in `study.json`.
STUDY_PARTS = {"seeds": int | list, **dict.fromkeys(GROWING, dict | None)}


@dataclass(frozen=True)
class Rotation:
    """Which languages have bitext (`seen`) and which are kept without (`unseen`), by language code."""

    name: str
    seen: tuple[str, ...]
    unseen: tuple[str, ...]


@dataclass(frozen=True)
class Arm:
    """One method in one rotation with one seed; of a reference, neither."""

    method: Method
    rotation: Rotation | None = None
    seed: int | None = None

    @property
    def name(self) -> str:
        return arm_name(self.rotation.name, self.method.name, self.seed) if self.rotation else self.method.name

    @property
    def base(self) -> str | None:
        """The arm its student is compared with, or taken from."""
        return (
            arm_name(self.rotation.name, self.method.base, self.seed) if self.rotation and self.method.base else None
        )

    @property
    def trained(self) -> bool:
        return self.rotation is not None and not self.method.derived


def arm_name(rotation: str, method: str, seed: int | None) -> str:
    return f"{rotation}-{method}-{seed}"


@dataclass(frozen=True)
class Study:
    """What [`load_study`] reads; the names are those of the file.

    Args:
        path (`Path`): the file.
        config (`dict`): what stands in it.
        bitext (`dict[str, list[str]]`): sources by language, for [`load_bitext`].
        methods, levers (`dict[str, Method]`): by name.
        evaluation (`dict[str, EvaluationSet]`): by name.
    """

    path: Path
    config: dict[str, Any]
    teacher: str | None
    student: str | None
    checkpoint: dict[str, Any]
    max_words: int
    pairs: int
    bitext: dict[str, list[str]]
    rotations: dict[str, Rotation]
    seeds: tuple[int, ...]
    methods: dict[str, Method]
    levers: dict[str, Method]
    evaluation: dict[str, EvaluationSet]

    @cached_property
    def arms(self) -> dict[str, Arm]:
        """Every arm by name, in the order they are run: seed after seed, and bases before their levers."""
        references = [Arm(Method(name, sets=tuple(self.evaluation))) for name in REFERENCES]
        others = [
            Arm(method, rotation, seed)
            for group in (self.methods, self.levers)
            for seed in self.seeds
            for rotation in self.rotations.values()
            for method in group.values()
            if seed in method.seeds and rotation.name in method.rotations
        ]
        return {arm.name: arm for arm in (*references, *others)}


def load_study(path: str | os.PathLike[str]) -> Study:
    """Read a study's file and check it, with all the questions it names. No model is loaded, and no bitext read.

    Args:
        path (`str` or `Path`): a YAML 1.2 file. Relative paths in it start from its folder.

    Returns:
        [`Study`]: what is in it.

    Raises:
        ValueError: naming the file and the key of what is wrong: a key, method, loss, base or option that does not
            exist; a language that is both seen and unseen, that is seen but has no bitext, or that has bitext but is
            seen in no rotation; an empty set; no seeds.
        FileNotFoundError: naming the file and the key of a file that is not there.
    """
    path = Path(path)
    config = read_yaml(path)
    error = FileErrors(path)
    error.keys("", config, STUDY_KEYS)
    for key in ("bitext", "rotations", "seeds", "methods", "evaluation"):
        if not config.get(key):
            raise error(key, "is missing or empty.")
    bitext: dict[str, list[str]] = {}
    for language, key, sources in error.languages("bitext", config["bitext"]):
        if language == "en":
            raise error(key, "leave English out: it is one side of every bitext.")
        bitext[language] = [find_bitext(source, language, key, error) for source in as_list(sources)]
    rotations = {
        name: _rotation(name, given, bitext, error)
        for name, given in error.mapping("rotations", config["rotations"]).items()
    }
    _check_bitext_is_seen(bitext, rotations, error)
    seeds = tuple(as_list(config["seeds"]))
    for seed in seeds:
        check_count(f"{path}: seeds:", seed, MOST_SEED, least=0)
    if len(set(seeds)) != len(seeds):
        raise error("seeds", f"{list(seeds)} are not different from one another.")
    evaluation = {
        name: read_set(name, given, error) for name, given in error.mapping("evaluation", config["evaluation"]).items()
    }
    pairs = error.count("pairs", config.get("pairs", 1500))
    defaults = Method("", "ot", {}, pairs, seeds, tuple(rotations), tuple(evaluation))
    methods, levers = read_methods(config, defaults, error)
    return Study(
        path=path,
        config=config,
        teacher=_model(config, "teacher", error),
        student=_model(config, "student", error),
        checkpoint=_checkpoint(config, error),
        max_words=error.count("max_words", config.get("max_words", 32)),
        pairs=pairs,
        bitext=bitext,
        rotations=rotations,
        seeds=seeds,
        methods=methods,
        levers=levers,
        evaluation=evaluation,
    )


def _rotation(name: str, given: Any, bitext: Mapping[str, Any], error: FileErrors) -> Rotation:
    where = error.name("rotations", name)
    error.mapping(where, given, ("seen", "unseen"))
    sides = {
        side: [error.language(f"{where}.{side}", code) for code in as_list(given.get(side) or [])]
        for side in ("seen", "unseen")
    }
    if not sides["seen"]:
        raise error(f"{where}.seen", "is missing or empty.")
    for side, codes in sides.items():
        for code in codes:
            if codes.count(code) > 1:
                raise error(f"{where}.{side}", f"'{code}' is there twice.")
            if code == "en":
                raise error(f"{where}.{side}", "leave 'en' out: English is one side of every bitext.")
    if both := [code for code in sides["seen"] if code in sides["unseen"]]:
        raise error(where, f"'{both[0]}' is both seen and unseen.")
    if without := [code for code in sides["seen"] if code not in bitext]:
        raise error(f"{where}.seen", f"'{without[0]}' has no bitext: add it under `bitext`, or move it to `unseen`.")
    return Rotation(name, tuple(sides["seen"]), tuple(sides["unseen"]))


def _check_bitext_is_seen(bitext: Mapping[str, Any], rotations: Mapping[str, Rotation], error: FileErrors) -> None:
    seen = {code for rotation in rotations.values() for code in rotation.seen}
    for code in bitext:
        if code in seen:
            continue
        for rotation in rotations.values():
            if code in rotation.unseen:
                raise error(
                    f"rotations.{rotation.name}.unseen",
                    f"'{code}' has bitext (bitext.{code}), but it is `seen` in no rotation: remove its bitext, or add "
                    "it to the `seen` of another rotation.",
                )
        raise error(f"bitext.{code}", "no rotation has this language: remove its bitext, or add it to a rotation.")


def _model(config: Mapping[str, Any], key: str, error: FileErrors) -> str | None:
    given = config.get(key)
    if given is None:
        return None
    if not isinstance(given, str):
        raise error(key, f"{given!r} is not the name or folder of a model.")
    name, here = os.path.expanduser(os.path.expandvars(given)), error.expand(given)
    if here.is_dir():
        return str(here)
    if name.startswith((".", "/")) or name.count("/") > 1:
        raise error.missing(key, f"there is no folder {here}.")
    return name


def _checkpoint(config: Mapping[str, Any], error: FileErrors) -> dict[str, Any]:
    given = error.mapping("checkpoint", config.get("checkpoint") or {}, CHECKPOINT_KEYS)
    for key, value in given.items():
        if key.endswith("_length"):
            error.count(f"checkpoint.{key}", value, 10**6)
        elif not isinstance(value, str):
            raise error(f"checkpoint.{key}", f"{value!r} is not a text.")
    return given


def record_study(study: Study, folder: str | os.PathLike[str], write: bool = True) -> None:
    """Keep the study's file in its folder, `study.json`, and refuse a folder of another study.

    Rotations, methods, levers, seeds and evaluation sets may be added or left out. `study.json` keeps them all.

    Args:
        study ([`Study`]): this one.
        folder (`str` or `Path`): of the study's output.
        write (`bool`, *optional*, defaults to `True`): whether this process writes.

    Raises:
        ValueError: naming the keys that differ.
    """
    folder = Path(folder)
    here = json.loads(json.dumps(study.config))
    # Without an arm there is nothing yet that could belong to another study.
    begun = (folder / "study.json").exists() and (folder / "arms").exists()
    there = read_record(folder, "study.json", STUDY_PARTS) if begun else here
    if not all(type(seed) is int for seed in as_list(there["seeds"])):
        raise damaged(folder, "study.json", f"has {there['seeds']!r} as 'seeds'")
    differing = []
    for key in dict.fromkeys([*there, *here]):
        old, new = there.get(key), here.get(key)
        if key in GROWING:  # what only one of the two has was added or left out
            old, new = old or {}, new or {}
            old, new = ({name: side[name] for name in old if name in new} for side in (old, new))
        differing += _differing(old, new, key)
    differing = [name for name in differing if name.rpartition(".")[2] not in ("seeds", "rotations", "sets")]
    if differing:
        raise ValueError(
            f"{folder} holds a study with another config than {study.path}: {', '.join(differing)} differ. Choose "
            f"another --output_dir, or restore the values of {folder / 'study.json'}."
        )
    if write:
        merged = {**there, **here, "seeds": sorted({*as_list(there["seeds"]), *as_list(here["seeds"])})}
        merged |= {key: {**(there.get(key) or {}), **(here.get(key) or {})} for key in GROWING}
        write_record(folder, "study.json", merged)


def _differing(there: Any, here: Any, where: str) -> list[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        return [
            name
            for key in dict.fromkeys([*there, *here])
            for name in _differing(there.get(key), here.get(key), f"{where}.{key}")
        ]
    return [] if there == here else [where]

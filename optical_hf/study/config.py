"""A study of robustness in one YAML file: which languages have bitext, which methods, which questions; and its arms.

[`load_study`] checks all of it before any model is loaded. `study_sets` reads the questions, `study_arms` trains and
evaluates, `study_report` writes what came out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..files import write_json
from ..yaml_files import read_yaml
from .config_file import FileErrors, as_list, check_keys, expand, positive
from .methods import REFERENCES, Method, read_methods
from .sets import EvaluationSet, find_bitext, read_set

STUDY_KEYS = (
    *("teacher", "student", "checkpoint", "max_words", "pairs", "bitext", "rotations", "seeds"),
    *("training", "methods", "levers", "evaluation"),
)
# What may grow in a study's folder: the arms that are there stay what they are.
GROWING = ("rotations", "methods", "levers", "evaluation")


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
        return {arm.name: arm for arm in self._arms()}

    def _arms(self) -> Iterator[Arm]:
        for name in REFERENCES:
            yield Arm(Method(name, sets=tuple(self.evaluation)))
        for group in (self.methods, self.levers):
            for seed in self.seeds:
                for rotation in self.rotations.values():
                    for method in group.values():
                        if seed in method.seeds and rotation.name in method.rotations:
                            yield Arm(method, rotation, seed)


def load_study(path: str | os.PathLike[str]) -> Study:
    """Read a study's file and check it, with all the questions it names. No model is loaded, and no bitext read.

    Args:
        path (`str` or `Path`): a YAML 1.2 file. Relative paths in it start from its folder.

    Returns:
        [`Study`]: what is in it.

    Raises:
        ValueError: naming the file and the key of what is wrong: a key, method, loss, base or option that does not
            exist; a language that is both seen and unseen, is seen without bitext, or has bitext and is seen nowhere;
            a set that is empty; no seeds.
        FileNotFoundError: naming the file and the key of a file that is not there.
    """
    path = Path(path)
    config = read_yaml(path)
    error = FileErrors(path)
    check_keys(config, STUDY_KEYS, error)
    for key in ("bitext", "rotations", "seeds", "methods", "evaluation"):
        if not config.get(key):
            raise error(key, "is missing or empty.")
    languages: dict[str, list[str]] = {}
    for key, given in error.mapping("bitext", config["bitext"]).items():
        code = error.language(f"bitext.{key}", key)
        if code == "en" or code in languages:
            raise error(f"bitext.{key}", "bitext pairs English with each other language, once.")
        languages[code] = [find_bitext(one, code, path, f"bitext.{key}") for one in as_list(given)]
    rotations = {
        name: _rotation(name, given, set(languages), error)
        for name, given in error.mapping("rotations", config["rotations"]).items()
    }
    _check_bitext_is_seen(languages, rotations, error)
    seeds = tuple(as_list(config["seeds"]))
    if any(type(seed) is not int or seed < 0 for seed in seeds) or len(set(seeds)) != len(seeds):
        raise error("seeds", f"{list(seeds)} are not whole numbers, each once.")
    evaluation = {
        name: read_set(error.name(f"evaluation.{name}", name, ("arm", "training")), given, path)
        for name, given in error.mapping("evaluation", config["evaluation"]).items()
    }
    checkpoint = error.mapping("checkpoint", config.get("checkpoint") or {})
    names = ("query_prefix", "document_prefix", "query_length", "document_length")
    check_keys(checkpoint, names, error, "checkpoint")
    pairs = positive(config.get("pairs", 1500), "pairs", error)
    defaults = Method("", "ot", {}, pairs, seeds, tuple(rotations), tuple(evaluation))
    methods, levers = read_methods(config, defaults, error)
    return Study(
        path=path,
        config=config,
        teacher=_model(config, "teacher", error),
        student=_model(config, "student", error),
        checkpoint=dict(checkpoint),
        max_words=positive(config.get("max_words", 32), "max_words", error),
        pairs=pairs,
        bitext=languages,
        rotations=rotations,
        seeds=seeds,
        methods=methods,
        levers=levers,
        evaluation=evaluation,
    )


def _rotation(name: str, given: Any, bitext: set[str], error: FileErrors) -> Rotation:
    where = f"rotations.{error.name(f'rotations.{name}', name)}"
    check_keys(error.mapping(where, given), ("seen", "unseen"), error, where)
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
                raise error(f"{where}.{side}", "'en' is the other side of all bitext; it is reported apart.")
    if both := [code for code in sides["seen"] if code in sides["unseen"]]:
        raise error(where, f"'{both[0]}' is both seen and unseen.")
    if without := [code for code in sides["seen"] if code not in bitext]:
        raise error(f"{where}.seen", f"'{without[0]}' has no bitext; give it under `bitext`, or call it unseen.")
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
                    f"'{code}' is an unseen language that does have bitext (bitext.{code}), and no rotation sees it: "
                    "take its bitext out of the file, or let a rotation see it.",
                )
        raise error(f"bitext.{code}", "no rotation sees this language; leave it out, or add it to a rotation.")


def _model(config: Mapping[str, Any], key: str, error: FileErrors) -> str | None:
    if config.get(key) is None:
        return None
    if not isinstance(config[key], str):
        raise error(key, f"{config[key]!r} is not the name or folder of a model.")
    name = os.path.expanduser(os.path.expandvars(config[key]))
    here = expand(name, error.path)
    if here.is_dir():
        return str(here)
    if name.startswith((".", "/")) or name.count("/") > 1:
        raise FileNotFoundError(str(error(key, f"there is no folder {here}.")))
    return name


def record_study(study: Study, folder: str | os.PathLike[str], write: bool = True) -> None:
    """Keep the study's file in its folder, `study.json`, and refuse a folder of another study.

    Rotations, methods, levers, seeds and evaluation sets may be added, or left out: what was there is kept in mind.

    Args:
        study ([`Study`]): this one.
        folder (`str` or `Path`): of the study's output.
        write (`bool`, *optional*, defaults to `True`): whether this process writes.

    Raises:
        ValueError: naming the keys that differ.
    """
    path = Path(folder) / "study.json"
    here = json.loads(json.dumps(study.config))
    # Until an arm is there, nothing could be of another study.
    begun = path.exists() and (Path(folder) / "arms").exists()
    there = json.loads(path.read_text(encoding="utf-8")) if begun else here
    differing = []
    for key in dict.fromkeys([*there, *here]):
        if key in GROWING:
            old, new = there.get(key) or {}, here.get(key) or {}
            pairs = {f"{key}.{name}": (_fixed(old[name]), _fixed(new[name])) for name in old if name in new}
        else:
            pairs = {} if key == "seeds" else {key: (there.get(key), here.get(key))}
        differing += [name for where, (a, b) in pairs.items() for name in _differing(a, b, where)]
    if differing:
        raise ValueError(
            f"{folder} holds a study of another config than {study.path}: {', '.join(differing)} differ. Choose "
            f"another --output_dir, or go back to what {path} says."
        )
    if write:
        merged = {**there, **here, "seeds": sorted({*as_list(there["seeds"]), *as_list(here["seeds"])})}
        merged |= {key: {**(there.get(key) or {}), **(here.get(key) or {})} for key in GROWING}
        write_json(path, merged, indent=2)


def _fixed(method: Any) -> Any:
    if not isinstance(method, dict):
        return method
    return {key: value for key, value in method.items() if key not in ("seeds", "rotations", "sets")}


def _differing(there: Any, here: Any, where: str) -> list[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        return [
            name
            for key in dict.fromkeys([*there, *here])
            for name in _differing(there.get(key), here.get(key), f"{where}.{key}")
        ]
    return [] if there == here else [where]

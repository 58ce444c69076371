"""A study of robustness in one YAML file: which languages have bitext, which methods, which questions; and its arms.

[`load_study`] checks all of it before any model is loaded. `study_sets` reads the questions, `study_arms` trains and
evaluates, `study_report` writes what came out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import HfArgumentParser

from .json_files import write_json
from .study_file import StudyError, as_list, check_keys, expand, read_yaml
from .study_sets import EvaluationSet, find_bitext, read_set
from .training_args import OpticalTrainingArguments

LOSSES = ("ot", "greedy", "mse")
STUDY_KEYS = ("teacher", "student", "checkpoint", "max_words", "pairs", "bitext", "rotations", "seeds", "training")
STUDY_KEYS += ("methods", "levers", "evaluation")
# What may grow in a study's folder: the arms that are there stay what they are.
GROWING = ("rotations", "methods", "levers", "evaluation")
METHOD_KEYS = ("loss", "pairs", "seeds", "rotations", "sets")
LEVER_KEYS = (*METHOD_KEYS, "base", "interpolation", "erase_language", "passages")
DERIVING = ("interpolation", "erase_language", "passages")
# What the study sets itself in every arm.
FIXED = ("output_dir", "seed", "eval_strategy", "load_best_model_at_end", "resume_from_checkpoint", "push_to_hub")


@dataclass(frozen=True)
class Rotation:
    """Which languages have bitext (`seen`) and which are kept without (`unseen`), by language code."""

    name: str
    seen: tuple[str, ...]
    unseen: tuple[str, ...]


@dataclass(frozen=True)
class Method:
    """What an arm does: a method, a lever on one, or one of the references `zero_shot` and `ceiling`.

    Args:
        name (`str`): its key in the file.
        loss (`str`, *optional*): `"ot"`, `"greedy"` or `"mse"`; None for what trains nothing.
        options (`dict`): of [`OpticalTrainingArguments`], those of the study and of the base included.
        pairs (`int`): of each seen language.
        seeds, rotations, sets: those it is run with.
        base (`str`, *optional*): of a lever, the method it is compared with.
        interpolation (`float`, *optional*): weight of the base's student against the start.
        erase_language (`bool`): whether the language component of the base's student is removed.
        passages (`str`): who encodes them, `"teacher"` or `"student"`.
    """

    name: str
    loss: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    pairs: int = 0
    seeds: tuple[int, ...] = ()
    rotations: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    base: str | None = None
    interpolation: float | None = None
    erase_language: bool = False
    passages: str = "teacher"

    @property
    def derived(self) -> bool:
        """Whether it takes the student of its base instead of training one."""
        return self.interpolation is not None or self.erase_language or self.passages != "teacher"


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
        for name in ("zero_shot", "ceiling"):
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
    top = StudyError(path)
    check_keys(config, STUDY_KEYS, top)
    for key in ("bitext", "rotations", "seeds", "methods", "evaluation"):
        if not config.get(key):
            raise top(key, "is missing or empty.")
    languages: dict[str, list[str]] = {}
    for key, given in top.mapping("bitext", config["bitext"]).items():
        code = top.language(f"bitext.{key}", key)
        if code == "en" or code in languages:
            raise top(f"bitext.{key}", "bitext pairs English with each other language, once.")
        languages[code] = [find_bitext(one, code, path, f"bitext.{key}") for one in as_list(given)]
    rotations = {
        name: _rotation(name, given, set(languages), top)
        for name, given in top.mapping("rotations", config["rotations"]).items()
    }
    _check_bitext_is_seen(languages, rotations, top)
    seeds = tuple(as_list(config["seeds"]))
    if any(type(seed) is not int or seed < 0 for seed in seeds) or len(set(seeds)) != len(seeds):
        raise top("seeds", f"{list(seeds)} are not whole numbers, each once.")
    evaluation = {
        name: read_set(top.name(f"evaluation.{name}", name, ("arm", "training")), given, path)
        for name, given in top.mapping("evaluation", config["evaluation"]).items()
    }
    checkpoint = top.mapping("checkpoint", config.get("checkpoint") or {})
    names = ("query_prefix", "document_prefix", "query_length", "document_length")
    check_keys(checkpoint, names, top, "checkpoint")
    study = Study(
        path=path,
        config=config,
        teacher=_model(config, "teacher", top),
        student=_model(config, "student", top),
        checkpoint=dict(checkpoint),
        max_words=_positive(config.get("max_words", 32), "max_words", top),
        pairs=_positive(config.get("pairs", 1500), "pairs", top),
        bitext=languages,
        rotations=rotations,
        seeds=seeds,
        methods={},
        levers={},
        evaluation=evaluation,
    )
    for group in ("methods", "levers"):
        given = top.mapping(group, config.get(group) or {})
        for name in given:  # all names first: a base may stand below its lever
            top.name(f"{group}.{name}", name, ("zero_shot", "ceiling", *(study.methods if group == "levers" else ())))
        for name in given:
            getattr(study, group)[name] = _method(study, group, name, top)
    return study


def _rotation(name: str, given: Any, bitext: set[str], top: StudyError) -> Rotation:
    where = f"rotations.{top.name(f'rotations.{name}', name)}"
    check_keys(top.mapping(where, given), ("seen", "unseen"), top, where)
    sides = {
        side: [top.language(f"{where}.{side}", code) for code in as_list(given.get(side) or [])]
        for side in ("seen", "unseen")
    }
    if not sides["seen"]:
        raise top(f"{where}.seen", "is missing or empty.")
    for side, codes in sides.items():
        for code in codes:
            if codes.count(code) > 1:
                raise top(f"{where}.{side}", f"'{code}' is there twice.")
            if code == "en":
                raise top(f"{where}.{side}", "'en' is the other side of all bitext; it is reported apart.")
    if both := [code for code in sides["seen"] if code in sides["unseen"]]:
        raise top(where, f"'{both[0]}' is both seen and unseen.")
    if without := [code for code in sides["seen"] if code not in bitext]:
        raise top(f"{where}.seen", f"'{without[0]}' has no bitext; give it under `bitext`, or call it unseen.")
    return Rotation(name, tuple(sides["seen"]), tuple(sides["unseen"]))


def _check_bitext_is_seen(bitext: Mapping[str, Any], rotations: Mapping[str, Rotation], top: StudyError) -> None:
    seen = {code for rotation in rotations.values() for code in rotation.seen}
    for code in bitext:
        if code in seen:
            continue
        for rotation in rotations.values():
            if code in rotation.unseen:
                raise top(
                    f"rotations.{rotation.name}.unseen",
                    f"'{code}' is an unseen language that does have bitext (bitext.{code}), and no rotation sees it: "
                    "take its bitext out of the file, or let a rotation see it.",
                )
        raise top(f"bitext.{code}", "no rotation sees this language; leave it out, or add it to a rotation.")


def _model(config: Mapping[str, Any], key: str, top: StudyError) -> str | None:
    if config.get(key) is None:
        return None
    if not isinstance(config[key], str):
        raise top(key, f"{config[key]!r} is not the name or folder of a model.")
    name = os.path.expanduser(os.path.expandvars(config[key]))
    here = expand(name, top.path)
    if here.is_dir():
        return str(here)
    if name.startswith((".", "/")) or name.count("/") > 1:
        raise FileNotFoundError(str(top(key, f"there is no folder {here}.")))
    return name


def _positive(value: Any, where: str, top: StudyError) -> int:
    if type(value) is not int or value < 1:
        raise top(where, f"{value!r} is not a whole number above 0.")
    return value


def _method(study: Study, group: str, name: str, top: StudyError) -> Method:
    where = f"{group}.{name}"
    given = top.mapping(where, study.config[group][name] or {})
    own_keys = LEVER_KEYS if group == "levers" else METHOD_KEYS
    training = tuple(one.name for one in fields(OpticalTrainingArguments) if one.init)
    check_keys(given, (*own_keys, *training), top, where)
    own = {key: value for key, value in given.items() if key in own_keys}
    options = {key: value for key, value in given.items() if key not in own_keys}
    if group == "methods":
        base = Method(name, "ot", top.mapping("training", study.config.get("training") or {}), study.pairs)
        base = Method(
            name, "ot", base.options, study.pairs, study.seeds, tuple(study.rotations), tuple(study.evaluation)
        )
        check_keys(base.options, training, top, "training")
    else:
        trained = {**study.methods, **{key: one for key, one in study.levers.items() if not one.derived}}
        if own.get("base") not in trained:
            known = ", ".join(trained)
            raise top(f"{where}.base", f"{own.get('base')!r} is no method, nor a trained lever above; use {known}.")
        base = trained[own["base"]]
    method = Method(
        name=name,
        loss=own.get("loss", base.loss),
        options={**base.options, **options},
        pairs=_positive(own.get("pairs", base.pairs), f"{where}.pairs", top),
        seeds=_subset(own, "seeds", base.seeds, where, top),
        rotations=_subset(own, "rotations", base.rotations, where, top),
        sets=_subset(own, "sets", base.sets, where, top),
        base=own.get("base"),
        interpolation=own.get("interpolation"),
        erase_language=own.get("erase_language", False),
        passages=own.get("passages", "teacher"),
    )
    if method.loss not in LOSSES:
        raise top(f"{where}.loss", f"there is no loss {method.loss!r}; there are {', '.join(LOSSES)}.")
    weight = method.interpolation
    if weight is not None and (
        isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= 1
    ):
        raise top(f"{where}.interpolation", f"{weight!r} is not a number from 0 to 1.")
    if not isinstance(method.erase_language, bool):
        raise top(f"{where}.erase_language", f"{method.erase_language!r} is neither true nor false.")
    if method.passages not in ("teacher", "student"):
        raise top(f"{where}.passages", f"{method.passages!r} is neither teacher nor student.")
    if method.derived and (without := [*options, *(key for key in ("loss", "pairs") if key in own)]):
        raise top(f"{where}.{without[0]}", f"has no effect: with {' or '.join(DERIVING)}, nothing is trained.")
    try:
        training_arguments(method, top.path.parent, study.seeds[0])
    except ValueError as error:
        raise top(where, str(error)) from error
    return method


def _subset(own: Mapping[str, Any], key: str, known: tuple[Any, ...], where: str, top: StudyError) -> tuple[Any, ...]:
    if key not in own:
        return known
    chosen = as_list(own[key])
    if not chosen or (unknown := [one for one in chosen if one not in known]):
        what = f"{unknown[0]!r} is not one of" if chosen else "is empty; choose of"
        raise top(f"{where}.{key}", f"{what} {', '.join(map(str, known))}.")
    return tuple(one for one in known if one in chosen)


def training_arguments(method: Method, folder: str | os.PathLike[str], seed: int) -> OpticalTrainingArguments:
    """Make the training arguments of an arm. Nothing is saved, reported or evaluated unless its options say so.

    Args:
        method ([`Method`]): its options.
        folder (`str` or `Path`): where checkpoints go, if any.
        seed (`int`): the arm's.

    Raises:
        ValueError: if an option is of the wrong type, does not exist, or is one the study sets itself.
    """
    for name in FIXED:
        if name in method.options:
            raise ValueError(f"`{name}` is set by the study itself; leave it out.")
    options = {"report_to": "none", "save_strategy": "no", "use_cpu": not torch.accelerator.is_available()}
    options |= {name: value for name, value in method.options.items() if value is not None}
    options |= {"output_dir": os.fspath(folder), "seed": seed}
    parser = HfArgumentParser(OpticalTrainingArguments)

    def fail(message: str) -> None:
        raise ValueError(message)

    parser.error = fail  # by default it ends the process, with the usage of a hundred options
    words = []
    for name, value in options.items():
        values = value if isinstance(value, list) else [json.dumps(value) if isinstance(value, dict) else value]
        words += [f"--{name}", *map(str, values)]
    [args] = parser.parse_args_into_dataclasses(words)
    return args


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
    there = json.loads(path.read_text(encoding="utf-8")) if path.exists() else here
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

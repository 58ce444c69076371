"""What the arms of a study do: its methods, and the levers compared with them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch

from ..arguments import ArgumentReader
from ..training.distillation_args import OpticalTrainingArguments
from .config_file import FileErrors, as_list

LOSSES = ("ot", "greedy", "mse")
REFERENCES = ("zero_shot", "ceiling")
METHOD_KEYS = ("loss", "pairs", "seeds", "rotations", "sets")
DERIVING = ("interpolation", "erase_language", "passages")
TRAINING_KEYS = tuple(option.name for option in fields(OpticalTrainingArguments) if option.init)
# The options that the study sets itself, in every arm.
FIXED = ("output_dir", "seed", "eval_strategy", "load_best_model_at_end", "resume_from_checkpoint", "push_to_hub")


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


def read_methods(
    config: Mapping[str, Any], defaults: Method, error: FileErrors
) -> tuple[dict[str, Method], dict[str, Method]]:
    """Read `methods` and `levers` of a study's file, with the options of `training` under theirs.

    Args:
        config (`Mapping[str, Any]`): the file.
        defaults ([`Method`]): the study's own loss, pairs, seeds, rotations and sets.
        error ([`FileErrors`]): names the file.

    Returns:
        `tuple[dict[str, Method], dict[str, Method]]`: methods and levers by name. A lever has the values of its base,
        unless it gives its own.

    Raises:
        ValueError: naming the key of what is wrong.
    """
    training = error.mapping("training", config.get("training") or {}, TRAINING_KEYS)
    defaults = replace(defaults, options=training)
    methods: dict[str, Method] = {}
    for name, given in error.mapping("methods", config["methods"]).items():
        where = error.name("methods", name, REFERENCES)
        given = error.mapping(where, given or {}, (*METHOD_KEYS, *TRAINING_KEYS))
        methods[name] = _method(name, given, defaults, where, error)
    levers: dict[str, Method] = {}
    for name, given in error.mapping("levers", config.get("levers") or {}).items():
        where = error.name("levers", name, (*REFERENCES, *methods))
        given = error.mapping(where, given or {}, ("base", *DERIVING, *METHOD_KEYS, *TRAINING_KEYS))
        bases = {key: method for key, method in {**methods, **levers}.items() if not method.derived}
        if (base := given.get("base")) not in bases:
            raise error(
                f"{where}.base",
                f"{base!r} is neither a method nor a trained lever that stands above this one; choose from "
                f"{', '.join(bases)}.",
            )
        levers[name] = _method(name, given, bases[base], where, error)
    return methods, levers


def _method(name: str, given: Mapping[str, Any], base: Method, where: str, error: FileErrors) -> Method:
    options = {key: value for key, value in given.items() if key in TRAINING_KEYS}
    method = Method(
        name=name,
        loss=given.get("loss", base.loss),
        options={**base.options, **options},
        pairs=error.count(f"{where}.pairs", given.get("pairs", base.pairs)),
        seeds=_subset(given, "seeds", base.seeds, where, error),
        rotations=_subset(given, "rotations", base.rotations, where, error),
        sets=_subset(given, "sets", base.sets, where, error),
        base=given.get("base"),
        interpolation=given.get("interpolation"),
        erase_language=error.boolean(f"{where}.erase_language", given.get("erase_language", False)),
        passages=given.get("passages", "teacher"),
    )
    if method.loss not in LOSSES:
        raise error(f"{where}.loss", f"there is no loss {method.loss!r}; choose from {', '.join(LOSSES)}.")
    weight = method.interpolation
    if weight is not None and not (type(weight) in (int, float) and 0 <= weight <= 1):
        raise error(f"{where}.interpolation", f"{weight!r} is not a number from 0 to 1.")
    if method.passages not in ("teacher", "student"):
        raise error(f"{where}.passages", f"{method.passages!r} is neither teacher nor student.")
    if method.derived and (without := [*options, *(key for key in ("loss", "pairs") if key in given)]):
        raise error(f"{where}.{without[0]}", f"has no effect: a lever with {' or '.join(DERIVING)} trains nothing.")
    try:
        training_arguments(method, error.path.parent, seed=0)
    except ValueError as wrong:
        raise error(where, str(wrong)) from wrong
    return method


def _subset(
    given: Mapping[str, Any], key: str, known: tuple[Any, ...], where: str, error: FileErrors
) -> tuple[Any, ...]:
    if key not in given:
        return known
    chosen = as_list(given[key])
    if not chosen or (unknown := [value for value in chosen if value not in known]):
        what = f"{unknown[0]!r} is not one of" if chosen else "is empty; choose from"
        raise error(f"{where}.{key}", f"{what} {', '.join(map(str, known))}.")
    return tuple(value for value in known if value in chosen)


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
    options["disable_tqdm"] = False  # by default it follows the verbosity of transformers, which a study lowers
    options |= {name: value for name, value in method.options.items() if value is not None}
    reader = ArgumentReader(OpticalTrainingArguments)
    args: OpticalTrainingArguments
    [args] = reader.make(reader.values(options | {"output_dir": os.fspath(folder), "seed": seed}))
    return args

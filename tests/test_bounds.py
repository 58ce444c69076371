"""Bounds of every number that a user can give, by a command, a file or from Python."""

from __future__ import annotations

import dataclasses
import math
from importlib import import_module
from typing import Any, get_type_hints

import pytest
import torch
from trainers import make_bitext

from optical_hf import (
    GreedyLoss,
    OpticalConfig,
    OTLoss,
    balance_languages,
    hold_out,
    load_bitext,
    maxsim,
    search,
)
from optical_hf.commands.__main__ import COMMANDS
from optical_hf.data.bitext_sampling import language_probabilities
from optical_hf.evaluation.significance import bootstrap_interval, randomisation_test
from optical_hf.losses.score_bank import ScoreBank
from optical_hf.retrieval.maxsim import top_k
from optical_hf.transport import transport_plan

HUGE = 10**18
ODD = (-1, 0, math.nan, math.inf, HUGE)
# Where one of these is a number like another.
FROM_0 = ["adam_beta1", "adam_beta2", "adam_epsilon", "data_seed", "dataloader_num_workers", "dropout", "eval_delay"]
FROM_0 += ["freeze_layers", "label_smoothing_factor", "learning_rate", "mark_dropout", "max_grad_norm"]
FROM_0 += ["neftune_noise_alpha", "pooled_weight", "retention_share", "retention_weight", "save_total_limit"]
FROM_0 += [
    "alpha",
    "divergence_weight",
    "margin_weight",
    "max_negatives",
    "skip",
    "teacher_memory",
    "score_weight",
    "seed",
    "token_weight",
    "warmup_steps",
    "weight_decay",
]
LEGAL = {
    **dict.fromkeys(FROM_0, (0,)),
    "OpticalRetrievalArguments.negatives": (0,),
    "CrossEncoderArguments.warmup_ratio": (0,),
    "max_steps": (-1,),  # as many as the epochs have
    "temperature": (math.inf, HUGE),  # all languages alike
    "local_rank": ODD,  # transformers sets it, whatever is given
}


def numbers() -> list[tuple[Any, str]]:
    """Every field of the commands' arguments that holds a number, with its class."""
    classes = {
        kind: None
        for command in COMMANDS
        for kind in import_module(f"optical_hf.commands.{command}").reader().dataclass_types
    }
    return [
        (kind, field.name)
        for kind in classes
        for field in dataclasses.fields(kind)
        if field.init and getattr(get_type_hints(kind)[field.name], "__origin__", None) is not list
        if {int, float} & members(get_type_hints(kind)[field.name])
    ]


def members(hint: Any) -> set[Any]:
    return {hint, *getattr(hint, "__args__", ())}


def make(kind: Any, **given: Any) -> Any:
    needed = [field for field in dataclasses.fields(kind) if field.default is field.default_factory]
    hints = get_type_hints(kind)
    return kind(**{field.name: ["x"] if hints[field.name] == list[str] else "x" for field in needed} | given)


NUMBERS = numbers()


def test_the_fields_are_found():
    names = {name for _, name in NUMBERS}
    assert {"depth", "memory_gb", "shard_size", "max_queries", "held_out", "epsilon", "adam_beta2", "k"} <= names
    assert len(NUMBERS) > 60 and {name.split(".")[-1] for name in LEGAL} <= names


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize(("kind", "name"), NUMBERS, ids=[f"{kind.__name__}.{name}" for kind, name in NUMBERS])
def test_arguments_out_of_bounds_are_refused_by_name(kind, name, value):
    if value in LEGAL.get(f"{kind.__name__}.{name}", LEGAL.get(name, ())):
        assert getattr(make(kind, **{name: value}), name) in (value, 0)
        return
    with pytest.raises(ValueError, match=rf"--{name} must be .*, got {str(value).replace('.', '[.]')}[ .]"):
        make(kind, **{name: value})


EYE = torch.eye(2)
BITEXT = make_bitext(8)
# Functions of one number: what it is called, the call, and which of the odd values are numbers like another.
FUNCTIONS = [
    ("max_words", lambda value: load_bitext({"sw": "bitext.tsv"}, max_words=value), ()),
    ("max_ratio", lambda value: load_bitext({"sw": "bitext.tsv"}, max_ratio=value), (math.inf, HUGE)),
    ("temperature", lambda value: load_bitext({"sw": "bitext.tsv"}, temperature=value), (math.inf, HUGE)),
    ("seed", lambda value: load_bitext({"sw": "bitext.tsv"}, seed=value), (0,)),
    ("size", lambda value: hold_out(BITEXT, value), ()),
    ("seed", lambda value: hold_out(BITEXT, 1, seed=value), (0,)),
    ("temperature", lambda value: balance_languages(BITEXT, value), (math.inf, HUGE)),
    ("seed", lambda value: balance_languages(BITEXT, 1.0, seed=value), (0,)),
    ("temperature", lambda value: language_probabilities({"sw": 1}, value), (math.inf, HUGE)),
    ("k", lambda value: search(EYE, EYE, ["a", "b"], ["q", "r"], k=value), ()),
    ("k", lambda value: top_k([EYE], [EYE], value), ()),
    ("chunk_size", lambda value: maxsim([EYE], [EYE], chunk_size=value), ()),
    ("query_length", lambda value: OpticalConfig(query_length=value), ()),
    ("document_length", lambda value: OpticalConfig(document_length=value), ()),
    ("projection_dim", lambda value: OpticalConfig(projection_dim=value), ()),
    ("epsilon", lambda value: plan(epsilon=value), (HUGE,)),
    ("reg_m", lambda value: plan(reg_m=value), (HUGE,)),
    ("iterations", lambda value: plan(iterations=value), ()),
    ("partial_mass", lambda value: plan(partial_mass=value), ()),
    ("token_weight", lambda value: OTLoss(token_weight=value), (0,)),
    ("pooled_weight", lambda value: GreedyLoss(pooled_weight=value), (0,)),
    ("token_temperature", lambda value: ScoreBank(EYE, EYE, EYE, token_temperature=value), ()),
    ("permutations", lambda value: randomisation_test([0.1, 0.2], [0.3, 0.4], permutations=value), ()),
    ("resamples", lambda value: bootstrap_interval([[0.1, 0.2]], resamples=value), ()),
    ("level", lambda value: bootstrap_interval([[0.1, 0.2]], level=value), ()),
]


def plan(**options: float) -> torch.Tensor:
    return transport_plan(1 - EYE[None], EYE.new_full((1, 2), 0.5), EYE.new_full((1, 2), 0.5), **options)


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize(("name", "call", "legal"), FUNCTIONS)
def test_functions_refuse_numbers_out_of_bounds_by_name(name, call, legal, value, monkeypatch, tmp_path):
    (tmp_path / "bitext.tsv").write_text("It rains today.\tMvua inanyesha leo.\n")
    monkeypatch.chdir(tmp_path)
    if value in legal:
        assert call(value) is not None
        return
    with pytest.raises(ValueError, match=rf"{name}.* {value}\b|{name}.* {value:,}\b"):
        call(value)

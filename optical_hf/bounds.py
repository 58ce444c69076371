"""Bounds of the numbers that a user gives, refused by the name that the user knows them by."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

MOST = 10**12  # far beyond any use, and far from where an integer of the machine overflows
MOST_SEED = 2**32 - 1  # numpy takes no larger one


def check_count(name: str, value: Any, most: int = MOST, least: int = 1) -> None:
    """Refuse what is not a whole number from `least` to `most`, naming it.

    Args:
        name (`str`): what the user calls it, such as `"--depth"`.
        value: what was given.
        most (`int`, *optional*, defaults to 10**12): the largest that is allowed.
        least (`int`, *optional*, defaults to 1): the smallest.

    Raises:
        ValueError: with name, value, and what is allowed.
    """
    allowed = f"at least {least}, got {value!r}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        allowed = f"a whole number of {allowed}"
    elif int(value) > most:
        allowed = f"at most {most:,}, got {value}"
    elif int(value) >= least:
        return
    raise ValueError(f"{name} must be {allowed}.")


def check_number(
    name: str,
    value: Any,
    most: float = MOST,
    least: int = 0,
    *,
    above: bool = False,
    below: bool = False,
    unit: str = "",
) -> None:
    """Refuse what is not a number from `least` to `most`, as [`check_count`] does; NaN is none.

    Args:
        name (`str`): what the user calls it.
        value: what was given.
        most (`float`, *optional*, defaults to 10**12): the largest that is allowed; perhaps infinity.
        least (`int`, *optional*, defaults to 0): the smallest.
        above, below (`bool`, *optional*, default to `False`): whether `least`, and whether `most`, is not.
        unit (`str`, *optional*): of the number, for the error.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if is_number and least <= value <= most and not (above and value == least or below and value == most):
        return
    low, high = "above" if above else "of at least", "below" if below else "at most"
    allowed = f"{low} {least} and {high} {most:,}" + (f" ({unit})" if unit else "")
    raise ValueError(f"{name} must be a number {allowed}, got {value!r}.")


def check_memory(name: str, value: Any) -> None:
    """Refuse what is not a number of gigabytes above 0, as [`check_number`] does."""
    check_number(name, value, 10**6, above=True, unit="GB")


def check_fields(arguments: Any, check: Callable[..., None], *names: str, **bounds: Any) -> None:
    """Check fields of a dataclass of arguments that are of one kind; those that are `None` were not given.

    Args:
        arguments: the dataclass.
        check (`Callable`): one of the checks above.
        names (`str`): of the fields.
        bounds: passed to `check`.

    Raises:
        ValueError: naming the argument as the command line does.
    """
    for name in names:
        if getattr(arguments, name) is not None:
            check(f"--{name}", getattr(arguments, name), **bounds)


def check_training(arguments: Any) -> None:
    """Check the numbers of a `TrainingArguments`: those out of bounds would stop a training midway, or give NaN."""
    check_fields(
        arguments,
        check_count,
        *("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"),
        *("eval_accumulation_steps", "torch_empty_cache_steps", "ddp_bucket_cap_mb", "ddp_timeout"),
        "dataloader_prefetch_factor",
    )
    check_fields(arguments, check_count, "save_total_limit", least=0)  # 0 keeps all
    check_fields(arguments, check_count, "dataloader_num_workers", least=0, most=1024)
    check_fields(arguments, check_count, "seed", "data_seed", least=0, most=MOST_SEED)
    if arguments.max_steps != -1:  # as many as the epochs have
        check_fields(arguments, check_count, "max_steps")
    check_fields(arguments, check_number, "num_train_epochs", "logging_steps", "eval_steps", "save_steps", above=True)
    check_fields(arguments, check_number, "label_smoothing_factor", most=1)
    check_fields(arguments, check_number, "adam_beta1", "adam_beta2", most=1, below=True)
    check_fields(
        arguments,
        check_number,
        *("learning_rate", "warmup_steps", "weight_decay", "adam_epsilon", "max_grad_norm", "eval_delay"),
        "neftune_noise_alpha",
    )

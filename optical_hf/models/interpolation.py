"""A student between two students, by its weights."""

from __future__ import annotations

import copy
import inspect

import torch

from .configuration_optical import OpticalConfig
from .modeling_optical import OpticalModel, OpticalStudent


def interpolate(before: OpticalModel, after: OpticalStudent, weight: float) -> OpticalStudent:
    """Make the student whose weights lie between those of a model and of the student that it was trained into.

    Where training has cost something that the model could do before, such as languages that were not trained on, the
    way between the two often holds models that keep most of both (WiSE-FT, Wortsman et al., 2022,
    [arXiv 2109.01903](https://arxiv.org/abs/2109.01903), equation 1).

    Args:
        before ([`OpticalStudent`] or [`OpticalTeacher`]): what training started from.
        after ([`OpticalStudent`]): what it led to.
        weight (`float`): that of `after`, from 0 (all of `before`) to 1 (all of `after`).

    Returns:
        [`OpticalStudent`]: a copy of `after` with the weights `(1 - weight) * before + weight * after`.

    Raises:
        ValueError: if the weight is out of range, or the two differ in architecture or in how they read texts.

    Example:

    ```python
    >>> halfway = interpolate(OpticalStudent.from_checkpoint("start"), OpticalStudent.from_checkpoint("end"), 0.5)
    ```
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"`weight` is {weight}; it has to lie between 0 and 1.")
    for name in inspect.signature(OpticalConfig).parameters:
        if name not in ("text_config", "kwargs"):
            _check_same(f"`{name}`", getattr(before.config, name), getattr(after.config, name))
    _check_same("encoder", before.config.text_config.model_type, after.config.text_config.model_type)
    old, new = before.state_dict(), after.state_dict()
    for name in sorted(old.keys() | new.keys()):
        shapes = [tuple(one[name].shape) if name in one else "not there" for one in (old, new)]
        _check_same(f"`{name}`", *shapes)

    between = copy.deepcopy(after)
    with torch.no_grad():
        for name, tensor in between.state_dict().items():
            if tensor.is_floating_point():
                # In float64, so that a half-precision weight is rounded once.
                tensor.copy_(old[name].to(tensor.device).double().lerp(new[name].double(), weight))
    return between


def _check_same(what: str, before: object, after: object) -> None:
    if before != after:
        raise ValueError(
            f"Weights can be interpolated between like models only: {what} is {before!r} in `before` and {after!r} in "
            "`after`."
        )

"""Pushing to the Hub: what may leave the machine, and how it gets there.

`push_model` keeps this path: the code saved with every student imports it from here.
"""

from .push import PushError, push_metric_space, push_model, push_student

__all__ = ["PushError", "push_metric_space", "push_model", "push_student"]

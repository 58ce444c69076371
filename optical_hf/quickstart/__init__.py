"""A model from PyPI wheels and a sample, for a first run without the Hub."""

from .model import SAMPLE, quickstart_arguments, quickstart_model

__all__ = ["SAMPLE", "quickstart_arguments", "quickstart_model"]

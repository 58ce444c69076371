"""Where the code saved with every student looks for the reader of other tools' checkpoints; it keeps this path."""

from .models.checkpoints import load_checkpoint

__all__ = ["load_checkpoint"]

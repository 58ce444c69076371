"""The trainer, its arguments and batches, and the model card of what it made."""

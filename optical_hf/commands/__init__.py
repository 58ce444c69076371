"""The commands: `optical-hf distill` and the others, and what `examples/` starts."""

"""What retrieval scores, what distillation gained, and whether that is more than chance."""

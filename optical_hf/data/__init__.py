"""Bitext, topics, passages and judgements: read, checked and counted."""

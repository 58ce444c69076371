"""The words that the tiny tokenizer of the tests knows, with their ids."""

from __future__ import annotations

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["query", "passage", ":", ".", ",", "!", "?", "-", "the", "a", "who", "wrote", "it", "rains", "today"]
WORDS += ["nani", "aliandika", "hicho", "kitabu", "leo", "mvua", "inanyesha", "book", "this", "she", "habari"]
VOCABULARY = {word: index for index, word in enumerate(SPECIAL + WORDS)}

"""Which pairs of a bitext are trained on: the balance of its languages, and the split held out for evaluation."""

from __future__ import annotations

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Mapping

import numpy as np
from datasets import Dataset

from ..bounds import MOST_SEED, check_count, check_number

logger = logging.getLogger(__name__)


def language_probabilities(counts: Mapping[str, int], temperature: float) -> dict[str, float]:
    """Return the share of each language, proportional to `count ** (1 / temperature)`.

    Args:
        counts (`Mapping[str, int]`): pairs of each language, all above 0.
        temperature (`float`): 1 is proportional to the counts, `math.inf` uniform.

    Raises:
        ValueError: if the temperature or a count is not above 0.
    """
    check_number("temperature", temperature, math.inf, above=True)
    for language, count in counts.items():
        if count < 1:
            raise ValueError(f"Language '{language}' has {count} pairs; leave it out.")
    largest = max(counts.values(), default=1)
    weights = {language: (count / largest) ** (1 / temperature) for language, count in counts.items()}
    return {language: weight / sum(weights.values()) for language, weight in weights.items()}


def balance_languages(dataset: Dataset, temperature: float, seed: int = 0) -> Dataset:
    """Resample a dataset to the shares of [`language_probabilities`], keeping its number of pairs, and shuffle it.

    A language that grows repeats whole permutations of its pairs: no pair comes a third time before all came twice.
    To hold pairs out as well, do that first.

    Args:
        dataset (`datasets.Dataset`): with a column `language`.
        temperature (`float`): 1 keeps every pair exactly once; larger evens the languages out; `math.inf` is uniform.
        seed (`int`, *optional*, defaults to 0): seeds the permutations.

    Returns:
        `datasets.Dataset`: as many rows as before.
    """
    check_count("seed", seed, MOST_SEED, least=0)
    rows = _rows_by_language(dataset)
    shares = language_probabilities({language: len(indices) for language, indices in rows.items()}, temperature)
    exact = {language: share * len(dataset) for language, share in shares.items()}
    sizes = {language: math.floor(size) for language, size in exact.items()}
    remainders = sorted(exact, key=lambda language: sizes[language] - exact[language])
    for language in remainders[: len(dataset) - sum(sizes.values())]:
        sizes[language] += 1
    random = np.random.default_rng(seed)
    sampled = []
    for language, indices in rows.items():
        permutations = [random.permutation(indices) for _ in range(sizes[language] // len(indices) + 1)]
        sampled.append(np.concatenate(permutations)[: sizes[language]])
    return dataset.select(random.permutation(np.concatenate(sampled))) if sampled else dataset


def _rows_by_language(dataset: Dataset) -> dict[str, np.ndarray]:
    languages = np.asarray(dataset.with_format(None)["language"][:], dtype=str)
    return {str(language): np.flatnonzero(languages == language) for language in np.unique(languages)}


def hold_out(dataset: Dataset, size: int, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Hold out `size` pairs of each language, such that none of their English sentences is left in training.

    Languages share the held-out English sentences where they can, so that little of a multi-parallel corpus is lost.
    Other pairs with a held-out sentence, in whichever language, are in neither part.

    Args:
        dataset (`datasets.Dataset`): with the columns `english` and `language`.
        size (`int`): pairs of each language to hold out, each with another English sentence.
        seed (`int`, *optional*, defaults to 0): seeds the choice of sentences.

    Returns:
        `tuple[datasets.Dataset, datasets.Dataset]`: training part and held-out part, in the order of `dataset`.

    Raises:
        ValueError: if a language has too few English sentences, or no pair left to train on.
    """
    check_count("size", size)
    check_count("seed", seed, MOST_SEED, least=0)
    plain = dataset.with_format(None)
    rows: defaultdict[str, dict[str, int]] = defaultdict(dict)  # English sentence -> language -> its first row
    for row, (english, language) in enumerate(zip(plain["english"][:], plain["language"][:], strict=True)):
        rows[english].setdefault(language, row)
    available = Counter(language for by_language in rows.values() for language in by_language)
    for language, different in available.items():
        if different <= size:
            raise ValueError(
                f"Language '{language}' has {different} different English sentences: too few to hold out {size} and "
                "train on the rest."
            )
    sentences = list(rows)
    needed = dict.fromkeys(available, size)
    held_out: list[int] = []
    held_sentences: set[str] = set()
    for index in np.random.default_rng(seed).permutation(len(sentences)):
        taken = [(language, row) for language, row in rows[sentences[index]].items() if needed[language]]
        if taken:
            held_sentences.add(sentences[index])
        for language, row in taken:
            needed[language] -= 1
            held_out.append(row)
    train = [row for row, english in enumerate(plain["english"][:]) if english not in held_sentences]
    kept = Counter(plain.select(train)["language"][:])
    if missing := sorted(available.keys() - kept.keys()):
        raise ValueError(
            f"Holding out {size} pairs of each language leaves none of {missing} to train on, because languages share "
            "English sentences; hold out fewer."
        )
    logger.info(
        "Held out %d pairs, %d left to train on, %d left out since their English is held out.",
        len(held_out), len(train), len(dataset) - len(held_out) - len(train),
    )  # fmt: skip
    return dataset.select(train), dataset.select(sorted(held_out))

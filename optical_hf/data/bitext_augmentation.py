"""What training makes of bitext: longer pairs, translations without diacritics, English paired with itself.

Every choice follows from the pair and the seed alone (which pairs are joined, from their order as well), so it is the
same in every process, in a stream, and after a resume.
"""

from __future__ import annotations

import random
import unicodedata

from datasets import Dataset, IterableDataset

from .characters import normalized

_ABOVE = 230  # the canonical combining class of marks above a letter


def drop_marks(text: str, *, above_only: bool = True) -> str:
    """Take the diacritics off Latin letters.

    Args:
        text (`str`):
            Any text; other scripts stay as they are, since their marks are letters.
        above_only (`bool`, *optional*, defaults to `True`):
            Whether only marks above a letter go (Yoruba's tones), and those below, which make another letter, stay.

    Returns:
        `str`: the text in Unicode NFC.

    Example:

    ```python
    >>> drop_marks("Ọjọ́ mẹ́ta"), drop_marks("Ọjọ́ mẹ́ta", above_only=False)
    ('Ọjọ mẹta', 'Ojo meta')
    ```
    """
    kept: list[str] = []
    latin = False
    for character in normalized("NFD", text):
        kind = unicodedata.combining(character)
        if not kind:
            latin = unicodedata.name(character, "").startswith("LATIN")
        elif latin and (not above_only or kind == _ABOVE):
            continue
        kept.append(character)
    return normalized("NFC", "".join(kept))


def with_concatenation(dataset: Dataset | IterableDataset, sentences: int, seed: int = 0) -> Dataset | IterableDataset:
    """Join pairs of a language that follow one another into longer pairs, of one to `sentences` sentences each.

    How many is drawn for each new pair, all numbers alike, so that short texts stay among the long ones. Pairs of
    other languages may lie between. Bitext in the order of its documents gives pieces of documents; in another order
    (as [`balance_languages`] leaves it), sentences that have nothing to do with one another, of which translation
    models learn no less ([Nguyen et al., 2021](https://arxiv.org/abs/2105.01691)). Pairs are joined within every
    thousand of the dataset, so that a stream need not be read to its end.

    Args:
        dataset (`Dataset` or `IterableDataset`): with the columns of [`load_bitext`].
        sentences (`int`): the most pairs that are joined; 1 joins none.
        seed (`int`, *optional*, defaults to 0): draws other numbers.
    """

    def join(pairs: dict[str, list[str]]) -> dict[str, list[str]]:
        rows: dict[str, list[str]] = {"english": [], "translation": [], "language": []}
        unfinished: dict[str, tuple[int, int]] = {}  # by language: the row, and how many more sentences it takes
        for english, translation, language in zip(*(pairs[name] for name in rows), strict=True):
            row, more = unfinished.get(language, (0, 0))
            if more:
                rows["english"][row] += f" {english}"
                rows["translation"][row] += f" {translation}"
            else:
                row = len(rows["english"])
                more = random.Random(f"{seed}\tconcatenation\t{english}\t{translation}").randint(1, sentences)
                rows["english"].append(english)
                rows["translation"].append(translation)
                rows["language"].append(language)
            unfinished[language] = (row, more - 1)
        return rows

    if sentences == 1:
        return dataset
    return dataset.map(join, batched=True, batch_size=1000, remove_columns=dataset.column_names)


def with_mark_dropout(dataset: Dataset | IterableDataset, share: float, seed: int = 0) -> Dataset | IterableDataset:
    """Drop the diacritics of a share of the translations: in three of four those above the letters, else all.

    Print marks tones and vowels in full; people who type a question seldom do, and a tokenizer gives the two other
    tokens altogether.

    Args:
        dataset (`Dataset` or `IterableDataset`): with the columns of [`load_bitext`].
        share (`float`): between 0 and 1.
        seed (`int`, *optional*, defaults to 0): chooses other pairs.
    """

    def drop(pair: dict[str, str]) -> dict[str, str]:
        chance = random.Random(f"{seed}\tmarks\t{pair['english']}\t{pair['translation']}")
        if chance.random() >= share:
            return {"translation": pair["translation"]}
        return {"translation": drop_marks(pair["translation"], above_only=chance.random() < 0.75)}

    return dataset.map(drop) if share else dataset


def with_retention(dataset: Dataset | IterableDataset, share: float, seed: int = 0) -> Dataset | IterableDataset:
    """Add a share of the English sentences as pairs with themselves, of the language `en`.

    Args:
        dataset (`Dataset` or `IterableDataset`): with the columns of [`load_bitext`].
        share (`float`): of the pairs, how many give such a pair as well; from 0 up, 2 gives two each.
        seed (`int`, *optional*, defaults to 0): chooses other sentences.
    """

    def add(pairs: dict[str, list[str]]) -> dict[str, list[str]]:
        rows: dict[str, list[str]] = {"english": [], "translation": [], "language": []}
        for english, translation, language in zip(*(pairs[name] for name in rows), strict=True):
            chance = random.Random(f"{seed}\tretention\t{english}\t{translation}").random()
            copies = int(share) + (chance < share - int(share))
            rows["english"] += [english] * (1 + copies)
            rows["translation"] += [translation] + [english] * copies
            rows["language"] += [language] + ["en"] * copies
        return rows

    return dataset.map(add, batched=True, remove_columns=dataset.column_names) if share else dataset

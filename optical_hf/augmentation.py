"""What training adds to bitext: translations without diacritics, and English sentences paired with themselves.

Every choice follows from the pair and the seed alone, so it is the same in every process, in a stream, and after a
resume.
"""

from __future__ import annotations

import random
import unicodedata

from datasets import Dataset, IterableDataset

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
    for character in unicodedata.normalize("NFD", text):
        kind = unicodedata.combining(character)
        if not kind:
            latin = unicodedata.name(character, "").startswith("LATIN")
        elif latin and (not above_only or kind == _ABOVE):
            continue
        kept.append(character)
    return unicodedata.normalize("NFC", "".join(kept))


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

"""The bitext of a study's arms: equally many pairs of each language, with the same English sentences if possible."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path

from datasets import Dataset

from ..data.bitext import load_bitext
from .config import Arm, Study
from .records import read_record, write_record

Pairs = dict[str, dict[str, str]]  # language -> English sentence -> its translation


def load_pairs(study: Study, arms: Iterable[Arm]) -> Pairs:
    """Read the study's bitext, filtered as [`load_bitext`] does, with one translation of each English sentence.

    Args:
        study ([`Study`]): names the sources.
        arms (`Iterable[Arm]`): those that are going to be trained.

    Returns:
        `dict[str, dict[str, str]]`: translations by language and English sentence.

    Raises:
        ValueError: if a language has fewer English sentences than an arm asks for.
    """
    pairs: Pairs = {language: {} for language in study.bitext}
    for row in load_bitext(study.bitext, max_words=study.max_words).dataset:
        pairs[row["language"]].setdefault(row["english"], row["translation"])
    for arm in arms:
        for language in arm.rotation.seen if arm.rotation and arm.trained else ():
            if len(pairs[language]) < arm.method.pairs:
                raise ValueError(
                    f"{study.path}: bitext.{language}: only {len(pairs[language])} pairs with different English "
                    f"sentences are left after filtering, but the arm {arm.name} needs {arm.method.pairs} of each "
                    "language: lower `pairs`, raise `max_words`, or add bitext."
                )
    return pairs


def record_pairs(study: Study, pairs: Pairs, folder: str | os.PathLike[str], write: bool = True) -> None:
    """Keep a hash of the bitext in a study's folder, `bitext.json`, and refuse to go on with other bitext.

    Args:
        study ([`Study`]): names the sources.
        pairs (`dict[str, dict[str, str]]`): from [`load_pairs`].
        folder (`str` or `Path`): of the study's output.
        write (`bool`, *optional*, defaults to `True`): whether this process writes.

    Raises:
        ValueError: naming the language whose pairs have changed since the first arm was begun, and its sources.
    """
    folder = Path(folder)
    here = {}
    for language, translations in pairs.items():
        content = json.dumps(sorted(translations.items())).encode()
        here[language] = {"pairs": len(translations), "hash": blake2b(content, digest_size=16).hexdigest()}
    begun = (folder / "bitext.json").exists() and (folder / "arms").exists()
    there = read_record(folder, "bitext.json") if begun else here
    if changed := [language for language in here if there.get(language) != here[language]]:
        named = "; ".join(f"{language} ({', '.join(study.bitext[language])})" for language in changed)
        raise ValueError(
            f"{folder} holds a study with other bitext: that of {named} has changed since the study began, says "
            f"{folder / 'bitext.json'}. Restore its files, or choose another --output_dir."
        )
    if write:
        write_record(folder, "bitext.json", here)


def select_pairs(pairs: Pairs, languages: Iterable[str], count: int, seed: int) -> Dataset:
    """Choose `count` pairs of each language, so that languages and arms differ in as few sentences as possible.

    First come the English sentences that most languages of the study have, in an order drawn by the seed. So
    multi-parallel sentences are taken before any other, and are the same in every language and rotation.

    Args:
        pairs (`dict[str, dict[str, str]]`): from [`load_pairs`].
        languages (`Iterable[str]`): those that are seen.
        count (`int`): pairs of each.
        seed (`int`): draws the sentences.

    Returns:
        `datasets.Dataset`: as of [`load_bitext`], in an order that does not depend on that of the languages.

    Example:

        >>> train = select_pairs(load_pairs(study, study.arms.values()), ["yo", "ar"], count=1500, seed=1)
    """
    spread = Counter(english for translations in pairs.values() for english in translations)
    drawn = {english: (-number, _draw(seed, english), english) for english, number in spread.items()}
    chosen = [
        (drawn[english], language)
        for language in languages
        for english in sorted(pairs[language], key=drawn.__getitem__)[:count]
    ]
    rows = [(english, language) for (_, _, english), language in sorted(chosen)]
    return Dataset.from_dict(
        {
            "english": [english for english, _ in rows],
            "translation": [pairs[language][english] for english, language in rows],
            "language": [language for _, language in rows],
        }
    )


def monolingual_texts(pairs: Pairs, count: int, seed: int) -> dict[str, list[str]]:
    """Choose up to `count` sentences of every language and of English, each language's by itself.

    They need not be translations of each other: a language without bitext has such text as well.
    """
    texts: Mapping[str, Iterable[str]] = {
        "en": {english for translations in pairs.values() for english in translations},
        **{language: set(translations.values()) for language, translations in pairs.items()},
    }
    return {
        language: sorted(sentences, key=lambda text: (_draw(seed, f"{language}\t{text}"), text))[:count]  # noqa: B023
        for language, sentences in sorted(texts.items())
    }


def _draw(seed: int, text: str) -> bytes:
    return blake2b(f"{seed}\t{text}".encode("utf-8", "surrogatepass"), digest_size=8).digest()

from __future__ import annotations

import pytest
from datasets import Dataset, IterableDataset

from optical_hf.augmentation import drop_marks, with_mark_dropout, with_retention


@pytest.mark.parametrize(
    ("text", "above", "every"),
    [
        ("Ọjọ́ mẹ́ta", "Ọjọ mẹta", "Ojo meta"),
        ("Ó wà ní Ìbàdàn.", "O wa ni Ibadan.", "O wa ni Ibadan."),
        ("e\u0301te\u0301", "ete", "ete"),  # decomposed
        ("ƙasar ɗaya", "ƙasar ɗaya", "ƙasar ɗaya"),  # letters of their own
        ("हिन्दी में", "हिन्दी में", "हिन्दी में"),
        ("كِتَاب", "كِتَاب", "كِتَاب"),
        ("Ελλάδα Й", "Ελλάδα Й", "Ελλάδα Й"),
        ("", "", ""),
    ],
)
def test_drop_marks(text, above, every):
    assert drop_marks(text) == above
    assert drop_marks(text, above_only=False) == every


def pairs(count: int) -> dict[str, list[str]]:
    rows = range(count)
    return {
        "english": [f"day {row}" for row in rows],
        "translation": [f"ọjọ́ {row}" for row in rows],
        "language": ["yo"] * count,
    }


def test_mark_dropout_takes_its_share_and_repeats_itself():
    dataset = Dataset.from_dict(pairs(2000))
    first = with_mark_dropout(dataset, 0.6, seed=3)["translation"][:]
    assert first == with_mark_dropout(dataset, 0.6, seed=3)["translation"][:]
    assert first != with_mark_dropout(dataset, 0.6, seed=4)["translation"][:]
    kinds = {kind: sum(text.startswith(kind) for text in first) / 2000 for kind in ("ọjọ́", "ọjọ ", "ojo ")}
    assert kinds["ọjọ́"] == pytest.approx(0.40, abs=0.03)
    assert kinds["ọjọ "] == pytest.approx(0.45, abs=0.03)
    assert kinds["ojo "] == pytest.approx(0.15, abs=0.03)
    stream = IterableDataset.from_generator(lambda: iter(dataset))
    assert [row["translation"] for row in with_mark_dropout(stream, 0.6, seed=3)] == first
    assert with_mark_dropout(dataset, 0.0) is dataset


def test_retention_adds_english_beside_the_bitext():
    dataset = Dataset.from_dict(pairs(2000))
    added = with_retention(dataset, 0.25, seed=1)
    english = added.filter(lambda row: row["language"] == "en")
    assert len(english) / 2000 == pytest.approx(0.25, abs=0.03)
    assert english["english"][:] == english["translation"][:]
    assert added.filter(lambda row: row["language"] == "yo").to_dict() == dataset.to_dict()
    assert len(with_retention(dataset, 2.0)) == 6000
    stream = IterableDataset.from_generator(lambda: iter(dataset))
    assert [row for row in with_retention(stream, 0.25, seed=1)] == added.to_list()

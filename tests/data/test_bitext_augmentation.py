from __future__ import annotations

import pytest
from datasets import Dataset, IterableDataset

from optical_hf.data.bitext_augmentation import drop_marks, with_concatenation, with_mark_dropout, with_retention


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


def numbered(*languages: str) -> Dataset:
    return Dataset.from_list(
        [
            {"english": f"E{row}.", "translation": f"{language}{row}.", "language": language}
            for row, language in enumerate(languages)
        ]
    )


@pytest.mark.parametrize(
    ("seed", "groups"),
    [
        (1, ["sw0. sw2. sw3.", "yo1. yo4.", "sw5.", "yo6. yo7."]),  # 3, 2, 3 (of which there is 1), 2
        (2, ["sw0. sw2.", "yo1.", "sw3. sw5.", "yo4. yo6. yo7."]),  # 2, 1, 3 (of which there are 2), 3
    ],
)
def test_concatenation_joins_pairs_of_a_language_in_their_order(seed, groups):
    joined = with_concatenation(numbered("sw", "yo", "sw", "sw", "yo", "sw", "yo", "yo"), 3, seed)
    assert joined["translation"][:] == groups
    assert joined["language"][:] == [text[:2] for text in groups]
    assert joined["english"][:] == [text.replace("sw", "E").replace("yo", "E") for text in groups]


def test_concatenation_of_many_pairs():
    dataset = numbered(*["sw", "ha"] * 1250)
    joined = with_concatenation(dataset, 3, seed=5)
    for language in ("sw", "ha"):
        rows = [row for row in joined if row["language"] == language]
        sentences = [row for row in dataset if row["language"] == language]
        for column in ("english", "translation"):  # nothing is lost, and nothing moved
            assert " ".join(row[column] for row in rows) == " ".join(row[column] for row in sentences)
    lengths = [len(row["english"].split()) for row in joined]
    assert [len(row["translation"].split()) for row in joined] == lengths
    for length in (1, 2, 3):
        assert lengths.count(length) / len(lengths) == pytest.approx(1 / 3, abs=0.05)
    for text in joined["english"]:  # a thousand pairs at a time
        assert len({int(number) // 1000 for number in text.replace("E", "").replace(".", "").split()}) == 1
    streams = (IterableDataset.from_generator(lambda: iter(dataset)), dataset.to_iterable_dataset())
    for stream in streams:
        assert list(with_concatenation(stream, 3, seed=5)) == joined.to_list()
    assert with_concatenation(dataset, 3, seed=6).to_list() != joined.to_list()
    assert with_concatenation(dataset, 1) is dataset

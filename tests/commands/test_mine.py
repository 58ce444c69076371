"""`optical-hf mine`: BM25, a TREC run and a model's own search find the negatives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from optical_hf import OpticalTeacher, maxsim
from optical_hf.commands import mine
from optical_hf.data.training_rows import load_training_rows
from optical_hf.retrieval.negatives import ModelScores

PASSAGES = {
    "d0": "she wrote the book",
    "d1": "it rains today",
    "d2": "the book rains",
    "d3": "a book",
    "d4": "who wrote",
}
TOPICS = {"q0": "who wrote the book", "q1": "it rains today leo"}


@pytest.fixture
def words(tmp_path: Path, monkeypatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "topics").write_text("".join(f"{qid}\t{text}\n" for qid, text in TOPICS.items()))
    lines = [json.dumps({"docid": docid, "text": text}) + "\n" for docid, text in PASSAGES.items()]
    (tmp_path / "passages").write_text("".join(lines))
    (tmp_path / "qrels").write_text("q0 0 d0 1\nq0 0 d4 1\nq1 0 d1 1\n")
    return ["--rows", "en=topics,passages,qrels", "--passages=passages", "--output=mined", "--negatives=2"]


def mined() -> list[list[str]]:
    return load_training_rows({"en": "mined"}).dataset["docids"][:]


def test_by_bm25(words, capsys):
    mine.main([*words, "--first_stage=bm25"])
    assert mined() == [["d0", "d2", "d3"], ["d4", "d2", "d3"], ["d1", "d2"]]
    assert capsys.readouterr().out == (
        "mined holds 3 rows with 5 mined negatives; 1 rows have less than 2. Candidates left out: 5 known positives, "
        "0 likely positives, 0 missing, 0 empty, 0 repeated.\n"
    )
    assert sorted(path.name for path in Path().iterdir()) == ["mined", "mined.bm25", "passages", "qrels", "topics"]


def test_by_character_grams_across_languages(words):
    Path("topics").write_text("q0\tnani wrote\nq1\trains leo\n")  # words and names that both languages have
    mine.main(["--rows", "sw-en=topics,passages,qrels", *words[2:], "--first_stage=bm25-char4"])
    assert load_training_rows({"sw-en": "mined"}).dataset["docids"][:] == [["d0"], ["d4"], ["d1", "d2"]]
    assert Path("mined.bm25-char4").is_dir()


def test_by_a_run(words, capsys):
    Path("run").write_text("q0 Q0 d1 1 9.0 x\nq0 Q0 d4 2 8.0 x\nq1 Q0 d3 1 1.0 x\nq1 Q0 d9 2 0.5 x\n")
    mine.main([*words, "--first_stage=run", "--topics=topics"])
    assert mined() == [["d0", "d1"], ["d4", "d1"], ["d1", "d3"]]
    assert "2 known positives, 0 likely positives, 1 missing" in capsys.readouterr().out


@pytest.mark.parametrize("pooled", [False, True])
def test_by_a_model(words, tiny_encoder, pooled):
    mine.main([*words, f"--model={tiny_encoder}", f"--pooled={pooled}", "--margin=9"])
    teacher = OpticalTeacher.from_checkpoint(tiny_encoder)
    sides = [(list(TOPICS.values()), "query"), (list(PASSAGES.values()), "document")]
    if pooled:
        queries, documents = (teacher.encode_pooled(*side) for side in sides)
        scores = queries @ documents.T
    else:
        scores = maxsim(*(teacher.encode_tokens(*side) for side in sides))
    rows = load_training_rows({"en": "mined"})
    assert rows.scored_by == ModelScores(teacher, teacher, pooled=pooled).fingerprint()
    for row, (query, positives) in zip(rows.dataset, [(0, "04"), (0, "04"), (1, "1")], strict=True):
        ranked = [f"d{number}" for number in scores[query].argsort(descending=True).tolist()]
        assert row["docids"][1:] == [docid for docid in ranked if docid[1] not in positives][:2]
        expected = [scores[query, int(docid[1])].item() for docid in row["docids"]]
        assert row["scores"] == pytest.approx(expected, abs=1e-5)
    assert Path("mined.index/index.json").is_file()


def test_wrong_arguments(words):
    Path("elsewhere").write_text("q9\tmvua leo\n")
    Path("found").write_text("q9 Q0 d1 1 9.0 x\n")
    for more, problem in {
        ("--first_stage=found", "--topics=elsewhere"): "found holds results of none of the rows' queries",
        ("--first_stage=run", "--topics=topics"): "--first_stage: there is no file run",
        ("--first_stage=found", "--topics=none"): "--topics: there is no file none",
        ("--first_stage=run",): "--topics and a TREC run as --first_stage go together",
        ("--first_stage=bm25", "--topics=topics"): "--topics and a TREC run as --first_stage go together",
        ("--single=true",): "--single keeps pooled vectors only",
    }.items():
        with pytest.raises((ValueError, FileNotFoundError), match=problem):
            mine.main([*words, *more])
    for name, value, problem in (
        ("--rows", "en-sw=topics,passages,qrels", "Words find nothing across languages"),
        ("--passages=passages", "--passages=none", "--passages: there is no file none"),
        ("--output=mined", "--output=no/mined", "--output no/mined: its folder is not there"),
    ):
        place = words.index(name)
        changed = [*words[: place + (name == "--rows")], value, *words[place + 1 + (name == "--rows") :]]
        with pytest.raises((ValueError, FileNotFoundError), match=problem):
            mine.main([*changed, "--first_stage=bm25"])
    with pytest.raises(ValueError, match="--rows has en and sw: give the rows of one language pair"):
        mine.main(["--rows", "en=x", "sw=y", *words[2:], "--first_stage=bm25"])
    assert sorted(path.name for path in Path().iterdir()) == ["elsewhere", "found", "passages", "qrels", "topics"]

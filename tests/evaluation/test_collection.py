"""What judgements and first stages name that is not in the collection: counted, named, and refused."""

from __future__ import annotations

import pytest
import torch

from optical_hf import OpticalStudent, OpticalTeacher, RetrievalSet
from optical_hf.evaluation.collection import check_collection, evaluate_collection
from optical_hf.evaluation.gains import load_questions
from optical_hf.models.modeling_optical import OpticalModel
from optical_hf.retrieval.candidates import first_stage

TOPICS = {"q1": "who wrote the book", "q2": "mvua inanyesha leo", "q3": "kitabu hicho"}
PASSAGES = {f"d{number}": text for number, text in enumerate(["the book", "it rains", "a book", "she wrote"], start=1)}
QRELS = {"q1": {"d4": 1, "d2": 0}, "q2": {"d2": 1}, "q3": {"d3": 2, "d1": 1}}
OTHER_IDS = {qid: {f"doc-{docid}": relevance for docid, relevance in judged.items()} for qid, judged in QRELS.items()}
HALF = {qid: {f"x{docid}" if docid > "d2" else docid: relevance for docid, relevance in judged.items()}
        for qid, judged in QRELS.items()}  # fmt: skip
CANDIDATES = {qid: ["en#d1", "d2", "en#d3", "d4"] for qid in TOPICS}
NO_CANDIDATES = {qid: ["en#d1", "en#d3"] for qid in TOPICS}
TWO_LOST = "2 of the 4 relevant judgements name a passage that is not there (such as 'xd4')"
SIX_LOST = "6 of the 12 candidates name a passage that is not there (such as 'en#d1')"


@pytest.fixture(scope="module")
def teacher(tiny_encoder) -> OpticalTeacher:
    return OpticalTeacher.from_checkpoint(tiny_encoder)


@pytest.fixture
def no_passage_encoded(monkeypatch):
    encode = OpticalModel._encode

    def refuse(model, texts, role, *arguments, **options):
        assert role == "query", "a passage was encoded"
        return encode(model, texts, role, *arguments, **options)

    monkeypatch.setattr(OpticalModel, "_encode", refuse)


def stream():
    yield from PASSAGES.items()


@pytest.mark.parametrize(
    "topics, qrels, candidates, expected, messages",
    [
        (TOPICS, QRELS, None, {"queries": 0, "relevant_judgements": 0}, []),
        (TOPICS, HALF, None, {"queries": 0, "relevant_judgements": 2}, [f"{TWO_LOST}."]),
        (TOPICS, QRELS, CANDIDATES, {"queries": 0, "relevant_judgements": 0, "candidates": 6}, [f"{SIX_LOST}."]),
        (
            {"q1": "who"},
            HALF,
            {"q1": ["d4", "d9"], "q2": ["d8"]},
            {"queries": 2, "relevant_judgements": 2, "candidates": 1},
            [
                "2 of the 3 judged queries are not among the topics (such as 'q2').",
                f"{TWO_LOST}.",
                "1 of the 2 candidates name a passage that is not there (such as 'd9').",
            ],
        ),
    ],
)
def test_what_is_not_there_is_counted_and_named(topics, qrels, candidates, expected, messages, caplog):
    assert check_collection(topics, qrels, stream(), candidates) == expected
    assert caplog.messages == messages
    if messages:
        with pytest.raises(ValueError) as error:
            check_collection(topics, qrels, stream(), candidates, strict=True)
        assert str(error.value) == messages[0][:-1] + ", which `strict` refuses."
    else:
        assert check_collection(topics, qrels, stream(), candidates, strict=True) == expected


REFUSED = [
    (
        TOPICS,
        OTHER_IDS,
        None,
        r"4 of the 4 relevant judgements name a passage .* \(such as 'doc-d4'\): do these files",
    ),
    (TOPICS, QRELS, NO_CANDIDATES, r"6 of the 6 candidates name a passage that is not there \(such as 'en#d1'\): do"),
    (TOPICS, QRELS, {"q1": [], "q9": ["d1"]}, "no candidate for any judged query: the first stage found nothing"),
    ({"x": "who"}, QRELS, None, r"3 of the 3 judged queries are not among the topics \(such as 'q1'\): do these"),
    (TOPICS, {"q1": {"d1": 0}, "q2": {"d2": -1}}, None, "no judgement is above 0: nothing is relevant"),
]


@pytest.mark.parametrize("topics, qrels, candidates, message", REFUSED)
def test_a_collection_that_has_none_of_it_is_refused(topics, qrels, candidates, message, teacher, tmp_path):
    with pytest.raises(ValueError, match=message):
        check_collection(topics, qrels, stream(), candidates)
    with pytest.raises(ValueError, match=message):
        evaluate_collection(teacher, teacher, topics, qrels, stream(), tmp_path / "index", candidates=candidates)
    assert (
        not (tmp_path / "index" / "index.json").exists()
        or "shards" not in (tmp_path / "index" / "index.json").read_text()
    )


def test_relevant_passages_that_are_all_lost_while_others_are_there(teacher, tmp_path, caplog):
    """The files belong together, and all scores are 0: a warning; an error if asked to be strict."""
    qrels = {"q1": {"x1": 1, "d2": 0}, "q2": {"x5": 1}, "q3": {"x3": 1}}
    lost = "3 of the 3 relevant judgements name a passage that is not there (such as 'x1')"
    assert check_collection(TOPICS, qrels, stream()) == {"queries": 0, "relevant_judgements": 3}
    made = RetrievalSet("mine", dict(TOPICS), PASSAGES, qrels, "sw", "en")
    assert made.qrels == qrels and caplog.messages == [f"{lost}.", f"Retrieval set 'mine': {lost}."]
    measured = evaluate_collection(teacher, teacher, TOPICS, qrels, stream(), tmp_path)
    assert set(measured["maxsim"].scores.values()) == {0.0}
    with pytest.raises(ValueError) as error:
        check_collection(TOPICS, qrels, stream(), strict=True)
    assert str(error.value) == f"{lost}, which `strict` refuses."
    del qrels["q1"]["d2"]
    with pytest.raises(ValueError) as error:
        check_collection(TOPICS, qrels, stream())
    assert str(error.value) == f"{lost}: do these files belong together?"


def test_an_evaluation_counts_while_it_reads(teacher, tmp_path, caplog):
    measured = evaluate_collection(
        teacher, teacher, TOPICS, HALF, stream(), tmp_path / "some", candidates=CANDIDATES, shard_size=1
    )
    missing = {"queries": 0, "relevant_judgements": 2, "candidates": 6}
    assert [each.missing for each in measured.values()] == [missing] * 2
    assert [text for text in caplog.messages if "not there" in text] == [f"{TWO_LOST}.", f"{SIX_LOST}."]
    assert {qid: set(found) for qid, found in measured["maxsim"].run.items()} == dict.fromkeys(TOPICS, {"d2", "d4"})
    caplog.clear()
    again = evaluate_collection(
        teacher,
        teacher,
        TOPICS,
        HALF,
        stream(),
        tmp_path / "some",
        candidates=CANDIDATES,
        shard_size=1,
        missing=missing,
    )
    assert again == measured
    assert not [text for text in caplog.messages if "not there" in text]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"memory_gb": 0}, r"memory_gb must be a number above 0 and at most 1,000,000 \(GB\), got 0"),
        ({"memory_gb": float("nan")}, "memory_gb must be a number above 0 .* got nan"),
        (
            {"memory_gb": 1e-5},
            r"memory_gb=1e-05 is too little: the results .*Give at least 0\.00024",
        ),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"shard_size": -3}, "shard_size must be at least 1, got -3"),
        ({"dim": 33}, "dim is 33; the model's vectors have 32 dimensions"),
        ({"pool_factor": 0}, "pool_factor must be at least 1, got 0"),
    ],
)
def test_numbers_are_refused_before_a_passage_is_encoded(teacher, tmp_path, options, message, no_passage_encoded):
    with pytest.raises(ValueError, match=message):
        evaluate_collection(teacher, teacher, TOPICS, QRELS, stream(), tmp_path, **options)


def test_queries_that_are_nan_are_named_before_a_passage_is_encoded(tiny_encoder, tmp_path, no_passage_encoded):
    student = OpticalStudent.from_checkpoint(tiny_encoder)
    with torch.no_grad():
        student.backbone.embeddings.word_embeddings.weight[student.tokenizer.convert_tokens_to_ids("leo")] = torch.nan
    with pytest.raises(ValueError, match="Query 'q2' has NaN or infinity in its vectors"):
        evaluate_collection(student, student, TOPICS, QRELS, stream(), tmp_path)


def test_models_that_do_not_fit_are_named_before_a_passage_is_encoded(tiny_encoder, tmp_path, no_passage_encoded):
    teacher = OpticalTeacher.from_checkpoint(tiny_encoder)
    student = OpticalStudent.from_checkpoint(tiny_encoder, projection_dim=8)
    with pytest.raises(ValueError, match="the queries' model have size 8, those of the passages' model 32"):
        evaluate_collection(student, teacher, TOPICS, QRELS, stream(), tmp_path)


def test_retrieval_sets_of_judgements_that_do_not_belong_to_them(caplog):
    def make(topics, qrels, strict=False):
        return RetrievalSet("mine", dict(topics), PASSAGES, qrels, "sw", "en", strict)

    assert make(TOPICS, QRELS, strict=True) == make(TOPICS, QRELS)
    assert caplog.messages == []
    make(TOPICS, HALF)
    assert caplog.messages == [f"Retrieval set 'mine': {TWO_LOST}."]
    with pytest.raises(ValueError) as error:
        make(TOPICS, HALF, strict=True)
    assert str(error.value) == f"Retrieval set 'mine': {TWO_LOST}, which `strict` refuses."
    for topics, qrels, candidates, message in REFUSED:
        if candidates is None:
            with pytest.raises(ValueError, match=f"Retrieval set 'mine': {message}"):
                make(topics, qrels)


@pytest.mark.parametrize("depth", [0, -1, 2.0])
def test_depths_that_are_none(depth, tmp_path):
    with pytest.raises(ValueError, match=f"depth must be .*at least 1, got {depth}"):
        first_stage("bm25", TOPICS, stream, "en", tmp_path, depth)


@pytest.mark.parametrize("most, kept", [(1, ["q1"]), (2, ["q1", "q2"]), (9, ["q1", "q2", "q3"]), (None, list(TOPICS))])
def test_the_first_questions(tmp_path, most, kept):
    files = write_questions(tmp_path, QRELS)
    [questions] = load_questions(**files, english_topics={}, seen=["sw"], max_queries=most)
    assert list(questions.own.topics) == list(questions.own.qrels) == kept


@pytest.mark.parametrize("most", [0, -1, 1.5])
def test_numbers_of_questions_that_are_none(tmp_path, most):
    with pytest.raises(ValueError, match=f"--max_queries must be .*at least 1, got {most}"):
        load_questions(**write_questions(tmp_path, QRELS), english_topics={}, seen=["sw"], max_queries=most)
    with pytest.raises(ValueError, match="--max_queries must be"):  # with no questions at all, too
        load_questions(None, {}, {}, {}, [], max_queries=most)


def test_questions_on_other_passages_are_refused(tmp_path):
    files = write_questions(tmp_path, OTHER_IDS)
    with pytest.raises(ValueError, match="Retrieval set 'sw': 4 of the 4 relevant judgements name a passage"):
        load_questions(**files, english_topics={}, seen=["sw"])


def test_questions_that_are_lost_are_warned_of_once_or_refused(tmp_path, caplog):
    files = write_questions(tmp_path, HALF)
    options = {"english_topics": dict(files["topics"]), "seen": ["sw"]}
    [questions] = load_questions(**files, **options)
    assert (questions.english.name, questions.english.query_language) == ("sw_in_english", "en")
    assert questions.english.topics == questions.own.topics and questions.english.passages is questions.own.passages
    assert caplog.messages == [f"Retrieval set 'sw': {TWO_LOST}."]
    with pytest.raises(ValueError, match=r"Retrieval set 'sw': 2 of the 4 .* which `strict` refuses"):
        load_questions(**files, **options, strict=True)


def write_questions(folder, qrels) -> dict[str, object]:
    (folder / "topics.tsv").write_text("".join(f"{qid}\t{text}\n" for qid, text in TOPICS.items()))
    lines = [f"{qid} 0 {docid} {value}\n" for qid, judged in qrels.items() for docid, value in judged.items()]
    (folder / "qrels.tsv").write_text("".join(lines))
    (folder / "passages.jsonl").write_text(
        "".join(f'{{"docid": "{docid}", "text": "{text}"}}\n' for docid, text in PASSAGES.items())
    )
    return {
        "passages": str(folder / "passages.jsonl"),
        "topics": {"sw": str(folder / "topics.tsv")},
        "qrels": {"sw": str(folder / "qrels.tsv")},
    }

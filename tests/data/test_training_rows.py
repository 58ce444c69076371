"""Training rows: every source gives the same row, and what is dropped is counted and named."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optical_hf.data.training_row_checks import text_id
from optical_hf.data.training_rows import load_training_rows, parse_row_arguments, write_training_rows

TOPICS = "1\tnani aliandika\n2\tmvua leo\n"
PASSAGES = {"a": "She wrote it", "b": "It rains", "c": "A book", "d": "Today"}
QRELS = "1 0 a 2\n1 0 b 0\n2 0 b 1\n2 0 d 2\n2 0 c -1\n2 0 a 0\n"
COLUMNS = ["query", "query_language", "document_language", "passages", "scores", "positives", "docids"]


def jsonl(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def row(query: str, docids: str, positives: str, scores: list[float] | None = None, pair: str = "sw-sw") -> dict:
    """The row of passages that are named by letters."""
    texts = [PASSAGES[docid] for docid in docids]
    languages = dict(zip(("query_language", "document_language"), pair.split("-"), strict=True))
    named = {"passages": texts, "scores": scores, "positives": [*positives], "docids": [*docids]}
    return {"query": query, **languages, **named}


def counts(**others: int) -> dict[str, int]:
    reasons = ("positive_negatives", "empty_negatives", "missing_negatives", "duplicate_negatives")
    names = ("kept", "negatives", "empty", "without_positive", "missing", "duplicate", *reasons)
    return dict.fromkeys(names, 0) | others


JUDGED = [row("nani aliandika", "ab", "a"), row("mvua leo", "bca", "bd"), row("mvua leo", "dca", "bd")]


@pytest.fixture
def files(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "topics.tsv").write_text(TOPICS)
    (tmp_path / "passages.jsonl").write_text(jsonl(*({"docid": d, "text": t} for d, t in PASSAGES.items())))
    (tmp_path / "collection.tsv").write_text("".join(f"{docid}\t{text}\n" for docid, text in PASSAGES.items()))
    (tmp_path / "qrels.tsv").write_text(QRELS)
    return tmp_path


def lines(path: Path, *rows: Any) -> str:
    path.write_text(jsonl(*rows))
    return str(path)


def test_arguments():
    sources = parse_row_arguments(["swa=a.jsonl", "sw-en=t,p,q", "sw-sw = b.jsonl"])
    assert sources == {"sw": ["a.jsonl", "b.jsonl"], "sw-en": ["t,p,q"]}
    with pytest.raises(ValueError, match="--rows sw: write pair=source"):
        parse_row_arguments(["sw"])
    with pytest.raises(ValueError, match="'xx' is not a language code"):
        parse_row_arguments(["xx-en=a"])


@pytest.mark.parametrize("passages", ["passages.jsonl", "collection.tsv", "passages.jso*"])
def test_topics_passages_and_trec_judgements(files, passages):
    rows = load_training_rows({"sw": f"topics.tsv,{passages},qrels.tsv"})
    assert rows.dataset.column_names == COLUMNS
    assert rows.dataset.to_list() == JUDGED
    assert rows.counts == {"sw": counts(kept=3, negatives=5)} and rows.scored_by is None


def test_grades_and_the_most_rows_and_negatives(files):
    source = "topics.tsv,passages.jsonl,qrels.tsv"
    graded = load_training_rows({"sw": source}, min_grade=2)
    # The passage of grade 1 is neither a positive nor a negative.
    assert graded.dataset.to_list() == [JUDGED[0], row("mvua leo", "dca", "d")]
    few = load_training_rows({"sw": source}, max_rows=2)
    assert few.dataset.to_list() == JUDGED[:2] and few.counts["sw"]["kept"] == 2
    chosen = {
        load_training_rows({"sw": source}, max_negatives=1, seed=seed).dataset[1]["docids"][1] for seed in range(9)
    }
    assert chosen == {"a", "c"}
    assert load_training_rows({"sw": source}, max_negatives=0).dataset[0]["docids"] == ["a"]
    for options in ({"max_rows": 0}, {"max_negatives": -1}, {"article_query": "body"}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} is"):
            load_training_rows({"sw": source}, **options)


def test_ms_marcos_triples_of_two_languages(files):
    (files / "triples.tsv").write_text("1\ta\tb\n2\tb\tc\n1\ta\tc\n1\ta\tb\n2\td\ta\n2\td\tb\n")
    rows = load_training_rows({"sw-en": "topics.tsv,collection.tsv,triples.tsv"})
    assert rows.dataset.to_list() == [
        row("nani aliandika", "abc", "a", pair="sw-en"),
        row("mvua leo", "bc", "bd", pair="sw-en"),
        row("mvua leo", "da", "bd", pair="sw-en"),  # its negative b is a positive of the query
    ]
    expected = counts(kept=3, negatives=4, positive_negatives=1, duplicate_negatives=1)
    assert rows.counts == {"sw-en": expected}


def test_scored_triples_are_read_until_all_rows_are_full(files):
    (files / "scored.tsv").write_text("2.5\t-1\t1\ta\tb\n2\t1\t2\tb\tc\n2.5\t0.5\t1\ta\tc\n2.5\tno\t1\ta\td\n")
    source = "topics.tsv,collection.tsv,scored.tsv"
    rows = load_training_rows({"sw": source}, max_rows=1, max_negatives=2)
    assert rows.dataset.to_list() == [row("nani aliandika", "abc", "a", [2.5, -1.0, 0.5])]
    with pytest.raises(ValueError, match="scored.tsv:4: the score 'no' is not a finite number"):
        load_training_rows({"sw": source})
    (files / "scored.tsv").write_text("2.5\t-1\t1\ta\tb\n2.4\t0\t1\ta\tc\n")
    with pytest.raises(ValueError, match="scored.tsv:2: the positive 'a' has another score than in line 1"):
        load_training_rows({"sw": source})


def test_what_is_in_no_collection_is_counted_and_named(files, caplog):
    (files / "more.tsv").write_text(QRELS + "1 0 x 1\n1 0 y 0\n9 0 a 1\n9 0 b 1\n")
    rows = load_training_rows({"sw": "topics.tsv,passages.jsonl,more.tsv"})
    assert rows.dataset.to_list() == [row("nani aliandika", "ab", "ax"), *JUDGED[1:]]
    assert rows.counts["sw"] == counts(kept=3, negatives=5, missing=2, missing_negatives=1)
    assert caplog.messages == [
        "Training rows sw: 3 of 5 kept, with 5 negatives; dropped: 2 missing, 1 missing negatives.\n"
        "  more.tsv:9: the query '9' is not among the topics\n"
        "  more.tsv:1 (query 1): the negative 'y' is not in the collection\n"
        "  more.tsv:1 (query 1): the positive 'x' is not in the collection"
    ]
    (files / "none.tsv").write_text("1 0 x 1\n")
    with pytest.raises(ValueError, match="(?s)0 of 1 kept.*'x' is not in the collection.*No row is left"):
        load_training_rows({"sw": "topics.tsv,passages.jsonl,none.tsv"})


@pytest.mark.parametrize(
    ("judgements", "problem"),
    [
        ("1 0 a 1\n1 0 a 1\n", ":2: the document 'a' is judged twice"),
        ("1 0 a 1\n1 0 b high\n", ":2: the grade 'high' is not a whole number"),
        ("1 0 a 1\n1 b 0\n", ":2: 3 columns, where the first line has 4"),
        ("1 Q0 a 1 2.0 run\n", "line 1: .* is no judgement; a line is TREC's"),
        ("\n", "is empty: a line is TREC's"),
    ],
)
def test_malformed_judgements(files, judgements, problem):
    (files / "bad.tsv").write_text(judgements)
    with pytest.raises(ValueError, match=f"bad.tsv.*{problem}" if problem[0] != ":" else f"bad.tsv{problem}"):
        load_training_rows({"sw": "topics.tsv,passages.jsonl,bad.tsv"})


def test_malformed_collections(files):
    for passages, problem in {
        '{"docid": "a"}\n': "bad, line 1: `text`",
        "a\tx\nb\n": "bad, line 2: no tab",
        "a\tx\na\ty\n": "the document id 'a' is there twice in the collection",
        "": "bad is empty",
        '{"docid": "a b", "text": "x"}\n': "bad, line 1: the document id 'a b'",
    }.items():
        (files / "bad").write_text(passages)
        with pytest.raises(ValueError, match=problem):
            load_training_rows({"sw": "topics.tsv,bad,qrels.tsv"})
    with pytest.raises(FileNotFoundError, match="none.tsv: no such file, given in"):
        load_training_rows({"sw": "topics.tsv,none.tsv,qrels.tsv"})


def test_articles_are_queries_of_articles(files):
    articles = [
        {"docid": "1", "title": "Kitabu", "text": "Hicho ni kitabu. Kina kurasa."},
        {"docid": "2", "title": "雨", "text": "今日は雨。寒い。"},
    ]
    source = f"{lines(files / 'articles.jsonl', *articles)},passages.jsonl,links.tsv"
    (files / "links.tsv").write_text("1 0 c 3\n1 0 a 2\n2 0 b 3\n")
    titles = load_training_rows({"sw-en": source}, min_grade=3).dataset.to_list()
    assert titles == [row("Kitabu", "c", "c", pair="sw-en"), row("雨", "b", "b", pair="sw-en")]
    first = load_training_rows({"sw-en": source}, article_query="first_sentence").dataset["query"]
    assert list(first) == ["Hicho ni kitabu.", "Hicho ni kitabu.", "今日は雨。"]


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_beir(files, ending):
    def write(name: str, text: str) -> None:
        (files / "beir" / "qrels").mkdir(parents=True, exist_ok=True)
        (files / "beir" / f"{name}{ending}").write_bytes(gzip.compress(text.encode()) if ending else text.encode())

    write(
        "queries.jsonl",
        jsonl({"_id": "1", "text": "nani aliandika", "metadata": {}}, {"_id": "2", "text": "mvua leo"}),
    )
    with pytest.raises(FileNotFoundError, match="beir lacks corpus.jsonl"):
        load_training_rows({"sw": "beir"})
    write("corpus.jsonl", jsonl(*({"_id": docid, "title": "", "text": text} for docid, text in PASSAGES.items())))
    judged = ["\t".join(line.split()[::2] + line.split()[3:]) for line in QRELS.splitlines()]
    write("qrels/train.tsv", "query-id\tcorpus-id\tscore\n" + "\n".join(judged) + "\n")
    assert load_training_rows({"sw": "beir"}).dataset.to_list() == JUDGED


def test_miracl(files):
    for name, part in {"train.topics.tsv": TOPICS, "train.qrels.tsv": QRELS, "dev.topics.tsv": TOPICS}.items():
        (files / f"sw.{name}").write_text(part)
    (files / "sw.dev.qrels.tsv").write_text("1 0 c 1\n")
    (files / "sw.passages.jsonl").write_bytes((files / "passages.jsonl").read_bytes())
    assert load_training_rows({"sw": f"miracl:train:{files}"}).dataset.to_list() == JUDGED
    assert load_training_rows({"sw": f"miracl:train:{files}"}, max_rows=1).dataset.to_list() == JUDGED[:1]
    dev = load_training_rows({"sw": f"miracl:dev:{files}"}).dataset.to_list()
    assert dev == [row("nani aliandika", "c", "c")]
    with pytest.raises(ValueError, match="queries and passages of one language, not 'sw-en'"):
        load_training_rows({"sw-en": f"miracl:train:{files}"})


A, B, C = (PASSAGES[docid] for docid in "abc")
SCORED = {"scores": [2.0, 1.0, 0.5]}


@pytest.mark.parametrize(
    "line",
    [
        {
            "query": "q",
            "positive": A,
            "negatives": [B, C],
            **SCORED,
            "query_language": "swa",
            "document_language": "sw",
        },
        {"query": "q", "positives": [A], "negatives": [B, C], **SCORED},
        {"query": "q", "pos": [A], "neg": [B, C], "pos_scores": [2], "neg_scores": [1, 0.5], "prompt": "x"},
        {"anchor": "q", "positive": A, "negative_1": B, "negative_2": C, **SCORED},
        {"query": "q", "positive": A, "negative_10": C, "negative": B, **SCORED},
    ],
)
def test_rows_in_json_lines(tmp_path, line):
    rows = load_training_rows({"sw": lines(tmp_path / "rows", line)})
    a, b, c = map(text_id, (A, B, C))
    named = {"passages": [A, B, C], "scores": [2.0, 1.0, 0.5], "positives": [a], "docids": [a, b, c]}
    assert rows.dataset.to_list() == [{"query": "q", "query_language": "sw", "document_language": "sw", **named}]
    assert rows.counts == {"sw": counts(kept=1, negatives=2)}


def test_tevatrons_rows_have_ids_and_titles(tmp_path):
    passages = [{"docid": docid, "title": docid.upper() * (docid == "a"), "text": PASSAGES[docid]} for docid in "abc"]
    line = {"query_id": "1", "query": "q", "positive_passages": passages[:2], "negative_passages": passages[2:]}
    rows = load_training_rows({"sw": lines(tmp_path / "rows", line)}).dataset.to_list()
    assert [(each["passages"], each["docids"], each["positives"]) for each in rows] == [
        (["A. She wrote it", "A book"], ["a", "c"], ["a", "b"]),
        (["It rains", "A book"], ["b", "c"], ["a", "b"]),
    ]
    assert rows[0]["scores"] is None


def test_the_hash_of_a_text_is_that_of_its_normal_form():
    assert text_id("ọ́ leo") == text_id(" o\u0323\u0301\u200b  leo ") == "28028d94076bbb61"
    assert text_id("leo") != text_id("Leo")


def test_what_is_dropped_is_counted_and_named(tmp_path, caplog):
    rows = [
        {"query": " \u200b", "positive": A},
        {"query": "q", "positives": [], "negatives": [B]},
        {"query": "q", "positives": [A, "", C], "negatives": [B, "", f" {A} ", B]},
        {"query": "q", "positive": A, "negatives": []},
        {"query": "r", "positive": B, "negatives": [C]},
        {"query": "r", "positive": C, "negatives": [A]},
    ]
    loaded = load_training_rows({"sw": lines(tmp_path / "rows", *rows)})
    assert [(each["query"], each["passages"]) for each in loaded.dataset] == [
        ("q", [A, B]), ("q", [C, B]), ("r", [B]), ("r", [C, A]),
    ]  # fmt: skip
    assert loaded.dataset[2]["positives"] == loaded.dataset[3]["positives"] == [text_id(B), text_id(C)]
    # The empty negative is the same text as an empty positive.
    dropped = {"positive_negatives": 3, "duplicate_negatives": 1}
    assert loaded.counts["sw"] == counts(kept=4, negatives=3, empty=2, without_positive=1, duplicate=1, **dropped)
    named = [line.strip().split("rows:")[1] for line in caplog.messages[0].splitlines()[1:-1]]
    assert named[0] == "1: the query is empty" and named[1] == "2: no positive passage"
    assert named[-1] == "4: query and positive are there before"
    assert caplog.messages[0].endswith(
        f"the query 'r': the negative '{text_id(C)}' is a positive of it in another row"
    )


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("[1]", "a list, not an object"),
        ('{"query": "q"}', r"the keys are \['query'\]; write 'query'"),
        ('{"positive": "a"}', "no 'query'"),
        ('{"query": 1, "positive": "a"}', "'query' is 1, not a text"),
        ('{"query": "q", "positive": "a", "positives": ["b"]}', "both 'positive' and 'positives'"),
        ('{"query": "q", "positive": "a", "negatives": [], "negative": "b"}', "both 'negatives' and 'negative'"),
        ('{"query": "q", "positive": "a", "negatives": "b"}', "'negatives' is 'b', not a list"),
        ('{"query": "q", "pos": ["a"], "neg": [null]}', "'neg' holds None, not only texts"),
        ('{"query": "q", "positive": "a", "scores": [1, 2]}', "2 'scores' for 1 positive and 0 negative passages"),
        ('{"query": "q", "pos": ["a"], "neg": ["b"], "pos_scores": [1]}', "1 'pos_scores' and 'neg_scores' for 1"),
        ('{"query": "q", "positive": "a", "scores": [NaN]}', "nan in 'scores' is not a finite number"),
        ('{"query": "q", "positive": "a", "scores": [1' + 400 * "0" + "]}", "0 in 'scores' is not a finite number"),
        ('{"query": "q", "positive": "a", "scores": [true]}', "True in 'scores' is not a finite number"),
        ('{"query": "q", "positive": "a", "docids": ["1", "2"]}', "2 'docids' for 1 passages"),
        ('{"query": "q", "positive": "a", "docids": [1]}', "the document id 1 must be a string"),
        ('{"query": "q", "positive": "a", "query_language": "yo"}', "'query_language' is 'yo', but .* with 'sw'"),
        ('{"query": "q", "positive_passages": ["a"]}', "'positive_passages' holds 'a', not an object"),
        ('{"query": "q"', "not JSON"),
    ],
)
def test_malformed_rows_are_named(tmp_path, line, problem):
    (tmp_path / "rows").write_text(jsonl({"query": "q", "positive": "a"}) + line + "\n")
    with pytest.raises(ValueError, match=f"1 malformed line in the training rows; .*\n.*rows:2: .*{problem}"):
        load_training_rows({"sw": tmp_path / "rows"})
    with pytest.raises(ValueError, match=f"rows:2: .*{problem}"):
        list(load_training_rows({"sw": tmp_path / "rows"}, streaming=True).dataset)


def test_half_a_character_becomes_a_whole_one(tmp_path, caplog):
    (tmp_path / "rows").write_text('{"query": "q", "positive": "a\\ud83d"}\n')
    assert load_training_rows({"sw": tmp_path / "rows"}).dataset[0]["passages"] == ["a\ufffd"]
    assert f"became U+FFFD: 1, the first at {tmp_path}/rows:1." in caplog.text


def test_scores_are_those_of_one_model(tmp_path):
    def scored(name: str, **more: Any) -> str:
        return lines(tmp_path / name, {"query": name, "positive": A, "negatives": [B], **more})

    first = scored("first", scores=[1.0, 0.0], scored_by="x")
    plain = scored("plain")
    loaded = load_training_rows({"sw": [first, plain], "te": scored("same", scores=[0, 1], scored_by="x")})
    assert loaded.scored_by == "x" and loaded.dataset["scores"][:] == [[1.0, 0.0], None, [0.0, 1.0]]
    for other, name in (({"scored_by": "y"}, "'y'"), ({}, "a model without a name")):
        with pytest.raises(ValueError, match=f"first:1 are by 'x', those at .*second:1 by {name}"):
            load_training_rows({"sw": first, "te": scored("second", scores=[1, 0], **other)})


def test_a_stream_gives_the_same_rows_at_every_pass(files):
    source = "topics.tsv,passages.jsonl,qrels.tsv"
    more = lines(files / "rows.jsonl", {"query": "q", "positive": A}, {"query": "q", "positive": A})
    rows = load_training_rows({"sw": source, "sw-en": more}, streaming=True)
    assert rows.counts == {"sw": counts(), "sw-en": counts()}
    for _ in range(2):
        listed = list(rows.dataset)
        assert [each for each in listed if each["document_language"] == "sw"] == JUDGED
        assert listed[1]["document_language"] == "en" and len(listed) == 4
        assert rows.counts == {"sw": counts(kept=3, negatives=5), "sw-en": counts(kept=1, duplicate=1)}


def test_sources_that_are_none(files):
    with pytest.raises(FileNotFoundError, match="none.jsonl: no such file or folder; give JSON lines"):
        load_training_rows({"sw": "none.jsonl"})
    with pytest.raises(ValueError, match="topics.tsv: its first line is no JSON object"):
        load_training_rows({"sw": "topics.tsv"})
    with pytest.raises(ValueError, match="No source given for the language pair 'sw'"):
        load_training_rows({"sw": []})
    with pytest.raises(ValueError, match="No training rows given"):
        load_training_rows({})


def test_written_rows_carry_ids_and_the_name_of_the_scorer(files):
    (files / "scored.tsv").write_text("2.5\t-1\t1\ta\tb\n2\t1\t2\tb\tc\n2\t1\t2\td\tc\n")
    rows = load_training_rows({"sw": "topics.tsv,passages.jsonl,scored.tsv"})
    write_training_rows(rows.dataset, "rows.jsonl", scored_by="x")
    assert json.loads((files / "rows.jsonl").read_text().splitlines()[1]) == {
        "query": "mvua leo", "query_language": "sw", "document_language": "sw", "positive": B, "negatives": [C],
        "docids": ["b", "c"], "positive_docids": ["b", "d"], "scores": [2.0, 1.0], "scored_by": "x",
    }  # fmt: skip
    again = load_training_rows({"sw": "rows.jsonl"})
    assert again.dataset.to_list() == rows.dataset.to_list() and again.scored_by == "x"
    broken = [rows.dataset[0], rows.dataset[0] | {"scores": [float("nan"), 0.0]}]
    with pytest.raises(ValueError):
        write_training_rows(broken, "rows.jsonl")
    assert load_training_rows({"sw": "rows.jsonl"}).dataset.to_list() == rows.dataset.to_list()
    assert len(list(files.glob(".*"))) == 0


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(["a", "b", "a ", "\u2028x"])
SCORE = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def given_row(draw) -> dict[str, Any]:
    positives, negatives = draw(st.lists(TEXT, min_size=1, max_size=2)), draw(st.lists(TEXT, max_size=3))
    size = len(positives) + len(negatives)
    scores = draw(st.none() | st.lists(SCORE, min_size=size, max_size=size))
    return {"query": draw(TEXT), "positives": positives, "negatives": negatives, "scores": scores}


@given(st.lists(given_row(), max_size=5))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_what_is_read_back_is_what_was_written(drawn: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        kept = {"query": "kept", "positive": "daima"}
        rows = load_training_rows({"sw-en": lines(path / "drawn.jsonl", kept, *drawn)})
        assert rows.counts["sw-en"]["kept"] == len(rows.dataset) >= 1
        assert rows.counts["sw-en"]["negatives"] == sum(len(each["docids"]) - 1 for each in rows.dataset)
        write_training_rows(rows.dataset, path / "written.jsonl")
        again = load_training_rows({"sw-en": path / "written.jsonl"})
        assert again.dataset.to_list() == rows.dataset.to_list()
        same = {name: rows.counts["sw-en"][name] for name in ("kept", "negatives")}
        assert again.counts["sw-en"] == counts(**same)


ROWS = jsonl(
    {"query": "q", "positive": A, "negatives": [B], "scores": [1, 0.5]}, {"query": "r", "pos": [A], "neg": []}
)
PARTS = [ROWS, TOPICS, jsonl({"_id": "1", "text": "x"}), QRELS, "1\ta\tb\n", "2.5\t1\t1\ta\tb\n"]
CONTENTS = [compress(part.encode()) for part in PARTS for compress in (bytes, gzip.compress)]


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    change = st.tuples(st.integers(0, len(content) - 1), st.binary(max_size=3), st.integers(0, 3))
    return change.map(lambda drawn: content[: drawn[0]] + drawn[1] + content[drawn[0] + drawn[2] :])


@pytest.mark.parametrize("place", ["{}", "{},passages,qrels", "topics,{},qrels", "topics,passages,{}"])
@given(content=st.sampled_from(CONTENTS).flatmap(damaged))
@settings(max_examples=120, deadline=None, derandomize=True)
def test_any_bytes_are_read_or_refused_with_the_files_name(place: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        for part, text in {"topics": TOPICS, "passages": "a\tx\nb\ty\nd\tz\n", "qrels": QRELS}.items():
            Path(name, part).write_text(text)
        Path(name, "damaged").write_bytes(content)
        source = ",".join(str(Path(name, part)) for part in place.format("damaged").split(","))
        try:
            rows = load_training_rows({"sw": source})
            assert all(len(each["passages"]) == len(each["docids"]) for each in rows.dataset)
        except ValueError as error:
            # Where the file is read but does not fit the others, its ids are named.
            assert "damaged" in str(error) or "Training rows sw: 0 of" in str(error)

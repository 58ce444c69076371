"""MIRACL from local folders of every layout, and from the Hub by way of its cache."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from optical_hf.data import miracl
from optical_hf.data.miracl import CORPUS_SHARDS, PROTOCOLS, load_miracl

# Quotation marks are text, and "NA" is no missing value.
TOPICS = {"1": '"Kusadikika" ni nini?', "2": "NA", "10#0": 'Nani "Nile'}
QRELS = {"1": {"7#0": 1, "7#1": 0}, "2": {"8#0": 1}, "10#0": {"7#0": 1}}
PASSAGES = [("7#0", "Nile", "Mto."), ("7#1", "", "Bila jina."), ("8#0", "Ziwa", '"Tana'), ("9#0", "Mwisho", "Hapa.")]
TEXTS = {"7#0": "Nile. Mto.", "7#1": "Bila jina.", "8#0": 'Ziwa. "Tana', "9#0": "Mwisho. Hapa."}
JUDGED = {docid: TEXTS[docid] for docid in ("7#0", "7#1", "8#0")}


def write_tsv(topics: Path, qrels: Path, questions=TOPICS, judgements=QRELS) -> None:
    for path in (topics, qrels):
        path.parent.mkdir(parents=True, exist_ok=True)
    topics.write_text("".join(f"{qid}\t{text}\n" for qid, text in questions.items()), encoding="utf-8")
    lines = [f"{qid}\tQ0\t{docid}\t{rel}\n" for qid, judged in judgements.items() for docid, rel in judged.items()]
    qrels.write_text("".join(lines), encoding="utf-8")


def write_corpus(folder: Path, language: str, shards: int) -> None:
    folder = folder / f"miracl-corpus-v1.0-{language}"
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        rows = [dict(zip(("docid", "title", "text"), row, strict=True)) for row in PASSAGES[shard::shards]]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"docs-{shard}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))


def write_hub_layout(topics: Path, corpus: Path, language: str = "sw", split: str = "dev") -> None:
    folder, name = topics / f"miracl-v1.0-{language}", f"miracl-v1.0-{language}-{split}.tsv"
    write_tsv(folder / "topics" / f"topics.{name}", folder / "qrels" / f"qrels.{name}")
    write_corpus(corpus, language, CORPUS_SHARDS[language])


def write_parquet(folder: Path, part: str, rows: list[dict], language: str = "sw") -> None:
    path = folder / f"{language}-{part}" / "dev-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)


def write_mteb(folder: Path, key: str = "_id", ranked: bool = False) -> None:
    texts = [{key: docid, "title": title, "text": text} for docid, title, text in PASSAGES]
    if ranked:  # MTEB's reranking corpus has no titles
        texts = [{key: row[key], "text": row["text"]} for row in texts]
        write_parquet(folder, "top_ranked", [{"query-id": "1", "corpus-ids": ["8#0", "7#0"]}])
    unjudged = {"77": "haijulikani"}
    write_parquet(folder, "corpus", texts)
    write_parquet(folder, "queries", [{key: qid, "text": text} for qid, text in (TOPICS | unjudged).items()])
    rows = [(qid, docid, rel) for qid, judged in QRELS.items() for docid, rel in judged.items()]
    write_parquet(folder, "qrels", [dict(zip(("query-id", "corpus-id", "score"), row, strict=True)) for row in rows])


def test_shards_of_the_18_languages():
    assert len(CORPUS_SHARDS) == 18
    assert sum(CORPUS_SHARDS.values()) == 222
    assert (CORPUS_SHARDS["en"], CORPUS_SHARDS["de"], CORPUS_SHARDS["sw"]) == (66, 32, 1)
    assert PROTOCOLS["judged"] == "judged pool"


@pytest.mark.parametrize(("topics", "corpus"), [(".", "."), ("miracl", "miracl-corpus")])
@pytest.mark.parametrize("language", ["sw", "te"])
def test_full_corpus_of_the_hub_layout(topics, corpus, language, tmp_path):
    write_hub_layout(tmp_path / topics, tmp_path / corpus, language)
    found = load_miracl(language, data_dir=tmp_path)
    assert (found.language, found.protocol, found.split) == (language, "full", "dev")
    assert (found.topics, found.qrels, found.candidates) == (TOPICS, QRELS, None)
    assert dict(found.iter_passages()) == TEXTS == dict(found.iter_passages())


def test_flat_layout_and_train_split(tmp_path):
    write_tsv(tmp_path / "topics.miracl-v1.0-sw-train.tsv", tmp_path / "qrels.miracl-v1.0-sw-train.tsv")
    found = load_miracl("SWA", split="train", data_dir=str(tmp_path))
    assert (found.language, found.split, found.topics, found.qrels) == ("sw", "train", TOPICS, QRELS)
    with pytest.raises(FileNotFoundError, match=r"lacks miracl-corpus-v1.0-sw/docs-0.jsonl.gz of https://huggingf"):
        next(found.iter_passages())  # to score a run, no passages are needed
    with pytest.raises(FileNotFoundError, match=r"lacks .*topics.miracl-v1.0-sw-dev.tsv of .*datasets/miracl/miracl:"):
        load_miracl("sw", data_dir=tmp_path)


def test_a_missing_shard_shows_before_the_first_passage(tmp_path):
    write_hub_layout(tmp_path, tmp_path, "te")
    (tmp_path / "miracl-corpus-v1.0-te" / "docs-1.jsonl.gz").unlink()
    with pytest.raises(FileNotFoundError, match="lacks miracl-corpus-v1.0-te/docs-1.jsonl.gz"):
        next(load_miracl("te", data_dir=tmp_path).iter_passages())


def test_judged_passages_of_the_corpus(tmp_path, caplog):
    write_hub_layout(tmp_path, tmp_path)
    found = load_miracl("sw", "judged", data_dir=tmp_path)
    assert found.protocol == "judged" and dict(found.iter_passages()) == JUDGED
    assert not caplog.records
    path = tmp_path / "miracl-v1.0-sw" / "qrels" / "qrels.miracl-v1.0-sw-dev.tsv"
    path.write_text(path.read_text() + "1 Q0 lost#3 1\n")
    found = load_miracl("sw", "judged", data_dir=tmp_path)
    for _ in range(3):  # as an evaluation does, which hears of it once
        assert dict(found.iter_passages()) == JUDGED
    assert caplog.text.count("not in the corpus") == 1
    assert "1 of the 4 judged passages are not in the corpus (such as 'lost#3')" in caplog.text


def test_pool_layout(tmp_path):
    write_tsv(tmp_path / "sw.dev.topics.tsv", tmp_path / "sw.dev.qrels.tsv")
    lines = [json.dumps({"docid": docid, "contents": text}) + "\n" for docid, text in TEXTS.items()]
    (tmp_path / "sw.passages.jsonl").write_text("".join(lines))
    found = load_miracl("sw", "judged", data_dir=tmp_path)
    assert (found.protocol, found.topics, found.qrels) == ("judged", TOPICS, QRELS)
    assert dict(found.iter_passages()) == TEXTS
    with pytest.raises(
        ValueError, match=r"sw.passages.jsonl is a pool of passages, not MIRACL's full corpus: load .*"
    ):
        load_miracl("sw", data_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="sw.train.topics.tsv is not there, but sw.passages.jsonl beside"):
        load_miracl("sw", "judged", "train", data_dir=tmp_path)


@pytest.mark.parametrize("key", ["_id", "id"])
@pytest.mark.parametrize("folder", [".", "MIRACLRetrievalHardNegatives"])
def test_hard_negatives(folder, key, tmp_path):
    write_mteb(tmp_path / folder, key)
    found = load_miracl("sw", "hard_negatives", data_dir=tmp_path)
    assert (found.protocol, found.topics, found.qrels, found.candidates) == ("hard_negatives", TOPICS, QRELS, None)
    assert dict(found.iter_passages()) == TEXTS


def test_rerank(tmp_path):
    write_mteb(tmp_path, ranked=True)
    found = load_miracl("sw", "rerank", data_dir=tmp_path)
    assert (found.protocol, found.topics, found.qrels) == ("rerank", TOPICS, QRELS)
    assert found.candidates == {"1": ["8#0", "7#0"]}
    assert dict(found.iter_passages())["7#0"] == "Mto."
    with pytest.raises(ValueError, match="is mteb/MIRACLReranking, as it has sw-top_ranked: load it .* 'rerank'"):
        load_miracl("sw", "hard_negatives", data_dir=tmp_path)


def test_damaged_parquet(tmp_path):
    write_mteb(tmp_path)
    corpus = tmp_path / "sw-corpus" / "dev-00000-of-00001.parquet"
    found = load_miracl("sw", "hard_negatives", data_dir=tmp_path)
    corpus.write_bytes(corpus.read_bytes()[:-20])
    with pytest.raises(ValueError, match="sw-corpus.*parquet: no parquet file, or one that is cut off or damaged"):
        next(found.iter_passages())
    write_parquet(tmp_path, "corpus", [{"_id": "a", "contents": "x"}])
    with pytest.raises(ValueError, match=r"sw-corpus.*parquet: no column 'text' among \['_id', 'contents'\]"):
        next(found.iter_passages())
    write_parquet(tmp_path, "corpus", [{"_id": "a", "text": "x"}, {"_id": "a", "text": "y"}])
    with pytest.raises(ValueError, match="sw-corpus.*parquet, row 2: document id 'a' is there twice"):
        list(found.iter_passages())
    write_parquet(tmp_path, "queries", [{"_id": "unknown", "text": "x"}])
    with pytest.raises(ValueError, match="sw-queries.*parquet: no row of it is of use"):
        load_miracl("sw", "hard_negatives", data_dir=tmp_path)


def test_judged_queries_without_a_topic_are_warned_of(tmp_path, caplog):
    qrels = QRELS | {"88": {"7#0": 1}, "99": {"7#0": 1}}
    write_tsv(tmp_path / "topics.miracl-v1.0-sw-dev.tsv", tmp_path / "qrels.miracl-v1.0-sw-dev.tsv", judgements=qrels)
    load_miracl("sw", data_dir=tmp_path)
    assert "MIRACL sw dev: 2 of the 5 judged queries are not among the topics (such as '88')" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"language": "ha"}, "MIRACL has no 'ha'; its languages are ar, bn, de, .*, zh"),
        ({"language": "swahili"}, "'swahili' is not a language code"),
        ({"language": "sw", "protocol": "all"}, "Unknown protocol 'all': use one of full, hard_negatives, rerank, ju"),
        ({"language": "sw", "split": "test-a"}, "split 'test-a' cannot be evaluated: only train and dev have public"),
        ({"language": "yo", "split": "train"}, "no train split in de and yo: use dev"),
        ({"language": "sw", "protocol": "rerank", "split": "train"}, "mteb/MIRACLReranking has no train split"),
        ({"language": "sw", "data_dir": ".", "revision": "main"}, "give only one of them"),
    ],
)
def test_what_miracl_lacks(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_miracl(**arguments)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder of repositories in place of the Hub's cache, and what was fetched of it."""
    fetched = []
    cache = tmp_path / "snapshots" / "abcdef"

    def hf_hub_download(repo_id, filename, *, repo_type, revision):
        fetched.append((repo_id, filename, revision))
        assert repo_type == "dataset"
        return str(cache / repo_id / filename)

    monkeypatch.setattr(miracl, "hf_hub_download", hf_hub_download)
    return cache, fetched


def test_corpus_of_the_hub_is_fetched_as_it_is_needed(hub):
    folder, fetched = hub
    write_hub_layout(folder / "miracl/miracl", folder / "miracl/miracl-corpus", "te")
    found = load_miracl("te", revision="abc", corpus_revision="def")
    assert (found.topics, found.qrels) == (TOPICS, QRELS)
    assert fetched == [
        ("miracl/miracl", "miracl-v1.0-te/topics/topics.miracl-v1.0-te-dev.tsv", "abc"),
        ("miracl/miracl", "miracl-v1.0-te/qrels/qrels.miracl-v1.0-te-dev.tsv", "abc"),
    ]
    assert found.revisions == {"miracl/miracl": "abcdef"}
    passages = found.iter_passages()
    assert next(passages) == ("7#0", "Nile. Mto.")
    assert found.revisions == {"miracl/miracl": "abcdef", "miracl/miracl-corpus": "abcdef"}
    assert fetched[2:] == [("miracl/miracl-corpus", "miracl-corpus-v1.0-te/docs-0.jsonl.gz", "def")]
    assert dict(passages) == {docid: text for docid, text in TEXTS.items() if docid != "7#0"}
    assert fetched[3:] == [("miracl/miracl-corpus", "miracl-corpus-v1.0-te/docs-1.jsonl.gz", "def")]


@pytest.mark.parametrize(
    ("protocol", "repository", "parts"),
    [
        ("hard_negatives", "mteb/MIRACLRetrievalHardNegatives", ["qrels", "queries", "corpus"]),
        ("rerank", "mteb/MIRACLReranking", ["qrels", "queries", "top_ranked", "corpus"]),
    ],
)
def test_sets_of_mteb_on_the_hub(protocol, repository, parts, hub):
    folder, fetched = hub
    write_mteb(folder / repository, ranked=protocol == "rerank")
    assert len(list(load_miracl("sw", protocol, revision="abc").iter_passages())) == 4
    assert list(dict.fromkeys(fetched)) == [
        (repository, f"sw-{part}/dev-00000-of-00001.parquet", "abc") for part in parts
    ]


def test_cached_files_need_no_network(tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    for repository in ("miracl", "miracl-corpus"):
        (tmp_path / f"datasets--miracl--{repository}" / "refs").mkdir(parents=True)
        (tmp_path / f"datasets--miracl--{repository}" / "refs" / "main").write_text(commit)
    topics, corpus = (
        tmp_path / f"datasets--miracl--{name}/snapshots/{commit}" for name in ("miracl", "miracl-corpus")
    )
    write_hub_layout(topics, corpus)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert dict(load_miracl("sw").iter_passages()) == TEXTS
    assert dict(load_miracl("sw", "judged", revision=commit, corpus_revision=commit).iter_passages()) == JUDGED
    shutil.rmtree(corpus)
    with pytest.raises(
        FileNotFoundError,
        match=r"miracl/miracl-corpus, revision main: miracl-corpus-v1.0-sw/docs-0.jsonl.gz is not in the local cache, "
        "and the Hub cannot be reached",
    ):
        next(load_miracl("sw").iter_passages())
    with pytest.raises(FileNotFoundError, match=r"HardNegatives, revision 1234: sw-qrels/.* not in the local cache"):
        load_miracl("sw", "hard_negatives", revision="1234")


RESPONSE: Any = SimpleNamespace(headers={}, request=None)


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (
            GatedRepoError("no", response=RESPONSE),
            PermissionError,
            "miracl/miracl is gated: accept its conditions at https://huggingface.co/datasets/miracl/miracl, then",
        ),
        (
            RepositoryNotFoundError("no", response=RESPONSE),
            FileNotFoundError,
            "Hub shows no dataset miracl/miracl",
        ),
        (RevisionNotFoundError("no", response=RESPONSE), FileNotFoundError, "revision main: no such branch, tag or c"),
        (LocalEntryNotFoundError("no"), FileNotFoundError, "topics.miracl-v1.0-sw-dev.tsv is not in the local cache"),
        (
            EntryNotFoundError("no"),
            FileNotFoundError,
            "revision main: no file miracl-v1.0-sw/topics/",
        ),
    ],
)
def test_what_the_hub_refuses(error, raised, message, monkeypatch):
    def hf_hub_download(*arguments, **options):
        raise error

    monkeypatch.setattr(miracl, "hf_hub_download", hf_hub_download)
    with pytest.raises(raised, match=message):
        load_miracl("sw")

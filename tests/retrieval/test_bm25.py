"""BM25: what the analysis of each language makes of a text, the scores, and the index on disk."""

from __future__ import annotations

import json
import random
import sys

import bm25s
import numpy as np
import pytest

from optical_hf.retrieval import bm25
from optical_hf.retrieval import bm25_terms as analysis
from optical_hf.retrieval.bm25 import BM25Index
from optical_hf.retrieval.bm25_terms import analyzer
from optical_hf.retrieval.candidates import bm25_index, first_stage


@pytest.mark.parametrize(
    ("language", "text", "terms"),
    [
        # The vowel signs and viramas of these scripts are combining marks, which \w does not match.
        ("te", "ఆర్మేనియా దేశంలో జిల్లాలు?", ["ఆర్మేనియా", "దేశంలో", "జిల్లాలు"]),
        ("bn", "মৌমাছি হয়।", ["মৌমাছি", "হয়"]),
        ("bn", "ক্\u200dষ", ["ক্ষ"]),
        ("mr", "नदीची लांबी किती?", ["नदीची", "लांबी", "किती"]),
        ("yo", "Ọdún wo ni wọ\u0301n", ["ọdún", "wo", "ni", "wọ\u0301n"]),
        ("sw", "Je,ziwa la \uff34\uff41\uff4e\uff41 km² 3,000?", ["je", "ziwa", "la", "tana", "km2", "3", "000"]),
        ("en", "Rivers, running; it's 'THE'", ["river", "run", "it", "s", "the"]),
        ("fi", "talossa talon", ["talo", "talo"]),
        ("ru", "реками рекой", ["рек", "рек"]),
        ("ar", "الكِتَابُ كتاب", ["كتاب", "كتاب"]),
        ("hi", "लड़कियों लड़की", ["लड़क", "लड़क"]),
        ("zh", "尼罗河长6650公里,Nile河。", ["尼罗", "罗河", "河长", "6650", "公里", "nile", "河"]),
        ("ja", "ナイル川・ｶﾞ川", ["ナイ", "イル", "ル川", "ガ川"]),
        ("ko", "나일강은 2개", ["나일", "일강", "강은", "2", "개"]),
        # A Thai letter keeps the vowel and tone marks that are written on it.
        ("th", "น้ำดื่ม Nile", ["น้\u0e4dา", "าดื่", "ดื่ม", "น้\u0e4d", "ดื่", "nile"]),
        # So it does in the other languages that part no words, whatever the language of the text around them.
        ("my", "စာဖတ်", ["စာဖ", "ဖတ်", "စာ", "တ်"]),
        ("km", "ទឹកស្អាត", ["ទឹក", "កស្", "ស្អា", "អាត", "ទឹ", "ស្", "អា"]),
        ("lo", "ປະເທດ", ["ປະ", "ະເ", "ເທ", "ທດ"]),
        ("yue", "香港人", ["香港", "港人"]),
        ("en", "The runners of 香港人", ["the", "runner", "of", "香港", "港人"]),
        ("zh", "𠮷野", ["𠮷野"]),
        ("en", " ?! ", []),
        ("th", " ?! ", []),
    ],
)  # fmt: skip
def test_terms_of_each_language(language, text, terms):
    assert analyzer(language)(text) == terms


def test_character_grams_across_languages():
    grams = analyzer(None)
    assert grams("Tójò ọ̀!") == ["_toj", "tojo", "ojo_", "_o_"]
    assert grams("Ọbáfẹ́mi") == grams("OBAFEMI") == ["_oba", "obaf", "bafe", "afem", "femi", "emi_"]
    # Marks of other scripts are vowels, and stay.
    assert grams("కి") == ["_కి_"] and grams("３") == ["_3_"] and grams("?! ") == []


def test_an_index_across_languages(tmp_path):
    passages = [("a", "Obafemi Awolowo was born in 1909"), ("b", "The Niger flows"), ("c", "Rain fell in Lagos")]
    index = BM25Index.build(passages, None, tmp_path / "index")
    topics = {"1": "Ìlú wo ni wọ́n bí Ọbáfẹ́mi Awólọ́wọ̀ sí?", "2": "Kí ni Odò Náíjà?"}
    found = index.search(topics)
    assert list(found["1"]) == ["a"] and found["2"] == {}
    assert BM25Index(tmp_path / "index").search(topics) == found and index.language is None
    assert BM25Index.build(passages, "yo", tmp_path / "words").search(topics) == {"1": {}, "2": {}}


def test_an_index_of_other_terms_is_not_taken(tmp_path):
    def passages():
        return iter(PASSAGES)

    assert len(bm25_index(passages, None, tmp_path / "index")) == 3
    assert len(bm25_index(passages, None, tmp_path / "index")) == 3
    with pytest.raises(ValueError, match="index holds an index of character 4-grams, not of words of 'sw': delete it"):
        bm25_index(passages, "swa", tmp_path / "index")
    assert bm25_index(passages, "swa", tmp_path / "words").language == "sw"
    with pytest.raises(ValueError, match="words holds an index of words of 'sw', not of character 4-grams"):
        bm25_index(passages, None, tmp_path / "words")
    with pytest.raises(ValueError, match="words holds an index of other passages"):
        bm25_index(lambda: iter(PASSAGES[1:]), "sw", tmp_path / "words")


def test_persian_affixes_are_words_whatever_parts_them():
    assert analyzer("fa")("می\u200cخواهم") == analyzer("fa")("می خواهم")


def test_every_miracl_language_has_its_analysis():
    stemmed = [language for language in analysis.STEMMERS if analysis.stemmer_of(language)]
    assert {"ar", "de", "en", "es", "fi", "fr", "hi", "id", "ru"} <= set(stemmed)


PASSAGES = [("d1", "Nile mto, NILE"), ("d2", "ziwa mto"), ("d3", "ziwa")]


def test_scores_are_those_of_lucene(tmp_path):
    index = BM25Index.build(PASSAGES, "sw", tmp_path / "index")
    # idf nile: ln(1 + 2.5 / 1.5) = 0.980829; idf mto: ln(1 + 1.5 / 2.5) = 0.470004; the mean length is 2 terms.
    # d1 has 3 terms: 0.9 (0.6 + 0.4 * 3 / 2) = 1.08; 0.980829 * 2 / 3.08 + 0.470004 / 2.08 = 0.862865
    # d2 has 2 terms: 0.9; 0.470004 / 1.9 = 0.247370
    run = index.search({"q": "mto nile", "twice": "mto Mto", "no": "bahari", "nothing": "?"})
    assert run["q"] == {"d1": pytest.approx(0.862865, abs=2e-6), "d2": pytest.approx(0.247370, abs=2e-6)}
    assert run["twice"]["d2"] == pytest.approx(2 * 0.247370, abs=2e-6)
    assert run["no"] == run["nothing"] == {}
    assert list(run) == ["q", "twice", "no", "nothing"] and list(run["q"]) == ["d1", "d2"]
    # k1 2, b 1: d1 2 (3 / 2) = 3, 0.980829 * 2 / 5 = 0.392332
    other = BM25Index.build(PASSAGES, "sw", tmp_path / "other", k1=2, b=1)
    assert other.search({"q": "nile"})["q"] == {"d1": pytest.approx(0.392332, abs=2e-6)}
    assert (len(index), index.language) == (3, "sw")


@pytest.mark.parametrize("at_once", [1, 50, 1 << 22])
def test_index_is_the_one_bm25s_builds_in_memory(at_once, tmp_path, monkeypatch):
    monkeypatch.setattr(bm25, "POSTINGS_AT_ONCE", at_once)
    generator = random.Random(0)
    texts = [" ".join(f"w{int(generator.paretovariate(0.7)) % 60}" for _ in range(i % 23)) for i in range(200)]
    built = BM25Index.build(((f"d{i}", text) for i, text in enumerate(texts)), "sw", tmp_path / "index")._scores
    in_memory = bm25s.BM25(k1=0.9, b=0.4, method="lucene")
    ids = [[built.vocab_dict[word] for word in text.split()] for text in texts]
    in_memory.index((ids, dict(built.vocab_dict)), create_empty_token=False, show_progress=False)
    assert built.scores["num_docs"] == in_memory.scores["num_docs"] == 200
    for name in ("indptr", "indices"):
        np.testing.assert_array_equal(built.scores[name], in_memory.scores[name])
    np.testing.assert_allclose(built.scores["data"], in_memory.scores["data"], rtol=1e-6)


def test_reading_again_maps_memory_and_finds_the_same(tmp_path):
    passages = [(f"{i}#ọ", f"neno{i % 7} neno{i % 11} neno{i % 13}") for i in range(100)]
    topics = {f"q{i}": f"neno{i} neno{i + 1}" for i in range(13)}
    built = BM25Index.build(passages, "sw", tmp_path / "index")
    again = BM25Index(tmp_path / "index")
    assert again.search(topics) == built.search(topics) and len(again) == 100
    assert all(isinstance(again._scores.scores[name], np.memmap) for name in ("data", "indices"))
    assert again._docids_at(np.arange(100)) == [docid for docid, _ in passages]
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_stemming_finds_other_forms(tmp_path):
    passages = [("a", "She runs every morning"), ("b", "A run-down house"), ("c", "He swims")]
    index = BM25Index.build(passages, "en", tmp_path / "index")
    assert set(index.search({"q": "running"})["q"]) == {"a", "b"}


def test_bigrams_find_parts_of_a_sentence(tmp_path):
    index = BM25Index.build([("a", "世界最长的河是尼罗河。"), ("b", "罗马是意大利的首都。")], "zh", tmp_path / "index")
    assert list(index.search({"q": "尼罗河有多长"})["q"]) == ["a"]


def test_ties_are_kept_as_trec_eval_ranks_them(tmp_path):
    passages = [(docid, "mto") for docid in ("b", "d", "a", "e", "c")] + [("best", "mto mto"), ("other", "ziwa")]
    index = BM25Index.build(passages, "sw", tmp_path / "index")
    assert list(index.search({"q": "mto"}, k=3)["q"]) == ["best", "e", "d"]
    assert list(index.search({"q": "mto"}, k=100)["q"]) == ["best", "e", "d", "c", "b", "a"]
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        index.search({"q": "mto"}, k=0)


def test_first_stages_of_bm25(tmp_path):
    topics = {"q": "ziwa"}
    found = first_stage("bm25-char4", topics, lambda: iter(PASSAGES), None, tmp_path / "char4", 1)
    assert found == first_stage("bm25", topics, lambda: iter(PASSAGES), "sw", tmp_path / "words", 1) == {"q": ["d3"]}
    with pytest.raises(ValueError, match="bm25 needs the language that queries and passages share"):
        first_stage("bm25", topics, lambda: iter(PASSAGES), None, tmp_path / "words")


def test_a_passage_without_terms_has_its_place(tmp_path):
    index = BM25Index.build([("a", ""), ("b", "mto"), ("c", "?"), ("d", "ziwa"), ("e", "")], "sw", tmp_path / "index")
    assert len(index) == 5
    assert [list(found) for found in index.search({"1": "ziwa", "2": "mto"}).values()] == [["d"], ["b"]]


@pytest.mark.parametrize(("passages", "count"), [([], 0), ([("a", "?"), ("b", "")], 2)])
def test_nothing_to_index(passages, count, tmp_path):
    with pytest.raises(ValueError, match=f"none of the {count} passages has a term"):
        BM25Index.build(passages, "sw", tmp_path / "index")
    assert not list(tmp_path.iterdir())


def test_passages_that_cannot_be_read_leave_nothing(tmp_path):
    def passages():
        yield "a", "mto"
        raise ValueError("docs-1.jsonl.gz, after line 7: cut off")

    with pytest.raises(ValueError, match="after line 7: cut off"):
        BM25Index.build(passages(), "sw", tmp_path / "indices" / "sw")
    assert not list((tmp_path / "indices").iterdir())


def test_folders_that_are_no_index_or_one_already(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no BM25 index is there; write one with BM25Index.build"):
        BM25Index(tmp_path / "nowhere")
    BM25Index.build(PASSAGES, "sw", tmp_path / "index")
    with pytest.raises(FileExistsError, match="index is there already: read it with BM25Index"):
        BM25Index.build(PASSAGES, "sw", tmp_path / "index")
    assert len(BM25Index(tmp_path / "index")) == 3


def test_an_index_of_another_stemmer_is_refused(tmp_path, monkeypatch):
    BM25Index.build(PASSAGES, "en", tmp_path / "index")
    monkeypatch.delitem(analysis.STEMMERS, "en")
    with pytest.raises(ValueError, match="built with the stemmer english, but PyStemmer has None for 'en' here"):
        BM25Index(tmp_path / "index")


def test_an_index_of_another_analysis_is_refused(tmp_path):
    path = tmp_path / "index" / "analysis.json"
    BM25Index.build(PASSAGES, "en", tmp_path / "index")
    written = json.loads(path.read_text())
    assert written["version"] == analysis.ANALYSIS_VERSION == 2
    del written["version"], written["digest"], written["checksums"]  # as the first version had it
    path.write_text(json.dumps(written))
    with pytest.raises(ValueError, match=r"json: built by version 1 of the analysis; .* delete the folder, and"):
        BM25Index(tmp_path / "index")


FILES = ["analysis.json", "data.csc.index.npy", "docid_ends.npy", "docids.txt", "indices.csc.index.npy"]
FILES += ["indptr.csc.index.npy", "params.index.json", "vocab.index.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("part", [0, 1 / 2])
def test_a_damaged_index_is_named(name, part, tmp_path):
    BM25Index.build(PASSAGES, "en", tmp_path / "index")
    assert sorted(path.name for path in (tmp_path / "index").iterdir()) == FILES
    path = tmp_path / "index" / name
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(ValueError, match=rf"{path} is .*damaged.*: delete the folder, and build the index again"):
        BM25Index(tmp_path / "index")


@pytest.mark.parametrize("missing", ["bm25s", "Stemmer"])
def test_without_the_extra(missing, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r'pip install "optical-hf\[bm25\]"'):
        BM25Index.build(PASSAGES, "en", tmp_path / "index")
    assert not list(tmp_path.iterdir())

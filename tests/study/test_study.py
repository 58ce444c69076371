"""The robustness study: its file, its bitext, its arms, and the command as a user runs it."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from optical_hf import OpticalDistillationTrainer
from optical_hf.study.bitext import load_pairs, monolingual_texts, record_pairs, select_pairs
from optical_hf.study.config import Study, load_study, record_study
from optical_hf.study.run import StudyRun

EXAMPLES = Path(__file__).parents[2] / "examples"
ENGLISH = ["the", "a", "who", "wrote", "it", "rains", "today", "book", "this", "she"]
OTHERS = ["nani", "aliandika", "hicho", "kitabu", "leo", "mvua", "inanyesha", "habari", "!", "?"]
LANGUAGES = ("sw", "yo", "ar", "hi")


def sentences(count: int, seed: int) -> list[list[int]]:
    """Different sentences, each as numbers of words."""
    rng = random.Random(seed)
    drawn: dict[tuple[int, ...], None] = {}
    while len(drawn) < count:
        drawn[tuple(rng.sample(range(10), rng.randint(3, 6)))] = None
    return [list(words) for words in drawn]


def write(sentence: list[int], language: str) -> str:
    """The same words, turned by another step in every language but English."""
    if language == "en":
        return " ".join(ENGLISH[word] for word in sentence)
    return " ".join(OTHERS[(word + LANGUAGES.index(language)) % 10] for word in sentence)


@pytest.fixture(scope="session")
def data(tmp_path_factory, tiny_encoder) -> Path:
    """A folder with bitext of four languages, of which each lacks some sentences, and three evaluation sets."""
    folder = tmp_path_factory.mktemp("study")
    bitext = sentences(40, seed=1)
    for number, language in enumerate(LANGUAGES):
        kept = [words for index, words in enumerate(bitext) if index < 20 or index % 4 != number]
        lines = [f"{write(words, 'en')}\t{write(words, language)}\n" for words in kept]
        (folder / f"{language}.tsv").write_text("".join(lines))
    texts = sentences(12, seed=2)
    for language in ("en", *LANGUAGES):
        lines = [json.dumps({"docid": f"d{i}", "text": write(words, language)}) for i, words in enumerate(texts)]
        (folder / f"passages.{language}.jsonl").write_text("\n".join(lines) + "\n")
        topics = [f"q{i}\t{write(words[:-1], language)}\n" for i, words in enumerate(texts[:8])]
        (folder / f"topics.{language}.tsv").write_text("".join(topics))
    (folder / "qrels.tsv").write_text("".join(f"q{i} 0 d{i} 1\n" for i in range(8)))
    (folder / "encoder").symlink_to(tiny_encoder)
    return folder


def config() -> dict[str, Any]:
    files = {language: f"passages.{language}.jsonl" for language in ("en", "sw", "yo")}
    topics = {language: f"topics.{language}.tsv" for language in ("en", *LANGUAGES)}
    return {
        "teacher": "./encoder",
        "pairs": 16,
        "bitext": {language: f"{language}.tsv" for language in LANGUAGES},
        "rotations": {
            "first": {"seen": ["sw", "yo"], "unseen": ["ar", "hi"]},
            "second": {"seen": ["ar", "hi"], "unseen": ["sw", "yo"]},
        },
        "seeds": [1],
        "training": {"max_steps": 3, "per_device_train_batch_size": 8, "logging_steps": 1, "learning_rate": 1e-3},
        "methods": {
            "ot": {"loss": "ot", "pooled_weight": 0, "score_weight": 0},
            "mse": {"loss": "mse"},
        },
        "levers": {
            "no_retention": {"base": "ot", "retention_share": 0, "rotations": ["first"]},
            "halfway": {"base": "ot", "interpolation": 0.5, "rotations": ["first"]},
            "erased": {"base": "ot", "erase_language": True, "rotations": ["first"]},
            "both_sides": {"base": "ot", "passages": "student", "sets": ["parallel"], "rotations": ["first"]},
        },
        "evaluation": {
            "english": {
                "passages": {"en": "passages.en.jsonl"},
                "topics": {"sw": "topics.sw.tsv", "ar": "topics.ar.tsv"},
                "english_topics": {"sw": "topics.en.tsv"},
                "qrels": {"sw": "qrels.tsv", "ar": "qrels.tsv"},
                "max_queries": 5,
            },
            "parallel": {
                "passages": files,
                "topics": {language: topics[language] for language in ("en", "sw", "yo", "ar")},
                "qrels": "qrels.tsv",
                "parallel": True,
            },
            "own": {
                "passages": {"sw": ["passages.sw.jsonl"], "hi": "passages.hi.jsonl"},
                "topics": {"sw": ["topics.sw.tsv"], "hi": "topics.hi.tsv"},
                "qrels": "qrels.tsv",
                "same_language": True,
            },
        },
    }


def save(data: Path, changed: dict[str, Any] | str, name: str = "study.yaml") -> Path:
    path = data / name
    path.write_text(changed if isinstance(changed, str) else yaml.safe_dump(changed, sort_keys=False))
    return path


def changed(data: Path, *keys: str, value: Any) -> Path:
    """The study's file with one value set, or taken out if it is None."""
    whole = config()
    inner: Any = whole
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return save(data, whole, "changed.yaml")


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("rotations", "first", "unseen"), ["ar", "yo"], "rotations.first: 'yo' is both seen and unseen"),
        (("rotations", "first", "unseen"), ["ar", "yor"], "rotations.first: 'yo' is both seen and unseen"),
        (("rotations", "first", "seen"), ["sw", "ig"], "rotations.first.seen: 'ig' has no bitext"),
        (("rotations", "first", "seen"), ["sw", "en"], "rotations.first.seen: leave 'en' out"),
        (("bitext", "eng"), "sw.tsv", "bitext.eng: leave English out"),
        (("bitext", "swa"), "sw.tsv", "bitext.swa: 'sw' is there twice"),
        (("rotations", "first", "seen"), [], "rotations.first.seen: is missing or empty"),
        (
            ("rotations", "second", "seen"),
            ["ar"],
            "rotations.first.unseen: 'hi' has bitext (bitext.hi), but it is `seen` in no",
        ),
        (
            ("rotations", "second"),
            {"seen": ["ar"], "unseen": []},
            "rotations.first.unseen: 'hi' has bitext (bitext.hi)",
        ),
        (("rotations", "first", "sen"), ["sw"], "rotations.first.sen: there is no such key; did you mean seen"),
        (("bitext", "qx"), "sw.tsv", "bitext.qx: 'qx' is not a language code"),
        (("bitext", "no"), "sw.tsv", "bitext.no: no rotation has this language"),
        (("bitext", "sw"), "gone.tsv", "bitext.sw: "),
        (("seeds",), [], "seeds: is missing or empty"),
        (("seeds",), [-1], "seeds: must be at least 0, got -1"),
        (("seeds",), [2**32], "seeds: must be at most 4,294,967,295, got 4294967296"),
        (("seeds",), [1, 1], "seeds: [1, 1] are not different from one another"),
        (("methods", "dtw"), {"loss": "dtw"}, "methods.dtw.loss: there is no loss 'dtw'; choose from ot, greedy, mse"),
        (("methods", "ot", "epsilom"), 0.1, "methods.ot.epsilom: there is no such key; did you mean epsilon"),
        (("methods", "ot", "base"), "mse", "methods.ot.base: there is no such key"),
        (
            ("methods", "ot", "epsilon"),
            0,
            "methods.ot: --epsilon must be a number above 0",
        ),
        (("methods", "ot", "solver"), "magic", "methods.ot: Unknown solver 'magic'"),
        (("methods", "ot", "max_steps"), "many", "methods.ot: argument --max_steps"),
        (("methods", "ot", "seed"), 3, "methods.ot: `seed` is set by the study itself"),
        (("methods", "ot", "pairs"), 0, "methods.ot.pairs: must be at least 1, got 0"),
        (("pairs",), 1.5, "pairs: must be a whole number of at least 1, got 1.5"),
        (("max_words",), 10**18, "max_words: must be at most 1,000,000,000,000, got 1000000000000000000"),
        (("checkpoint",), {"query_length": 0}, "checkpoint.query_length: must be at least 1, got 0"),
        (("checkpoint",), {"document_length": 10**7}, "checkpoint.document_length: must be at most 1,000,000"),
        (("checkpoint",), {"query_prefix": 3}, "checkpoint.query_prefix: 3 is not a text"),
        (("evaluation", "own", "max_queries"), -1, "evaluation.own.max_queries: must be at least 1, got -1"),
        (
            ("training", "adam_beta2"),
            1,
            "--adam_beta2 must be a number of at least 0 and below 1",
        ),
        (
            ("levers", "halfway", "interpolation"),
            float("nan"),
            "levers.halfway.interpolation: nan is not a number from 0 to 1",
        ),
        (("methods", "ot", "seeds"), [3], "methods.ot.seeds: 3 is not one of 1"),
        (("methods", "ot", "sets"), ["owm"], "methods.ot.sets: 'owm' is not one of english, parallel, own"),
        (("methods", "zero_shot"), {}, "the name 'zero_shot' is taken"),
        (("methods", "o t"), {}, "methods.o t: a name may have letters"),
        (("levers", "halfway", "base"), "ott", "levers.halfway.base: 'ott' is neither a method nor a trained lever"),
        (("levers", "erased", "base"), "halfway", "levers.erased.base: 'halfway' is neither a method nor a trained"),
        (("levers", "halfway", "interpolation"), 2, "levers.halfway.interpolation: 2 is not a number from 0 to 1"),
        (("levers", "halfway", "epsilon"), 1, "levers.halfway.epsilon: has no effect"),
        (("levers", "both_sides", "passages"), "nobody", "'nobody' is neither teacher nor student"),
        (("training", "learning_rat"), 1, "training.learning_rat: there is no such key; did you mean learning_rate"),
        (("evaluation", "own", "qrels"), "passages.sw.jsonl", "evaluation.own.qrels: "),
        (("evaluation", "own", "qrels"), "gone.tsv", "evaluation.own.qrels: there is no file"),
        (("evaluation", "own", "topics", "sw"), "empty.tsv", "evaluation.own.topics.sw: "),
        (("evaluation", "own", "passages", "sw"), "empty.tsv", "evaluation.own.passages.sw: "),
        (("evaluation", "own", "qrels"), "others.tsv", "evaluation.own.topics.sw: the set is empty"),
        (("evaluation", "own", "topics", "ar"), "topics.ar.tsv", "evaluation.own.passages: 'ar' is missing"),
        (("evaluation", "english", "english_topics"), {"sw": "short.tsv"}, "lacks 4 questions, such as 'q1'"),
        (
            ("evaluation", "parallel", "qrels"),
            "more.tsv",
            "evaluation.parallel.qrels: question 'q99' in 'en' is in no file of topics",
        ),
        (
            ("evaluation", "own", "qrels"),
            "lost.tsv",
            "evaluation.own.qrels, 'sw': 1 of the 1 relevant judgements name a passage that is not there",
        ),
        (("evaluation", "own", "qrels"), "none.tsv", "evaluation.own.qrels, 'sw': no judgement is above 0"),
        (("evaluation", "own", "passages", "sw"), "cut.jsonl", "evaluation.own.passages.sw: "),
        (("evaluation", "parallel", "qrels"), "none.tsv", "question 'q0' in 'en' has no relevant passage"),
        (
            ("evaluation", "parallel", "qrels"),
            "far.tsv",
            "'q0' in 'en' has the relevant passage 'd99', which is in no",
        ),
        (
            ("evaluation", "parallel", "passages", "yo"),
            "fewer.jsonl",
            "only one of 'en' and 'yo' has the passage 'd0'",
        ),
        (("evaluation", "arm"), {}, "evaluation.arm: the name 'arm' is taken"),
        (("checkpoint",), {"prefix": "x"}, "checkpoint.prefix: there is no such key"),
        (("teacher",), "./nowhere", "teacher: there is no folder"),
    ],
)
def test_what_is_wrong_is_named(data, keys, value, message):
    (data / "empty.tsv").write_text("")
    (data / "short.tsv").write_text("q0\twho\n")
    (data / "others.tsv").write_text("r0 0 d0 1\n")
    (data / "none.tsv").write_text("q0 0 d0 0\n")
    (data / "lost.tsv").write_text("q0 0 d99 1\n")
    (data / "cut.jsonl").write_text((data / "passages.sw.jsonl").read_text() + '{"docid": "d')
    (data / "far.tsv").write_text("q0 0 d0 1\nq0 0 d99 1\n")
    (data / "more.tsv").write_text((data / "qrels.tsv").read_text() + "q99 0 d0 1\n")
    (data / "fewer.jsonl").write_text((data / "passages.yo.jsonl").read_text().partition("\n")[2])
    path = changed(data, *keys, value=value)
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        load_study(path)
    assert message in str(error.value) and str(path) in str(error.value)


def test_yaml_is_of_version_1_2(data):
    text = yaml.safe_dump(config()).replace("sw: sw.tsv", "no: sw.tsv").replace("- sw", "- no")
    text = text.replace("learning_rate: 0.001", "learning_rate: 5e-5")
    study = load_study(save(data, text, "norwegian.yaml"))
    assert study.rotations["first"].seen == ("no", "yo") and study.bitext["no"] == [str(data / "sw.tsv")]
    assert study.methods["ot"].options["learning_rate"] == 5e-5
    with pytest.raises(ValueError, match="the key 'seeds' is there twice"):
        load_study(save(data, text + "\nseeds: [3]\n", "twice.yaml"))
    with pytest.raises(ValueError, match="is no YAML"):
        load_study(save(data, "a: [", "broken.yaml"))


def test_levers_have_what_their_base_has(data):
    study = load_study(save(data, config()))
    lever = study.levers["no_retention"]
    assert lever.options == {**study.methods["ot"].options, "retention_share": 0}
    assert (lever.loss, lever.pairs, lever.seeds, lever.rotations) == ("ot", 16, (1,), ("first",))
    assert study.levers["both_sides"].sets == ("parallel",) and study.levers["both_sides"].derived
    assert list(study.arms)[:6] == [
        *("zero_shot", "ceiling", "first-ot-1", "first-mse-1", "second-ot-1", "second-mse-1"),
    ]
    assert study.arms["first-halfway-1"].base == "first-ot-1"
    # zero-shot, ceiling, 2 methods in 2 rotations, 1 trained lever and 3 others
    assert len(study.arms) == 2 + 4 + 4


def test_questions_of_a_set(data, caplog):
    study = load_study(save(data, config()))
    english, parallel, own = study.evaluation.values()
    assert (
        list(english.questions["sw"].topics) == ["q0", "q1", "q2", "q3", "q4"] == list(english.questions["sw"].qrels)
    )
    assert english.questions["sw"].english["q0"] == write(sentences(12, seed=2)[0][:-1], "en")
    assert english.questions["ar"].english is None
    assert parallel.questions["ar"].english == parallel.questions["en"].topics
    assert own.document_languages("sw") == ["sw"] and own.questions["sw"].english is None
    (data / "more.tsv").write_text((data / "qrels.tsv").read_text() + "q99 0 d0 1\n")
    lost = load_study(changed(data, "evaluation", "own", "qrels", value="more.tsv")).evaluation["own"]
    assert "q99" in lost.questions["sw"].qrels and "q99" not in lost.questions["sw"].topics
    assert caplog.messages == [
        "evaluation.own.qrels: 1 judged questions are in no file of topics, such as 'q99'. Each scores 0."
    ]


def test_judged_passages_that_are_not_there_are_counted(data, caplog):
    """Where questions are searched: in the language of the questions alone, or in all files of passages together."""
    (data / "half.tsv").write_text("q0 0 d0 1\nq1 0 en#d1 1\nq2 0 en#d2 1\nq3 0 d3 1\nq3 0 d4 0\n")
    (data / "passages.hi2.jsonl").write_text(
        (data / "passages.hi.jsonl").read_text() + '{"docid": "en#d2", "text": "a"}\n'
    )
    changes = config()
    changes["evaluation"]["own"] |= {"qrels": "half.tsv"}
    changes["evaluation"]["own"]["passages"] |= {"hi": "passages.hi2.jsonl"}
    path = save(data, changes, "half.yaml")
    load_study(path)
    lost = "of the 4 relevant judgements name a passage that is not there (such as 'en#d1')."
    assert caplog.messages == [
        f"{path}: evaluation.own.qrels, 'sw': 2 {lost}",
        f"{path}: evaluation.own.qrels, 'hi': 1 {lost}",
    ]
    caplog.clear()
    changes["evaluation"]["own"] |= {"same_language": False}
    load_study(save(data, changes, "half.yaml"))
    assert [text.partition("'")[2] for text in caplog.messages] == [f"sw': 1 {lost}", f"hi': 1 {lost}"]


def test_arms_have_the_same_english_sentences(data):
    study = load_study(save(data, config()))
    pairs = load_pairs(study, study.arms.values())
    assert {language: len(own) for language, own in pairs.items()} == dict.fromkeys(LANGUAGES, 35)
    shared = set.intersection(*(set(own) for own in pairs.values()))
    assert len(shared) == 20
    first, second = (select_pairs(pairs, seen, 16, seed=1) for seen in (("sw", "yo"), ("ar", "hi")))
    chosen = {
        language: {row["english"] for row in rows if row["language"] == language}
        for rows in (first, second)
        for language in set(rows["language"])
    }
    assert set(map(len, chosen.values())) == {16} and chosen["sw"] == chosen["yo"] == chosen["ar"] == chosen["hi"]
    assert chosen["sw"] < shared and first["english"][:] == second["english"][:]
    # Beyond what all have, what three of four have; each language then has others.
    more = select_pairs(pairs, ("sw", "yo"), 30, seed=1)
    assert more["language"][:].count("yo") == 30 and shared < set(more["english"])
    swapped = {language: dict(reversed(pairs[language].items())) for language in reversed(pairs)}
    assert select_pairs(swapped, ("yo", "sw"), 30, seed=1)[:] == more[:]
    assert {row["english"] for row in select_pairs(pairs, ("sw",), 16, seed=2)} != chosen["sw"]
    for row in more:
        assert pairs[row["language"]][row["english"]] == row["translation"]


def test_monolingual_texts_are_not_translations_of_each_other(data):
    pairs = load_pairs(load_study(save(data, config())), [])
    texts = monolingual_texts(pairs, 10, seed=1)
    assert set(texts) == {"en", *LANGUAGES} and {len(chosen) for chosen in texts.values()} == {10}
    english = {language: {text for text in own if own[text] in texts[language]} for language, own in pairs.items()}
    assert len(set(map(frozenset, english.values()))) == len(LANGUAGES)


def test_too_little_bitext(data, tmp_path):
    path = changed(data, "pairs", value=36)
    with pytest.raises(ValueError, match=r"changed.yaml: bitext.sw: only 35 pairs .* first-ot-1 needs 36"):
        StudyRun(load_study(path), tmp_path / "out")
    assert not (tmp_path / "out" / "study.json").exists()


def test_arms_that_are_not_there(data, tmp_path):
    study = load_study(save(data, config()))
    with pytest.raises(ValueError, match="has no arm 'first-ott-1'; it has zero_shot, ceiling, first-ot-1"):
        StudyRun(study, tmp_path / "out", ["first-ott-1"])
    with pytest.raises(ValueError, match="first-halfway-1 is made from the student of first-ot-1"):
        StudyRun(study, tmp_path / "out", ["first-halfway-1"])
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_study(data, tmp_path):
    record_study(load_study(save(data, config())), tmp_path)
    record_study(load_study(changed(data, "pairs", value=12)), tmp_path)  # nothing was run yet
    record_study(load_study(save(data, config())), tmp_path)
    (tmp_path / "arms").mkdir()
    grown = config()
    grown["seeds"] = [2]
    grown["methods"]["greedy"] = {"loss": "greedy"}
    grown["levers"]["no_retention"]["seeds"] = [2]
    grown["rotations"]["third"] = {"seen": ["sw"], "unseen": ["hi"]}
    record_study(load_study(save(data, grown, "grown.yaml")), tmp_path)
    stored = json.loads((tmp_path / "study.json").read_text())
    assert stored["seeds"] == [1, 2] and "third" in stored["rotations"] and "greedy" in stored["methods"]
    record_study(load_study(save(data, config())), tmp_path)  # leaving out is no difference, and not forgotten
    for keys, value in (
        (("pairs",), 12),
        (("methods", "ot", "epsilon"), 0.2),
        (("methods", "greedy"), {"loss": "greedy", "epsilon": 0.2}),
        (("training", "max_steps"), 4),
        (("rotations", "first", "unseen"), ["hi"]),
        (("evaluation", "own", "max_queries"), 3),
    ):
        with pytest.raises(ValueError, match=f"with another config than .*changed.yaml: {'.'.join(keys)}"):
            record_study(load_study(changed(data, *keys, value=value)), tmp_path)


def test_other_bitext_than_before(data, tmp_path):
    study = load_study(save(data, config()))
    pairs = load_pairs(study, [])
    record_pairs(study, pairs, tmp_path)
    record_pairs(study, {language: dict(reversed(own.items())) for language, own in pairs.items()}, tmp_path)
    [english, *_] = pairs["yo"]
    pairs["yo"][english] += "."
    (tmp_path / "new").mkdir()
    record_pairs(study, pairs, tmp_path / "new")  # until an arm is there, nothing could be of other bitext
    record_pairs(study, load_pairs(study, []), tmp_path / "new")
    (tmp_path / "arms").mkdir()
    with pytest.raises(ValueError, match=r"other bitext: that of yo \(.*/yo.tsv\) has changed since the study began"):
        record_pairs(study, pairs, tmp_path)
    assert json.loads((tmp_path / "bitext.json").read_text())["yo"]["pairs"] == 35


def results(folder: Path) -> dict[str, Any]:
    """All that arms wrote, without the time they took and where they were resumed; of the students, the weights."""
    contents = {}
    for path in sorted(folder.glob("arms/*/*.json")):
        content = json.loads(path.read_text())
        for key in [key for key in content if "seconds" in key or key in ("digest", "resumed_from")]:
            del content[key]
        if "student" in content:
            content["student"] = content["student"]["model.safetensors"]
        contents[str(path.relative_to(folder))] = content
    return contents


def checkpoint_config(data: Path) -> Study:
    whole = config()
    whole["evaluation"] = {"own": whole["evaluation"]["own"]}
    del whole["levers"]
    whole["training"] |= {"save_strategy": "steps", "save_steps": 1, "lr_scheduler_type": "constant"}
    return load_study(save(data, whole, "checkpoints.yaml"))


def stop(monkeypatch, steps: int) -> list[int]:
    """End a training with an error after so many steps, but only the first one; list the steps that are begun."""
    begun: list[int] = []
    stops = [steps]
    original = OpticalDistillationTrainer.compute_loss

    def counted(self, *args, **kwargs):
        if stops and len(begun) == stops[0]:
            stops.clear()
            raise RuntimeError("stopped")
        begun.append(self.state.global_step)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(OpticalDistillationTrainer, "compute_loss", counted)
    return begun


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory) -> dict[str, Any]:
    """What an arm of three steps writes if nothing stops it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    StudyRun(checkpoint_config(data), folder, ["first-ot-1"]).run()
    return results(folder)


@pytest.mark.parametrize(
    ("damage", "passed", "resumed_from"),
    [
        (lambda checkpoints: None, 0, 2),
        (lambda checkpoints: (checkpoints / "checkpoint-3").mkdir(), 1, 2),  # cut off while it was written
        (lambda checkpoints: (checkpoints / "checkpoint-2" / "trainer_state.json").write_text(""), 1, 1),
        (lambda checkpoints: (checkpoints / "checkpoint-2" / "optimizer.pt").write_bytes(b""), 1, 1),
        (lambda checkpoints: (checkpoints / "checkpoint-2" / "model.safetensors").write_bytes(b"half"), 1, 1),
        (lambda checkpoints: [path.write_text("") for path in checkpoints.glob("*/trainer_state.json")], 2, None),
    ],
    ids=["nothing", "half a checkpoint", "trainer state", "optimizer", "weights", "all"],
)
def test_training_that_was_stopped_goes_on_from_its_newest_whole_checkpoint(
    data, tmp_path, monkeypatch, caplog, undisturbed, damage, passed, resumed_from
):
    study = checkpoint_config(data)
    begun = stop(monkeypatch, 2)
    with pytest.raises(RuntimeError, match="stopped"):
        StudyRun(study, tmp_path, ["first-ot-1"]).run()
    arm = tmp_path / "arms" / "first-ot-1"
    assert {path.name for path in arm.iterdir()} == {"checkpoints"}
    damage(arm / "checkpoints")
    begun.clear()
    with caplog.at_level("INFO"):
        StudyRun(study, tmp_path, ["first-ot-1"]).run()
    assert begun == [0, 1, 2][resumed_from or 0 :]
    assert (f"goes on from step {resumed_from}" in caplog.text) == (resumed_from is not None)
    assert caplog.text.count("is not whole") == passed
    assert {path.name for path in arm.iterdir()} >= {"student", "arm.json"} and not (arm / "checkpoints").exists()
    assert results(tmp_path) == undisturbed
    record = json.loads((arm / "arm.json").read_text())
    assert record["resumed_from"] == ([] if resumed_from is None else [resumed_from])


def test_training_that_was_stopped_after_its_last_checkpoint(data, tmp_path, monkeypatch, undisturbed):
    study = checkpoint_config(data)
    begun = stop(monkeypatch, 1)
    with pytest.raises(RuntimeError, match="stopped"):
        StudyRun(study, tmp_path, ["first-ot-1"]).run()
    with monkeypatch.context() as patched, pytest.raises(TypeError):
        patched.setattr("optical_hf.study.run.folder_digests", None)  # all steps are done, and nothing is recorded
        StudyRun(study, tmp_path, ["first-ot-1"]).run()
    assert begun == [0, 1, 2]
    StudyRun(study, tmp_path, ["first-ot-1"]).run()
    assert begun == [0, 1, 2]
    assert results(tmp_path) == undisturbed
    record = json.loads((tmp_path / "arms" / "first-ot-1" / "arm.json").read_text())
    assert (record["steps"], record["curves"]["step"]) == (3, [1, 2, 3])
    assert record["resumed_from"] == [1, 3]


def launch(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", str(EXAMPLES / "robustness.py")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run([*command, *map(str, words)], env=environment, capture_output=True, text=True)


def test_the_command_and_a_study_that_was_stopped(data, tmp_path):
    out = tmp_path / "out"
    words = ("--config", save(data, config()), "--output_dir", out)
    done = launch(*words)
    assert done.returncode == 0, done.stderr[-6000:]
    assert (
        "Arm 10 of 10, first-both_sides-1, took" in done.stderr
        and "Mean nDCG@10: parallel 0." in done.stderr
        and (out / "report.md").exists()
    )
    assert "3/3 [" in done.stderr  # the bar of training, though a study lowers the verbosity
    report = (out / "report.json").read_bytes()
    before = results(out)
    assert sum(name.endswith("arm.json") for name in before) == 10

    arm = before["arms/first-ot-1/arm.json"]
    assert (arm["seen"], arm["unseen"]) == (["sw", "yo"], ["ar", "hi"])
    assert (arm["steps"], arm["pairs_per_language"]) == (3, 16)
    assert arm["curves"]["step"] == [1, 2, 3] and {"loss", "plan_entropy", "vector_spread"} <= arm["curves"].keys()
    zero_shot, ceiling = (before[f"arms/{name}/parallel.json"] for name in ("zero_shot", "ceiling"))
    pairs = {(pair["query_language"], pair["document_language"]): pair for pair in zero_shot["pairs"]}
    assert pairs.keys() == {(q, d) for q in ("en", "sw", "yo", "ar") for d in ("en", "sw", "yo")}
    for pair in ceiling["pairs"]:  # the teacher is the student: English questions are those of zero-shot
        assert pair["maxsim"] == pairs["en", pair["document_language"]]["maxsim"]
    scores = pairs["sw", "yo"]["pooled"]
    assert scores["ndcg@10"] == pytest.approx(sum(scores["per_query"]["ndcg@10"]) / 8, abs=1e-12)
    bias = zero_shot["language_bias"]["maxsim"]
    assert bias["by_language"]["sw"] == pytest.approx(sum(bias["per_query"]["sw"]) / 8)
    assert ceiling["language_bias"] is None
    assert before["arms/ceiling/own.json"]["pairs"] == []

    # Stopped in the middle of three arms: one was being trained, one evaluated, one had its index half written.
    arms = out / "arms"
    first, second, last = (arms / name for name in ("first-ot-1", "second-mse-1", "first-both_sides-1"))
    shutil.rmtree(first)
    (half := first / ".student.0123456789ab.partial" / "student").mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    for path in (second / "arm.json", second / "own.json", last / "arm.json", last / "parallel.json"):
        path.unlink()
    student = (second / "student" / "model.safetensors").stat().st_mtime_ns
    done = launch(*words)
    assert done.returncode == 0, done.stderr[-6000:]
    assert results(out) == before and done.stderr.count("is complete") == 7
    assert (out / "report.json").read_bytes() == report
    assert (second / "student" / "model.safetensors").stat().st_mtime_ns == student  # not trained again
    assert not list(out.rglob("*.partial")) and not (last / "index").exists()

    # One arm alone; it needs the others no more.
    shutil.rmtree(first)
    done = launch(*words, "--arms", "first-ot-1")
    assert done.returncode == 0 and "Arm 1 of 1" in done.stderr and results(out) == before
    with pytest.raises(ValueError, match="out holds a study with another config than .*: pairs differ"):
        StudyRun(load_study(changed(data, "pairs", value=12)), out)
    shutil.rmtree(first)
    other = Path(shutil.copytree(data, tmp_path / "other"))
    (other / "yo.tsv").write_text((data / "yo.tsv").read_text().replace("\n", "!\n"))
    with pytest.raises(ValueError, match=r"out holds a study with other bitext: that of yo \(.*/yo.tsv\) has changed"):
        StudyRun(load_study(save(other, config())), out)

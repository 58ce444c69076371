"""The model card, read back: every number of it against the `results.json` of a real run of the example."""

from __future__ import annotations

import json
import re
import shutil
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import yaml
from datasets import Dataset
from huggingface_hub import ModelCard, parse_eval_result_entries
from packaging.version import Version

from optical_hf import OpticalTeacher, maxsim
from optical_hf.commands import distill
from optical_hf.hub.weights import named_hashes, weights_hash
from optical_hf.training.cross_encoder_card import card_template
from optical_hf.training.model_card import count_pairs, name_card, write_card
from optical_hf.training.provenance import checkpoint_origin, source_names

ROOT = Path(__file__).parents[2]
TOKEN = "hf_" + "abcdefghij" * 3
SENTENCES = ["she wrote this book\taliandika kitabu hicho", "it rains today\tmvua inanyesha leo"]
SENTENCES += ["who wrote the book\tnani aliandika kitabu", "the book today\tkitabu leo", "who rains\tnani inanyesha"]
METRICS = {"ndcg_at_10": "ndcg@10", "pooled_ndcg_at_10": "pooled_ndcg@10"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_encoder) -> Path:
    """A student of `examples/distill.py`: Swahili and Yoruba seen, Hausa and Igbo not (and no Igbo in English)."""
    folder = tmp_path_factory.mktemp("run")
    encoder = shutil.copytree(tiny_encoder, folder / "tiny-e5")
    (encoder / "README.md").write_text("---\nlicense: mit\nbase_model: someone/tiny-e5\n---\nA tiny encoder.\n")
    for language in ("sw", "yo"):
        (folder / f"en-{language}.tsv").write_text("\n".join(SENTENCES[: 5 if language == "sw" else 4]) + "\n")
    passages = ["she wrote the book", "it rains today", "the book rains", "a book", "who wrote it"]
    lines = [json.dumps({"docid": f"d{index}", "title": "", "text": text}) for index, text in enumerate(passages)]
    (folder / "passages.jsonl").write_text("\n".join(lines))
    texts = {"sw": ["nani aliandika kitabu", "mvua leo"], "yo": ["kitabu leo", "hicho"], "ha": ["habari", "nani"]}
    texts |= {"ig": ["leo", "aliandika"], "en": ["who wrote the book", "rains today"]}
    for language, questions in texts.items():
        (folder / f"{language}.tsv").write_text("".join(f"q{i}\t{text}\n" for i, text in enumerate(questions)))
    (folder / "qrels.tsv").write_text("q0 0 d0 1\nq1 0 d1 1\n")

    def by_language(languages: str, name: str) -> list[str]:
        return [f"{language}={folder}/{name.format(language)}" for language in languages.split()]

    options: dict[str, Any] = {
        "teacher": [encoder],
        "query_prefix": ["query : "],
        "bitext": by_language("sw yo", "en-{}.tsv"),
        "held_out": [2],
        "collection": ["someone/questions"],
        "passages": [folder / "passages.jsonl"],
        "topics": by_language("sw yo ha ig", "{}.tsv"),
        "english_topics": by_language("sw yo ha", "en.tsv"),
        "qrels": by_language("sw yo ha ig", "qrels.tsv"),
        "output_dir": [folder / "student"],
        "max_steps": [2],
        "per_device_train_batch_size": [2],
        "retention_share": [1],
        "save_strategy": ["no"],
        "use_cpu": ["true"],
        "report_to": ["none"],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", TOKEN)
        distill.main([str(word) for name, values in options.items() for word in (f"--{name}", *values)])
    return folder / "student"


@pytest.fixture
def student(trained, tmp_path) -> Path:
    """A copy of it to write to."""
    return shutil.copytree(trained, tmp_path / "swahili-student")


def results_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def change(folder: Path, **changes: Any) -> str:
    """Change `results.json` (`None` removes), as a user who deletes its digest, and return the new card."""
    changes["digest"] = None
    results = {name: value for name, value in (results_of(folder) | changes).items() if value is not None}
    (folder / "results.json").write_text(json.dumps(results))
    return write_card(folder).read_text()


def numbers_in(value: Any) -> list[int | float]:
    if isinstance(value, dict | list):
        return [number for one in (value.values() if isinstance(value, dict) else value) for number in numbers_in(one)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def test_tables_are_results_with_seen_and_unseen_apart(trained):
    results, text = results_of(trained), (trained / "README.md").read_text()
    assert results["languages"].keys() == {"sw", "yo", "ha", "ig"}
    seen, unseen = text[text.index("Languages with bitext in this training") :].split("Languages **without** bitext")
    for part, languages in ((seen, {"sw", "yo"}), (unseen.split("Translation accuracy")[0], {"ha", "ig"})):
        rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (.*) \| \*\*(.*)\*\* \| (.*) \|$", part, re.MULTILINE)
        assert {row[0] for row in rows} == languages
        for language, queries, *cells in rows:
            expected = results["languages"][language]
            assert int(queries) == expected["queries"] == 2
            for cell, column in zip(cells, ("zero_shot", "student", "english"), strict=True):
                found = expected.get(column)
                numbers = found and [found["ndcg@10"], found["pooled_ndcg@10"]]
                assert cell == (" / ".join(f"{number:.3f}" for number in numbers) if numbers else "-")
                assert (cell == "-") == ((language, column) == ("ig", "english"))


def test_no_number_is_from_anywhere_else(trained):
    results = results_of(trained)
    text = (trained / "README.md").read_text()
    body = re.sub(r"```.*?```", "", text.split("\n---\n", 1)[1], flags=re.DOTALL)
    body = body.replace(results["machine"], "").replace("nDCG@10 (1 is perfect)", "").replace("ISO 639", "")
    body = body.replace("nDCG@10", "").replace("2301.12566", "").replace("float32", "").replace("Apache-2.0", "")
    body = re.sub(r"`[^`]*`|\d{4}-\d\d-\d\d|torch \S+|transformers \S+", "", body)
    found = re.findall(r"\d[\d,]*(?:\.\d+)?(?:e-\d+)?", body)
    config = json.loads((trained / "config.json").read_text())
    values = [*numbers_in(results), config["query_length"], config["document_length"], 32]  # 32: size of a vector
    known = {f"{value:,}" for value in values} | {f"{value:.3f}" for value in values} | {str(v) for v in values}
    minutes = {f"{results[name] / 60:.1f}" for name in ("training_seconds", "total_seconds")}
    derived = {"4", "9", "10"}  # 2 steps of 2 pairs, and held-out ones; 5 + 4 pairs of bitext; a tenth of the steps
    assert [number for number in found if number.rstrip(",") not in known | minutes | derived] == []
    assert len(found) > 40 and minutes | derived <= set(found)
    assert "Trained for **2 steps of 2 pairs**, at most 4 in all, repeats included.\n" in text
    left_out = "left out for sharing an English sentence with those"
    assert f"Its bitext has 9 pairs: 4 held out, 1 {left_out}, 4 to train on. Added to these by" in text
    assert f"**`sw`**: 5 pairs after cleaning (2 held out, 1 {left_out}, 2 to train on), from" in text
    assert "**`yo`**: 4 pairs after cleaning (2 held out, 2 to train on), from" in text
    assert results["retention_pairs"] == 4 and "English sentences paired with themselves: 4.\n" in text
    assert f"| weights | `{results['weights']}`, the hash" in text
    assert "warm-up over 10 % of the steps" in text and results["arguments"]["warmup_steps"] == 0.1
    counts = [(language, int(kept)) for language, kept in re.findall(r"\*\*`(\w+)`\*\*: ([\d,]+) pairs", body + text)]
    assert dict(counts) == {"sw": 5, "yo": 4} == {name: count["kept"] for name, count in results["bitext"].items()}
    assert "from `en-sw.tsv`" in text and "from `en-yo.tsv`" in text
    assert "`epsilon` 0.1" in text and "`solver` sinkhorn" in text and "reg_m" not in text
    assert "`token_weight` 1.0" in text
    elsewhere = {"warmup_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "bf16", "fp16"}
    elsewhere |= {"load_best_model_at_end", "metric_for_best_model", "reg_m", "partial_mass"}
    for name in results["arguments"].keys() - elsewhere:
        value = results["arguments"][name]
        value = ", ".join(value) if isinstance(value, list) else str(value)
        assert re.findall(rf"[|,] `{name}` ([^,|]+?)(?:,| \|)", text) == [value]


def test_what_became_of_the_pairs():
    def pairs(**counts: int) -> Dataset:
        return Dataset.from_dict({"language": [name for name, count in counts.items() for _ in range(count)]})

    counts = {"sw": {"kept": 90, "long": 7}, "yo": {"kept": 30, "long": 0}}
    counted = count_pairs(counts, pairs(sw=5, yo=5), pairs(sw=84, yo=20), pairs(sw=60, yo=44))
    sw = {"kept": 90, "long": 7, "held_out": 5, "left_out": 1, "trained": 60, "passed_over": 24, "drawn": 60}
    yo = {"kept": 30, "long": 0, "held_out": 5, "left_out": 5, "trained": 20, "passed_over": 0, "drawn": 44}
    assert counted == {"sw": sw, "yo": yo}
    stream = pairs(sw=1).to_iterable_dataset()
    assert count_pairs(counts, pairs(sw=5), stream, stream)["sw"] == {"kept": 90, "long": 7, "held_out": 5}


def test_card_of_balanced_languages_of_a_stream_and_of_version_0_1_0(student):
    sw = {"kept": 90, "held_out": 5, "left_out": 0, "trained": 60, "passed_over": 25, "drawn": 60}
    yo = {"kept": 30, "held_out": 5, "left_out": 0, "trained": 25, "passed_over": 0, "drawn": 50}
    text = change(student, bitext={"sw": sw, "yo": yo}, temperature=3.0, retention_pairs=0)
    passed_over = "25 passed over by `temperature`"
    assert f"120 pairs: 10 held out, {passed_over}, 85 to train on, which come 110 times in a pass by" in text
    assert f"**`sw`**: 90 pairs after cleaning (5 held out, {passed_over}, 60 to train on), from" in text
    assert "(5 held out, 25 to train on, which come 50 times in a pass by `temperature`), from" in text
    assert "Added to these" not in text
    bitext = {"sw": {"kept": 90, "held_out": 5}, "yo": {"kept": 30, "held_out": 5}}
    text = change(student, bitext=bitext, streaming=True)
    assert "Its bitext gave 120 pairs: 10 held out." in text
    assert "**`sw`**: 90 pairs read as a stream (5 held out), from" in text
    text = change(student, bitext={"sw": {"kept": 90}, "yo": {"kept": 30}}, streaming=False, weights=None)
    assert "Its bitext has 120 pairs: 4 held out." in text and "blake2b" not in text
    assert "**`sw`**: 90 pairs after cleaning (2 held out), from" in text


def test_the_first_code_is_the_measured_use(trained):
    first, *others = re.findall(r"```python\n(.*?)```", (trained / "README.md").read_text(), re.DOTALL)
    assert first.count("model.encode([") == first.count('role="query"') == 2
    assert first.count("teacher.encode([") == first.count('role="document"') == 2
    assert len(others) == 2 and not any("teacher" in code for code in others)


def test_card_and_results_name_the_weights(trained):
    weights = weights_hash(trained)
    assert results_of(trained)["weights"] == weights
    for name in ("README.md", ".eval_results/optical_hf.yaml"):
        assert named_hashes(trained / name) == {weights}


def test_other_amounts_of_training(student):
    arguments = results_of(student)["arguments"] | {"gradient_accumulation_steps": 3, "concatenation": 4}
    arguments |= {"per_device_train_batch_size": 100, "warmup_steps": 1500.0}
    text = change(student, arguments=arguments, steps=20000, processes=2)
    assert "**20,000 steps of 600 pairs joined from up to 4**, at most 12,000,000 in all" in text
    assert "warm-up over 1,500 steps" in text


def test_both_result_formats_hold_the_figures_in_full(trained):
    expected = {
        (language, metric): row["student"][name]
        for language, row in results_of(trained)["languages"].items()
        for metric, name in METRICS.items()
    }
    index = ModelCard.load(trained / "README.md").data.eval_results
    assert {(one.dataset_config, one.metric_type): one.metric_value for one in index} == expected
    assert {one.dataset_type for one in index} == {"someone/questions"}
    entries = parse_eval_result_entries(yaml.safe_load((trained / ".eval_results" / "optical_hf.yaml").read_text()))
    assert {tuple(one.task_id.split("_", 1)): one.value for one in entries} == expected
    assert {(one.dataset_id, one.date) for one in entries} == {("someone/questions", results_of(trained)["date"])}
    assert "2 questions in ig, a language that was not in the training bitext" in entries[-1].notes


def test_metadata(student):
    data = ModelCard.load(student / "README.md").data
    assert (data.language, data.license, data.base_model) == (["en", "sw", "yo"], "mit", "someone/tiny-e5")
    assert (data.pipeline_tag, data.library_name) == ("feature-extraction", "transformers")
    assert {"multi-vector", "colbert", "late-interaction", "optical"} <= set(data.tags)
    assert "sentence-transformers" in data.tags
    text = write_card(student, repo_id="someone/else", license="apache-2.0").read_text()
    assert 'MultiVectorEncoder("someone/else", trust_remote_code=True)' in text
    assert ModelCard(text).data.license == "apache-2.0" and "`apache-2.0`." in text
    (student / "modules.json").unlink()
    text = write_card(student, repo_id="someone/else").read_text()
    assert "sentence-transformers" not in text and "MultiVectorEncoder" not in text
    assert "`mit`, the licence of the model it started from, `tiny-e5` (made from `someone/tiny-e5`)." in text


class Validator(BaseHTTPRequestHandler):
    """`POST /api/validate-yaml` as the Hub answers: 400 and a text for metadata that is not allowed."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        data = yaml.safe_load(re.match(r"---\n(.*?)\n---\n", body["content"], re.DOTALL)[1])
        errors = [code for code in data.get("language", []) if not re.fullmatch("[a-z]{2,3}", code)]
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", data.get("base_model", "a/b")):
            errors.append("base_model")
        if not re.fullmatch(r"[a-z0-9.-]+", data.get("license", "mit")):
            errors.append("license")
        for result in data.get("model-index", [{"results": []}])[0]["results"]:
            required = {"task": ("type",), "dataset": ("name", "type")}
            errors += [f"{part}.{key}" for part, keys in required.items() for key in keys if not result[part].get(key)]
            errors += [str(one) for one in result["metrics"] if not one["type"] or not 0 <= one["value"] <= 1]
        wrong = self.path != "/api/validate-yaml" or body["repoType"] != "model" or errors
        answer = ", ".join(errors).encode()
        self.send_response(400 if wrong else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.mark.skipif(Version(huggingface_hub.__version__) < Version("2.2"), reason="asks the real Hub")
def test_validation(student, monkeypatch):
    server = HTTPServer(("127.0.0.1", 0), Validator)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    try:
        card = ModelCard.load(student / "README.md")
        card.validate()
        # What is read back is written again as it was.
        assert ModelCard(str(card)).data.to_dict() == card.data.to_dict()
        assert str(ModelCard(str(card))) == str(card)
        change(student, languages=None, bitext=None, base_model="a folder")
        with pytest.raises(ValueError, match="base_model"):
            ModelCard.load(student / "README.md").validate()
    finally:
        server.shutdown()
        server.server_close()


def test_nothing_of_the_machine_is_in_it(trained):
    for name in ("README.md", "results.json", ".eval_results/optical_hf.yaml"):
        text = (trained / name).read_text()
        assert TOKEN not in text and "hf_" not in text.replace("optical_hf", "")
        assert str(trained.parent) not in text and str(Path.home()) not in text
        assert not re.search(r"(?<![\w.:/])/(?:tmp|home|root|work|usr|var)\b", text)


def test_the_code_of_the_card_runs(student, tiny_encoder, monkeypatch):
    monkeypatch.chdir(student.parent)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    text = write_card(student).read_text()
    assert '"someone/tiny-e5",\n    query_prefix="query : ",\n    document_prefix="",\n    query_length=64,' in text
    assert "`tiny-e5`, made from `someone/tiny-e5`; the latter, loaded here, may score a little differently." in text
    assert text.index("trained and measured, **this model encodes the questions") < text.index("**not measured**")
    assert "by mean pooling" in text
    with_package, alone, _ = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    found: dict[str, Any] = {}
    exec(alone, found)
    assert found["vectors"].shape == (1, 32) and [len(found["scores"]), len(found["scores"][0])] == [1, 2]
    ours = maxsim(found["queries"], found["passages"])
    assert found["scores"][0] == pytest.approx(ours[0].tolist(), abs=1e-5)
    exec(with_package.replace("someone/tiny-e5", str(tiny_encoder)), found)
    teacher = OpticalTeacher.from_checkpoint(tiny_encoder, query_prefix="query : ")
    passages = teacher.encode(["a passage", "another passage"], role="document")
    assert found["scores"].tolist() == maxsim(found["queries"], passages).tolist()


def test_name_on_the_hub_is_written_unless_the_card_was_edited(student, caplog):
    card = student / "README.md"
    local = card.read_text()
    assert '"someone/named"' not in local and '("student"' in local
    name_card(student, "someone/named")
    assert '"someone/named"' in card.read_text() and '("student"' not in card.read_text()
    card.write_text(local + "\nEdited.\n")
    name_card(student, "someone/else")
    assert card.read_text() == local + "\nEdited.\n"
    assert "was edited, or is of another version: it stays without the name someone/else" in caplog.text
    card.unlink()
    name_card(student, "someone/else")
    assert '"someone/else"' in card.read_text()


def test_without_evaluation(student):
    text = change(student, languages={}, held_out={}, passages=None, collection=None, protocol=None)
    assert "Retrieval was not measured in this run." in text and "zero-shot" not in text and "model-index" not in text
    assert not (student / ".eval_results" / "optical_hf.yaml").exists()
    assert "results.json" not in text and "not measured**" not in text
    assert "It was trained as an encoder of questions" in text and "As it was trained, **this model" in text


def test_without_unseen_languages_and_without_a_ceiling(student):
    languages = {
        "sw": {key: value for key, value in results_of(student)["languages"]["sw"].items() if key != "english"}
    }
    text = change(student, languages=languages, collection="questions of our own")
    assert "No language without bitext was measured." in text and "**in English**" not in text
    assert re.findall(r"^\| `(\w+)`", text, re.MULTILINE) == ["sw"]
    entries = yaml.safe_load((student / ".eval_results" / "optical_hf.yaml").read_text())
    assert {entry["dataset"]["id"] for entry in entries} == {"local/questions-of-our-own"}


def test_without_results(student):
    (student / "results.json").unlink()
    text = write_card(student).read_text()
    assert "What it was trained on is not recorded here" in text and "Not stated by the author" in text
    assert "AutoModel.from_pretrained" in text and "None" not in text and "teacher" not in text
    assert "No measurement is recorded here." in text and "model_name" not in text


def test_teacher_that_is_not_what_it_started_from(student):
    text = change(student, teacher="my-colbert")
    assert "teacher was\na local folder, `my-colbert`.\n" in text and '    "my-colbert",\n' in text
    assert "| started from | `tiny-e5` (made from `someone/tiny-e5`) |" in text and "the latter" not in text
    text = change(student, teacher="someone/colbert")
    assert '    "someone/colbert",\n' in text and "local folder" not in text and "the latter" not in text


def test_other_losses_bf16_and_a_chosen_checkpoint(student):
    arguments = results_of(student)["arguments"] | {"bf16": True, "load_best_model_at_end": True}
    text = change(student, loss="mse", arguments=arguments | {"metric_for_best_model": "eval_ndcg@10"})
    assert "| loss | `mse`: " in text and "epsilon" not in text and "encoded its questions in bf16" in text
    assert "chosen by `eval_ndcg@10` on the questions above" in text
    text = change(student, loss="greedy", arguments=arguments | {"metric_for_best_model": "eval_loss"})
    assert (
        "| loss | `greedy`: " in text
        and "epsilon" not in text
        and "`bank_size` 4096" in text
        and "chosen by" not in text
    )
    text = change(student, loss="ot", arguments=arguments | {"solver": "partial"})
    assert "`partial_mass` 0.8" in text and "reg_m" not in text


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"steps": 4, "bitext": {"sw": {}}}', '{"languages": {"sw": {"seen": true, "queries": 2}}}']
)
def test_broken_results_leave_the_card_that_is_there(student, text):
    before = (student / "README.md").read_text()
    (student / "results.json").write_text(text)
    for write in (write_card, lambda folder: name_card(folder, "someone/named")):
        with pytest.raises(ValueError, match=re.escape(str(student / "results.json"))):
            write(student)
    assert (student / "README.md").read_text() == before
    assert (student / ".eval_results" / "optical_hf.yaml").exists()


def test_results_with_another_digit_are_refused(student):
    text = (student / "results.json").read_text()
    card = write_card(student).read_text()
    place = text.index('"seed": ') + 8
    (student / "results.json").write_text(text[:place] + "7" + text[place:])
    with pytest.raises(ValueError, match=r"results.json: it has changed since .* yourself, delete its `digest`"):
        write_card(student)
    (student / "results.json").write_text(text)
    assert write_card(student).read_text() == card


def test_folder_that_is_no_student(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no config.json"):
        write_card(tmp_path)
    for text, message in (
        ("[]", "a list, not an object"),
        ("{", "no JSON"),
        ('{"model_type": "bert"}', "type 'bert'"),
    ):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=f"{re.escape(str(tmp_path))}.*{message}"):
            write_card(tmp_path)


def test_names_without_paths(tmp_path, monkeypatch):
    for folder in ("mafand", "ntrex"):
        (tmp_path / folder).mkdir()
        for name in ("en-yo.tsv", "part.en", "part.yo"):
            (tmp_path / folder / name).touch()
    ours, theirs = str(tmp_path / "mafand" / "en-yo.tsv"), str(tmp_path / "ntrex" / "en-yo.tsv")
    assert source_names([ours, "Helsinki-NLP/opus-100:en-yo"], "yo") == ["en-yo.tsv", "Helsinki-NLP/opus-100:en-yo"]
    assert source_names([ours, theirs], "yo") == ["en-yo.tsv in mafand", "en-yo.tsv in ntrex"]
    monkeypatch.chdir(tmp_path)
    assert source_names(["mafand/part", "ntrex/part.en,ntrex/part.yo"], "yo") == [
        "part.en and part.yo in mafand",
        "part.en and part.yo in ntrex",
    ]
    assert source_names(["mafand"], "yo") == ["mafand"]


def test_where_a_checkpoint_comes_from(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    nothing = {"base_model": None, "license": None}
    assert checkpoint_origin("nobody/nothing") == {**nothing, "name": "nobody/nothing", "base_model": "nobody/nothing"}
    folder = tmp_path / "e5"
    folder.mkdir()
    assert checkpoint_origin(folder) == {**nothing, "name": "e5"}
    monkeypatch.chdir(folder)
    (folder / "README.md").write_text("---\nbase_model: [a/b, c/d]\nlicense: mit\n---\n")
    assert checkpoint_origin(".") == {"name": "e5", "base_model": "a/b", "license": "mit"}
    (folder / "README.md").write_text("---\nlicense: [\n---\n")
    assert checkpoint_origin(folder) == {**nothing, "name": "e5"}
    assert "The card of" in caplog.text and "cannot be read" in caplog.text


def test_the_wheel_holds_the_templates():
    kinds = ("student", "retriever", "cross_encoder")
    targets = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    packed = {f"model_cards/{kind}.md": f"optical_hf/training/{kind}_card.md" for kind in kinds}
    assert targets["wheel"]["force-include"] == packed
    for kind in kinds:
        # In a working copy the source; beside the module, where the wheel has it, nothing.
        assert card_template(kind) == str(ROOT / "model_cards" / f"{kind}.md") and Path(card_template(kind)).is_file()

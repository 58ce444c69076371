"""The example as a user runs it: through `accelerate launch`, with good input and bad."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from transformers import AutoModel

from optical_hf import OpticalStudent, OpticalTeacher
from optical_hf.commands import distill
from optical_hf.launching import writing

EXAMPLES = Path(__file__).parents[2] / "examples"
SENTENCES = [
    ("she wrote this book", "aliandika kitabu hicho"),
    ("it rains today", "mvua inanyesha leo"),
    ("who wrote the book", "nani aliandika kitabu"),
    ("the book today", "kitabu leo"),
    ("who wrote it today", "nani aliandika leo"),
    ("this book rains", "kitabu hicho inanyesha"),
    ("who rains", "nani inanyesha"),
    ("a book", "kitabu habari"),
    ("she rains today", "mvua leo habari"),
    ("the book wrote it", "kitabu aliandika hicho"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten pairs, eight of them to train on, and three questions in Swahili and in English."""
    (tmp_path / "sw.tsv").write_text("".join(f"{english}\t{swahili}\n" for english, swahili in SENTENCES))
    passages = ["she wrote the book", "it rains today", "the book rains"]
    (tmp_path / "passages.jsonl").write_text(
        "".join(
            json.dumps({"docid": f"d{index}", "title": "", "text": text}) + "\n" for index, text in enumerate(passages)
        )
    )
    (tmp_path / "topics.sw.tsv").write_text("q0\tnani aliandika kitabu\nq1\tmvua leo\nq2\tkitabu inanyesha\n")
    (tmp_path / "topics.en.tsv").write_text("q0\twho wrote the book\nq1\trains today\nq2\tbook rains\n")
    (tmp_path / "qrels.tsv").write_text("".join(f"q{index} 0 d{index} 1\n" for index in range(3)))
    return tmp_path


def arguments(folder: Path, encoder: Path, **changes: object) -> list[str]:
    options = {
        "teacher": encoder,
        "bitext": f"sw={folder}/sw.tsv",
        "held_out": 2,
        "retention_share": 0,
        "mark_dropout": 0,
        "passages": f"{folder}/passages.jsonl",
        "topics": f"sw={folder}/topics.sw.tsv",
        "english_topics": f"sw={folder}/topics.en.tsv",
        "qrels": f"sw={folder}/qrels.tsv",
        "output_dir": folder / "student",
        "num_train_epochs": 1,
        "per_device_train_batch_size": 2,
        "use_cpu": "true",
        "report_to": "none",
    }
    return [
        str(word) for name, value in (options | changes).items() if value is not None for word in (f"--{name}", value)
    ]


def launch(words: list[str], *launcher: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", *launcher]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [*command, str(EXAMPLES / "distill.py"), *words], cwd=cwd, env=environment, capture_output=True, text=True
    )


def test_two_processes_share_the_work_and_the_student_loads_both_ways(folder, tiny_encoder):
    done = launch(
        arguments(folder, tiny_encoder, save_strategy="steps", save_steps=1, logging_steps=1),
        *("--config_file", str(EXAMPLES / "accelerate_configs" / "two_cpu.yaml")),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    results = json.loads((folder / "student" / "results.json").read_text())
    assert results["processes"] == 2
    assert results["steps"] == 2  # 8 pairs, 2 a process: a single process would take 4
    assert results["languages"]["sw"].keys() >= {"zero_shot", "student", "english"}
    assert "seen in distillation" in done.stdout and "AutoModel.from_pretrained" in done.stdout
    assert {path.name for path in (folder / "student").glob("checkpoint-*")} == {"checkpoint-1", "checkpoint-2"}

    script = """
import sys, torch
{imports}
from accelerate.commands.config.config_args import load_config_from_file
from transformers import AutoModel
model = AutoModel.from_pretrained(sys.argv[1]{options})
torch.save(model.encode(["nani aliandika kitabu"], role="query")[0], sys.argv[2])
"""
    vectors = []
    for index, (imports, options) in enumerate((("import optical_hf", ""), ("", ", trust_remote_code=True"))):
        path = folder / f"vectors-{index}.pt"
        code = script.format(imports=imports, options=options)
        home = {**os.environ, "HF_MODULES_CACHE": str(folder / "modules"), "HF_HUB_OFFLINE": "1"}
        subprocess.run([sys.executable, "-c", code, str(folder / "student"), str(path)], check=True, env=home)
        vectors.append(torch.load(path, weights_only=True))
    torch.testing.assert_close(vectors[0], vectors[1])
    assert vectors[0].shape == (3, 32)
    student, start = OpticalStudent.from_pretrained(folder / "student"), AutoModel.from_pretrained(tiny_encoder)
    trained = student.backbone.encoder.layer[0].output.dense.weight
    assert not torch.equal(trained, start.encoder.layer[0].output.dense.weight)


def test_more_processes_asked_for_than_running(folder, tiny_encoder):
    done = launch(arguments(folder, tiny_encoder), "--cpu", "--num_processes", "2", cwd=folder)
    assert done.returncode != 0
    assert "2 processes were asked for, and 1 is running" in done.stderr and "two_cpu.yaml" in done.stderr
    assert not (folder / "student").exists()


@pytest.fixture
def stops(folder, tiny_encoder, monkeypatch):
    """Run the example in this process with some arguments changed, and return its error."""
    monkeypatch.setenv("WORLD_SIZE", "1")

    def run(**changes: object) -> str:
        with pytest.raises((ValueError, OSError, RuntimeError)) as error:
            distill.main(arguments(folder, changes.pop("teacher", tiny_encoder), **changes))
        assert not list((folder / "student").glob("*"))
        return str(error.value)

    return run


def test_bitext_line_without_tab(folder, stops):
    (folder / "sw.tsv").write_text("a book\tkitabu\nthe book kitabu\n")
    assert f"{folder}/sw.tsv:2" in stops().replace(", line ", ":")


def test_empty_bitext(folder, stops):
    (folder / "sw.tsv").write_text("")
    message = stops()
    assert f"{folder}/sw.tsv" in message and "no" in message


def test_language_code_that_is_none(folder, stops):
    assert "'qx' is not a language code" in stops(bitext=f"qx={folder}/sw.tsv")


def test_topics_without_qrels(stops):
    assert "Every language needs --topics and --qrels" in stops(qrels=None)


def test_judgements_of_passages_that_are_not_there(folder, stops, caplog):
    (folder / "qrels.tsv").write_text("q0 0 d0 1\nq1 0 en#d1 1\nq2 0 d2 1\n")
    lost = "Retrieval set 'sw': 1 of the 3 relevant judgements name a passage that is not there (such as 'en#d1')"
    assert stops(strict="true") == f"{lost}, which `strict` refuses."
    stops(bitext=f"sw={folder}/gone.tsv")  # what comes next
    assert f"{lost}." in caplog.messages


@pytest.mark.parametrize("name", ["passages", "topics", "english_topics", "qrels"])
def test_files_that_are_not_there_show_before_a_model_is_loaded(name, folder, stops, monkeypatch):
    monkeypatch.setattr(OpticalTeacher, "from_checkpoint", lambda *_: pytest.fail("a model was loaded"))
    gone = f"{folder}/gone"
    assert stops(**{name: gone if name == "passages" else f"sw={gone}"}) == f"--{name}: there is no file {gone}."


def test_models_that_are_not_there_show_before_the_bitext_is_read(folder, stops, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (folder / "sw.tsv").write_text("no tab\n")
    for changes in ({"teacher": "writer/e6"}, {"student": "writer/e6"}):
        assert stops(**changes).startswith("There is no folder writer/e6, and the Hub, where a model may have this ")


def test_role_that_does_not_exist(stops):
    assert "['question']" in stops(roles="question")


def test_checkpoint_folder_without_weights(folder, tiny_encoder, stops):
    empty = folder / "encoder"
    empty.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (empty / name).write_bytes((tiny_encoder / name).read_bytes())
    assert str(empty) in stops(teacher=empty)


def test_checkpoint_folder_that_is_not_there(folder, stops):
    assert f"There is no folder {folder}/nowhere" in stops(teacher=folder / "nowhere")


def test_output_folder_that_cannot_be_written(stops):
    assert "The output folder /proc/student cannot be written" in stops(output_dir="/proc/student")


def test_best_model_by_questions_that_are_not_there(stops):
    changes = dict.fromkeys(("passages", "topics", "english_topics", "qrels"))
    assert "none of them has --topics" in stops(metric_for_best_model="eval_ndcg@10", **changes)


def test_english_questions_of_another_set(folder, stops):
    (folder / "topics.en.tsv").write_text("q0\twho wrote the book\nq7\train\n")
    assert "lacks 2 of the questions" in stops()


def test_full_disk(folder, stops, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("optical_hf.launching.shutil.disk_usage", lambda _: usage)
    assert f"The output folder {folder / 'student'} has 0.0 GB free" in stops()


def test_streaming(folder, tiny_encoder):
    words = arguments(folder, tiny_encoder, streaming="true", max_steps=3, retention_share=1.0)
    distill.main(words)
    results = json.loads((folder / "student" / "results.json").read_text())
    assert results["steps"] == 3
    assert results["bitext"]["sw"]["kept"] == 10 and results["held_out"].keys() >= {"translation_accuracy_sw"}


def test_config_file_with_the_command_line_over_it(folder, tiny_encoder):
    config = folder / "study.yaml"
    config.write_text(
        "teacher: some/encoder\nbitext:\n  sw: sw.tsv\n  yo: [a.tsv, b.tsv]\nlearning_rate: 3e-4\nseed: 1\n"
        "save_strategy: no\nlr_scheduler_kwargs:\n  num_cycles: 2\n"
    )
    words = [f"--config={config}", "--seed", "7", "--output_dir", str(folder)]
    models, pairs, _, training = distill.reader().read(words)
    assert models.teacher == "some/encoder" and pairs.bitext == ["sw=sw.tsv", "yo=a.tsv", "yo=b.tsv"]
    assert (training.learning_rate, training.seed, training.save_strategy.value) == (3e-4, 7, "no")
    assert training.lr_scheduler_kwargs == {"num_cycles": 2}
    config.write_text(f"teacher: {folder}/encoder\nquery_prefix: ''\noutput_dir: out\n")
    OpticalTeacher.from_checkpoint(tiny_encoder, query_prefix="query: ").save_pretrained(folder / "encoder")
    models, *_ = distill.reader().read([f"--config={config}"])
    assert [model.config.query_prefix for model in models.load()] == ["", ""]  # not the checkpoint's
    for text, what in (("", "write `name: value` lines"), ("a: [", "is no YAML")):
        config.write_text(text)
        with pytest.raises(ValueError, match=what):
            distill.reader().read(["--config", str(config)])


def test_the_record_says_what_happened(folder, tiny_encoder, monkeypatch, caplog):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")  # as `accelerate launch --mixed_precision bf16` does
    words = arguments(folder, tiny_encoder, held_out=4, max_steps=1, save_strategy="no")
    distill.main(words)
    results = json.loads((folder / "student" / "results.json").read_text())
    assert (results["arguments"]["bf16"], results["arguments"]["fp16"]) == (True, False)
    assert "--held_out keeps 4 of the 10 pairs of 'sw' for evaluation, and 6 are trained on." in caplog.text
    assert not list((folder / "student").glob(".*lock*"))


def test_a_folder_that_is_being_written(folder, tiny_encoder):
    (folder / "student").mkdir()
    with writing(folder / "student"), pytest.raises(OSError, match="student is being written by process"):
        distill.main(arguments(folder, tiny_encoder))


@pytest.mark.parametrize(
    ("name", "processes", "kind"),
    [
        ("one_gpu", 1, "NO"),
        ("several_gpus", 4, "MULTI_GPU"),
        ("fsdp", 4, "FSDP"),
        ("deepspeed", 4, "DEEPSPEED"),
        ("two_cpu", 2, "MULTI_GPU"),
    ],
)
def test_accelerate_reads_the_configs(name, processes, kind):
    config = load_config_from_file(str(EXAMPLES / "accelerate_configs" / f"{name}.yaml"))
    assert (config.num_processes, str(config.distributed_type).removeprefix("DistributedType.")) == (processes, kind)

"""Trainings that were stopped: they go on from whole checkpoints of the same training, and end where they should."""

from __future__ import annotations

import errno
import json
import pkgutil
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from trainers import SGD, changed, make_bitext, weights
from transformers import TrainerCallback

from optical_hf.files import with_digest, write_json
from optical_hf.training.resuming import SETTINGS_FILE, check_checkpoint, is_whole, newest_checkpoint

SAVED = {
    "teacher_memory": 0.0,
    "save_strategy": "steps",
    "save_steps": 2,
    "save_total_limit": 10,
    "max_steps": 6,
    "dropout": 0.1,
}


@pytest.fixture
def whole(build, tmp_path):
    """A training of six steps of four pairs, four steps an epoch, and its checkpoints."""
    trainer = build(make_bitext(16), folder="out", lr_scheduler_type="constant", **SAVED)
    trainer.train()
    return trainer


@pytest.mark.parametrize("asked", [True, "true", "last"])
def test_a_training_that_was_stopped_after_its_last_checkpoint_is_at_its_end(build, whole, asked):
    resumed = build(make_bitext(16), folder="out", lr_scheduler_type="constant", **SAVED)
    output = resumed.train(resume_from_checkpoint=asked)
    assert (output.global_step, resumed.state.global_step) == (6, 6)
    assert changed(weights(whole.model), weights(resumed.model)) == set()


def test_the_newest_whole_checkpoint_is_taken(build, whole, tmp_path, caplog):
    out = tmp_path / "out"
    (out / "checkpoint-6" / "trainer_state.json").write_text("")
    weights_file = out / "checkpoint-4" / "model.safetensors"
    weights_file.write_bytes(weights_file.read_bytes()[:-1000])
    assert newest_checkpoint(out) == str(out / "checkpoint-2")
    assert "checkpoint-6 is not whole: trainer_state.json is missing or damaged. It is passed over." in caplog.text
    assert "checkpoint-4 is not whole: model.safetensors" in caplog.text
    resumed = build(make_bitext(16), folder="out", lr_scheduler_type="constant", **SAVED)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 6 and changed(weights(whole.model), weights(resumed.model)) == set()


@pytest.mark.parametrize(
    "name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", SETTINGS_FILE]
)
def test_a_checkpoint_that_is_cut_off_is_refused_by_name(build, whole, tmp_path, name):
    path = tmp_path / "out" / "checkpoint-4" / name
    path.write_bytes(path.read_bytes()[:20])
    resumed = build(make_bitext(16), folder="out", lr_scheduler_type="constant", **SAVED)
    with pytest.raises(ValueError, match=f"checkpoint-4 is not whole: {name}"):
        resumed.train(resume_from_checkpoint=str(path.parent))
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(ValueError, match="out holds no whole checkpoint"):
        resumed.train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 1e-5}, "learning_rate is 5e-05 there, 1e-05 here"),
        ({"loss": "mse"}, "loss is 'ot' there, 'mse' here"),
        ({"per_device_train_batch_size": 2}, "per_device_train_batch_size is 4 there, 2 here"),
        ({"max_steps": 8}, None),
    ],
)
def test_other_settings_are_refused_by_name(build, whole, tmp_path, changes, message):
    resumed = build(make_bitext(16), folder="out", **{"lr_scheduler_type": "constant", **SAVED, **changes})
    if message is None:
        resumed.train(resume_from_checkpoint=True)
        assert resumed.state.global_step == 8
        return
    with pytest.raises(ValueError, match=f"checkpoint-6 is of a training with other settings: {message}"):
        resumed.train(resume_from_checkpoint=True)


def test_other_bitext_and_another_teacher_are_refused(build, whole, tmp_path):
    with pytest.raises(ValueError, match="other settings: bitext is '"):
        other = build(make_bitext(17), folder="out", lr_scheduler_type="constant", **SAVED)
        other.train(resume_from_checkpoint=True)
    other = build(make_bitext(16), folder="out", lr_scheduler_type="constant", **SAVED)
    with torch.no_grad():
        next(other.teacher.parameters())[0] += 1
    with pytest.raises(ValueError, match="other settings: teacher is '"):
        other.train(resume_from_checkpoint=True)


def test_a_checkpoint_of_0_1_0_goes_on_with_a_word(build, whole, tmp_path, caplog):
    (tmp_path / "out" / "checkpoint-4" / SETTINGS_FILE).unlink()
    resumed = build(make_bitext(16), folder="out", lr_scheduler_type="constant", **SAVED)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-4"))
    assert "does not say what it was trained with" in caplog.text
    assert changed(weights(whole.model), weights(resumed.model)) == set()


def test_the_settings_say_what_the_training_was_made_of(whole, tmp_path):
    settings = json.loads((tmp_path / "out" / "checkpoint-2" / SETTINGS_FILE).read_text())
    assert (settings["loss"], settings["processes"], settings["mixed_precision"]) == ("ot", 1, "no")
    assert {"learning_rate", "seed", "epsilon", "roles", "optim"} <= settings.keys()
    assert not {"max_steps", "num_train_epochs", "logging_steps", "output_dir"} & settings.keys()
    assert not (tmp_path / "out" / SETTINGS_FILE).exists()


@pytest.mark.parametrize("parts", [(6, 2), (8, 2), (5, 3), (11, 2), (1, 12)])
def test_a_step_is_the_mean_over_its_pairs_whatever_parts_it_is_cut_into(build, tmp_path, parts):
    size, accumulation = parts
    options = SGD | {"max_steps": 1}
    plain = build(make_bitext(12), folder="plain", per_device_train_batch_size=12, **options)
    plain.train()
    split = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
    cut = build(make_bitext(12), folder="cut", **options, **split)
    cut.train()
    assert len(plain.train_dataset) == 12
    before, after = weights(plain.model), weights(cut.model)
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-5)
    assert cut.state.log_history[0]["loss"] == pytest.approx(plain.state.log_history[0]["loss"], abs=1e-5)


def test_too_little_bitext_for_one_batch_is_an_error(build):
    trainer = build(make_bitext(16), per_device_train_batch_size=32, dataloader_drop_last=True)
    with pytest.raises(
        ValueError, match="There are 16 rows, and a batch takes 32: with `dataloader_drop_last` nothing"
    ):
        trainer.train()


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]
)
def test_a_checkpoint_whose_removal_was_killed_is_not_taken(build, whole, tmp_path, name):
    (tmp_path / "out" / "checkpoint-6" / name).unlink()
    with pytest.raises(ValueError, match=f"checkpoint-6 is not whole: {name} is missing"):
        check_checkpoint(tmp_path / "out" / "checkpoint-6")
    assert newest_checkpoint(tmp_path / "out") == str(tmp_path / "out" / "checkpoint-4")


def test_a_scratch_folder_hides_no_missing_part(whole, tmp_path):
    folder = tmp_path / "out" / "checkpoint-6"
    settings = json.loads((folder / SETTINGS_FILE).read_text())
    del settings["digest"]
    write_json(folder / SETTINGS_FILE, with_digest({**settings, "files": {}}))  # killed before the checksums
    (folder / f".{SETTINGS_FILE}.0123456789ab.partial").mkdir()
    assert is_whole(folder)
    (folder / "optimizer.pt").unlink()
    assert not is_whole(folder)


def test_checkpoints_that_a_kill_left_too_many_are_removed(build, whole, tmp_path):
    (tmp_path / "out" / "checkpoint-2" / "model.safetensors").unlink()
    resumed = build(make_bitext(16), folder="out", lr_scheduler_type="constant", **{**SAVED, "save_total_limit": 2})
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-4"))  # not the newest: 2 and 4 go in time
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"checkpoint-4", "checkpoint-6"}
    shutil.copytree(tmp_path / "out" / "checkpoint-4", tmp_path / "out" / "checkpoint-3")
    resumed.train(resume_from_checkpoint=True)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"checkpoint-4", "checkpoint-6"}


def test_a_checkpoint_that_is_written_over_is_not_whole_until_it_is(build, whole, tmp_path, monkeypatch):
    other = build(make_bitext(17), folder="out", lr_scheduler_type="constant", **SAVED)
    monkeypatch.setattr(other, "_save_rng_state", lambda *_: sys.exit("killed"))
    with pytest.raises(SystemExit, match="killed"):
        other.train()
    assert {path.name for path in (tmp_path / "out").iterdir() if is_whole(path)} == {"checkpoint-4", "checkpoint-6"}


def test_a_checkpoint_that_is_written_over_holds_nothing_of_the_one_before(build, whole, tmp_path):
    class Notes(TrainerCallback):
        def on_save(self, args, state, control, **_):
            (tmp_path / "out" / f"checkpoint-{state.global_step}" / "notes.txt").write_text("written after the rest")

    for step in (2, 4):
        (tmp_path / "out" / f"checkpoint-{step}" / "notes.txt").write_text("of the one before")
    build(make_bitext(16), folder="out", lr_scheduler_type="constant", callbacks=[Notes()], **SAVED).train()
    assert [path.name for path in (tmp_path / "out").iterdir() if not is_whole(path)] == []


def test_the_time_before_a_stop_counts(build, whole, tmp_path):
    path = tmp_path / "out" / "checkpoint-4" / SETTINGS_FILE
    settings = json.loads(path.read_text()) | {"seconds": 1000.0}
    settings.pop("digest")
    write_json(path, with_digest(settings))
    resumed = build(make_bitext(16), folder="out", lr_scheduler_type="constant", **SAVED)
    resumed.train(resume_from_checkpoint=str(path.parent))
    assert resumed.seconds_before == 1000.0
    assert json.loads((tmp_path / "out" / "checkpoint-6" / SETTINGS_FILE).read_text())["seconds"] > 1000


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("place", "error"),
    [
        ("transformers.modeling_utils.safe_save_file", SafetensorError(f"I/O error: {FULL}")),
        ("optical_hf.files.os.replace", FULL),
        (
            "transformers.trainer.torch.save",
            RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos"),
        ),
        ("transformers.trainer.TrainerState.save_to_json", FULL),
    ],
    ids=["weights", "settings", "optimizer", "trainer state"],
)
def test_a_disk_that_fills_in_mid_checkpoint(build, tmp_path, monkeypatch, place, error):
    options = {"lr_scheduler_type": "constant", **SAVED}
    whole = build(make_bitext(16), folder="whole", **options)
    whole.train()
    filling = build(make_bitext(16), folder="out", **options)

    def fill(*arguments, **named):
        if filling.state.global_step < 4:
            return write(*arguments, **named)
        for target in (each for each in arguments if isinstance(each, str | Path) and "checkpoint-4" in str(each)):
            Path(target).write_bytes(b"half of it")
        raise error

    with monkeypatch.context() as patch:
        write = pkgutil.resolve_name(place)
        patch.setattr(place, fill)
        with pytest.raises(
            OSError, match="Step 4: the checkpoint could not be written to .*out .*Make room, and go on"
        ):
            filling.train()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"checkpoint-2"}
    resumed = build(make_bitext(16), folder="out", **options)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 6 and changed(weights(whole.model), weights(resumed.model)) == set()


def test_checksums_that_a_kill_kept_from_being_written_are_written_on_resume(build, whole, tmp_path):
    path = tmp_path / "out" / "checkpoint-6" / SETTINGS_FILE
    written = json.loads(path.read_text())
    assert {"model.safetensors", "trainer_state.json"} <= written["files"].keys()
    settings = {name: value for name, value in written.items() if name not in ("digest", "files")}
    write_json(path, with_digest({**settings, "files": {}}), indent=2)
    (path.parent / f".{SETTINGS_FILE}.0123456789ab.partial").mkdir()
    build(make_bitext(16), folder="out", lr_scheduler_type="constant", **SAVED).train(resume_from_checkpoint=True)
    assert json.loads(path.read_text()) == written
    assert not list(path.parent.glob(".*"))

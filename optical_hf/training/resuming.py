"""Going on with a training that was stopped: which checkpoint is whole, and whether it is of the same training."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from datasets import Dataset, IterableDataset
from safetensors import SafetensorError, safe_open
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints, sort_checkpoints

from ..files import changed_files, checksums, pop_digest, read_json, remove_abandoned, with_digest, write_json

logger = logging.getLogger(__name__)

SETTINGS_FILE = "optical_run.json"
_FILES, _SECONDS = "files", "seconds"  # of the settings' file, beside the settings: checksums of all files, the time
_PARTS = {  # of a checkpoint in one process or in several
    "model.safetensors": "model*.safetensors",
    "optimizer.pt": "optimizer.*",
    "scheduler.pt": "scheduler.pt",
    "rng_state.pth": "rng_state*.pth",
}


def checkpoint_to_resume(
    asked: str | bool | None, folder: str | os.PathLike[str], settings: Mapping[str, Any]
) -> str | None:
    """Find the checkpoint that a training is to go on from, and check that it is whole and of this training.

    Args:
        asked (`str` or `bool`, *optional*):
            A checkpoint's folder; or `True`, `"true"` or `"last"` for the newest whole one; or nothing.
        folder (`str` or `Path`):
            The output folder of the training.
        settings (`Mapping[str, Any]`):
            What the training is made of now.

    Raises:
        ValueError: if there is none, or as [`check_checkpoint`] and [`check_settings`].
    """
    if not asked or str(asked).lower() in ("false", "no"):
        return None
    checkpoint: str | None = str(asked)
    if str(asked).lower() in ("true", "yes", "last"):
        checkpoint = newest_checkpoint(folder)
        if checkpoint is None:
            raise ValueError(f"`resume_from_checkpoint` is {asked}, and {folder} holds no whole checkpoint.")
    else:
        check_checkpoint(str(checkpoint))
    check_settings(str(checkpoint), settings)
    logger.info("Going on from %s.", checkpoint)
    return checkpoint


def newest_checkpoint(folder: str | os.PathLike[str]) -> str | None:
    """Find the newest whole checkpoint of an output folder; those that a kill or a full disk cut off are named.

    Args:
        folder (`str` or `Path`): the output folder of a training.

    Returns:
        `str`, *optional*: the checkpoint's folder; `None` if there is none.
    """
    checkpoints = [path for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if re.search(r"-\d+$", path.name)]
    for path in sorted(checkpoints, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True):
        try:
            check_checkpoint(path)
        except ValueError as error:
            logger.warning("%s It is passed over.", error)
        else:
            return str(path)
    return None


def check_checkpoint(folder: str | os.PathLike[str]) -> None:
    """Refuse a checkpoint of which a part is missing, cut off, or not what was written.

    Raises:
        ValueError: naming the file.
    """
    path = Path(folder) / TRAINER_STATE_NAME  # written last
    try:
        read_json(path)["global_step"]
        path = Path(folder) / SETTINGS_FILE
        if path.exists():
            settings = read_json(path)
            if not pop_digest(settings):
                raise ValueError("its content has changed")
            if changed := changed_files(folder, settings.get(_FILES, {})):
                path = Path(folder) / changed[0]
                raise ValueError("its content has changed")
        for path in sorted(Path(folder).glob("*.safetensors")):
            with safe_open(path, framework="pt"):
                pass
        for path in sorted(Path(folder).glob("*.pt*")):
            with ZipFile(path) as archive:
                if archive.testzip() is not None:
                    raise BadZipFile
        # A kill while it was being removed leaves a part of it. FSDP and DeepSpeed have folders of theirs; a name that
        # begins with a dot is a scratch folder's.
        if not any(entry.is_dir() for entry in Path(folder).glob("[!.]*")):
            for name, pattern in _PARTS.items():
                path = Path(folder) / name
                if not any(Path(folder).glob(pattern)):
                    raise FileNotFoundError(path)
    except (OSError, ValueError, LookupError, TypeError, SafetensorError, BadZipFile) as error:
        raise ValueError(f"The checkpoint {folder} is not whole: {path.name} is missing or damaged.") from error


def is_whole(folder: str | os.PathLike[str]) -> bool:
    """Tell whether a checkpoint is one that [`check_checkpoint`] lets pass."""
    try:
        check_checkpoint(folder)
    except ValueError:
        return False
    return True


def remove_surplus(checkpoint: str, folder: str | os.PathLike[str], limit: int | None) -> None:
    """Remove what the training would have, had it not been killed in between: older checkpoints than it keeps.

    Args:
        checkpoint (`str`): the one that is resumed. Nothing is removed if it is not the newest.
        folder (`str` or `Path`): the output folder.
        limit (`int`, *optional*): how many are kept, `save_total_limit`.
    """
    checkpoints = sort_checkpoints(str(folder))
    # The Trainer will remove the oldest by time, and a checkpoint whose removal was killed looks as if it were new.
    for age, path in enumerate(reversed(checkpoints), start=1):
        os.utime(path, times=(time.time() - age, time.time() - age))
    if checkpoints and os.path.realpath(checkpoints[-1]) == os.path.realpath(checkpoint):
        state = TrainerState.load_from_json(os.path.join(checkpoint, TRAINER_STATE_NAME))
        rotate_checkpoints(str(folder), limit, state.best_model_checkpoint)


def dataset_digest(rows: Dataset | IterableDataset, columns: Sequence[str]) -> str:
    """Hash the rows of a training; of a stream, which is not read twice, only that it is one."""
    if not isinstance(rows, Dataset):
        return "stream"
    digest = blake2b(digest_size=16)
    for batch in rows.select_columns(list(columns)).iter(1000):
        digest.update(json.dumps(batch).encode())
    return digest.hexdigest()


def write_settings(
    folder: str | os.PathLike[str], settings: Mapping[str, Any], seconds: float, whole: bool = False
) -> None:
    """Write into a checkpoint what its training was made of, and how long it took until then.

    Args:
        folder (`str` or `Path`): the checkpoint.
        settings (`Mapping[str, Any]`): what the training is made of.
        seconds (`float`): how long it took.
        whole (`bool`, *optional*, defaults to `False`): whether all other files are there: their checksums are added.
    """
    files = {name: checksum for name, checksum in checksums(folder).items() if name != SETTINGS_FILE} if whole else {}
    write_json(Path(folder) / SETTINGS_FILE, with_digest({**settings, _SECONDS: seconds, _FILES: files}), indent=2)


def complete_settings(checkpoint: str | os.PathLike[str]) -> None:
    """Write the checksums of a whole checkpoint if a kill, after its last file, kept them from being written.

    Args:
        checkpoint (`str` or `Path`): one that [`check_checkpoint`] lets pass.
    """
    remove_abandoned(checkpoint)
    path = Path(checkpoint) / SETTINGS_FILE
    if not path.exists() or not (settings := read_json(path)) or settings.get(_FILES):
        return
    pop_digest(settings)
    seconds = float(settings.pop(_SECONDS, 0.0))
    settings.pop(_FILES, None)
    write_settings(checkpoint, settings, seconds, whole=True)


def seconds_until(checkpoint: str | os.PathLike[str]) -> float:
    """Tell how long the training took until a whole checkpoint; 0 if it does not say so."""
    path = Path(checkpoint) / SETTINGS_FILE
    return float(read_json(path).get(_SECONDS, 0)) if path.exists() else 0.0


def check_settings(folder: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
    """Refuse to go on from a checkpoint with other settings, which its first steps were not made with.

    Args:
        folder (`str` or `Path`): the checkpoint.
        settings (`Mapping[str, Any]`): what the training is made of now.

    Raises:
        ValueError: naming what differs, there and here.
    """
    path = Path(folder) / SETTINGS_FILE
    if not path.exists():
        logger.warning("%s does not say what it was trained with (optical-hf 0.1.0): it cannot be compared.", folder)
        return
    there = read_json(path)  # which `check_checkpoint` found whole
    pop_digest(there)
    there.pop(_FILES, None)
    there.pop(_SECONDS, None)
    here = json.loads(json.dumps(settings))
    differing = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    if differing:
        listed = "; ".join(f"{name} is {there.get(name)!r} there, {here.get(name)!r} here" for name in differing)
        raise ValueError(
            f"{folder} is of a training with other settings: {listed}. Give the same to go on with it, or another "
            "--output_dir to begin anew."
        )

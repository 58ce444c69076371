"""Pushing the checkpoints of a training while it goes on."""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from concurrent.futures import Future
from pathlib import Path

import psutil
from huggingface_hub import HfApi

from ..hub.files import is_card_file, pushed_files
from ..hub.push import push_student
from .optical_args import OpticalArguments

logger = logging.getLogger(__name__)


def push_checkpoint(folder: str, repo_id: str, args: OpticalArguments, commit_message: str) -> Future[None]:
    """Push a checkpoint's student in the background; if that fails, only warn, since the next push sends all of it.

    A card or results are not pushed along: nothing was measured on a checkpoint, whatever an earlier run left in it.

    Args:
        folder (`str`): the checkpoint. It may be deleted (`save_total_limit`) before it is pushed.
        repo_id (`str`): the repository.
        args ([`OpticalArguments`]): its output folder holds what is being pushed; revision and token are its.
        commit_message (`str`): the message of the commit.
    """
    held = tempfile.TemporaryDirectory(prefix=f".push-{os.getpid()}-", dir=args.output_dir)

    def push() -> None:
        with held:
            try:
                for name in (name for name in pushed_files(folder) if not is_card_file(name)):
                    (Path(held.name) / name).parent.mkdir(exist_ok=True)
                    _link(Path(folder) / name, Path(held.name) / name)
                push_student(
                    held.name, repo_id, revision=args.hub_revision, token=args.hub_token, commit_message=commit_message
                )
            except (OSError, ValueError) as error:
                logger.warning("%s was not pushed; training goes on. %s", folder, error)

    return HfApi().run_as_future(push)


def remove_stale_pushes(output_dir: str | os.PathLike[str]) -> None:
    """Remove what pushes of checkpoints left in an output folder whose process was killed in the middle of them.

    Args:
        output_dir (`str` or `Path`): the output folder. Pushes that still go on, of whichever process, are left alone.
    """
    for held in Path(output_dir).glob(".push-*"):
        if (named := re.fullmatch(r"\.push-(\d+)-\w+", held.name)) and not _goes_on(int(named[1]), held):
            shutil.rmtree(held, ignore_errors=True)


def _goes_on(pid: int, held: Path) -> bool:
    try:
        process = psutil.Process(pid)
        # One that started after the push did has been given the number of a process that is gone.
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= held.stat().st_mtime + 1
    except (psutil.NoSuchProcess, FileNotFoundError):
        return False
    except psutil.AccessDenied:
        return True


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # the file system has no links
        shutil.copyfile(source, target)

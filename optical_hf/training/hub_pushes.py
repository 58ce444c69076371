"""Pushing the checkpoints of a training while it goes on."""

from __future__ import annotations

import logging
import os
import shutil
from concurrent.futures import Future
from pathlib import Path

from huggingface_hub import HfApi

from ..files import scratch
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

    def push() -> None:
        try:
            with scratch(str(args.output_dir), "push") as held:
                for name in (name for name in pushed_files(folder) if not is_card_file(name)):
                    (held / name).parent.mkdir(exist_ok=True)
                    _link(Path(folder) / name, held / name)
                push_student(
                    held, repo_id, revision=args.hub_revision, token=args.hub_token, commit_message=commit_message
                )
        except (OSError, ValueError) as error:
            logger.warning("%s was not pushed; training goes on. %s", folder, error)

    return HfApi().run_as_future(push)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # the file system has no links
        shutil.copyfile(source, target)

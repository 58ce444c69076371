"""Push a student or a cross-encoder on disk to the Hub, or the metric as a Space.

    optical-hf push yoruba-student me/yoruba-student --private
    optical-hf push --space me/miracl_ndcg

What lands is the model with its code, its results and its card, in which its name on the Hub is written unless you
have edited it, and nothing else of the folder. A push that failed can be repeated: only what is missing is sent. The
token is that of `hf auth login`, or `HF_TOKEN`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..arguments import ArgumentReader
from ..files import remove_abandoned
from ..hub.push import push_metric_space, push_student
from ..launching import run
from ..models.cross_encoders import is_cross_encoder
from ..training.model_card import name_card


@dataclass
class PushArguments:
    """What is pushed, and to where."""

    folder: str | None = field(default=None, metadata={"help": "The folder of a student or a cross-encoder."})
    repo_id: str | None = field(default=None, metadata={"help": "user/name on the Hub."})
    private: bool = field(default=False, metadata={"help": "Make a new repository private."})
    revision: str | None = field(default=None, metadata={"help": "Branch; main by default."})
    space: str | None = field(default=None, metadata={"help": "Push the metric under this name, and no model."})


def reader() -> ArgumentReader:
    """Return the reader of this command's arguments."""
    description = "Push a student or a cross-encoder on disk to the Hub, or the metric as a Space."
    return ArgumentReader(
        PushArguments, prog="optical-hf push", description=description, positionals=("folder", "repo_id")
    )


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    [given] = reader().read(arguments)
    private = given.private or None
    if given.space is not None and not (given.folder or given.repo_id or given.revision):
        commit = push_metric_space(given.space, private=private)
    elif given.space is None and given.folder and given.repo_id:
        remove_abandoned(given.folder)
        name_card(given.folder, given.repo_id)
        message = f"Upload {'cross-encoder' if is_cross_encoder(given.folder) else 'student'}"
        commit = push_student(
            given.folder, given.repo_id, private=private, revision=given.revision, commit_message=message
        )
    else:
        raise ValueError("Give FOLDER and REPO_ID, or --space REPO_ID alone.")
    print(f"Pushed: {commit.commit_url}")


if __name__ == "__main__":
    run(main, sys.argv[1:])

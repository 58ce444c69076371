"""Push a student on disk to the Hub, or the metric as a Space.

    python examples/push.py yoruba-student me/yoruba-student --private
    python examples/push.py --space me/miracl_ndcg

What lands is the student with its code, its results and its card, in which its name on the Hub is written unless you
have edited it, and nothing else of the folder. A push that failed can be repeated: only what is missing is sent. The
token is that of `hf auth login`, or `HF_TOKEN`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from optical_hf import push_metric_space, push_student
from optical_hf.training.model_card import name_card


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description="Push a student to the Hub, or the metric as a Space.")
    parser.add_argument("folder", nargs="?", help="The student's folder; none with --space.")
    parser.add_argument("repo_id", help="user/name on the Hub.")
    parser.add_argument("--private", action="store_true", help="Make a new repository private.")
    parser.add_argument("--revision", help="Branch; main by default.")
    parser.add_argument("--space", action="store_true", help="Push the metric's Space in place of a student.")
    given = parser.parse_args(arguments)
    if given.space == (given.folder is not None) or (given.space and given.revision):
        parser.error("give FOLDER and REPO_ID, or --space and REPO_ID")
    private = given.private or None
    if given.space:
        commit = push_metric_space(given.repo_id, private=private)
    else:
        name_card(given.folder, given.repo_id)
        commit = push_student(given.folder, given.repo_id, private=private, revision=given.revision)
    print(f"Pushed: {commit.commit_url}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")

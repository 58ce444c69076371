"""Pushing to the Hub: a student with its code and card, and the Space of the metric."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from transformers import PreTrainedModel

from ..files import scratch
from ..metrics import MIRACL_NDCG
from .files import card_files, check_whole, is_card_file, is_model_file, pushed_files, weight_files
from .secrets import check_private
from .weights import check_measured, named_hashes, weights_hash

_SPACE_FILES = ("README.md", "app.py", "miracl_ndcg.py", "requirements.txt")


class PushError(OSError):
    """A push that did not reach the Hub. Nothing local was changed, and the push can be repeated."""


def push_student(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    token: str | None = None,
    commit_message: str = "Upload student",
) -> CommitInfo:
    """Push the folder of a student or a cross-encoder to the Hub, in one commit: all of it, or nothing.

    What lands are weights, configuration, tokenizer, code, the files of sentence-transformers and PyLate, and the card
    with its results: see [`pushed_files`]. What an earlier student left there, and this one has not, is deleted if it
    would be taken for this one's: weights and what else is loaded, and a card or results that name other weights. What
    is there already is not sent again.

    Args:
        folder (`str` or `Path`):
            Where the model was saved. It is only read.
        repo_id (`str`):
            `user/name`; the repository is made if it is not there.
        private (`bool`, *optional*):
            Whether a new repository is private.
        revision (`str`, *optional*):
            A branch, made if it is not there; `main` by default.
        token (`str`, *optional*):
            A token with write access; that of the login, or of `HF_TOKEN`, by default.
        commit_message (`str`, *optional*):
            The message of the commit.

    Returns:
        `CommitInfo`: the commit, or the latest one if nothing has changed.

    Raises:
        FileNotFoundError: if the folder holds no whole student.
        ValueError: if a file is a link out of the folder, is cut or broken, or holds a secret or a path of this
            machine; if card or results are of other weights than those in the folder.
        PushError: if there is no token, it lacks the rights, or the Hub cannot be reached or refuses; as well if
            `private` is set and the repository is public.

    Example:

    ```python
    >>> from optical_hf import push_student
    >>> push_student("yoruba-student", "me/yoruba-student", private=True)
    ```
    """
    files = pushed_files(folder)
    check_private(folder, files, token)
    check_whole(folder, files)
    weights = weights_hash(folder)
    check_measured(folder, files, weights)
    return _push(Path(folder), files, repo_id, "model", private, revision, token, commit_message, weights)


def push_metric_space(
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str = "Upload MIRACL nDCG",
) -> CommitInfo:
    """Push the metric as a Space, from which `evaluate.load(repo_id)` loads it where this package is not installed.

    Args:
        repo_id (`str`): `user/miracl_ndcg`; `evaluate` looks in it for a module of the repository's name.
        private (`bool`, *optional*): as for [`push_student`], as are the others.
        token (`str`, *optional*): a token with write access.
        commit_message (`str`, *optional*): the message of the commit.

    Raises:
        ValueError: if the repository has another name.
        PushError: as [`push_student`].
    """
    if repo_id.split("/")[-1] != MIRACL_NDCG.stem:
        raise ValueError(f"The Space has to be named {MIRACL_NDCG.stem} for `evaluate` to load it, not {repo_id!r}.")
    return _push(MIRACL_NDCG.parent, _SPACE_FILES, repo_id, "space", private, None, token, commit_message)


def push_model(
    model: PreTrainedModel, repo_id: str, *, max_shard_size: int | str = "50GB", **options: Any
) -> CommitInfo:
    """Save a model to a temporary folder and push it; this is [`~OpticalStudent.push_to_hub`].

    Args:
        model ([`OpticalStudent`] or [`OpticalTeacher`]):
            The model. If it was loaded from a folder and its weights are still those, the folder's card goes along.
        repo_id (`str`):
            As for [`push_student`], as are the other options.
        max_shard_size (`int` or `str`, *optional*, defaults to `"50GB"`):
            Size above which weights are split into several files.
    """
    with scratch(tempfile.gettempdir(), "optical-hf-push") as place:
        folder = place / "student"
        model.save_pretrained(folder, max_shard_size=max_shard_size)
        source = Path(model.config.name_or_path or "")
        if all((source / name).is_file() for name in weight_files(source)):
            weights = weights_hash(source)
            if weights == weights_hash(folder):
                cards = card_files(source)
                check_private(source, cards, options.get("token"))
                check_whole(source, cards)
                check_measured(source, cards, weights)
                for name in cards:
                    (folder / name).parent.mkdir(exist_ok=True)
                    shutil.copyfile(source / name, folder / name)
        return push_student(folder, repo_id, **options)


def make_repository(repo_id: str, *, private: bool | None = None, token: str | None = None) -> str:
    """Make a repository for a model if it is not there, so that errors show before a training and not after it.

    Args:
        repo_id (`str`): `user/name`, or a name of the user's own.
        private (`bool`, *optional*): whether a new repository is private.
        token (`str`, *optional*): a token with write access.

    Returns:
        `str`: its whole name.

    Raises:
        PushError: as [`push_student`].
    """
    with _explained(repo_id):
        return _repository(_api(token), repo_id, "model", private)


def _api(token: str | None) -> HfApi:
    if not (token or get_token()):
        raise PushError(
            "There is no Hub token. Log in with `hf auth login`, or set HF_TOKEN to a token with write access "
            "(https://huggingface.co/settings/tokens)."
        )
    return HfApi(token=token)


def _repository(api: HfApi, repo_id: str, kind: str, private: bool | None) -> str:
    sdk = "gradio" if kind == "space" else None
    repo_id = api.create_repo(repo_id, repo_type=kind, private=private, space_sdk=sdk, exist_ok=True).repo_id
    if private and not api.repo_info(repo_id, repo_type=kind).private:
        raise PushError(
            f"{repo_id} is there already, and public; nothing was pushed. Make it private on the Hub first."
        )
    return repo_id


def _push(
    folder: Path,
    files: Sequence[str],
    repo_id: str,
    kind: str,
    private: bool | None,
    revision: str | None,
    token: str | None,
    commit_message: str,
    weights: str | None = None,
) -> CommitInfo:
    with _explained(repo_id):
        api = _api(token)
        repo_id = _repository(api, repo_id, kind, private)
        if revision is not None and not revision.startswith("refs/"):
            api.create_branch(repo_id, repo_type=kind, branch=revision, exist_ok=True)
        there = api.list_repo_files(repo_id, repo_type=kind, revision=revision)
        others = [name for name in there if kind == "model" and name not in files]
        stale = [name for name in others if is_model_file(name)]
        for name in filter(is_card_file, others):
            path = api.hf_hub_download(repo_id, name, revision=revision)
            stale += [name] if named_hashes(Path(path)) - {weights} else []
        # Not `upload_folder`: with Xet it makes several commits, between which the repository holds half a student.
        return api.create_commit(
            repo_id,
            [
                *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in files),
                *(CommitOperationDelete(path_in_repo=name) for name in stale),
            ],
            repo_type=kind,
            revision=revision,
            commit_message=commit_message,
        )


@contextmanager
def _explained(repo_id: str) -> Iterator[None]:
    try:
        yield
    except PushError:
        raise
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        again = "Nothing local was changed; push again, and only what is missing is sent."
        raise PushError(f"{_explain(error, repo_id)} {again}") from error


def _explain(error: BaseException, repo_id: str) -> str:
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    refused = next((one for one in chain if isinstance(one, HfHubHTTPError)), None)
    told = " ".join(str(refused or chain[-1]).split())[:300]
    if refused is None:
        if any(isinstance(one, HTTPError | ConnectionError) for one in chain):
            return f"The connection to {constants.ENDPOINT} failed while {repo_id} was pushed ({told})."
        return f"The push to {repo_id} failed ({told})."
    status = refused.response.status_code
    if status == 401:
        return "The Hub does not accept the token (401): it is wrong or has expired. Log in with `hf auth login`."
    if status == 403:
        return f"The token has no right to write to {repo_id} (403): take one with write access, or another name."
    if status == 413:
        return (
            f"The Hub refuses a file of {repo_id} as too large (413). Save the student in smaller files: "
            'save_pretrained(folder, max_shard_size="1GB").'
        )
    if status >= 500:
        return f"The Hub had an error of its own ({status}) while {repo_id} was pushed: try again later."
    return f"The Hub refuses the push to {repo_id} ({told})."

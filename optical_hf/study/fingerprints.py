"""What the files of a study held when its arms were run: questions, passages and models must not change in between."""

from __future__ import annotations

import os
from pathlib import Path

from .config import Study
from .records import file_digest, folder_digests, read_record

FILES = "files.json"


def check_files(study: Study, folder: str | os.PathLike[str]) -> dict[str, dict[str, str]]:
    """Hash a study's files, and refuse to go on if one is not what `files.json` in its folder says.

    They are those of the evaluation sets, and those of the teacher and the student where these are folders. The files
    of a set may change until the first arm was measured on it.

    Args:
        study ([`Study`]): names the files.
        folder (`str` or `Path`): of the study's output.

    Returns:
        `dict`: what is to be written there, the digests by the names in the study's file.

    Raises:
        ValueError: naming the file that has changed.
    """
    folder = Path(folder)
    there = read_record(folder, FILES, {"files": dict})["files"] if (folder / FILES).exists() else {}
    here: dict[str, str] = {}
    fixed: set[str] = set()
    for evaluation_set in study.evaluation.values():
        here |= {name: file_digest(path) for name, path in evaluation_set.files.items() if name not in here}
        if any(folder.glob(f"arms/*/{evaluation_set.name}.json")):
            fixed |= evaluation_set.files.keys()
    for key in ("teacher", "student"):
        if (path := getattr(study, key)) is not None and Path(path).is_dir():
            model = {f"{study.config[key]}/{name}": digest for name, digest in folder_digests(Path(path)).items()}
            fixed |= {name for name in {**there, **model} if name.startswith(f"{study.config[key]}/")}
            here |= model
    begun = (folder / "arms").exists()
    changed = [name for name in there if begun and name in fixed and there[name] != here.get(name)]
    if changed:
        raise ValueError(
            f"{folder} holds a study with other files: {', '.join(changed)} changed since its arms were run, says "
            f"{folder / FILES}. Restore what was there, or choose another --output_dir."
        )
    return {"files": {**there, **here}}

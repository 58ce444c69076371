"""The model card of a student or a cross-encoder, and evaluation results, written from what its run recorded."""

from __future__ import annotations

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset, IterableDataset
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, ModelCardData, eval_result_entries_to_yaml
from jinja2 import UndefinedError

from ..files import pop_digest, read_json, write_text
from ..hub.files import RESULTS_CHANGED
from ..metrics import NDCG
from ..models.configuration_optical import OpticalConfig
from ..models.cross_encoders import is_cross_encoder
from .cross_encoder_card import card_template, cross_encoder_card

logger = logging.getLogger(__name__)

TAGS = ("multi-vector", "colbert", "late-interaction", "optical", "cross-lingual")
EVAL_RESULTS = Path(".eval_results") / "optical_hf.yaml"
_METRICS = {
    NDCG: ("ndcg_at_10", "nDCG@10, MaxSim"),
    f"pooled_{NDCG}": ("pooled_ndcg_at_10", "nDCG@10, pooled vectors"),
}


def write_card(folder: str | os.PathLike[str], *, repo_id: str | None = None, license: str | None = None) -> Path:
    """Write `README.md` into the folder of a student or a cross-encoder; a student has `.eval_results` too.

    All they say comes from `results.json`, as the training's command writes it, and `config.json`. What is not
    recorded is left out; without `results.json`, the card says how the model is loaded, and that nothing more is
    known.

    Args:
        folder (`str` or `Path`):
            The folder of a saved student or cross-encoder. A card in it is overwritten.
        repo_id (`str`, *optional*):
            Its name on the Hub, for the code that loads it. The folder's name by default.
        license (`str`, *optional*):
            Identifier of its licence, such as `"mit"`. By default that of the model it started from, if known.

    Returns:
        `Path`: the card.

    Raises:
        FileNotFoundError: if there is no `config.json`.
        ValueError: if `config.json` is of neither, or `results.json` not what a run writes.

    Example:

    ```python
    >>> from optical_hf.training.model_card import write_card
    >>> write_card("yoruba-student", repo_id="someone/yoruba-student", license="mit")
    ```
    """
    folder = _student(folder)
    card, entries = _render(folder, repo_id or folder.name, repo_id, license)
    if entries:
        (folder / EVAL_RESULTS).parent.mkdir(exist_ok=True)
        write_text(folder / EVAL_RESULTS, entries)
    else:
        (folder / EVAL_RESULTS).unlink(missing_ok=True)
    write_text(folder / "README.md", card)
    return folder / "README.md"


def name_card(folder: str | os.PathLike[str], repo_id: str) -> None:
    """Write the card anew with the model's name on the Hub in it, unless somebody has edited it by hand.

    Args:
        folder (`str` or `Path`): the folder of a saved student or cross-encoder.
        repo_id (`str`): its name on the Hub.

    Raises:
        FileNotFoundError, ValueError: as [`write_card`].
    """
    folder = _student(folder)
    card = folder / "README.md"
    if card.is_file():
        text = card.read_text(encoding="utf-8", errors="replace")
        name = re.search(r'(?:AutoModel\.from_pretrained|CrossEncoder)\("([^"]+)"', text)
        if name is None or text != _render(folder, name[1], None, None)[0]:
            if repo_id not in text:
                logger.warning("%s was edited, or is of another version: it stays without the name %s.", card, repo_id)
            return
    write_card(folder, repo_id=repo_id)


def count_pairs(
    counts: Mapping[str, Mapping[str, int]],
    held_out: Dataset,
    train: Dataset | IterableDataset,
    balanced: Dataset | IterableDataset,
) -> dict[str, dict[str, int]]:
    """Say what became of each language's pairs, for the `bitext` of `results.json`.

    Args:
        counts (`Mapping[str, Mapping[str, int]]`): those of [`load_bitext`], by language: `kept` and the dropped.
        held_out (`Dataset`): the held-out part of [`hold_out`].
        train (`Dataset` or `IterableDataset`): the other part.
        balanced (`Dataset` or `IterableDataset`): what [`balance_languages`] made of that.

    Returns:
        `dict[str, dict[str, int]]`: `counts`, with `held_out`; and but for a stream `left_out` (for an English
        sentence that is held out), `passed_over` (by the balance), `trained` (different pairs to train on), and
        `drawn` (times that these come in a pass).
    """
    held = Counter(held_out["language"][:])
    pairs = {language: {**count, "held_out": held[language]} for language, count in counts.items()}
    if isinstance(train, Dataset) and isinstance(balanced, Dataset):
        left, drawn = Counter(train["language"][:]), Counter(balanced["language"][:])
        for language, count in pairs.items():
            count["left_out"] = count["kept"] - held[language] - left[language]
            count["trained"] = min(left[language], drawn[language])  # no pair comes twice before all came once
            count["passed_over"] = left[language] - count["trained"]
            count["drawn"] = drawn[language]
    return pairs


def _student(folder: str | os.PathLike[str]) -> Path:
    folder = Path(folder).resolve()
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} has no config.json, so it is not the folder of a saved student.")
    kind = _read(folder / "config.json").get("model_type")
    if kind != OpticalConfig.model_type and not is_cross_encoder(folder):
        raise ValueError(f"{folder} holds a model of type {kind!r}, which is neither a student nor a cross-encoder.")
    return folder


def _render(folder: Path, name: str, repo_id: str | None, license: str | None) -> tuple[str, str]:
    """The card, and the file of evaluation results if there are any."""
    results = _read(folder / "results.json") if (folder / "results.json").is_file() else {}
    try:
        if is_cross_encoder(folder):
            return str(cross_encoder_card(results, name, license)), ""
    except (LookupError, TypeError, AttributeError, ValueError, UndefinedError) as error:
        raise ValueError(f"{folder / 'results.json'} is not as a run writes it: {error!r}.") from error
    try:
        config = OpticalConfig.from_pretrained(folder)
    except (TypeError, LookupError, AttributeError, ValueError, OSError) as error:
        raise ValueError(f"{folder / 'config.json'} is not as a student's is ({error}).") from error
    try:
        card = _card(folder, config, results, name, repo_id, license)
        entries = eval_result_entries_to_yaml(_eval_result_entries(results, repo_id))
    except (LookupError, TypeError, AttributeError, ValueError, UndefinedError) as error:
        raise ValueError(f"{folder / 'results.json'} is not as a run writes it: {error!r}.") from error
    weights = f"# The weights these were measured on: {results['weights']}\n" if "weights" in results else ""
    return str(card), weights + yaml.safe_dump(entries, sort_keys=False, allow_unicode=True) if entries else ""


def _read(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not pop_digest(value):
        raise ValueError(f"{path}: {RESULTS_CHANGED}.")
    return value


def _card(
    folder: Path,
    config: OpticalConfig,
    results: dict[str, Any],
    name: str,
    repo_id: str | None,
    license: str | None,
) -> ModelCard:
    evaluated, bitext = results.get("languages") or {}, results.get("bitext") or {}
    if results.get("held_out_pairs"):  # version 0.1.0 did not count them by language
        bitext = {language: {"held_out": results["held_out_pairs"], **count} for language, count in bitext.items()}
    counted = set.intersection(*map(set, bitext.values())) if bitext else set()
    arguments = results.get("arguments") or {}
    sentence_transformers = (folder / "modules.json").is_file()
    sources = [one for many in (results.get("bitext_sources") or {}).values() for one in many]
    trained_on = results.get("rows") or [""]
    crosses = any(_is_cross_lingual(results, pair) for pair in trained_on)
    tags = [tag for tag in TAGS if crosses or tag != "cross-lingual"]
    data = ModelCardData(
        language=_languages(results),
        license=license or results.get("license"),
        library_name="transformers",
        pipeline_tag="feature-extraction",
        tags=[*tags, *(["sentence-transformers"] if sentence_transformers else [])],
        base_model=results.get("base_model"),
        datasets=sorted({one.partition(":")[0] for one in sources if "/" in one}) or None,
        model_name=name.rpartition("/")[2] if evaluated else None,
        eval_results=_eval_results(results, repo_id) or None,
    )
    best = arguments.get("metric_for_best_model") if arguments.get("load_best_model_at_end") else None
    held_out = {key.rpartition("_")[2]: value for key, value in (results.get("held_out") or {}).items()}
    rows = {seen: [(key, row) for key, row in evaluated.items() if row["seen"] is seen] for seen in (True, False)}
    return ModelCard.from_template(
        data,
        template_path=card_template("retriever" if results.get("task") == "retrieval" else "student"),
        name=name.rpartition("/")[2],
        repo=_literal(name),
        results=results,
        arguments=arguments,
        config=config,
        seen=list(bitext),
        bitext=bitext,
        rows=results.get("rows") or {},
        total={name: sum(count[name] for count in bitext.values()) for name in counted},
        evaluated=evaluated,
        seen_rows=rows[True],
        unseen_rows=rows[False],
        ceiling=any("english" in row for row in evaluated.values()),
        collection=results.get("collection") or "questions of the run",
        held_out=[(language, held_out[language]) for language in bitext if language in held_out],
        literal=_literal,
        chosen_by=best if best and NDCG in best else None,
        license=license or results.get("license"),
        inherited=license is None and bool(results.get("student")),
        sentence_transformers=sentence_transformers,
    )


def _languages(results: Mapping[str, Any]) -> list[str] | None:
    if rows := results.get("rows"):
        return sorted({language for pair in rows for language in pair.split("-")})
    return ["en", *results["bitext"]] if results.get("bitext") else None


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _collection(results: Mapping[str, Any]) -> tuple[str, str]:
    """Name what was searched, and give it the form of a Hub dataset's name: `local/` for what is not on the Hub."""
    name = results.get("collection") or "questions"
    if re.fullmatch(r"[\w-]+/[\w.-]+", name):
        return name, name
    return name, "local/" + re.sub(r"[^\w.]+", "-", name).strip("-.")


def _protocol(results: Mapping[str, Any], language: str) -> str:
    row = results["languages"][language]
    data = "training rows" if results.get("task") == "retrieval" else "training bitext"
    seen = f"a language of the {data}" if row["seen"] else f"a language that was not in the {data}"
    parts = [f"{row['queries']} questions in {language}, {seen}", results.get("protocol")]
    return "; ".join(part for part in parts if part)


def _is_cross_lingual(results: Mapping[str, Any], language: str) -> bool:
    # A distilled student is asked in a language over English passages; a retriever in `sw-en`, or in `sw` over `sw`.
    return results.get("task") != "retrieval" or "-" in language


def _eval_results(results: Mapping[str, Any], repo_id: str | None) -> list[EvalResult]:
    name, dataset = _collection(results)
    return [
        EvalResult(
            task_type="information-retrieval",
            task_name="Cross-lingual retrieval" if _is_cross_lingual(results, language) else "Retrieval",
            dataset_type=dataset,
            dataset_name=f"{name} ({language})",
            dataset_config=language,
            dataset_args={"protocol": _protocol(results, language)},
            metric_type=metric,
            metric_name=title,
            metric_value=row["student"][key],
            source_name="results.json" if repo_id else None,
            source_url=_source(repo_id),
        )
        for language, row in (results.get("languages") or {}).items()
        for key, (metric, title) in _METRICS.items()
    ]


def _eval_result_entries(results: Mapping[str, Any], repo_id: str | None) -> list[EvalResultEntry]:
    return [
        EvalResultEntry(
            dataset_id=_collection(results)[1],
            task_id=f"{language}_{metric}",
            value=row["student"][key],
            date=results.get("date"),
            source_name="results.json" if repo_id else None,
            source_url=_source(repo_id),
            notes=f"{title}; {_protocol(results, language)}",
        )
        for language, row in (results.get("languages") or {}).items()
        for key, (metric, title) in _METRICS.items()
    ]


def _source(repo_id: str | None) -> str | None:
    return f"https://huggingface.co/{repo_id}/blob/main/results.json" if repo_id else None

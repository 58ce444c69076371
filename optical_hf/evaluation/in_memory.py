"""How well a student retrieves: on a retrieval set, and among the translations of held-out bitext."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from ..bounds import check_count
from ..data.retrieval_set import RetrievalSet
from ..files import remove_abandoned
from ..metrics import NDCG
from ..metrics.miracl_ndcg.miracl_ndcg import score_run
from ..models.modeling_optical import OpticalModel
from ..retrieval.index.build import model_fingerprint
from ..retrieval.index.shards import fingerprint, read_tensors, write_tensors
from ..retrieval.maxsim import maxsim
from ..retrieval.search import search

logger = logging.getLogger(__name__)


def encode_passages(
    model: OpticalModel,
    passages: Mapping[str, str],
    batch_size: int = 32,
    cache_dir: str | os.PathLike[str] | None = None,
) -> tuple[list[Tensor], Tensor]:
    """Encode passages, to be kept while several query models are compared.

    Args:
        model ([`OpticalTeacher`] or [`OpticalStudent`]):
            Encodes them in the role `"document"`.
        passages (`Mapping[str, str]`):
            By document id.
        batch_size (`int`, *optional*, defaults to 32):
            Passages a forward pass.
        cache_dir (`str` or `Path`, *optional*):
            Where the vectors are kept between runs, in a file named by a hash of model, tokenizer and passages. A
            damaged file is made anew, with a warning.

    Returns:
        `tuple`: token vectors in half precision, `(tokens, dim)` a passage, and pooled vectors, `(passages, dim)`.

    Raises:
        ValueError: if `batch_size` is not positive.
        OSError: if the cache's folder cannot be made. One that has no room left is warned of: the vectors are there.
    """
    check_count("batch_size", batch_size)
    if cache_dir is None:
        return _encode_passages(model, passages, batch_size)
    made_by, made_of = fingerprint(model_fingerprint(model)), fingerprint(list(passages.values()))
    remove_abandoned(cache_dir)
    path = Path(cache_dir) / f"passages-{fingerprint([made_by, made_of])}.safetensors"
    if path.exists():
        try:
            stored = read_tensors(path, made_by, made_of)
            return list(stored["tokens"].split(stored["lengths"].tolist())), stored["pooled"]
        except ValueError as error:
            logger.warning("%s is damaged (%s): its passages are encoded anew.", path, error.__cause__ or error)
    path.parent.mkdir(parents=True, exist_ok=True)
    tokens, pooled = _encode_passages(model, passages, batch_size)
    lengths = torch.tensor([len(vectors) for vectors in tokens])
    try:
        write_tensors(path, {"tokens": torch.cat(tokens), "lengths": lengths, "pooled": pooled}, made_by, made_of)
    except OSError as error:
        logger.warning("The passages' vectors are not kept for the next run: %s", error)
    return tokens, pooled


def _encode_passages(model: OpticalModel, passages: Mapping[str, str], batch_size: int) -> tuple[list[Tensor], Tensor]:
    texts = list(passages.values())
    tokens, pooled = model.encode_both(texts, "document", batch_size=batch_size, dtype=torch.float16)
    return tokens, pooled.float()


def evaluate_queries(
    model: OpticalModel,
    retrieval_set: RetrievalSet,
    passages: tuple[list[Tensor], Tensor],
    batch_size: int = 32,
) -> dict[str, float]:
    """Search a retrieval set by MaxSim and by pooled vectors.

    Args:
        model ([`OpticalTeacher`] or [`OpticalStudent`]): encodes the topics, in the role `"query"`.
        retrieval_set ([`RetrievalSet`]): topics and judgements.
        passages (`tuple`): from [`encode_passages`].
        batch_size (`int`, *optional*, defaults to 32): queries a forward pass.

    Returns:
        `dict[str, float]`: `ndcg@10` of MaxSim and `pooled_ndcg@10`.
    """
    queries = model.encode_both(list(retrieval_set.topics.values()), "query", batch_size=batch_size)
    found = {}
    # In this order: token vectors, one pooled vector a text.
    vectors: Iterable[tuple[str, Any, Any]] = zip((NDCG, f"pooled_{NDCG}"), queries, passages, strict=True)
    for name, query_vectors, passage_vectors in vectors:
        run = search(query_vectors, passage_vectors, list(retrieval_set.passages), list(retrieval_set.topics), k=10)
        found[name] = score_run(run, retrieval_set.qrels, measures=[NDCG])[NDCG]
    return found


def translation_accuracy(
    student: OpticalModel, teacher: OpticalModel, bitext: Dataset, role: str = "query", batch_size: int = 32
) -> dict[str, float]:
    """How often a translation's nearest English sentence, by MaxSim among its language's, is its own.

    Args:
        student ([`OpticalStudent`]): encodes the translations.
        teacher ([`OpticalTeacher`]): encodes the English sentences.
        bitext (`Dataset`): held-out pairs with the columns of [`load_bitext`].
        role (`str`, *optional*, defaults to `"query"`): of both sides.
        batch_size (`int`, *optional*, defaults to 32): texts a forward pass.

    Returns:
        `dict[str, float]`: `translation_accuracy_<language>`, and their mean `translation_accuracy`.
    """
    pairs: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    columns = (bitext[name][:] for name in ("english", "translation", "language"))
    for english, translation, language in zip(*columns, strict=True):
        pairs[language].append((english, translation))
    found = {}
    for language, chosen in sorted(pairs.items()):
        sentences, translations = (list(side) for side in zip(*chosen, strict=True))
        options: dict[str, Any] = {"role": role, "batch_size": batch_size, "show_progress": False}
        scores = maxsim(student.encode_tokens(translations, **options), teacher.encode_tokens(sentences, **options))
        own = torch.arange(len(chosen))
        found[f"translation_accuracy_{language}"] = float((scores.argmax(1) == own).float().mean())
    return found | {"translation_accuracy": sum(found.values()) / len(found)}

"""MIRACL's topics, judgements and passages: from the Hub, its cache, or a local folder of the same layout."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from .languages import language_code
from .mteb_tables import iter_passage_table, read_candidates, read_judgements, read_queries
from .trec_files import iter_passages, read_qrels, read_topics

logger = logging.getLogger(__name__)

# The 18 languages, and into how many files docs-{i}.jsonl.gz the corpus of each is cut.
CORPUS_SHARDS = {
    "ar": 5, "bn": 1, "de": 32, "en": 66, "es": 21, "fa": 5, "fi": 4, "fr": 30, "hi": 2,
    "id": 3, "ja": 14, "ko": 3, "ru": 20, "sw": 1, "te": 2, "th": 2, "yo": 1, "zh": 10,
}  # fmt: skip
WITHOUT_TRAIN = ("de", "yo")  # the surprise languages

# What a figure must be labelled with: the same model differs by up to 20 points between them.
PROTOCOLS = {
    "full": "full corpus",
    "hard_negatives": "hard negatives",
    "rerank": "rerank",
    "judged": "judged pool",
}

TOPICS, CORPUS = "miracl/miracl", "miracl/miracl-corpus"
MTEB_SETS = {"hard_negatives": "mteb/MIRACLRetrievalHardNegatives", "rerank": "mteb/MIRACLReranking"}


@dataclass
class MiraclSet:
    """MIRACL in one language under one protocol.

    Args:
        language (`str`):
            Code of the language, of queries and passages alike.
        protocol (`str`):
            `"full"`, `"hard_negatives"`, `"rerank"` or `"judged"`; `PROTOCOLS` has the label of each for reports.
        split (`str`):
            `"dev"` or `"train"`.
        topics (`dict[str, str]`):
            Queries by id.
        qrels (`dict[str, dict[str, int]]`):
            Relevances by query id and document id. A judged query that is not in `topics` still counts in the mean,
            as with `trec_eval -c`, and is warned of.
        iter_passages (`Callable[[], Iterator[tuple[str, str]]]`):
            Streams the document ids and passages, `"title. text"`. Files of the Hub are fetched as they are needed.
        candidates (`dict[str, list[str]]`, *optional*):
            The document ids to rerank, by query id; only of the protocol `"rerank"`.
        revisions (`dict[str, str]`):
            The commit of every Hub repository that was read so far; empty if a folder was.
    """

    language: str
    protocol: str
    split: str
    topics: dict[str, str]
    qrels: dict[str, dict[str, int]]
    iter_passages: Callable[[], Iterator[tuple[str, str]]] = field(repr=False)
    candidates: dict[str, list[str]] | None = None
    revisions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = [qid for qid in self.qrels if qid not in self.topics]
        if unknown:
            logger.warning(
                "MIRACL %s %s: %d of the %d judged queries are not among the topics (such as %r); each scores 0.",
                self.language,
                self.split,
                len(unknown),
                len(self.qrels),
                unknown[0],
            )


def load_miracl(
    language: str,
    protocol: str = "full",
    split: str = "dev",
    data_dir: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    corpus_revision: str | None = None,
) -> MiraclSet:
    """Load MIRACL in one language. What is in the Hub's cache needs no network.

    Args:
        language (`str`):
            One of the 18 languages, as [`languages.language_code`] reads it.
        protocol (`str`, *optional*, defaults to `"full"`):
            - `"full"`: all passages, as MIRACL's official figures have it.
            - `"hard_negatives"`: MTEB's pool of every query's 250 best by three systems (`ar`, `fi` and `ru` with
              1,000 queries).
            - `"rerank"`: MTEB's up to 100 candidates a query, in `candidates`. It leaves queries out (te: 84 of 828).
            - `"judged"`: only the passages that were judged for a query of this split, or all of a pool file.
        split (`str`, *optional*, defaults to `"dev"`):
            `"dev"` or `"train"`. German and Yoruba have no train split, the sets of MTEB only dev; of the test splits
            the judgements are not public.
        data_dir (`str` or `Path`, *optional*):
            A folder to read instead of the Hub, laid out as `miracl/miracl` and `miracl/miracl-corpus` or as MTEB's
            set, each directly in it or in a folder of the repository's name; or with the topics and qrels files side
            by side; or with pools: `sw.dev.topics.tsv`, `sw.dev.qrels.tsv`, `sw.passages.jsonl`.
        revision (`str`, *optional*):
            Branch, tag or commit of `miracl/miracl`, or of MTEB's set. Defaults to `main`.
        corpus_revision (`str`, *optional*):
            Likewise of `miracl/miracl-corpus`, which the protocols `"full"` and `"judged"` read.

    Raises:
        ValueError: on a language, protocol or split that is not there, or a damaged file.
        PermissionError: if the Hub asks to accept conditions first; it says where.
        FileNotFoundError: if a file is neither in `data_dir` nor, offline, in the cache.

    Example:
        >>> swahili = load_miracl("sw", data_dir="miracl_mini", protocol="judged")
        >>> docid, passage = next(swahili.iter_passages())
    """
    code = language_code(language)
    if code not in CORPUS_SHARDS:
        raise ValueError(f"MIRACL has no {language!r}; its languages are {', '.join(CORPUS_SHARDS)}.")
    if protocol not in PROTOCOLS:
        raise ValueError(f"Unknown protocol {protocol!r}: use one of {', '.join(PROTOCOLS)}.")
    if split not in ("dev", "train"):
        raise ValueError(f"MIRACL's split {split!r} cannot be evaluated: only train and dev have public judgements.")
    if split == "train" and code in WITHOUT_TRAIN:
        raise ValueError(f"MIRACL has no train split in {' and '.join(WITHOUT_TRAIN)}: use dev.")
    if split == "train" and protocol in MTEB_SETS:
        raise ValueError(f"{MTEB_SETS[protocol]} has no train split: use dev, or the protocol full or judged.")
    revisions: dict[str, str] = {}
    locate: Callable[[str, str | None, str], Path] = partial(_download, revisions)
    if data_dir is not None:
        if revision or corpus_revision:
            raise ValueError(f"A revision is one of the Hub's, but {data_dir} is read instead: give only one of them.")
        if not Path(data_dir).is_dir():
            raise FileNotFoundError(f"{data_dir}: no such folder, given as `data_dir`.")
        locate = partial(_find, Path(data_dir))
        pool = Path(data_dir) / f"{code}.passages.jsonl"
        if pool.is_file():
            return _load_pool(code, protocol, split, pool)
    if protocol in MTEB_SETS:
        found = _load_mteb(code, protocol, split, partial(locate, MTEB_SETS[protocol], revision))
        found.revisions = revisions
        return found
    topics, qrels = (
        locate(TOPICS, revision, f"miracl-v1.0-{code}/{kind}/{kind}.miracl-v1.0-{code}-{split}.tsv")
        for kind in ("topics", "qrels")
    )
    corpus = [f"miracl-corpus-v1.0-{code}/docs-{shard}.jsonl.gz" for shard in range(CORPUS_SHARDS[code])]
    judged = read_qrels(qrels)
    passages = partial(_iter_corpus, partial(locate, CORPUS, corpus_revision), corpus, data_dir is not None)
    if protocol == "judged":
        passages = partial(_iter_judged, passages, judged, set())
    return MiraclSet(code, protocol, split, read_topics(topics), judged, passages, None, revisions)


def _load_pool(code: str, protocol: str, split: str, pool: Path) -> MiraclSet:
    if protocol != "judged":
        raise ValueError(
            f"{pool} is a pool of passages, not MIRACL's {PROTOCOLS[protocol]}: load it with the protocol 'judged'."
        )
    topics, qrels = (pool.with_name(f"{code}.{split}.{kind}.tsv") for kind in ("topics", "qrels"))
    for path in (topics, qrels):
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there, but {pool.name} beside it is.")
    return MiraclSet(code, protocol, split, read_topics(topics), read_qrels(qrels), partial(iter_passages, pool))


def _load_mteb(code: str, protocol: str, split: str, locate: Callable[[str], Path]) -> MiraclSet:
    def table(part: str) -> Path:
        return locate(f"{code}-{part}/{split}-00000-of-00001.parquet")

    path = table("qrels")
    if protocol != "rerank" and (path.parent.with_name(f"{code}-top_ranked")).is_dir():
        raise ValueError(
            f"{path.parent.parent} is {MTEB_SETS['rerank']}, as it has {code}-top_ranked: "
            f"load it with the protocol 'rerank', not {protocol!r}."
        )
    qrels = read_judgements(path)
    topics = read_queries(table("queries"), qrels)
    candidates = read_candidates(table("top_ranked"), topics) if protocol == "rerank" else None
    # The file of passages is fetched when it is needed.
    return MiraclSet(code, protocol, split, topics, qrels, lambda: iter_passage_table(table("corpus")), candidates)


def _iter_corpus(locate: Callable[[str], Path], names: list[str], local: bool) -> Iterator[tuple[str, str]]:
    # Of a local folder, a missing file must show before hours of work; of the Hub, each is fetched when it is needed.
    paths: Iterable[Path] = [locate(name) for name in names] if local else map(locate, names)
    # File by file, since the ids of English, all kept to find a repeated one, would take more than 3 GB.
    for path in paths:
        yield from iter_passages(path)


def _iter_judged(
    passages: Callable[[], Iterator[tuple[str, str]]], qrels: Mapping[str, Mapping[str, int]], said: set[str]
) -> Iterator[tuple[str, str]]:
    missing = {docid for documents in qrels.values() for docid in documents}
    judged = len(missing)
    for docid, text in passages():
        if docid in missing:
            missing.remove(docid)
            yield docid, text
        if not missing:
            return
    if not said:  # an evaluation reads the passages more than once
        logger.warning(
            "%d of the %d judged passages are not in the corpus (such as %r).", len(missing), judged, min(missing)
        )
        said |= missing


def _find(folder: Path, repository: str, revision: str | None, name: str) -> Path:
    places = [folder / name, folder / repository.split("/")[1] / name]
    if name.endswith(".tsv"):  # the other files do not name their language
        places.append(folder / Path(name).name)
    for place in places:
        if place.is_file():
            return place
    raise FileNotFoundError(
        f"{folder} lacks {name} of https://huggingface.co/datasets/{repository}: looked for "
        f"{', '.join(map(str, places))}."
    )


def _download(revisions: dict[str, str], repository: str, revision: str | None, name: str) -> Path:
    page = f"https://huggingface.co/datasets/{repository}"
    at = f"{repository}, revision {revision or 'main'}"
    try:
        path = Path(hf_hub_download(repository, name, repo_type="dataset", revision=revision))
    except GatedRepoError as error:
        raise PermissionError(
            f"The dataset {repository} is gated: accept its conditions at {page}, then log in with the same account "
            "(`hf auth login`, or HF_TOKEN in the environment)."
        ) from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"The Hub shows no dataset {repository}: see {page}; if it is private, log in (`hf auth login`)."
        ) from error
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"{at}: no such branch, tag or commit; see {page}/commits/main.") from error
    except LocalEntryNotFoundError as error:  # an EntryNotFoundError too, hence first
        raise FileNotFoundError(
            f"{at}: {name} is not in the local cache, and the Hub cannot be reached. Load it once with a connection, "
            "or give a folder of the same layout as `data_dir`."
        ) from error
    except EntryNotFoundError as error:
        raise FileNotFoundError(f"{at}: no file {name}; see {page}/tree/{revision or 'main'}.") from error
    # The cache keeps a commit's files in snapshots/<commit>/.
    revisions[repository] = path.parts[path.parts.index("snapshots") + 1]
    return path

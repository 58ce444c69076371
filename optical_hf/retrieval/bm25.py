"""BM25 as a first stage: an index on disk that is memory-mapped to search."""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..bounds import check_count
from ..data.languages import language_code
from ..files import changed_files, checksums, pop_digest, read_json, scratch, with_digest, write_json
from .bm25_terms import ANALYSIS_VERSION, analyzer, import_extra, stemmer_of

ANALYSIS = "analysis.json"  # says how the texts of an index were analysed
POSTINGS_AT_ONCE = 1 << 22  # bounds the memory of building: some 300 MB


class BM25Index:
    """An index of BM25 scores in a folder, in the format of bm25s, searched without reading it into memory.

    Args:
        folder (`str` or `Path`): where [`BM25Index.build`] wrote it.

    Raises:
        FileNotFoundError: if there is no index in `folder`.
        ImportError: if bm25s or PyStemmer is not installed.
        ValueError: if it was built by another analysis or stemmer than there is here, or a file is not as it was
            written: all are read once, which takes a second a gigabyte or two.

    Example:
        >>> index = BM25Index.build([("d1", "The Nile flows"), ("d2", "A lake")], "en", "bm25-index")
        >>> [*index.search({"q1": "Where does the Nile flow?"})["q1"]]
        ['d1']
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        folder = Path(folder)
        if not is_bm25_index(folder):
            raise FileNotFoundError(f"{folder}: no BM25 index is there; write one with BM25Index.build.")
        bm25s = import_extra("bm25s")
        remedy = "delete the folder, and build the index again."
        try:
            analysis = read_json(folder / ANALYSIS)
            if not pop_digest(analysis):
                raise ValueError(f"{folder / ANALYSIS} is damaged: its content has changed")
        except ValueError as error:
            raise ValueError(f"{error}: {remedy}") from error
        if (version := analysis.get("version", 1)) != ANALYSIS_VERSION:
            raise ValueError(
                f"{folder / ANALYSIS}: built by version {version} of the analysis; the terms of version "
                f"{ANALYSIS_VERSION}, which is here, are others: {remedy}"
            )
        if "checksums" not in analysis:
            raise ValueError(f"{folder / ANALYSIS} has no checksums of the files beside it: {remedy}")
        if damaged := changed_files(folder, analysis["checksums"]):
            raise ValueError(f"{folder / damaged[0]} is damaged or missing: {remedy}")
        self.language: str | None = analysis["language"]  # None for character 4-grams
        self.passages: str = analysis["passages"]  # what `digest_passages` says of them
        stemmer_here = None if self.language is None else stemmer_of(self.language)
        if analysis["stemmer"] != stemmer_here:
            raise ValueError(
                f"{folder} was built with the stemmer {analysis['stemmer']}, but PyStemmer has {stemmer_here} for "
                f"{self.language!r} here: install the same version, or build it again."
            )
        self._scores = bm25s.BM25.load(folder, mmap=True)
        with open(folder / "docids.txt", "rb") as file:
            self._docids = mmap(file.fileno(), 0, access=ACCESS_READ)
        # Still mapped, but a plain array: what is taken out of it is in a fifth of the time.
        self._ends = np.load(folder / "docid_ends.npy", mmap_mode="r").view(np.ndarray)
        self._analyze = analyzer(self.language)

    def __len__(self) -> int:
        return len(self._ends)

    @classmethod
    def build(
        cls,
        passages: Iterable[tuple[str, str]],
        language: str | None,
        folder: str | os.PathLike[str],
        k1: float = 0.9,
        b: float = 0.4,
    ) -> BM25Index:
        """Index passages, in memory that grows with the vocabulary, barely with the corpus.

        The folder appears only once it is complete. Meanwhile the disk takes twice its size.

        Args:
            passages (`Iterable[tuple[str, str]]`):
                Document ids, each once, and passages, such as of [`iter_passages`]. Read once.
            language (`str`, *optional*):
                Language of passages and queries, see [`bm25_terms.analyzer`]. `None` where they are of different
                languages: terms are then character 4-grams without diacritics.
            folder (`str` or `Path`):
                Where to write it; not there yet, or empty.
            k1, b (`float`, *optional*, default to 0.9 and 0.4):
                Saturation of term frequency, and normalisation of length; MIRACL's and Pyserini's values.

        Returns:
            [`BM25Index`]: the index, read from `folder`.

        Raises:
            FileExistsError: if something is in `folder` already.
            ImportError: if bm25s or PyStemmer is not installed.
            ValueError: if there is no passage, or no term in any.
        """
        folder, code = Path(folder), None if language is None else language_code(language)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise FileExistsError(f"{folder} is there already: read it with BM25Index({str(folder)!r}), or delete it.")
        retriever = import_extra("bm25s").BM25(k1=k1, b=b, method="lucene")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with scratch(folder.parent, folder.name) as place:
            partial = place / "index"
            partial.mkdir()
            postings = _Postings(passages, analyzer(code), place, partial)
            postings.write_scores(retriever, partial)
            analysis = {
                "version": ANALYSIS_VERSION,
                "language": code,
                "stemmer": None if code is None else stemmer_of(code),
                "passages": postings.digest,
            }
            write_json(partial / ANALYSIS, with_digest({**analysis, "checksums": checksums(partial)}))
            os.replace(partial, folder)
        return cls(folder)

    def search(self, topics: Mapping[str, str], k: int = 100) -> dict[str, dict[str, float]]:
        """Find every query's best `k` passages among those that share a term with it.

        Args:
            topics (`dict[str, str]`):
                Queries by id. A term that is there twice counts twice.
            k (`int`, *optional*, defaults to 100):
                Results a query. Among equal scores, those that trec_eval would rank first are kept.

        Returns:
            `dict[str, dict[str, float]]`: the run, scores by query id and document id, best first. A query that
            shares no term with any passage has no results.

        Raises:
            ValueError: if `k` is less than 1.
        """
        check_count("k", k)
        run: dict[str, dict[str, float]] = {}
        for qid, text in tqdm(topics.items(), desc="BM25", unit="query", disable=len(topics) < 100):
            scores = self._scores.get_scores_from_ids(self._scores.get_tokens_ids(self._analyze(text)))
            found = np.flatnonzero(scores)
            scores = scores[found]
            if len(found) > k:
                best = scores >= np.partition(scores, -k)[-k]
                found, scores = found[best], scores[best]
            order = np.argsort(scores)[::-1]  # so that only the ties are left to sort
            pairs = zip(scores[order].tolist(), self._docids_at(found[order]), strict=True)
            run[qid] = {docid: score for score, docid in sorted(pairs, reverse=True)[:k]}
        return run

    def _docids_at(self, positions: Any) -> list[str]:
        starts = np.where(positions == 0, 0, self._ends[positions - 1] + 1).tolist()
        return [
            self._docids[start:end].decode("utf-8")
            for start, end in zip(starts, self._ends[positions].tolist(), strict=True)
        ]


class _Postings:
    """What is counted of the passages: their terms, on disk, and the sizes that BM25 needs, in memory.

    bm25s itself builds in memory: for English MIRACL, with some 2 billion postings, in about 100 GB.
    """

    def __init__(
        self,
        passages: Iterable[tuple[str, str]],
        analyze: Callable[[str], list[str]],
        place: Path,
        partial: Path,
    ) -> None:
        self.vocabulary: dict[str, int] = {}
        lengths, distinct, ends = array("i"), array("i"), array("q")
        self._files = place / "terms", place / "frequencies"
        digest = blake2b(digest_size=16)
        with (
            open(self._files[0], "wb") as terms,
            open(self._files[1], "wb") as frequencies,
            open(partial / "docids.txt", "wb") as docids,
        ):
            hashed = _hashed(passages, digest)
            for docid, text in tqdm(hashed, desc="BM25: counting terms", unit="passage", delay=2):
                number = self.vocabulary.setdefault
                counts = Counter([number(term, len(self.vocabulary)) for term in analyze(text)])
                array("i", counts).tofile(terms)
                array("i", counts.values()).tofile(frequencies)
                lengths.append(sum(counts.values()))
                distinct.append(len(counts))
                docids.write(docid.encode("utf-8"))
                ends.append(docids.tell())
                docids.write(b"\n")
        if not self.vocabulary:
            raise ValueError(f"There is nothing to index: none of the {len(lengths)} passages has a term.")
        self.digest = digest.hexdigest()
        self.lengths, self.distinct = np.array(lengths), np.array(distinct)
        np.save(partial / "docid_ends.npy", np.array(ends))

    def write_scores(self, retriever: Any, folder: Path) -> None:
        """Write what `retriever.index` and `retriever.save` would: a column of scores a term, by document."""
        count = len(self.lengths)
        in_documents = np.zeros(len(self.vocabulary), dtype=np.int64)
        terms, frequencies = (np.memmap(path, dtype=np.int32, mode="r") for path in self._files)
        for start in range(0, len(terms), POSTINGS_AT_ONCE):
            in_documents += np.bincount(terms[start : start + POSTINGS_AT_ONCE], minlength=len(in_documents))
        columns = np.concatenate([[0], np.cumsum(in_documents)])
        nothing = {"data": np.zeros(0, np.float32), "indices": np.zeros(0, np.int32)}
        retriever.scores = nothing | {"indptr": columns, "num_docs": count}
        retriever.vocab_dict, retriever.nonoccurrence_array = self.vocabulary, None
        retriever.save(folder)
        # Now in place of the empty arrays those too large for memory.
        data, indices = (
            np.lib.format.open_memmap(folder / f"{name}.csc.index.npy", "w+", empty.dtype, (len(terms),))
            for name, empty in nothing.items()
        )
        idf = np.log1p((count - in_documents + 0.5) / (in_documents + 0.5))
        saturation = retriever.k1 * (1 - retriever.b + retriever.b * self.lengths / self.lengths.mean())
        free = columns[:-1].copy()
        with tqdm(total=len(terms), desc="BM25: scoring", unit="posting", unit_scale=True) as progress:
            for start, stop, documents in self._pieces():
                order = np.argsort(terms[start:stop], kind="stable")  # by term and, within, by document
                term, document, frequency = terms[start:stop][order], documents[order], frequencies[start:stop][order]
                firsts = np.flatnonzero(np.diff(term, prepend=-1))
                repeats = np.diff(firsts, append=len(term))
                places = free[term] + np.arange(len(term)) - np.repeat(firsts, repeats)
                indices[places] = document
                data[places] = idf[term] * (frequency / (frequency + saturation[document]))
                free[term[firsts]] += repeats
                progress.update(stop - start)
        data.flush()
        indices.flush()

    def _pieces(self) -> Iterator[tuple[int, int, Any]]:
        """Where the postings of some passages start and stop, and the passage of each."""
        ends = np.cumsum(self.distinct, dtype=np.int64)
        passage = start = 0
        while passage < len(ends):
            last = max(int(np.searchsorted(ends, start + POSTINGS_AT_ONCE, side="right")), passage + 1)
            stop = int(ends[last - 1])
            yield start, stop, np.repeat(np.arange(passage, last, dtype=np.int32), self.distinct[passage:last])
            passage, start = last, stop


def is_bm25_index(folder: str | os.PathLike[str]) -> bool:
    """Tell whether a folder holds an index of BM25."""
    return (Path(folder) / ANALYSIS).is_file()


def digest_passages(passages: Iterable[tuple[str, str]]) -> str:
    """Hash document ids and texts, to tell whether an index is of these passages."""
    digest = blake2b(digest_size=16)
    hashed = _hashed(passages, digest)
    for _ in tqdm(hashed, desc="BM25: checking the passages", unit="passage", delay=2):
        pass
    return digest.hexdigest()


def _hashed(passages: Iterable[tuple[str, str]], digest: blake2b) -> Iterator[tuple[str, str]]:
    for docid, text in passages:
        digest.update(f"{docid}\0{text}\0".encode("utf-8", "surrogatepass"))
        yield docid, text

"""BM25 as a first stage: analysis that fits the language, and an index on disk that is memory-mapped to search."""

from __future__ import annotations

import json
import os
import re
import tempfile
import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from .languages import language_code

__all__ = ["BM25Index", "analyzer"]

# Snowball's name of each language. Which of them are there depends on the version of PyStemmer.
STEMMERS = {
    "ar": "arabic", "ca": "catalan", "cs": "czech", "da": "danish", "de": "german", "el": "greek", "en": "english",
    "eo": "esperanto", "es": "spanish", "et": "estonian", "eu": "basque", "fa": "persian", "fi": "finnish",
    "fr": "french", "ga": "irish", "hi": "hindi", "hu": "hungarian", "hy": "armenian", "id": "indonesian",
    "it": "italian", "lt": "lithuanian", "ne": "nepali", "nl": "dutch", "no": "norwegian", "pl": "polish",
    "pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian", "st": "sesotho", "sv": "swedish",
    "ta": "tamil", "tr": "turkish", "yi": "yiddish",
}  # fmt: skip

# Written without spaces, or, as Korean is, with endings joined to the noun.
BIGRAM_LANGUAGES = ("ja", "ko", "th", "zh")
# Thai, Hangul, kana and Han letters; words of other scripts among them stay whole.
_BIGRAM_LETTERS = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u1100-\u11ff\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff"
    "\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff"
)
# Zero-width joiners and the soft hyphen are no letters, and texts differ in them: the words must not.
_INVISIBLE = re.compile("[\u00ad\u200c\u200d]")

POSTINGS_AT_ONCE = 1 << 22  # bounds the memory of building: some 300 MB


def analyzer(language: str) -> Callable[[str], list[str]]:
    """Make the function that cuts texts of a language into terms, in lower case and Unicode's NFKC form.

    Terms are stems where PyStemmer has a stemmer, pairs of neighbouring characters in Chinese, Japanese, Korean and
    Thai, and words elsewhere. No stop words are left out.

    Args:
        language (`str`): as [`languages.language_code`] reads it.

    Raises:
        ImportError: if PyStemmer is not installed.

    Example:
        >>> analyzer("en")("Rivers, running"), analyzer("zh")("尼罗河 Nile")
        (['river', 'run'], ['尼罗', '罗河', 'nile'])
    """
    code = language_code(language)
    instead = " " if code == "fa" else ""  # in Persian, the non-joiner parts affixes from their word
    words, runs, characters = _patterns()
    stemmer = _stemmer(code)
    stem = None if stemmer is None else _import("Stemmer").Stemmer(stemmer).stemWords

    def normalize(text: str) -> str:
        return unicodedata.normalize("NFKC", _INVISIBLE.sub(instead, text)).lower()

    def analyze_words(text: str) -> list[str]:
        found = words.findall(normalize(text))
        return found if stem is None else stem(found)

    def analyze_bigrams(text: str) -> list[str]:
        terms: list[str] = []
        for run, word in runs.findall(normalize(text)):
            letters = characters.findall(run)
            terms += map("".join, zip(letters, letters[1:], strict=False)) if len(letters) > 1 else [word or run]
        return terms

    return analyze_bigrams if code in BIGRAM_LANGUAGES else analyze_words


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Words; runs of bigram letters or else words; single letters with the marks that are written on them."""
    # \w leaves out combining marks, so that the vowel signs of Telugu, Bengali and Hindi would cut words to pieces.
    # Marks beyond U+FFFF, of few living scripts, are left out: a class with them takes ten times as long.
    marks = "".join(char for char in map(chr, range(0x10000)) if unicodedata.category(char) in ("Mn", "Mc"))
    words = re.compile(f"\\w+(?:[{marks}]+\\w*)*")
    runs = re.compile(f"([{_BIGRAM_LETTERS}][{_BIGRAM_LETTERS}{marks}]*)|((?:(?![{_BIGRAM_LETTERS}])[\\w{marks}])+)")
    return words, runs, re.compile(f"[^{marks}][{marks}]*|[{marks}]+")


def _stemmer(code: str) -> str | None:
    name = STEMMERS.get(code)
    return name if name and name in _import("Stemmer").algorithms() else None


class BM25Index:
    """An index of BM25 scores in a folder, in the format of bm25s, searched without reading it into memory.

    Args:
        folder (`str` or `Path`): where [`BM25Index.build`] wrote it.

    Raises:
        FileNotFoundError: if there is no index in `folder`.
        ImportError: if bm25s or PyStemmer is not installed.
        ValueError: if it was built with another stemmer than PyStemmer has here.

    Example:
        >>> index = BM25Index.build([("d1", "The Nile flows"), ("d2", "A lake")], "en", "bm25-index")
        >>> [*index.search({"q1": "Where does the Nile flow?"})["q1"]]
        ['d1']
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        folder = Path(folder)
        if not (folder / "analysis.json").is_file():
            raise FileNotFoundError(f"{folder}: no BM25 index is there; write one with BM25Index.build.")
        bm25s = _import("bm25s")
        analysis = json.loads((folder / "analysis.json").read_text(encoding="utf-8"))
        self.language: str = analysis["language"]
        if analysis["stemmer"] != _stemmer(self.language):
            raise ValueError(
                f"{folder} was built with the stemmer {analysis['stemmer']}, but PyStemmer has "
                f"{_stemmer(self.language)} for {self.language!r} here: install the same version, or build it again."
            )
        self._analyze = analyzer(self.language)
        self._scores = bm25s.BM25.load(folder, mmap=True)
        self._docids = np.memmap(folder / "docids.txt", dtype=np.uint8, mode="r")
        self._ends = np.load(folder / "docid_ends.npy", mmap_mode="r")

    def __len__(self) -> int:
        return len(self._ends)

    @classmethod
    def build(
        cls,
        passages: Iterable[tuple[str, str]],
        language: str,
        folder: str | os.PathLike[str],
        k1: float = 0.9,
        b: float = 0.4,
    ) -> BM25Index:
        """Index passages, in memory that hardly grows but with the vocabulary.

        The folder appears only once it is complete. Meanwhile the disk takes twice its size.

        Args:
            passages (`Iterable[tuple[str, str]]`):
                Document ids, each once, and passages, such as of [`trec.iter_passages`]. Read once.
            language (`str`):
                Language of passages and queries, see [`analyzer`].
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
        folder, code = Path(folder), language_code(language)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise FileExistsError(f"{folder} is there already: read it with BM25Index({str(folder)!r}), or delete it.")
        retriever = _import("bm25s").BM25(k1=k1, b=b, method="lucene")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            partial = Path(scratch) / "index"
            partial.mkdir()
            postings = _Postings(passages, analyzer(code), Path(scratch), partial)
            postings.write_scores(retriever, partial)
            analysis = {"language": code, "stemmer": _stemmer(code)}
            (partial / "analysis.json").write_text(json.dumps(analysis) + "\n", encoding="utf-8")
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
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}.")
        run: dict[str, dict[str, float]] = {}
        for qid, text in tqdm(topics.items(), desc="BM25", unit="query", disable=len(topics) < 100):
            scores = self._scores.get_scores_from_ids(self._scores.get_tokens_ids(self._analyze(text)))
            found = np.flatnonzero(scores)
            if len(found) > k:
                least = np.partition(scores[found], -k)[-k]
                found = found[scores[found] >= least]
            pairs = zip(scores[found].tolist(), map(self._docid, found.tolist()), strict=True)
            run[qid] = {docid: score for score, docid in sorted(pairs, reverse=True)[:k]}
        return run

    def _docid(self, position: int) -> str:
        start = int(self._ends[position - 1]) + 1 if position else 0
        return self._docids[start : int(self._ends[position])].tobytes().decode("utf-8")


class _Postings:
    """What is counted of the passages: their terms, on disk, and the sizes that BM25 needs, in memory.

    bm25s itself builds in memory: for English MIRACL, with some 2 billion postings, in about 100 GB.
    """

    def __init__(
        self,
        passages: Iterable[tuple[str, str]],
        analyze: Callable[[str], list[str]],
        scratch: Path,
        partial: Path,
    ) -> None:
        self.vocabulary: dict[str, int] = {}
        lengths, distinct, ends = array("i"), array("i"), array("q")
        self._files = scratch / "terms", scratch / "frequencies"
        with (
            open(self._files[0], "wb") as terms,
            open(self._files[1], "wb") as frequencies,
            open(partial / "docids.txt", "wb") as docids,
        ):
            for docid, text in tqdm(passages, desc="BM25: counting terms", unit="passage"):
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


def _import(name: str) -> Any:
    try:
        return __import__(name)
    except ImportError as error:
        raise ImportError('BM25 needs bm25s and PyStemmer: pip install "optical-hf[bm25]".') from error

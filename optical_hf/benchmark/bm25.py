"""BM25, beside bm25s itself on the same terms."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..retrieval.bm25 import BM25Index
from ..retrieval.bm25_terms import analyzer
from .comparison import Comparison, check_equal, compare
from .setup import Setup, generate_texts

LANGUAGE, K, K1, B = "en", 100, 0.9, 0.4


def measure(setup: Setup) -> Iterator[Comparison]:
    """Measure searches of generated passages, the analysis of the questions included; without bm25s there is none."""
    passages = generate_texts(setup.size(20_000, 200))
    questions = generate_texts(setup.size(200, 5), seed=1, longest=10)
    name, peer = f"BM25, {len(questions)} queries, {len(passages)} passages", "bm25s"
    topics = {f"q{number}": text for number, text in enumerate(questions)}
    try:
        docids = (f"d{number}" for number in range(len(passages)))
        index = BM25Index.build(zip(docids, passages, strict=True), LANGUAGE, setup.folder / "bm25")
    except ImportError as error:
        yield Comparison(name=name, ours=[], peer=peer, missing=str(error))
        return

    def ours() -> list[list[float]]:
        return [list(found.values()) for found in index.search(topics, k=K).values()]

    def make_peer() -> Callable[[], list[list[float]]]:
        import bm25s

        analyze = analyzer(LANGUAGE)
        retriever = bm25s.BM25(k1=K1, b=B, method="lucene")
        retriever.index([analyze(text) for text in passages], show_progress=False)

        def search() -> list[list[float]]:
            terms = [analyze(text) for text in questions]
            return retriever.retrieve(terms, k=K, show_progress=False).scores.tolist()

        return search

    def notes(found: list[list[float]], theirs: list[list[float]] | None) -> list[str]:
        if theirs is not None:
            for some, others in zip(found, theirs, strict=True):  # bm25s adds passages of score 0
                check_equal("BM25 scores", some, [score for score in others if score], 1e-4)
        return []

    yield compare(name, ours, peer, make_peer, rounds=setup.rounds, notes=notes, amount=len(topics), unit="queries")

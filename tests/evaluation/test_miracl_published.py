"""The published figures that results are set beside."""

from __future__ import annotations

import pytest

from optical_hf.data.miracl import CORPUS_SHARDS
from optical_hf.evaluation.miracl_published import published_scores, published_sources


def test_figures_of_the_same_protocol_only():
    full, pool = published_scores("sw", "full"), published_scores("ar", "hard_negatives")
    assert full["bm25"] == 0.3826
    assert full["mdpr-tied-pft-msmarco"] == 0.299
    assert full["bge-m3 multi-vector"] == 0.791
    assert published_scores("yor", "full")["multilingual-e5-large"] == 0.783
    assert published_scores("ar", "full")["multilingual-e5-small"] == 0.7135
    assert pool == {"multilingual-e5-small": 0.7242, "bge-m3": 0.789}
    assert published_scores("sw", "rerank") == published_scores("sw", "judged") == published_scores("ha", "full") == {}


@pytest.mark.parametrize(("protocol", "systems"), [("full", 9), ("hard_negatives", 2)])
def test_every_figure_has_a_source_and_every_language_all_systems(protocol, systems):
    sources = published_sources(protocol)
    assert len(sources) == systems and all(sources.values())
    for language in CORPUS_SHARDS:
        scores = published_scores(language, protocol)
        assert scores.keys() == sources.keys() and all(0 < score < 1 for score in scores.values())
    assert published_sources("full")["bm25"] == "pyserini 2CR reproduction pages"
    assert published_sources("judged") == {}


def test_unknown_protocol():
    with pytest.raises(ValueError, match="Unknown protocol 'judged pool': use one of full, hard_negatives"):
        published_scores("sw", "judged pool")

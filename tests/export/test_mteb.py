from __future__ import annotations

import json

import pytest
import torch
from multilingual import multilingual_encoder

from optical_hf import OpticalStudent, RetrievalSet, search
from optical_hf.metrics.miracl_ndcg.miracl_ndcg import score_run
from optical_hf.quickstart.model import SAMPLE

mteb = pytest.importorskip("mteb", minversion="2.26")
sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6.2")


def miracl_task(retrieval_set: RetrievalSet):
    """MTEB's own MIRACL task in English, with the data of a retrieval set instead of the Hub's."""
    from datasets import Dataset
    from mteb.tasks import MIRACLRetrieval

    def rows(texts: dict[str, str], **more) -> Dataset:
        return Dataset.from_list([{"id": key, "text": text, **more} for key, text in texts.items()])

    class LocalMIRACL(MIRACLRetrieval):
        def load_data(self, **kwargs) -> None:
            data = {
                "corpus": rows(retrieval_set.passages, title=""),
                "queries": rows(retrieval_set.topics),
                "relevant_docs": retrieval_set.qrels,
                "top_ranked": None,
            }
            self.dataset = {"en": {"dev": data}}
            self.data_loaded = True

    return LocalMIRACL().filter_languages(["eng"])


def test_mteb_measures_a_student_as_we_do(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    files = {
        "topics": SAMPLE / "topics.en.tsv",
        "qrels": SAMPLE / "qrels.tsv",
        "passages": SAMPLE / "passages.en.jsonl",
    }
    data = RetrievalSet.from_files(**files, query_language="en", document_language="en")
    # Few passages, so that random weights find some of the right ones.
    data.passages = dict(list(data.passages.items())[:20])
    data.qrels = {qid: judged for qid, judged in data.qrels.items() if judged.keys() <= data.passages.keys()}
    data.topics = {qid: data.topics[qid] for qid in data.qrels}
    torch.manual_seed(0)
    student = OpticalStudent.from_checkpoint(
        multilingual_encoder(tmp_path / "encoder"),
        query_prefix="query: ",
        document_prefix="passage: ",
        projection_dim=8,
    )
    student.save_pretrained(tmp_path / "student")

    queries = student.encode(list(data.topics.values()), "query")
    passages = student.encode(list(data.passages.values()), "document")
    run = search(queries, passages, list(data.passages), list(data.topics), k=100)
    expected = score_run(run, data.qrels, measures=["ndcg@10"])["ndcg@10"]
    assert 0.2 < expected < 0.98

    model = sentence_transformers.MultiVectorEncoder(str(tmp_path / "student"), trust_remote_code=True, device="cpu")
    options = {"cache": None, "co2_tracker": False, "prediction_folder": tmp_path / "predictions"}
    found = mteb.evaluate(model, tasks=[miracl_task(data)], **options)
    [scores] = found.task_results[0].scores["dev"]
    assert scores["hf_subset"] == "en"
    # MTEB rounds to five digits; its run, scored here, is not rounded.
    assert scores["ndcg_at_10"] == pytest.approx(round(expected, 5), abs=1e-9)
    [file] = (tmp_path / "predictions").rglob("*.json")
    run = json.loads(file.read_text())["en"]["dev"]
    assert score_run(run, data.qrels, measures=["ndcg@10"])["ndcg@10"] == pytest.approx(expected, abs=1e-6)

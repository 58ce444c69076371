from __future__ import annotations

import json
import string
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from closeness import assert_same_scores
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerFast

from optical_hf import OpticalStudent, OpticalTeacher, maxsim

WORDS = ["who", "wrote", "this", "book", "it", "rain", "##s", "today", "she", "un", "##used", "##0", "[Q] ", "[D] "]
VOCABULARY = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.punctuation, *WORDS]
QUERIES = ["who wrote this book?", "", "it rains, today!", "she wrote it. " * 9, "who"]
DOCUMENTS = ["she wrote this book.", "it rains today: it rains.", "...", "", "the book (who wrote it?) " * 6]


@pytest.fixture
def encoder(tmp_path) -> Path:
    """A BERT that lowercases and splits [unused0], as the real one does."""
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 4), ("[SEP]", 5)]
    )
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names)
    assert fast.tokenize("[unused0]") != ["[unused0]"]
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(VOCABULARY), max_position_embeddings=256, initializer_range=0.3, **size)
    BertModel(config).save_pretrained(tmp_path / "encoder")
    fast.save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


@pytest.fixture
def projection() -> torch.Tensor:
    return torch.randn(8, 32, generator=torch.Generator().manual_seed(1))


# Stanford ColBERT


@pytest.fixture
def stanford(tmp_path, encoder, projection):
    """Write a checkpoint as Stanford ColBERT saves it: `bert.*` and `linear.weight`, settings in artifact.metadata."""

    def write(**metadata) -> Path:
        folder = tmp_path / "stanford"
        folder.mkdir()
        AutoTokenizer.from_pretrained(encoder).save_pretrained(folder)
        config = json.loads((encoder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "architectures": ["HF_ColBERT"]}))
        tensors = {f"bert.{name}": tensor for name, tensor in load_file(encoder / "model.safetensors").items()}
        tensors["linear.weight"] = projection
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        if metadata:
            (folder / "artifact.metadata").write_text(json.dumps(metadata))
        return folder

    return write


METADATA = {
    "query_token_id": "[unused0]",
    "doc_token_id": "[unused1]",
    "query_token": "[Q]",
    "doc_token": "[D]",
    "dim": 8,
    "similarity": "cosine",
    "query_maxlen": 12,
    "doc_maxlen": 20,
    "mask_punctuation": True,
    "attend_to_mask_tokens": False,
}


def colbert_scores(encoder: Path, projection: torch.Tensor, metadata: dict) -> torch.Tensor:
    """What colbert-ai computes (QueryTokenizer, DocTokenizer, ColBERT.query, .doc and colbert_score), one by one."""
    tokenizer, bert = AutoTokenizer.from_pretrained(encoder), BertModel.from_pretrained(encoder)

    def vectors(text: str, marker: str, length: int, is_query: bool) -> torch.Tensor:
        padding = {"padding": "max_length"} if is_query else {}
        # A full stop holds the place in which the marker's id is put.
        batch = tokenizer([". " + text], truncation=True, max_length=length, return_tensors="pt", **padding)
        ids, attended = batch["input_ids"], batch["attention_mask"]
        ids[:, 1] = tokenizer.convert_tokens_to_ids(marker)
        if is_query:
            ids[ids == tokenizer.pad_token_id] = tokenizer.mask_token_id
            if metadata["attend_to_mask_tokens"]:
                attended[ids == tokenizer.mask_token_id] = 1
        with torch.no_grad():
            states = bert(ids, attention_mask=attended).last_hidden_state @ projection.T
        kept = ids[0] != tokenizer.pad_token_id
        if not is_query and metadata["mask_punctuation"]:
            for mark in string.punctuation:
                kept &= ids[0] != tokenizer.encode(mark, add_special_tokens=False)[0]
        return F.normalize(states[0], dim=-1)[kept]

    rows = []
    for text in QUERIES:
        query = vectors(text, metadata["query_token_id"], metadata["query_maxlen"], True)
        assert len(query) == metadata["query_maxlen"]
        found = (vectors(one, metadata["doc_token_id"], metadata["doc_maxlen"], False) for one in DOCUMENTS)
        rows.append([(query @ document.T).max(dim=1).values.sum() for document in found])
    return torch.tensor(rows)


def assert_scores(model, expected: torch.Tensor) -> None:
    queries = model.encode(QUERIES, "query")
    assert_same_scores(maxsim(queries, model.encode(DOCUMENTS, "document")), expected, queries)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attend_to_mask_tokens": True},
        {"mask_punctuation": False},
        {"query_token_id": "[unused1]", "doc_token_id": "[unused0]", "query_maxlen": 32},
    ],
)
def test_stanford_colbert_scores_as_its_own_code(stanford, encoder, projection, changes):
    metadata = METADATA | changes
    folder = stanford(**metadata)
    teacher = OpticalTeacher.from_checkpoint(folder)
    expected = colbert_scores(encoder, projection, metadata)
    assert_scores(teacher, expected)
    assert torch.equal(teacher.projection.weight, projection)
    assert teacher.config.query_prefix == metadata["query_token_id"] + " "
    # A student starts from it, and keeps the markers when it is saved.
    student = OpticalStudent.from_checkpoint(folder)
    student.save_pretrained(folder.parent / "student")
    saved = AutoModel.from_pretrained(folder.parent / "student")
    assert_scores(saved, expected)


def test_stanford_colbert_without_metadata_has_the_defaults_of_colbert(stanford, tmp_path, caplog):
    folder = stanford()
    with pytest.raises(ValueError, match=r"`linear.weight` of shape \(128, 32\); it holds one of shape \(8, 32\)"):
        OpticalTeacher.from_checkpoint(folder)
    assert f"{folder} has no artifact.metadata" in caplog.text
    (folder / "artifact.metadata").write_text('{"dim": 8}')
    config = OpticalTeacher.from_checkpoint(folder).config
    assert (config.query_length, config.document_length, config.query_expansion) == (32, 220, True)
    assert (config.query_prefix, config.document_prefix) == ("[unused0] ", "[unused1] ")
    assert config.document_skiplist == list(string.punctuation) and not config.attend_to_expansion


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"similarity": "l2"}, "The ColBERT model .* scores by 'l2', not by cosine"),
        ({"dim": 16}, r"`linear.weight` of shape \(16, 32\)"),
        ({"query_token_id": "[Q]"}, r"puts '\[Q\]' before query texts, which is not a token of its tokenizer"),
    ],
)
def test_stanford_colbert_that_cannot_be_repeated(stanford, changes, message):
    with pytest.raises(ValueError, match=message):
        OpticalTeacher.from_checkpoint(stanford(**METADATA | changes))


def test_stanford_colbert_without_safetensors(stanford):
    folder = stanford(**METADATA)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="has no model.safetensors; weights in other formats are not read"):
        OpticalTeacher.from_checkpoint(folder)


# PyLate


@pytest.fixture
def pylate(tmp_path, encoder, projection):
    """Write a folder in PyLate's file format."""

    def write(**general) -> Path:
        folder = tmp_path / "pylate"
        BertModel.from_pretrained(encoder).save_pretrained(folder)
        AutoTokenizer.from_pretrained(encoder).save_pretrained(folder)
        (folder / "1_Dense").mkdir()
        dense = {"in_features": 32, "out_features": 8, "bias": False, "use_residual": False}
        dense["activation_function"] = "torch.nn.modules.linear.Identity"
        (folder / "1_Dense" / "config.json").write_text(json.dumps(dense))
        save_file({"linear.weight": projection}, folder / "1_Dense" / "model.safetensors")
        modules = [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Dense", "type": "pylate.models.Dense.Dense"},
        ]
        (folder / "modules.json").write_text(json.dumps(modules))
        (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 11, "do_lower_case": false}')
        (folder / "config_sentence_transformers.json").write_text(json.dumps(general))
        return folder

    return write


GENERAL = {
    "similarity_fn_name": "MaxSim",
    "query_prefix": "[Q] ",
    "document_prefix": "[D] ",
    "query_length": 12,
    "document_length": 20,
    "attend_to_expansion_tokens": False,
    "do_query_expansion": True,
    "skiplist_words": list(string.punctuation),
}


@pytest.mark.parametrize("markers", [("[Q] ", "[D] "), ("[unused0]", "[unused1]")])
@pytest.mark.parametrize("attend", [False, True])
def test_pylate_scores_as_colbert(pylate, encoder, projection, markers, attend):
    # PyLate cuts a text to one token less, and puts the marker behind the first: the same ids as ColBERT's.
    general = {"query_prefix": markers[0], "document_prefix": markers[1], "attend_to_expansion_tokens": attend}
    teacher = OpticalTeacher.from_checkpoint(pylate(**GENERAL | general))
    metadata = {"query_token_id": markers[0], "doc_token_id": markers[1], "attend_to_mask_tokens": attend}
    expected = colbert_scores(encoder, projection, METADATA | metadata)
    assert_scores(teacher, expected)


def test_pylate_settings_and_defaults(pylate):
    folder = pylate(similarity_fn_name="MaxSim")
    config = OpticalTeacher.from_checkpoint(folder).config
    assert (config.query_prefix, config.document_prefix) == ("[Q] ", "[D] ")
    assert (config.query_length, config.document_length, config.query_expansion) == (32, 180, True)
    assert config.score_special_tokens and config.score_prefix and config.projection_dim == 8
    # Prompts stand behind the prefix; expansion that is off is not attended to.
    general = {"query_prefix": "", "document_prefix": "[D] ", "prompts": {"query": "who ", "document": "it "}}
    general |= {"do_query_expansion": False, "attend_to_expansion_tokens": True, "skiplist_words": [".", "no such"]}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(general))
    config = OpticalTeacher.from_checkpoint(folder).config
    assert (config.query_prefix, config.document_prefix) == ("who ", "[D] it ")
    assert not config.query_expansion and not config.attend_to_expansion
    assert config.document_skiplist == ["."]


def test_skiplist_of_a_tokenizer_with_two_forms_of_a_word(pylate):
    # "." alone is one token and "▁." another, as in XLM-R; PyLate skips only the first.
    folder = pylate(skiplist_words=["."], query_prefix="", document_prefix="")
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "▁.": 1, ".": 2, "<pad>": 3}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    names = {"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names).save_pretrained(folder)
    assert OpticalTeacher.from_checkpoint(folder).config.document_skiplist == [2]
    assert OpticalTeacher.from_checkpoint(folder, document_skiplist=["."]).config.document_skiplist == ["."]
    # "▁." is scored: three vectors; "." behind a word is not.
    teacher = OpticalTeacher.from_checkpoint(folder)
    assert [len(one) for one in teacher.encode([". . ."], "document")] == [3]


# sentence-transformers, by file format (test_sentence_transformers.py compares vectors with the real thing)


@pytest.fixture
def multi_vector(pylate):
    def write(mask=None, normalize=None, transformer=None, extra=()) -> Path:
        folder = pylate(model_type="MultiVectorEncoder", prompts={"query": "who ", "document": None})
        base = "sentence_transformers.base.modules"
        modules = [
            {"path": "", "type": f"{base}.transformer.Transformer"},
            {"path": "1_Dense", "type": f"{base}.dense.Dense"},
            {
                "path": "2_Mask",
                "type": "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask",
            },
            {"path": "3_Normalize", "type": f"{base}.normalize.Normalize"},
            *extra,
        ]
        (folder / "modules.json").write_text(json.dumps(modules))
        (folder / "sentence_bert_config.json").write_text(json.dumps(transformer or {}))
        for path, config in (
            ("2_Mask", mask),
            ("3_Normalize", normalize or {"module_input_name": "token_embeddings"}),
        ):
            (folder / path).mkdir()
            if config is not None:
                (folder / path / "config.json").write_text(json.dumps(config))
        return folder

    return write


def test_multi_vector_settings(multi_vector):
    expansion = {"strategy": "fixed", "attend": True, "token": None, "length": 9}
    mask = {"skiplist_words": ["."], "skiplist_tasks": ["document"], "keep_only_token_ids": None}
    folder = multi_vector(mask, transformer={"query_expansion": expansion, "document_length": 30})
    config = OpticalStudent.from_checkpoint(folder).config
    assert (config.query_prefix, config.document_prefix, config.document_skiplist) == ("who ", "", ["."])
    assert (config.query_length, config.document_length) == (9, 30)
    assert config.query_expansion and config.attend_to_expansion and config.projection_dim == 8


def test_multi_vector_without_lengths_reads_all_that_its_encoder_can(multi_vector):
    config = OpticalStudent.from_checkpoint(multi_vector()).config
    assert (config.query_length, config.document_length, config.query_expansion) == (64, 64, False)


@pytest.mark.parametrize(
    "parts, message",
    [
        ({"mask": {"skiplist_tasks": ["query", "document"]}}, "skiplist_tasks or keep_only_token_ids"),
        ({"mask": {"keep_only_token_ids": [3]}}, "skiplist_tasks or keep_only_token_ids"),
        ({"normalize": {"module_input_name": "sentence_embedding"}}, "does not normalise its token vectors"),
        ({"transformer": {"query_expansion": {"strategy": "min", "length": 9}}}, "expands queries by .*'min'"),
        ({"extra": [{"path": "4", "type": "sentence_transformers.x.HierarchicalTokenPooling"}]}, "TokenPooling"),
    ],
)
def test_multi_vector_models_that_cannot_be_repeated(multi_vector, parts, message):
    with pytest.raises(ValueError, match=message):
        OpticalTeacher.from_checkpoint(multi_vector(**parts))


# Against sentence-transformers itself


def assert_reads_as_sentence_transformers(model, folder: Path):
    teacher = OpticalTeacher.from_checkpoint(folder)
    for role, encode in (("query", model.encode_query), ("document", model.encode_document)):
        texts = QUERIES + DOCUMENTS
        found, expected = teacher.encode(texts, role), encode(texts)
        assert [len(one) for one in found] == [len(one) for one in expected]
        torch.testing.assert_close(torch.cat(found), torch.cat(list(expected)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["stanford", "pylate"])
@pytest.mark.parametrize("attend", [False, True])
def test_sentence_transformers_reads_the_same_from_colbert_and_pylate(request, kind, attend):
    sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6.2")
    settings = {
        "stanford": METADATA | {"attend_to_mask_tokens": attend},
        "pylate": GENERAL | {"attend_to_expansion_tokens": attend},
    }
    folder = request.getfixturevalue(kind)(**settings[kind])
    model = sentence_transformers.MultiVectorEncoder(str(folder), device="cpu")
    assert_reads_as_sentence_transformers(model, folder)


@pytest.mark.parametrize("expand", [False, True])
def test_a_multi_vector_encoder_is_read(tmp_path, encoder, projection, expand):
    pytest.importorskip("sentence_transformers", minversion="6.2")
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    lengths = {"query_expansion": {"strategy": "fixed", "length": 12}} if expand else {"query_length": 12}
    dense = Dense(32, 8, False, torch.nn.Identity(), projection, module_input_name="token_embeddings")
    modules = [
        Transformer(str(encoder), document_length=20, **lengths),
        dense,
        MultiVectorMask(skiplist_words=[".", ",", "no such word"]),
        Normalize(module_input_name="token_embeddings"),
    ]
    model = MultiVectorEncoder(modules=modules, prompts={"query": "who ", "document": "it "}, device="cpu")
    model.save_pretrained(str(tmp_path / "saved"))
    assert_reads_as_sentence_transformers(model, tmp_path / "saved")


def test_without_the_package_other_formats_are_refused_by_name(encoder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optical_hf.checkpoints", None)
    with pytest.raises(ImportError, match=f"To read {encoder}, install the package: `pip install optical-hf`"):
        OpticalTeacher.from_checkpoint(encoder)

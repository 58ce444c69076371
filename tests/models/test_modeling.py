from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tiny_words import VOCABULARY
from transformers import AutoModel, AutoTokenizer, BertConfig, BertForMaskedLM, BertModel, T5Config, T5Model, set_seed

from optical_hf import OpticalConfig, OpticalStudent, OpticalTeacher
from optical_hf.models.loading_optical import check_name
from optical_hf.models.processing_optical import process_texts

TEXTS = ["who wrote this book?", "", "mvua inanyesha leo", "she wrote it. it rains today, the book rains!", "habari"]
PREFIXES = {"query_prefix": "query: ", "document_prefix": "passage: "}


def ids(*tokens: str) -> list[int]:
    return [VOCABULARY[token] for token in tokens]


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def teacher(tiny_encoder) -> OpticalTeacher:
    set_seed(1)
    return OpticalTeacher.from_checkpoint(tiny_encoder, projection_dim=8, **PREFIXES)


# Configuration


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"query_length": 0}, "`query_length` is 0"),
        ({"document_length": -3}, "`document_length` is -3"),
        ({"document_length": None}, "`document_length` is None"),
        ({"projection_dim": 0}, "`projection_dim` is 0"),
        ({"pooling": "max"}, "`pooling` is 'max'; it has to be one of 'mean', 'cls'"),
        ({"document_skiplist": ".,"}, "`document_skiplist` is the string"),
    ],
)
def test_config_names_the_bad_value(tiny_bert_config, arguments, message):
    with pytest.raises(ValueError, match=message):
        OpticalConfig(text_config=tiny_bert_config, **arguments)


def test_config_round_trip(tmp_path, tiny_bert_config):
    config = OpticalConfig(
        tiny_bert_config, projection_dim=8, document_skiplist=["."], query_expansion=True, **PREFIXES
    )
    config.save_pretrained(tmp_path)
    loaded = OpticalConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() | {"_name_or_path": ""} == config.to_dict() | {"_name_or_path": ""}
    assert isinstance(loaded.text_config, BertConfig) and loaded.text_config.hidden_size == 32
    assert (loaded.output_dim, loaded.hidden_size, OpticalConfig(tiny_bert_config).output_dim) == (8, 32, 32)


# Processing


@pytest.mark.parametrize(
    "options, role, text, tokens, scored",
    [
        ({}, "query", "who wrote it?", "[CLS] who wrote it ? [SEP]", "011110"),
        (PREFIXES, "query", "Habari leo", "[CLS] query : habari leo [SEP]", "000110"),
        (PREFIXES, "document", "habari : leo", "[CLS] passage : habari : leo [SEP]", "0001110"),
        (PREFIXES | {"score_prefix": True}, "query", "habari", "[CLS] query : habari [SEP]", "01110"),
        (PREFIXES | {"score_special_tokens": True}, "query", "habari", "[CLS] query : habari [SEP]", "10011"),
        # A prefix without a space at its end, and a text that begins like the prefix.
        ({"query_prefix": "query:"}, "query", "query: habari", "[CLS] query : query : habari [SEP]", "0001110"),
        # Truncation counts everything.
        (PREFIXES | {"query_length": 5}, "query", "who wrote it", "[CLS] query : who [SEP]", "00010"),
        ({"document_skiplist": [".", ","]}, "document", "it, she. it!", "[CLS] it , she . it ! [SEP]", "01010110"),
        ({"document_skiplist": [".", ","]}, "query", "it, she.", "[CLS] it , she . [SEP]", "011110"),
        # Nothing would be left: all attended tokens are scored.
        ({}, "query", "", "[CLS] [SEP]", "11"),
        (PREFIXES, "document", "", "[CLS] passage : [SEP]", "1111"),
        ({"document_skiplist": ["."]}, "document", ". .", "[CLS] . . [SEP]", "1111"),
    ],
)
def test_scoring_mask(tiny_tokenizer, tiny_bert_config, options, role, text, tokens, scored):
    batch = process_texts([text], role, tiny_tokenizer, OpticalConfig(tiny_bert_config, **options))
    assert batch["input_ids"].tolist() == [ids(*tokens.split())]
    assert batch["attention_mask"].tolist() == [[1] * len(tokens.split())]
    assert batch["scoring_mask"].dtype == torch.bool
    assert "".join(str(int(value)) for value in batch["scoring_mask"][0]) == scored


def test_padding_is_on_the_right_and_never_scored(tiny_tokenizer, tiny_bert_config):
    config = OpticalConfig(tiny_bert_config, score_special_tokens=True)
    batch = process_texts(["it rains", "it"], "document", tiny_tokenizer, config)
    assert batch["input_ids"].tolist() == [ids("[CLS]", "it", "rains", "[SEP]"), ids("[CLS]", "it", "[SEP]", "[PAD]")]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert batch["scoring_mask"].tolist() == [[True, True, True, True], [True, True, True, False]]


@pytest.mark.parametrize("attend", [False, True])
def test_query_expansion(tiny_tokenizer, tiny_bert_config, attend):
    config = OpticalConfig(tiny_bert_config, query_length=6, query_expansion=True, attend_to_expansion=attend)
    batch = process_texts(["who", "it rains today the book rains"], "query", tiny_tokenizer, config)
    assert batch["input_ids"].tolist() == [
        ids("[CLS]", "who", "[SEP]", "[MASK]", "[MASK]", "[MASK]"),
        ids("[CLS]", "it", "rains", "today", "the", "[SEP]"),
    ]
    assert batch["attention_mask"].tolist() == [[1, 1, 1] + [int(attend)] * 3, [1] * 6]
    assert batch["scoring_mask"].int().tolist() == [[0, 1, 0, 1, 1, 1], [0, 1, 1, 1, 1, 0]]
    # Documents are not expanded.
    assert process_texts(["who"], "document", tiny_tokenizer, config)["input_ids"].shape == (1, 3)


@pytest.mark.parametrize(
    "texts, role, options, message",
    [
        (["it"], "passage", {}, "Unknown role 'passage'; it has to be 'query' or 'document'"),
        ("it", "query", {}, "`texts` has to be a list of at least one string, not 'it'"),
        ([], "query", {}, "`texts` has to be a list of at least one string"),
        (["it", None], "query", {}, r"texts\[1\] is None"),
        (["it"], "query", {"query_length": 2}, "`query_length` is 2: the tokenizer adds 2 special tokens"),
        (["it"], "document", {"document_skiplist": [".", "who it"]}, "`document_skiplist` holds 'who it'"),
    ],
)
def test_processing_errors(tiny_tokenizer, tiny_bert_config, texts, role, options, message):
    with pytest.raises(ValueError, match=message):
        process_texts(texts, role, tiny_tokenizer, OpticalConfig(tiny_bert_config, **options))


@pytest.mark.parametrize("lacking, message", [("pad_token", "no padding token"), ("mask_token", "needs a mask token")])
def test_tokenizer_that_lacks_a_token(tiny_encoder, tiny_bert_config, lacking, message):
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)
    setattr(tokenizer, lacking, None)
    with pytest.raises(ValueError, match=message):
        process_texts(["it"], "query", tokenizer, OpticalConfig(tiny_bert_config, query_expansion=True))


def test_text_without_any_token_is_named(tiny_encoder, tiny_bert_config):
    from tokenizers.processors import TemplateProcessing

    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A")
    with pytest.raises(ValueError, match="The text '' has no tokens"):
        process_texts(["it", ""], "query", tokenizer, OpticalConfig(tiny_bert_config))


# Forward and encode


def test_forward_is_the_normalised_projection_of_the_encoder(teacher, tiny_encoder):
    batch = process_texts(TEXTS, "query", teacher.tokenizer, teacher.config)
    output = teacher(**batch)
    plain = BertModel.from_pretrained(tiny_encoder)
    with torch.no_grad():
        states = plain(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        states = states @ teacher.projection.weight.T
    torch.testing.assert_close(output.token_vectors, F.normalize(states, dim=-1), rtol=0, atol=1e-6)
    for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        expected = F.normalize(states[row, :length].mean(0), dim=0)
        torch.testing.assert_close(output.pooled[row], expected, rtol=0, atol=1e-6)
    assert torch.equal(output.scoring_mask, batch["scoring_mask"])


def test_cls_pooling_and_defaults_of_the_masks(tiny_encoder):
    model = OpticalStudent.from_checkpoint(tiny_encoder, pooling="cls")
    output = model(torch.tensor([ids("[CLS]", "it", "[SEP]")]))
    torch.testing.assert_close(output.pooled, output.token_vectors[:, 0])
    assert output.scoring_mask.tolist() == [[True, True, True]]


def test_expansion_that_is_not_attended_is_not_pooled(tiny_encoder):
    plain = OpticalTeacher.from_checkpoint(tiny_encoder, query_length=10)
    expanded = OpticalTeacher.from_checkpoint(tiny_encoder, query_length=10, query_expansion=True)
    pooled = [model.encode(TEXTS, "query", pooled=True) for model in (plain, expanded)]
    torch.testing.assert_close(pooled[1], pooled[0], rtol=0, atol=1e-5)
    # The text's own vectors stay the same; the mask tokens add theirs, up to ten tokens with [CLS] and [SEP].
    own, with_masks = plain.encode("mvua inanyesha leo", "query"), expanded.encode("mvua inanyesha leo", "query")
    assert (own.shape, with_masks.shape) == ((3, 32), (8, 32))
    torch.testing.assert_close(with_masks[:3], own, rtol=0, atol=1e-5)


@pytest.mark.parametrize("role", ["query", "document"])
@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_encode_equals_forward_one_by_one(teacher, role, batch_size):
    tokens = teacher.encode(TEXTS, role, batch_size=batch_size)
    pooled = teacher.encode(TEXTS, role, batch_size=batch_size, pooled=True)
    assert pooled.shape == (5, 8)
    for index, text in enumerate(TEXTS):
        batch = process_texts([text], role, teacher.tokenizer, teacher.config)
        output = teacher(**batch)
        # Kernels round a batch of another size in another way: by up to 4e-6 here, and machines differ.
        torch.testing.assert_close(tokens[index], output.token_vectors[batch["scoring_mask"]], rtol=0, atol=3e-5)
        torch.testing.assert_close(pooled[index], output.pooled[0], rtol=0, atol=3e-5)
    # Prefix and special tokens are left out, but for the empty text: [CLS] query : [SEP].
    assert [len(one) for one in tokens] == [5, 4, 3, 12, 1]


@pytest.mark.parametrize("role", ["query", "document"])
def test_encode_of_both_is_the_two_from_one_pass(teacher, role, monkeypatch):
    tokens, pooled = teacher.encode(TEXTS, role, batch_size=2), teacher.encode(TEXTS, role, batch_size=2, pooled=True)
    forward, passes = teacher.forward, []

    def counted(*args, **kwargs):
        passes.append(len(kwargs["input_ids"]))
        return forward(*args, **kwargs)

    monkeypatch.setattr(teacher, "forward", counted)
    both = teacher.encode(TEXTS, role, batch_size=2, pooled="both", dtype=torch.float64)
    assert type(both) is tuple and passes == [2, 2, 1]
    for one, two in zip(both[0], tokens, strict=True):
        assert one.dtype == torch.float64 and torch.equal(one.float(), two)
    assert both[1].dtype == torch.float64 and torch.equal(both[1].float(), pooled)
    single = teacher.encode(TEXTS[0], role, pooled="both")
    assert (single[0].shape, single[1].shape) == (tokens[0].shape, (8,))
    torch.testing.assert_close(single[0], tokens[0], rtol=0, atol=3e-5)
    torch.testing.assert_close(single[1], pooled[0], rtol=0, atol=3e-5)
    nothing = teacher.encode([], role, pooled="both")
    assert nothing[0] == [] and nothing[1].shape == (0, 8)


def test_encode_of_one_string_of_nothing_and_in_half_precision(teacher):
    assert torch.equal(teacher.encode(TEXTS[0], "query"), teacher.encode(TEXTS[:1], "query")[0])
    assert teacher.encode(TEXTS[0], "query", pooled=True).shape == (8,)
    assert teacher.encode([], "query") == []
    assert teacher.encode([], "query", pooled=True).shape == (0, 8)
    halves = teacher.encode(TEXTS, "query", dtype=torch.float16)
    assert all(one.dtype == torch.float16 for one in halves)
    torch.testing.assert_close(halves[0].float(), teacher.encode(TEXTS[0], "query"), rtol=0, atol=1e-3)


def test_encode_is_without_dropout_and_restores_training_mode(tiny_encoder):
    student = OpticalStudent.from_checkpoint(tiny_encoder)
    student.train()
    first, second = student.encode(TEXTS, "query", pooled=True), student.encode(TEXTS, "query", pooled=True)
    assert torch.equal(first, second)
    assert student.training and student.backbone.training
    with pytest.raises(ValueError, match=r"texts\[1\] is 3"):
        student.encode(["it", 3], "query")
    with pytest.raises(ValueError, match="Unknown role 'answer'"):
        student.encode(["it"], "answer")
    with pytest.raises(ValueError, match="`batch_size` is 0"):
        student.encode(["it"], "query", batch_size=0)
    assert student.training


# Teacher and student


def test_teacher_is_frozen_and_student_is_not(tmp_path, teacher):
    teacher.save_pretrained(tmp_path)
    for one in (teacher, OpticalTeacher.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        assert isinstance(one, OpticalTeacher)
        assert not any(parameter.requires_grad for parameter in one.parameters())
        one.train()
        assert not any(module.training for module in one.modules())
    student = OpticalStudent.from_pretrained(tmp_path)
    assert all(parameter.requires_grad for parameter in student.parameters())
    assert student.train().backbone.training


def test_every_student_parameter_gets_a_gradient_with_checkpointing_too(tiny_encoder):
    gradients = []
    for checkpointing in (False, True):
        set_seed(0)
        student = OpticalStudent.from_checkpoint(tiny_encoder, projection_dim=8)
        if checkpointing:
            student.gradient_checkpointing_enable()
            assert student.is_gradient_checkpointing
            for module in student.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = 0.0
            student.train()
        output = student(**process_texts(TEXTS, "query", student.tokenizer, student.config))
        (output.token_vectors[..., 0].sum() + output.pooled[:, 1].sum()).backward()
        gradients.append({name: parameter.grad for name, parameter in student.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient is not None and gradient.abs().sum() > 0, name
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-5)


def test_new_projection_is_orthogonal_and_reproducible(tiny_encoder):
    models = []
    for seed in (3, 3, 4):
        set_seed(seed)
        models.append(OpticalStudent.from_checkpoint(tiny_encoder, projection_dim=8))
    weights = [model.projection.weight.detach() for model in models]
    torch.testing.assert_close(weights[0] @ weights[0].T, torch.eye(8), rtol=0, atol=1e-5)
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_weights_missing_from_a_saved_model_are_initialised(tmp_path, teacher):
    teacher.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["projection.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    model, info = OpticalTeacher.from_pretrained(tmp_path, output_loading_info=True)
    assert set(info["missing_keys"]) == {"projection.weight"}
    torch.testing.assert_close(model.projection.weight @ model.projection.weight.T, torch.eye(8), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="lacks weights of the encoder: projection.weight"):
        OpticalTeacher.from_checkpoint(tmp_path)


# Saving and loading


@pytest.mark.parametrize("model_class", [OpticalTeacher, OpticalStudent])
def test_round_trip(tmp_path, tiny_encoder, model_class):
    model = model_class.from_checkpoint(tiny_encoder, projection_dim=8, document_skiplist=["."], **PREFIXES)
    model.save_pretrained(tmp_path)
    loaded, info = model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    for other in (loaded, AutoModel.from_pretrained(tmp_path), model_class.from_checkpoint(tmp_path)):
        assert type(other) is model_class
        assert same_weights(other, model)
        for one, two in zip(other.encode(TEXTS, "document"), model.encode(TEXTS, "document"), strict=True):
            assert torch.equal(one, two)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["architectures"] == [model_class.__name__]
    assert stored["auto_map"] == {
        "AutoConfig": "configuration_optical.OpticalConfig",
        "AutoModel": f"modeling_optical.{model_class.__name__}",
    }


def test_saving_again_changes_nothing(tmp_path, teacher):
    teacher.save_pretrained(tmp_path)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {"configuration_optical.py", "processing_optical.py", "modeling_optical.py", "tokenizer.json"} <= set(files)
    loaded = AutoModel.from_pretrained(tmp_path)
    # Over itself, with the tokenizer not read yet, and elsewhere.
    for folder in (tmp_path, tmp_path / "again"):
        loaded.save_pretrained(folder)
        assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == files


def test_student_from_teacher_folder_is_saved_as_a_student(tmp_path, teacher):
    teacher.save_pretrained(tmp_path / "teacher")
    student = OpticalStudent.from_checkpoint(tmp_path / "teacher", query_prefix="", query_length=7)
    assert same_weights(student, teacher)
    assert (student.config.query_prefix, student.config.query_length) == ("", 7)
    assert student.config.document_prefix == "passage: "
    student.save_pretrained(tmp_path / "student")
    assert type(AutoModel.from_pretrained(tmp_path / "student")) is OpticalStudent


def test_model_without_a_tokenizer(tmp_path, tiny_bert_config, tiny_tokenizer):
    model = OpticalStudent(OpticalConfig(tiny_bert_config))
    with pytest.raises(ValueError, match="no tokenizer.*model.tokenizer = "):
        model.encode(TEXTS, "query")
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"No tokenizer could be read from {tmp_path}"):
        OpticalStudent.from_pretrained(tmp_path).encode(TEXTS, "query")
    model.tokenizer = tiny_tokenizer
    model.save_pretrained(tmp_path)
    loaded = OpticalStudent.from_pretrained(tmp_path)
    assert torch.equal(loaded.encode(TEXTS, "query", pooled=True), model.encode(TEXTS, "query", pooled=True))


FRESH = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "optical_hf":
            raise ImportError("blocked")
sys.meta_path.insert(0, Block())
import torch
from transformers import AutoModel
for folder in sys.argv[2:]:
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    vectors = model.encode(["who wrote this book?", "habari"], "query")
    expected = torch.load(folder + "/expected.pt", weights_only=True)
    assert all(torch.equal(a, b) for a, b in zip(vectors, expected["vectors"], strict=True)), folder
    assert type(model).__name__ == expected["class"], folder
    assert any(p.requires_grad for p in model.parameters()) == expected["trainable"], folder
    other = type(model).from_checkpoint(folder)
    again = other.encode(["who wrote this book?", "habari"], "query")
    assert all(torch.equal(a, b) for a, b in zip(again, vectors, strict=True)), folder
    model.save_pretrained(sys.argv[1] + "/resaved-" + expected["class"])
assert "optical_hf" not in sys.modules
print("fresh process done")
"""


def test_saved_folders_work_where_this_package_is_not(tmp_path, tiny_encoder):
    folders = []
    for model_class in (OpticalTeacher, OpticalStudent):
        set_seed(7)
        model = model_class.from_checkpoint(tiny_encoder, projection_dim=8, **PREFIXES)
        folder = tmp_path / model_class.__name__
        model.save_pretrained(folder)
        vectors = model.encode(["who wrote this book?", "habari"], "query")
        trainable = model_class is OpticalStudent
        torch.save({"vectors": vectors, "class": model_class.__name__, "trainable": trainable}, folder / "expected.pt")
        folders.append(str(folder))
    (tmp_path / "cwd").mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, "-I", "-c", FRESH, str(tmp_path), *folders],
        cwd=tmp_path / "cwd",
        env=environment | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "HF_MODULES_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert result.returncode == 0 and "fresh process done" in result.stdout, result.stderr
    # What the fresh process saved loads here, with its code again beside it.
    for model_class, folder in zip((OpticalTeacher, OpticalStudent), folders, strict=True):
        resaved = tmp_path / f"resaved-{model_class.__name__}"
        assert {path.name for path in resaved.iterdir()} == {path.name for path in Path(folder).iterdir()} - {
            "expected.pt"
        }
        assert type(AutoModel.from_pretrained(resaved)) is model_class


# Other kinds of checkpoints


def test_from_plain_encoder(tiny_encoder, tiny_tokenizer):
    student = OpticalStudent.from_checkpoint(str(tiny_encoder), pooling="cls")
    plain = BertModel.from_pretrained(tiny_encoder, add_pooling_layer=False)
    assert same_weights(student.backbone, plain)
    assert student.projection is None and student.backbone.pooler is None
    assert not student.training
    # The encoder reads 64 tokens; lengths that are given are taken as they are.
    assert (student.config.query_length, student.config.document_length) == (64, 64)
    assert OpticalStudent.from_checkpoint(tiny_encoder, document_length=48).config.document_length == 48
    assert student.tokenizer.get_vocab() == tiny_tokenizer.get_vocab()


def test_from_language_model_head_and_half_precision(tmp_path, tiny_bert_config, tiny_tokenizer):
    model = BertForMaskedLM(tiny_bert_config).half()
    model.save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    student = OpticalStudent.from_checkpoint(tmp_path, projection_dim=4)
    assert same_weights(student.backbone, model.bert.float())
    assert {parameter.dtype for parameter in student.parameters()} == {torch.float32}


@pytest.fixture
def st_folder(tmp_path, tiny_encoder):
    """Write a sentence-transformers folder in its file format; keywords change parts of it."""

    def write(transformer="", pooling=None, dense=None, general=None, encoder=None, extra=()) -> Path:
        folder = tmp_path / "st"
        shutil.copytree(tiny_encoder, folder / transformer)
        base = "sentence_transformers.models"
        modules = [{"idx": 0, "name": "0", "path": transformer, "type": f"{base}.Transformer"}]
        modules += [{"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{base}.Pooling"}]
        (folder / "1_Pooling").mkdir()
        pooling = pooling or {
            "word_embedding_dimension": 32,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
        }
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
        if dense is not None:
            config, tensors = dense
            modules += [{"idx": 2, "name": "2", "path": "2_Dense", "type": f"{base}.Dense"}]
            (folder / "2_Dense").mkdir()
            identity = {"activation_function": "torch.nn.modules.linear.Identity", "bias": False}
            (folder / "2_Dense" / "config.json").write_text(json.dumps({"in_features": 32} | identity | config))
            save_file(tensors, folder / "2_Dense" / "model.safetensors")
        modules += [{"idx": 3, "name": "3", "path": "3_Normalize", "type": f"{base}.Normalize"}, *extra]
        (folder / "modules.json").write_text(json.dumps(modules))
        (folder / "config_sentence_transformers.json").write_text(json.dumps(general or {}))
        (folder / transformer / "sentence_bert_config.json").write_text(
            json.dumps({"max_seq_length": 48, "do_lower_case": False} | (encoder or {}))
        )
        return folder

    return write


@pytest.mark.parametrize("transformer", ["", "0_Transformer"])
def test_from_sentence_transformers_gives_its_vectors(st_folder, transformer, tiny_encoder, tiny_tokenizer):
    weight = torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
    folder = st_folder(
        transformer,
        dense=({"out_features": 8}, {"linear.weight": weight}),
        general={"prompts": {"query": "query: ", "passage": "passage: "}},
    )
    model = OpticalTeacher.from_checkpoint(folder)
    assert (model.config.query_prefix, model.config.document_prefix) == ("query: ", "passage: ")
    assert (model.config.query_length, model.config.document_length) == (48, 48)
    assert torch.equal(model.projection.weight, weight)
    # What sentence-transformers does: the prompt is text, `max_seq_length` counts it, the mean is over all tokens.
    plain, texts = BertModel.from_pretrained(tiny_encoder), [*TEXTS, "it rains today. " * 20]
    for role, prompt in (("query", "query: "), ("document", "passage: ")):
        prompted = [prompt + text for text in texts]
        batch = tiny_tokenizer(prompted, padding=True, truncation=True, max_length=48, return_tensors="pt")
        with torch.no_grad():
            states = plain(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        attended = batch["attention_mask"][..., None]
        expected = F.normalize((states * attended).sum(1) / attended.sum(1) @ weight.T, dim=-1)
        torch.testing.assert_close(model.encode(texts, role, pooled=True), expected, rtol=0, atol=1e-5)
    model.save_pretrained(folder.parent / "saved")
    saved = OpticalStudent.from_checkpoint(folder.parent / "saved")
    assert torch.equal(saved.encode(TEXTS, "query", pooled=True), model.encode(TEXTS, "query", pooled=True))


@pytest.mark.parametrize(
    "pooling, general, expected",
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, {}, ("cls", "", "")),
        ({"pooling_mode": "cls"}, {"prompts": {"query": None, "corpus": "d: "}}, ("cls", "", "d: ")),
        ({"pooling_mode": "mean"}, {"prompts": {"document": "a: ", "passage": "b: "}}, ("mean", "", "a: ")),
        ({"pooling_mode": ["mean"]}, {"prompts": {"classification": "c: "}}, ("mean", "", "")),
    ],
)
def test_sentence_transformers_settings(st_folder, pooling, general, expected):
    config = OpticalStudent.from_checkpoint(st_folder(pooling=pooling, general=general)).config
    assert (config.pooling, config.query_prefix, config.document_prefix) == expected


def test_overrides_beat_the_checkpoint(st_folder):
    folder = st_folder(general={"prompts": {"query": "query: "}})
    config = OpticalStudent.from_checkpoint(folder, query_prefix="", pooling="cls", query_length=60).config
    assert (config.query_prefix, config.pooling, config.query_length) == ("", "cls", 60)


WEIGHT = {"linear.weight": torch.ones(8, 32)}


@pytest.mark.parametrize(
    "parts, message",
    [
        ({"pooling": {"pooling_mode_max_tokens": True}}, "pools by 'max_tokens', not by mean or cls"),
        ({"pooling": {"pooling_mode": ["cls", "mean"]}}, r"pools by 'cls \+ mean'"),
        ({"pooling": {"pooling_mode": "mean", "include_prompt": False}}, "leaves the prompt out"),
        ({"dense": ({"out_features": 8, "bias": True}, WEIGHT)}, "Dense module with a bias"),
        ({"dense": ({"out_features": 8, "use_residual": True}, WEIGHT)}, "Dense module with a bias or a residual"),
        (
            {"dense": ({"out_features": 8, "activation_function": "torch.nn.modules.activation.Tanh"}, WEIGHT)},
            "activation torch.nn.modules.activation.Tanh",
        ),
        (
            {"dense": ({"out_features": 9}, WEIGHT)},
            r"`linear.weight` of shape \(9, 32\); it holds one of shape \(8, 32\)",
        ),
        ({"general": {"similarity_fn_name": "MaxSim"}}, "module of type .*Pooling"),
        ({"encoder": {"do_lower_case": True}}, "lowercases texts"),
        ({"extra": [{"path": "4_LSTM", "type": "sentence_transformers.models.LSTM"}]}, "module of type .*LSTM"),
        ({"extra": [{"path": "4_Pooling", "type": "sentence_transformers.models.Pooling"}]}, "more than one Pooling"),
    ],
)
def test_sentence_transformers_models_that_cannot_be_repeated(st_folder, parts, message):
    with pytest.raises(ValueError, match=message):
        OpticalTeacher.from_checkpoint(st_folder(**parts))


def test_projection_of_another_size(st_folder, tmp_path, teacher):
    teacher.save_pretrained(tmp_path / "saved")
    for folder in (tmp_path / "saved", st_folder(dense=({"out_features": 8}, WEIGHT))):
        with pytest.raises(ValueError, match=f"`projection_dim` is 16, but the projection of {folder} has size 8"):
            OpticalTeacher.from_checkpoint(folder, projection_dim=16)
        assert OpticalTeacher.from_checkpoint(folder, projection_dim=8).config.output_dim == 8


def test_unknown_override(tiny_encoder):
    with pytest.raises(TypeError, match="OpticalStudent.from_checkpoint.. has no option 'querylength'; it has projec"):
        OpticalStudent.from_checkpoint(tiny_encoder, querylength=3)


def test_names_that_are_neither_a_folder_nor_a_model_end_at_once(hub, monkeypatch, tmp_path):
    """By one request at most: loading would ask for every file in turn, and wait for a Hub that is not there."""
    with pytest.raises(FileNotFoundError, match="no folder writer/studnt, and the Hub shows no model of this name"):
        OpticalTeacher.from_checkpoint("writer/studnt")

    def asked() -> list[str]:  # the client of the Hub may ask for more, but of no model
        return [request for request in hub.requests if "studnt" in request]

    assert asked() == ["GET /api/models/writer/studnt"]
    with pytest.raises(FileNotFoundError, match="There is no folder a b, and no model of the Hub can have this name"):
        OpticalTeacher.from_checkpoint("a b")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="and the Hub, where a model may have this name, cannot be reached"):
        OpticalTeacher.from_checkpoint("studnt")
    assert len(asked()) == 1
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "models--writer--e5" / "snapshots").mkdir(parents=True)
    check_name("writer/e5")  # of the cache


def test_folders_that_are_not_models(tmp_path, tiny_encoder):
    with pytest.raises(FileNotFoundError, match=f"There is no folder {tmp_path}/none"):
        OpticalTeacher.from_checkpoint(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} has no config.json"):
        OpticalTeacher.from_checkpoint(tmp_path)
    shutil.copy(tiny_encoder / "config.json", tmp_path)
    with pytest.raises(ValueError, match=f"No tokenizer could be read from {tmp_path}"):
        OpticalTeacher.from_checkpoint(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_encoder / name, tmp_path)
    with pytest.raises(OSError, match=f"model.safetensors.*{tmp_path}"):
        OpticalTeacher.from_checkpoint(tmp_path)
    tensors = load_file(tiny_encoder / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks weights of the encoder: encoder.layer.1.output.dense.weight"):
        OpticalTeacher.from_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=f"{tmp_path}/config.json is not valid JSON"):
        OpticalTeacher.from_checkpoint(tmp_path)


def test_encoder_decoder_is_refused(tmp_path, tiny_tokenizer):
    T5Model(T5Config(vocab_size=40, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"is an encoder-decoder \(T5Model\); an encoder is needed"):
        OpticalTeacher.from_checkpoint(tmp_path)


def test_the_saved_tokenizer_does_not_depend_on_what_was_encoded_before(tiny_encoder, tmp_path):
    """Its truncation and padding are set at every call, and would stay those of the last one."""
    student = OpticalStudent.from_checkpoint(tiny_encoder, query_length=8)
    student.save_pretrained(tmp_path / "before")
    student.encode_tokens(["who wrote it"], "query")
    student.save_pretrained(tmp_path / "after")
    before, after = ((tmp_path / name / "tokenizer.json").read_bytes() for name in ("before", "after"))
    assert before == after and json.loads(before)["truncation"] is None and json.loads(before)["padding"] is None

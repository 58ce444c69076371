from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertModel

from optical_hf import OpticalStudent, OpticalTeacher
from optical_hf.models.interpolation import interpolate


def student(encoder, seed: int = 0, **options) -> OpticalStudent:
    made = OpticalStudent.from_checkpoint(encoder, **options)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    return made


def weights(model) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_every_weight_lies_between(tiny_encoder, tmp_path):
    before, after = student(tiny_encoder, 1, projection_dim=8), student(tiny_encoder, 2, projection_dim=8)
    old, new = weights(before), weights(after)
    between = interpolate(before, after, 0.25)
    assert type(between) is OpticalStudent and between.state_dict().keys() == old.keys()
    for name, tensor in between.state_dict().items():
        torch.testing.assert_close(tensor, 0.75 * old[name] + 0.25 * new[name], rtol=0, atol=1e-6)
    for weight, end in ((0, old), (1, new)):
        assert all(
            torch.equal(one, end[name]) for name, one in interpolate(before, after, weight).state_dict().items()
        )
    for model, same in ((before, old), (after, new)):  # neither is changed
        assert all(torch.equal(one, same[name]) for name, one in model.state_dict().items())
    between.save_pretrained(tmp_path)
    texts = ["who wrote it?", "mvua inanyesha leo"]
    loaded = OpticalStudent.from_pretrained(tmp_path).encode(texts, "query", pooled=True)
    assert torch.equal(loaded, between.encode(texts, "query", pooled=True))


def test_a_model_that_was_saved_and_loaded_is_of_the_same_kind(tiny_encoder, tmp_path):
    after = student(tiny_encoder, 2)
    after.save_pretrained(tmp_path)
    start = OpticalTeacher.from_checkpoint(tiny_encoder)
    between = interpolate(start, OpticalStudent.from_pretrained(tmp_path), 0.5)
    assert type(between) is OpticalStudent and all(one.requires_grad for one in between.parameters())
    for name, tensor in between.state_dict().items():
        expected = (start.state_dict()[name] + after.state_dict()[name]) / 2
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-6)


def test_half_precision_is_rounded_once(tiny_encoder):
    before, after = (student(tiny_encoder, seed, dtype=torch.bfloat16) for seed in (1, 2))
    between = interpolate(before, after, 0.375).state_dict()
    for name, tensor in between.items():
        expected = 0.625 * before.state_dict()[name].double() + 0.375 * after.state_dict()[name].double()
        assert tensor.dtype == torch.bfloat16 and torch.equal(tensor, expected.bfloat16())


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_a_weight_out_of_range(tiny_encoder, weight):
    one = OpticalStudent.from_checkpoint(tiny_encoder)
    with pytest.raises(ValueError, match=f"`weight` is {weight}; it has to lie between 0 and 1"):
        interpolate(one, one, weight)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"projection_dim": 8}, "`projection_dim` is None in `before` and 8 in `after`"),
        ({"pooling": "cls"}, "`pooling` is 'mean' in `before` and 'cls' in `after`"),
        ({"query_prefix": "query: "}, "`query_prefix` is '' in `before` and 'query: ' in `after`"),
    ],
)
def test_other_options(tiny_encoder, options, message):
    start = OpticalStudent.from_checkpoint(tiny_encoder)
    with pytest.raises(ValueError, match=message):
        interpolate(start, OpticalStudent.from_checkpoint(tiny_encoder, **options), 0.5)


def test_another_architecture(tiny_encoder, tiny_tokenizer, tiny_bert_config, tmp_path):
    start = OpticalStudent.from_checkpoint(tiny_encoder)
    for changes, message in (
        ({"num_hidden_layers": 3}, r"`backbone\.encoder\.layer\.2\..*` is 'not there' in `before` and \(32,\) in"),
        (
            {"intermediate_size": 48},
            r"`backbone\.encoder\.layer\.0\.\S+` is \(64,\) in `before` and \(48,\) in `after`",
        ),
    ):
        folder = tmp_path / next(iter(changes))
        BertModel(BertConfig(**(tiny_bert_config.to_dict() | changes))).save_pretrained(folder)
        tiny_tokenizer.save_pretrained(folder)
        with pytest.raises(ValueError, match=message):
            interpolate(start, OpticalStudent.from_checkpoint(folder), 0.5)

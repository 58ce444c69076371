"""What all measurements share: device, sizes, model, and texts from the quickstart's sample."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar, cast

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.functional import normalize
from transformers import BertConfig, BertModel, BertTokenizer

from ..data.bitext import load_bitext
from ..data.trec_files import read_passages
from ..models.modeling_optical import OpticalTeacher
from ..quickstart import SAMPLE, quickstart_model
from .comparison import Now, card_now, cpu_now

Size = TypeVar("Size")


@dataclass
class Setup:
    """What a benchmark is run with.

    Args:
        folder (`Path`): for what is written; empty, and removed afterwards.
        device (`str`): `"cpu"` or `"cuda"`.
        threads, rounds (`int`): of torch, and of every comparison.
        quick (`bool`): whether all is tiny, to see that it runs.
        model (`str`, *optional*): a checkpoint; by default the quickstart's, or a tiny one if it is quick.
    """

    folder: Path
    device: str = "cpu"
    threads: int = 1
    rounds: int = 5
    quick: bool = False
    model: str | None = None

    @property
    def now(self) -> Now:
        """`Callable`: the clock of what runs on the device."""
        return card_now if self.device == "cuda" else cpu_now

    def size(self, full: Size, quick: Size, cuda: Size | None = None) -> Size:
        """Choose a size: of a quick run, of one on a card, or the full one."""
        if self.quick:
            return quick
        return cuda if self.device == "cuda" and cuda is not None else full

    @cached_property
    def checkpoint(self) -> str:
        """`str`: folder or name of the model."""
        return self.model or str(tiny_model(self.folder / "tiny") if self.quick else quickstart_model())

    @cached_property
    def teacher(self) -> OpticalTeacher:
        """[`OpticalTeacher`]: the model, on the device."""
        teacher = OpticalTeacher.from_checkpoint(self.checkpoint)
        teacher.to(torch.device(self.device))  # type: ignore[arg-type]
        return teacher


def sample_passages() -> list[str]:
    """Return the passages of the quickstart's sample."""
    return list(read_passages(SAMPLE / "passages.en.jsonl").values())


def sample_bitext() -> Dataset:
    """Return the pairs of the quickstart's sample, with the columns of [`load_bitext`]."""
    sources = {language: SAMPLE / f"bitext.en-{language}.tsv" for language in ("sw", "yo")}
    return cast(Dataset, load_bitext(sources).dataset)


def generate_texts(count: int, seed: int = 0, longest: int = 60) -> list[str]:
    """Make texts of the sample's words, some frequent and most rare; no two are the same.

    Args:
        count (`int`): how many.
        seed (`int`, *optional*, defaults to 0): of the words chosen.
        longest (`int`, *optional*, defaults to 60): most words of a text, and twice the fewest.
    """
    chance = random.Random(seed)
    words = sorted({word for text in sample_passages() for word in text.split()})
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    lengths = [chance.randint(longest // 2, longest) for _ in range(count)]
    drawn = iter(chance.choices(words, weights, k=sum(lengths)))
    return [" ".join([str(place), *(next(drawn) for _ in range(length))]) for place, length in enumerate(lengths)]


def unit_vectors(lengths: list[int], dim: int, seed: int) -> list[Tensor]:
    """Make random token vectors of length 1: for every text one `(tokens, dim)` tensor."""
    vectors = torch.randn(sum(lengths), dim, generator=torch.Generator().manual_seed(seed))
    return list(normalize(vectors, dim=1).split(lengths))


def skewed_lengths(count: int, longest: int, seed: int) -> list[int]:
    """Draw numbers of tokens as texts have them: most are short, a few are long (log-normal)."""
    chance = random.Random(seed)
    return [min(longest, max(4, round(longest / 8 * chance.lognormvariate(0, 0.8)))) for _ in range(count)]


def tiny_model(folder: Path) -> Path:
    """Save an encoder of two small layers with random weights, whose tokenizer knows words of the sample."""
    words = {word.lower() for text in sample_passages() for word in re.findall(r"\w+", text)}
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: number for number, word in enumerate([*special, *sorted(words)])}
    BertTokenizer(vocab=vocabulary, model_max_length=64).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder

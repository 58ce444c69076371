"""Trim a model's vocabulary to what bitext and passages use.

    optical-hf trim intfloat/multilingual-e5-small small-e5 --query_prefix "query: " --document_prefix "passage: " \
        --bitext yo=en-yo.tsv sw=en-sw.tsv --passages passages.en.jsonl

Most parameters of a multilingual model are embeddings of tokens that a few languages never use. The smaller model
gives texts of the tokens that it keeps the same vectors. It can be distilled from, and into, as any other.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..arguments import ArgumentReader
from ..bounds import check_count, check_fields
from ..data.bitext import load_bitext
from ..data.bitext_augmentation import drop_marks
from ..data.trec_files import iter_passages
from ..launching import check_writable, run
from ..models.modeling_optical import OpticalStudent
from ..models.vocabulary import trim_vocabulary
from ..quickstart import quickstart_model


@dataclass
class TrimArguments:
    """Which model is trimmed, and to what."""

    model: str = field(metadata={"help": "Any model that can be loaded, or 'quickstart'."})
    output: str = field(metadata={"help": "A folder, made if it is not there."})
    bitext: list[str] = field(default_factory=list, metadata={"help": "language=source ..., of both sides."})
    passages: list[str] = field(default_factory=list, metadata={"help": "Files of passages."})
    min_count: int = field(default=1, metadata={"help": "How often a token has to occur."})
    query_prefix: str | None = field(default=None, metadata={"help": "Put before queries; else the checkpoint's own."})
    document_prefix: str | None = field(default=None, metadata={"help": "Put before passages; else its own."})

    def __post_init__(self) -> None:
        check_fields(self, check_count, "min_count")
        if not self.bitext and not self.passages:
            raise ValueError("Give --bitext, --passages, or both: the texts whose tokens are kept.")

    def texts(self) -> Iterator[str]:
        """The texts, one after the other."""
        for source in self.bitext:
            language, _, path = source.partition("=")
            for pair in load_bitext({language: path}, max_words=10_000, max_ratio=10_000.0).dataset:
                yield from (pair["english"], pair["translation"])
                yield from (
                    drop_marks(pair["translation"], above_only=part) for part in (True, False)
                )  # as people type
        if self.passages:
            yield from (text for _, text in iter_passages(self.passages))


def reader() -> ArgumentReader:
    """Return the reader of this command's arguments."""
    description = "Trim a model's vocabulary to what bitext and passages use."
    return ArgumentReader(
        TrimArguments, prog="optical-hf trim", description=description, positionals=("model", "output")
    )


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    [given] = reader().read(arguments)
    check_writable(given.output, 0)
    name = str(quickstart_model()) if given.model == "quickstart" else given.model
    prefixes = {key: getattr(given, key) for key in ("query_prefix", "document_prefix")}
    model = OpticalStudent.from_checkpoint(
        name, **{key: value for key, value in prefixes.items() if value is not None}
    )
    small = trim_vocabulary(model, given.texts(), given.min_count)
    small.save_pretrained(given.output)
    tables: list[Any] = [each.backbone.get_input_embeddings() for each in (model, small)]
    tokens = [len(table.weight) for table in tables]
    sizes = [sum(parameter.numel() for parameter in each.parameters()) / 1e6 for each in (model, small)]
    print(
        f"{given.output} keeps {tokens[1]:,} of {tokens[0]:,} tokens, and {sizes[1]:.1f} of {sizes[0]:.1f} million "
        f"parameters ({sizes[1] / sizes[0]:.0%})."
    )


if __name__ == "__main__":
    run(main, sys.argv[1:])

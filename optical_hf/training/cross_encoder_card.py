"""The model card of a cross-encoder, and where the templates of cards lie."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

TAGS = ("sentence-transformers", "cross-encoder", "reranker", "optical")


def card_template(kind: str) -> str:
    """Return the path of a card's template: in the wheel, or in a working copy the file that this is made from.

    Args:
        kind (`str`): `"student"` or `"cross_encoder"`.
    """
    own = Path(__file__).with_name(f"{kind}_card.md")
    return str(own if own.is_file() else Path(__file__).parents[2] / "model_cards" / f"{kind}.md")


def cross_encoder_card(results: Mapping[str, Any], name: str, license: str | None = None) -> ModelCard:
    """Make the card of a cross-encoder.

    Args:
        results (`Mapping`): of `results.json`, as `optical-hf train_reranker` writes it; empty if nothing is known.
        name (`str`): on the Hub, or of the folder.
        license (`str`, *optional*): its identifier; by default that of the model it started from, if known.
    """
    license = license or results.get("license")
    data = ModelCardData(
        license=license,
        library_name="sentence-transformers",
        pipeline_tag="text-ranking",
        tags=list(TAGS),
        base_model=results.get("base_model"),
    )
    return ModelCard.from_template(
        data,
        template_path=card_template("cross_encoder"),
        name=name.rpartition("/")[2],
        repo=json.dumps(name, ensure_ascii=False),
        results=results,
        license=license,
    )

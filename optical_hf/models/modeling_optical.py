"""The teacher and the student: an encoder whose token states, projected and normalised, are the token vectors.

This file travels with every saved model (remote code), so it imports only its siblings.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import ModelOutput

from .configuration_optical import OpticalConfig, read_json
from .loading_optical import (
    check_complete,
    check_lengths,
    check_name,
    check_projection,
    check_tokenizer,
    load_tokenizer,
    naming_damage,
    no_pooler,
)
from .multi_vector_optical import save_multi_vector_files
from .processing_optical import process_in_batches

logger = logging.getLogger(__name__)

# Where to look in the Hub, as `from_pretrained` was told; the tokenizer is looked for in the same place.
_HUB_OPTIONS = ("cache_dir", "local_files_only", "revision", "subfolder", "token")


@dataclass
class OpticalOutput(ModelOutput):
    """Output of [`OpticalTeacher`] and [`OpticalStudent`].

    Args:
        token_vectors (`torch.Tensor` of shape `(batch, tokens, dim)`):
            Token vectors of length one; those outside `scoring_mask` have no meaning.
        scoring_mask (`torch.Tensor` of shape `(batch, tokens)`, bool):
            Which tokens are scored.
        pooled (`torch.Tensor` of shape `(batch, dim)`):
            One vector of length one a text: the mean of the states of all attended tokens, or the first token's state.
    """

    # `ModelOutput` demands the default None; `forward` gives all three.
    token_vectors: torch.Tensor = None  # type: ignore[assignment]
    scoring_mask: torch.Tensor = None  # type: ignore[assignment]
    pooled: torch.Tensor = None  # type: ignore[assignment]


class OpticalModel(PreTrainedModel):
    """What [`OpticalTeacher`] and [`OpticalStudent`] share; use one of these.

    Args:
        config ([`OpticalConfig`]): the configuration.
        backbone (`PreTrainedModel`, *optional*): an encoder already loaded; made from `config.text_config` by default.
    """

    config: OpticalConfig
    config_class = OpticalConfig
    # Not "encoder": BERT's own weights are named `encoder.layer...`, and the prefix would be taken off them.
    base_model_prefix = "backbone"
    supports_gradient_checkpointing = True
    # The backbone checks for itself whether it supports what is asked for.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True

    def __init__(self, config: OpticalConfig, backbone: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._hub_options: dict[str, Any] = {}
        if backbone is None:
            options = {"dtype": torch.get_default_dtype(), **no_pooler(config.text_config)}
            backbone = AutoModel.from_config(config.text_config, **options)
        self.backbone = backbone
        self.projection: nn.Linear | None = None
        if config.projection_dim is not None:
            self.projection = nn.Linear(config.hidden_size, config.projection_dim, bias=False)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        # The backbone initialises its own weights; a new projection starts as a rotation, which keeps most angles.
        if module is self.projection:
            nn.init.orthogonal_(module.weight)
        else:
            super()._init_weights(module)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        scoring_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        return_dict: bool | None = None,
    ) -> OpticalOutput:
        """Compute the token vectors and the pooled vector of a batch made by [`process_texts`].

        Args:
            input_ids (`torch.Tensor` of shape `(batch, tokens)`):
                Token ids, padded on the right.
            attention_mask (`torch.Tensor` of shape `(batch, tokens)`, *optional*):
                1 for tokens that are attended to. All of them by default.
            scoring_mask (`torch.Tensor` of shape `(batch, tokens)`, *optional*):
                Passed through to the output. Defaults to `attention_mask`.
            token_type_ids (`torch.Tensor`, *optional*):
                Ignored: a text is one segment.
            return_dict (`bool`, *optional*):
                Ignored: an [`OpticalOutput`] is returned always. sentence-transformers passes it.

        Returns:
            [`OpticalOutput`]: token vectors, scoring mask and pooled vectors.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if scoring_mask is None:
            scoring_mask = attention_mask
        states = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        if self.projection is not None:
            states = self.projection(states)
        if self.config.pooling == "cls":
            pooled = states[:, 0]
        else:
            attended = attention_mask.unsqueeze(-1).to(states.dtype)
            pooled = (states * attended).sum(dim=1) / attended.sum(dim=1)
        return OpticalOutput(
            token_vectors=F.normalize(states, dim=-1),
            scoring_mask=scoring_mask.bool(),
            pooled=F.normalize(pooled, dim=-1),
        )

    def encode_tokens(
        self,
        texts: Sequence[str],
        role: str,
        *,
        batch_size: int = 32,
        show_progress: bool | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> list[torch.Tensor]:
        """Encode texts of one role into token vectors, for MaxSim.

        Args:
            texts (`Sequence[str]`):
                The texts, without prefix.
            role (`str`):
                `"query"` or `"document"`.
            batch_size (`int`, *optional*, defaults to 32):
                Texts a forward pass. Texts of similar length are put together; the order returned is that of `texts`.
            show_progress (`bool`, *optional*):
                Whether to show a progress bar. By default from 200 texts on, in the first process only.
            dtype (`torch.dtype`, *optional*, defaults to `torch.float32`):
                Type of the vectors returned; `torch.float16` halves their memory.

        Returns:
            `list[torch.Tensor]`: one `(tokens, dim)` tensor a text, of its scored tokens only, on the CPU.

        Raises:
            ValueError: as [`process_texts`], if `batch_size` is not positive, or if the model has no tokenizer.

        Example:

        ```python
        >>> from optical_hf import OpticalTeacher, maxsim
        >>> teacher = OpticalTeacher.from_checkpoint("intfloat/multilingual-e5-small", query_prefix="query: ")
        >>> queries = teacher.encode_tokens(["who wrote it?"], "query")
        >>> scores = maxsim(queries, teacher.encode_tokens(["She wrote it.", "It rained."], "document"))
        ```
        """
        return self._encode(texts, role, batch_size, show_progress, dtype)[0]

    def encode_pooled(
        self,
        texts: Sequence[str],
        role: str,
        *,
        batch_size: int = 32,
        show_progress: bool | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> torch.Tensor:
        """Encode texts into one vector a text, `(n_texts, dim)`; otherwise as [`~OpticalModel.encode_tokens`]."""
        return self._encode(texts, role, batch_size, show_progress, dtype, tokens=False)[1]

    def encode_both(
        self,
        texts: Sequence[str],
        role: str,
        *,
        batch_size: int = 32,
        show_progress: bool | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Encode texts once, into what [`~OpticalModel.encode_tokens`] and [`~OpticalModel.encode_pooled`] give."""
        return self._encode(texts, role, batch_size, show_progress, dtype)

    def encode(
        self,
        texts: str | Sequence[str],
        role: str,
        batch_size: int = 32,
        pooled: bool | str = False,
        show_progress: bool | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Any:
        """Encode texts by one call whose type follows `pooled`: it is in the cards of students already published.

        Args:
            texts (`str` or `Sequence[str]`):
                The texts; of a single `str`, its `(tokens, dim)` or `(dim,)` tensor is returned.
            pooled (`bool` or `"both"`, *optional*, defaults to `False`):
                `False` is [`~OpticalModel.encode_tokens`], `True` is [`~OpticalModel.encode_pooled`], and `"both"` is
                [`~OpticalModel.encode_both`].
            role, batch_size, show_progress, dtype: as there.
        """
        batch = [texts] if isinstance(texts, str) else texts
        tokens, single = self._encode(batch, role, batch_size, show_progress, dtype, tokens=pooled is not True)
        if isinstance(texts, str):
            return (tokens[0], single[0]) if pooled == "both" else single[0] if pooled else tokens[0]
        return (tokens, single) if pooled == "both" else single if pooled else tokens

    @torch.no_grad()
    def _encode(
        self,
        texts: Sequence[str],
        role: str,
        batch_size: int,
        show_progress: bool | None,
        dtype: torch.dtype,
        tokens: bool = True,
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        if isinstance(texts, str):
            raise ValueError(f"`texts` is the string {texts!r}; it has to be a list of strings.")
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"`batch_size` is {batch_size!r}; it has to be a positive integer.")
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise ValueError(f"texts[{index}] is {text!r}; it has to be a string.")
        if show_progress is None:
            show_progress = len(texts) >= 200 and int(os.environ.get("RANK", 0)) == 0
        vectors: list[torch.Tensor] = [torch.empty(0)] * len(texts) if tokens else []
        pooled = torch.empty(len(texts), self.config.output_dim, dtype=dtype)
        was_training = self.training
        self.eval()
        try:
            hidden = not show_progress
            with tqdm(total=len(texts), desc=f"Encoding ({role})", unit="text", delay=2, disable=hidden) as bar:
                for chosen, batch in process_in_batches(texts, role, self.tokenizer, self.config, batch_size):
                    output = self(**{name: tensor.to(self.device) for name, tensor in batch.items()})
                    pooled[chosen] = output.pooled.to("cpu", dtype)
                    if tokens:
                        states, mask = output.token_vectors.to("cpu", dtype), output.scoring_mask.cpu()
                        for row, index in enumerate(chosen):
                            vectors[index] = states[row][mask[row]]
                    bar.update(len(chosen))
        finally:
            self.train(was_training)
        return vectors, pooled

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """`PreTrainedTokenizerBase`: the tokenizer, read on first use from where the model was loaded."""
        if self._tokenizer is None:
            self._tokenizer = self._read_tokenizer()
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def _read_tokenizer(self) -> PreTrainedTokenizerBase:
        if not self.config.name_or_path:
            raise ValueError(
                "This model has no tokenizer, since it was not loaded from a folder or the Hub. "
                "Set one: `model.tokenizer = AutoTokenizer.from_pretrained(...)`."
            )
        tokenizer = load_tokenizer(self.config.name_or_path, self.config.text_config, **self._hub_options)
        check_tokenizer(self.config.name_or_path, tokenizer, self.backbone)
        return tokenizer

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Self:
        """Load a saved model as [`~PreTrainedModel.from_pretrained`] does; the tokenizer follows on first use."""
        with naming_damage(pretrained_model_name_or_path):
            # With `output_loading_info`, a pair of the model and a dict, as there.
            loaded: Any = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model._hub_options = {name: kwargs[name] for name in _HUB_OPTIONS if kwargs.get(name)}
        return loaded

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], is_main_process: bool = True, *args: Any, **kwargs: Any
    ) -> None:
        """Save model and code as [`~PreTrainedModel.save_pretrained`] does, and the tokenizer if there is one.

        sentence-transformers 6.2 loads the folder as well: `MultiVectorEncoder(folder, trust_remote_code=True)`.
        """
        if self._tokenizer is None and self.config.name_or_path:
            try:  # now: the folder it is in may be the one that is overwritten
                self._tokenizer = self._read_tokenizer()
            except ValueError as error:
                logger.warning("Saving %s without a tokenizer: %s", save_directory, error)
        super().save_pretrained(save_directory, is_main_process, *args, **kwargs)
        if is_main_process:
            save_multi_vector_files(save_directory, self.config)
        if self._tokenizer is not None and is_main_process:
            names = ("push_to_hub", "repo_id", "token", "private", "commit_message")
            hub = {name: kwargs[name] for name in names if name in kwargs} if kwargs.get("push_to_hub") else {}
            if (backend := getattr(self._tokenizer, "backend_tokenizer", None)) is not None:
                backend.no_truncation()  # neither is the model's: they are what its last call has left there
                backend.no_padding()
            self._tokenizer.save_pretrained(save_directory, **hub)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> Any:  # type: ignore[override]
        """Push model, tokenizer and code to the Hub in one commit, as `optical_hf.hub.push_model` does.

        Where that package is not installed, [`~PreTrainedModel.push_to_hub`] does it.
        """
        try:
            from optical_hf.hub import push_model
        except ImportError:
            parent: Any = super()
            return parent.push_to_hub(repo_id, **kwargs)
        return push_model(self, repo_id, **kwargs)

    @classmethod
    def from_checkpoint(
        cls, name_or_path: str | os.PathLike[str], *, dtype: torch.dtype = torch.float32, **overrides: Any
    ) -> Self:
        """Make this model from a saved teacher or student, a checkpoint of another tool, or a plain encoder.

        Stanford ColBERT, PyLate and the multi-vector models of sentence-transformers give the encoder, a linear
        projection without bias, the prefixes (markers and prompts), the lengths, query expansion and the skiplist;
        single-vector models of sentence-transformers the encoder, the pooling, a projection, the prompts `query` and
        `document`, `passage` or `corpus`, and the longest input. Lengths that are not given are cut to what the
        encoder can read. Other formats than our own need the package, not only a saved model's code.

        Args:
            name_or_path (`str` or `Path`):
                A local folder or a Hub repository.
            dtype (`torch.dtype`, *optional*, defaults to `torch.float32`):
                Type of the weights, whatever their type in the checkpoint.
            overrides:
                Arguments of [`OpticalConfig`] that replace those of the checkpoint. `projection_dim` for an encoder
                without projection makes a new one, orthogonal and untrained.

        Raises:
            TypeError: if an override is not an argument of [`OpticalConfig`].
            FileNotFoundError: if there is no such folder, nor such a model on the Hub, or no configuration in it.
            OSError: if there are no weights, or a file cannot be read.
            ImportError: if the checkpoint is of another tool and this package is not installed.
            ValueError: if the checkpoint lacks weights of the encoder, has no tokenizer or one with more tokens than
                the encoder has embeddings, has a projection of another size than `projection_dim`, reads less than a
                length asks for, is of a kind that cannot be repeated token by token, or has a damaged file (named).

        Example:

        ```python
        >>> from optical_hf import OpticalStudent
        >>> student = OpticalStudent.from_checkpoint(
        ...     "intfloat/multilingual-e5-small", query_prefix="query: ", document_prefix="passage: "
        ... )
        ```
        """
        known = [name for name in inspect.signature(OpticalConfig).parameters if name not in ("text_config", "kwargs")]
        for name in overrides:
            if name not in known:
                raise TypeError(f"{cls.__name__}.from_checkpoint() has no option {name!r}; it has {', '.join(known)}.")
        check_name(name_or_path)
        with naming_damage(name_or_path):
            stored = read_json(name_or_path, "config.json")
            if stored is not None and stored.get("model_type") == OpticalConfig.model_type:
                check_projection(name_or_path, stored.get("projection_dim"), overrides)
                config = OpticalConfig.from_dict({**stored, **overrides})
                loaded: Any = cls.from_pretrained(name_or_path, config=config, dtype=dtype, output_loading_info=True)
                model, info = loaded
                check_complete(name_or_path, info["missing_keys"])
                check_lengths(name_or_path, config, model.backbone)
                return model

            try:
                from optical_hf.checkpoints import load_checkpoint
            except ImportError as error:
                raise ImportError(f"To read {name_or_path}, install the package: `pip install optical-hf`.") from error
            return load_checkpoint(cls, name_or_path, dtype, overrides)


class OpticalTeacher(OpticalModel):
    """The model that is learnt from: its parameters are frozen, and it stays in evaluation mode.

    Args:
        config ([`OpticalConfig`]): the configuration.
        backbone (`PreTrainedModel`, *optional*): an encoder already loaded; made from `config.text_config` by default.
    """

    def __init__(self, config: OpticalConfig, backbone: PreTrainedModel | None = None) -> None:
        super().__init__(config, backbone)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> OpticalTeacher:
        """Stay in evaluation mode, whatever `mode` says: a teacher answers the same way every time."""
        return super().train(False)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Self:
        """Load a saved model as [`~PreTrainedModel.from_pretrained`] does, frozen."""
        loaded: Any = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        # Loading replaces the parameters by new ones, which are trainable.
        (loaded[0] if isinstance(loaded, tuple) else loaded).requires_grad_(False)
        return loaded


class OpticalStudent(OpticalModel):
    """The model that learns: the same as [`OpticalTeacher`], but trainable.

    Args:
        config ([`OpticalConfig`]): the configuration.
        backbone (`PreTrainedModel`, *optional*): an encoder already loaded; made from `config.text_config` by default.
    """

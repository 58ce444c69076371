"""What makes languages alike after training: a linear map that takes from token vectors what tells their language."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .modeling_optical import OpticalStudent

_CHUNK = 65_536  # vectors turned into float64 at a time
_SAME = 1e-6  # means nearer than this, in deviations, are equal up to rounding
# Added to the spread in every direction, as a share of the mean spread. The last layer norm leaves a direction in
# which all vectors agree almost wholly; where languages differ there as little, the map would have large entries (a
# norm of 1,500 for multilingual-e5-small), which bf16 cannot bear. With this, the norm is 2.5, and the vectors change
# no more (a mean cosine of .994 to what they were, either way).
_RIDGE = 1e-3


def fit_erasure(vectors: Mapping[str, Tensor]) -> Tensor:
    r"""
    Fit the linear map after which the mean of every language is the same, and which changes vectors the least.

    This is LEACE ([Belrose et al., 2023](https://arxiv.org/abs/2306.03819), theorem 4.2): with \\(W = S^{-1/2}\\) and
    \\(P\\) the orthogonal projection on the differences of the languages' means, whitened by \\(W\\), the map is
    \\(I - W^{-1} P W\\). With equal means no linear classifier tells the languages apart better than a guess, and what
    is uncorrelated with the language stays as it is: \\(u^\top A x = u^\top x\\) for every \\(u\\) that is
    orthogonal to these differences.

    LEACE also adds a bias, which brings the mean of all vectors back to its place. A student's projection has none, so
    \\(S\\) is here the second moment about zero instead of the covariance: of all linear maps that equalise the means,
    this one moves the vectors least without a bias (up to a small ridge, for the sake of arithmetic). Every language
    counts the same in it, however many vectors it has.

    Args:
        vectors (`Mapping[str, torch.Tensor]`):
            By language, `(tokens, dim)`. With fewer vectors than dimensions, chance differences are erased as well.

    Returns:
        `torch.Tensor` of shape `(dim, dim)`: `A`, to be used as `vectors @ A.T`, in the type of the vectors. The
        identity if there is one language only.

    Raises:
        ValueError: if there is no language, one without vectors or with vectors of another size, not finite or all
            zero, or so many that nothing would be left.

    Example:

    ```python
    >>> erasure = fit_erasure({"sw": torch.randn(1000, 8) + 1, "yo": torch.randn(2000, 8)})
    >>> erasure.shape
    torch.Size([8, 8])
    ```
    """
    if not vectors:
        raise ValueError("`vectors` is empty: give the token vectors of at least one language.")
    first = next(iter(vectors.values()))
    dim = first.shape[-1]
    means, moments = [], []
    for language, one in vectors.items():
        if one.ndim != 2 or one.shape[1] != dim or not len(one):
            raise ValueError(f"The vectors of {language!r} have the shape {tuple(one.shape)}, not (tokens, {dim}).")
        total, moment = first.new_zeros(dim, dtype=torch.float64), first.new_zeros(dim, dim, dtype=torch.float64)
        for chunk in one.split(_CHUNK):
            chunk = chunk.double()
            total += chunk.sum(0)
            moment += chunk.T @ chunk
        if not moment.isfinite().all() or not moment.any():
            raise ValueError(f"The vectors of {language!r} are not finite, or all zero.")
        means.append(total / len(one))
        moments.append(moment / len(one))

    values, axes = torch.linalg.eigh(torch.stack(moments).mean(0))
    deviations = (values.clamp(min=0) + _RIDGE * values.mean()).sqrt()
    differences = torch.stack(means)[1:] - means[0]
    left, sizes, _ = torch.linalg.svd((differences @ axes / deviations).T, full_matrices=False)
    left = left[:, sizes > _SAME]
    rank = int((values > values[-1] * dim * torch.finfo(values.dtype).eps).sum())
    if left.shape[1] >= rank:
        raise ValueError(
            f"The means of {len(vectors)} languages differ in all {rank} directions that the vectors have: nothing "
            "would be left of them. Give fewer languages."
        )
    into, back = axes * deviations @ left, axes / deviations @ left
    return (torch.eye(dim, dtype=into.dtype, device=into.device) - into @ back.T).to(first.dtype)


def erase_language(student: OpticalStudent, texts: Mapping[str, Sequence[str]]) -> OpticalStudent:
    """Give a student a projection after which its token vectors tell their language as little as a linear map can do.

    The projection is that of [`fit_erasure`], behind the student's own if it has one; it is saved, loaded and pushed
    as any other. It is fitted on the vectors of scored query tokens, brought to length one. The student applies it
    before it does so, which gives the same vectors in the end, since a projection without bias commutes with lengths;
    and fitted in this way, every token weighs as much as it does in scoring. What is exact for the projected vectors
    of length one is approximate after the second normalisation, and for pooled vectors, which are means over all
    tokens: of new tokens of multilingual-e5-small in English, Swahili and Yoruba, a linear classifier knew the
    language of .96 before, of .32 after the projection (a guess is .33), and of .58 after they had length one again.

    Args:
        student ([`OpticalStudent`]):
            Stays as it is.
        texts (`Mapping[str, Sequence[str]]`):
            Monolingual text of two languages or more; a few hundred sentences of each. Passages that a teacher has
            encoded stay where they are: with theirs among the languages, queries keep nearer to them.

    Returns:
        [`OpticalStudent`]: a copy, with `config.projection_dim` set.

    Raises:
        ValueError: if there are less than two languages, or one has no text.

    Example:

    ```python
    >>> erased = erase_language(student, {"en": ["Good morning."], "sw": ["Habari za asubuhi."]})
    >>> erased.save_pretrained("erased-student")
    ```
    """
    if len(texts) < 2:
        raise ValueError(f"`texts` has {len(texts)} languages: what tells two apart takes at least two.")
    for language, sentences in texts.items():
        if isinstance(sentences, str) or not len(sentences):
            raise ValueError(f"`texts[{language!r}]` has to be a list of at least one text, not {sentences!r}.")
    vectors = {language: torch.cat(student.encode_tokens(given, "query")) for language, given in texts.items()}
    weight = fit_erasure(vectors).double()

    erased = copy.deepcopy(student)
    projection = erased.projection
    if projection is None:
        dim = erased.config.projection_dim = erased.config.hidden_size
        projection = nn.Linear(dim, dim, bias=False, device=student.device, dtype=student.dtype)
        erased.projection = projection
    else:
        weight = weight @ projection.weight.detach().to("cpu", torch.float64)
    with torch.no_grad():
        projection.weight.copy_(weight)
    return erased

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel

import optical_hf.models.erasure
from optical_hf import OpticalStudent
from optical_hf.models.erasure import erase_language, fit_erasure

TEXTS = {
    "en": ["who wrote this book?", "it rains today", "she wrote it. the book", "a book, this!"],
    "sw": ["nani aliandika hicho kitabu?", "mvua inanyesha leo", "habari leo", "kitabu hicho - habari"],
    "xx": ["passage it habari", "query : query leo!"],
}


@pytest.fixture(scope="module")
def vectors() -> dict[str, torch.Tensor]:
    # Far from zero and unlike in their spread, as token vectors are; each language in another place.
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    mixing, places = normal(12, 12), normal(3, 12)
    return {
        language: normal(count, 12) @ mixing + 3 * place + 5
        for language, count, place in zip(("en", "sw", "yo"), (4000, 3000, 2000), places, strict=True)
    }


def test_by_hand():
    # The means (2, 1) and (0, 1) differ along the first axis. S = [[3, 1], [1, 2]], and the ridge of 0.001 of the mean
    # spread, 2.5, makes it [[3.0025, 1], [1, 2.0025]]. Its inverse maps (1, 0) to a multiple of (2.0025, -1): what is
    # taken of x is (1, 0) times (2.0025, -1) . x / 2.0025.
    one = torch.tensor([[3.0, 2.0], [1.0, 0.0]], dtype=torch.float64)
    other = torch.tensor([[1.0, 0.0], [-1.0, 2.0]], dtype=torch.float64)
    assert ((one.T @ one / 2 + other.T @ other / 2) / 2).tolist() == [[3, 1], [1, 2]]
    erasure = fit_erasure({"sw": one, "yo": other.repeat(3, 1)})  # however many there are of each
    torch.testing.assert_close(
        erasure, torch.tensor([[0, 1 / 2.0025], [0, 1]], dtype=torch.float64), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_the_means_of_all_languages_become_equal(vectors, dtype, atol, monkeypatch):
    vectors = {language: one.to(dtype) for language, one in vectors.items()}
    erasure = fit_erasure(vectors)
    assert erasure.dtype == dtype and torch.linalg.matrix_rank(torch.eye(12) - erasure.float(), rtol=1e-4) == 2
    means = torch.stack([(one @ erasure.T).mean(0) for one in vectors.values()])
    before = torch.stack([one.mean(0) for one in vectors.values()])
    assert (before - before[0]).abs().max() > 3
    torch.testing.assert_close(means, means[:1].expand(3, -1), rtol=0, atol=atol)
    torch.testing.assert_close(erasure @ erasure, erasure, rtol=0, atol=atol)  # a second time changes nothing
    monkeypatch.setattr(optical_hf.models.erasure, "_CHUNK", 999)
    torch.testing.assert_close(fit_erasure(vectors), erasure, rtol=0, atol=atol)


def test_what_is_uncorrelated_with_the_language_is_untouched(vectors):
    erasure = fit_erasure(vectors)
    means = torch.stack([one.mean(0) for one in vectors.values()])
    differences = means[1:] - means[0]
    directions = torch.linalg.svd(differences).Vh[2:]  # orthogonal to both
    assert directions.shape == (10, 12)
    for one in vectors.values():
        torch.testing.assert_close(one @ erasure.T @ directions.T, one @ directions.T, rtol=0, atol=1e-9)


def test_no_linear_map_with_equal_means_changes_the_vectors_less(vectors):
    erasure, generator = fit_erasure(vectors), torch.Generator().manual_seed(1)
    means = torch.stack([one.mean(0) for one in vectors.values()])
    erased = torch.linalg.svd(means[1:] - means[0]).Vh[:2]

    def change(matrix: torch.Tensor) -> float:
        return sum(float((one @ matrix.T - one).square().sum(1).mean()) for one in vectors.values())

    smallest = change(erasure)
    assert smallest < 0.9 * change(torch.eye(12) - erased.T @ erased)  # the orthogonal projection
    for _ in range(20):
        step = 0.05 * torch.randn(12, 12, generator=generator, dtype=torch.float64)
        other = erasure + step @ (torch.eye(12) - erased.T @ erased)  # maps the differences to zero as well
        assert change(other) > smallest


def test_a_linear_classifier_is_left_with_chance(vectors):
    size = 2000
    seen = {language: one[: size // 2] for language, one in vectors.items()}
    erasure = fit_erasure(seen)
    labels = torch.arange(3).repeat_interleave(size // 2)

    def accuracy(matrix: torch.Tensor) -> tuple[float, float]:
        train = torch.cat([one @ matrix.T for one in seen.values()])
        test = torch.cat([vectors[language][size // 2 : size] @ matrix.T for language in seen])
        train, test = (F.pad(one / train.std(), (0, 1), value=1.0) for one in (train, test))
        weight = torch.zeros(13, 3, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight], max_iter=200, line_search_fn="strong_wolfe")

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(train @ weight, labels)
            loss.backward()
            return loss

        optimizer.step(closure)
        loss = float(F.cross_entropy(train @ weight, labels).detach())
        return float(((test @ weight).argmax(1) == labels).double().mean()), loss

    found, loss = accuracy(torch.eye(12, dtype=torch.float64))
    assert found > 0.9 and loss < 0.3
    found, loss = accuracy(erasure)
    assert found == pytest.approx(1 / 3, abs=0.04)  # 4.6 standard errors
    assert loss == pytest.approx(torch.tensor(3.0).log().item(), abs=1e-6)  # a guess


def test_a_direction_with_hardly_any_spread_gives_no_large_entries(vectors):
    # As behind a layer norm: along the first axis there is next to nothing but a difference of languages.
    thin = {}
    for place, language in enumerate(("sw", "yo")):
        one = vectors[language] - vectors[language].mean(0) + place
        thin[language] = torch.cat([1e-6 * (one[:, :1] + 10 * place), one[:, 1:]], 1)
    erasure = fit_erasure(thin)
    means = torch.stack([(one @ erasure.T).mean(0) for one in thin.values()])
    torch.testing.assert_close(means[1], means[0], rtol=0, atol=1e-9)
    assert torch.linalg.matrix_norm(erasure, 2) < 5


def test_nothing_to_erase(vectors):
    identity = torch.eye(12, dtype=torch.float64)
    assert torch.equal(fit_erasure({"sw": vectors["sw"]}), identity)
    assert torch.equal(fit_erasure({"sw": vectors["sw"], "yo": vectors["sw"]}), identity)


@pytest.mark.parametrize("count", [3000, 6])
def test_vectors_in_a_subspace(vectors, count):
    # A covariance that has no inverse: 4 of 12 dimensions in a turned basis, and fewer vectors than dimensions.
    basis = torch.linalg.qr(vectors["yo"][:12])[0][:4]
    flat = {language: one[:count, :4] @ basis for language, one in vectors.items()}
    for dtype, atol in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        given = {language: one.to(dtype) for language, one in flat.items()}
        erasure = fit_erasure(given)
        assert erasure.abs().max() < 20
        means = torch.stack([(one @ erasure.T).mean(0) for one in given.values()])
        torch.testing.assert_close(means, means[:1].expand(3, -1), rtol=0, atol=atol)
        outside = (torch.eye(12) - basis.T @ basis).to(dtype)
        torch.testing.assert_close(erasure @ outside, outside, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ({}, "`vectors` is empty"),
        (
            {"sw": torch.ones(3, 2), "yo": torch.ones(3, 4)},
            r"vectors of 'yo' have the shape \(3, 4\), not \(tokens, 2",
        ),
        ({"sw": torch.ones(3, 2), "yo": torch.ones(0, 2)}, r"vectors of 'yo' have the shape \(0, 2\)"),
        ({"sw": torch.ones(3, 2), "yo": torch.ones(2)}, r"vectors of 'yo' have the shape \(2,\)"),
        ({"sw": torch.ones(3, 2), "yo": torch.full((3, 2), torch.nan)}, "The vectors of 'yo' are not finite"),
        ({"sw": torch.ones(3, 2), "yo": torch.zeros(3, 2)}, "The vectors of 'yo' are not finite, or all zero"),
        ({str(place): torch.randn(9, 2) + place for place in range(3)}, "means of 3 languages differ in all 2 direct"),
    ],
)
def test_vectors_that_cannot_be_used(vectors, message):
    with pytest.raises(ValueError, match=message):
        fit_erasure(vectors)


def tokens(student: OpticalStudent) -> dict[str, torch.Tensor]:
    return {language: torch.cat(student.encode(texts, "query")) for language, texts in TEXTS.items()}


@pytest.mark.parametrize("projection_dim", [None, 8])
def test_a_student_is_erased_and_comes_back_from_disk(tiny_encoder, tmp_path, projection_dim):
    torch.manual_seed(0)
    student = OpticalStudent.from_checkpoint(tiny_encoder, projection_dim=projection_dim, query_prefix="query: ")
    before = tokens(student)
    erased = erase_language(student, TEXTS)
    assert type(erased) is OpticalStudent
    assert (student.config.projection_dim, erased.config.projection_dim) == (projection_dim, projection_dim or 32)
    assert all(torch.equal(one, before[language]) for language, one in tokens(student).items())

    erasure = fit_erasure(before)
    projected = {language: one @ erasure.T for language, one in before.items()}
    means = torch.stack([one.mean(0) for one in projected.values()])
    torch.testing.assert_close(means, means[:1].expand(3, -1), rtol=0, atol=1e-5)
    after = tokens(erased)
    for language, one in projected.items():
        torch.testing.assert_close(after[language], F.normalize(one, dim=1), rtol=0, atol=1e-4)
    assert (after["sw"] - before["sw"]).abs().max() > 0.05

    erased.save_pretrained(tmp_path)
    for loaded in (
        OpticalStudent.from_pretrained(tmp_path),
        OpticalStudent.from_checkpoint(tmp_path),
        AutoModel.from_pretrained(tmp_path),
    ):
        assert all(torch.equal(one, after[language]) for language, one in tokens(loaded).items())
        pooled = loaded.encode(TEXTS["en"], "document", pooled=True)
        assert torch.equal(pooled, erased.encode(TEXTS["en"], "document", pooled=True))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"sw": ["habari"]}, "`texts` has 1 languages"),
        ({"sw": ["habari"], "yo": []}, r"`texts\['yo'\]` has to be a list of at least one text, not \[\]"),
        ({"sw": ["habari"], "yo": "leo"}, r"`texts\['yo'\]` has to be a list of at least one text, not 'leo'"),
    ],
)
def test_texts_that_cannot_be_used(tiny_encoder, texts, message):
    with pytest.raises(ValueError, match=message):
        erase_language(OpticalStudent.from_checkpoint(tiny_encoder), texts)

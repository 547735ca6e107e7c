from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.contrast import image_image, image_text, text_text


def units(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def positives(b: int, kind: str) -> Tensor:
    """Symmetric weights of a batch: fractional ones, one pair, none, or everybody."""
    drawn = torch.rand(b, b, generator=torch.Generator().manual_seed(7))
    weights = {"fractions": (drawn + drawn.T) / 2, "none": torch.zeros(b, b), "everybody": torch.ones(b, b), "one": torch.zeros(b, b)}[kind]
    if kind == "one":
        weights[0, -1] = weights[-1, 0] = 1
    return weights.fill_diagonal_(0)


def plain_image_image(first: Tensor, second: Tensor, weights: Tensor, temperature: float) -> float:
    """The formula, one view and one positive after the other, in float64."""
    views = [*first.double().numpy(), *second.double().numpy()]
    b, n = len(first), 2 * len(first)
    losses = []
    for i in range(n):
        below = sum(math.exp(views[i] @ views[k] / temperature) for k in range(n) if k != i)
        weighed = whole = 0.0
        for p in range(n):
            if p == i:
                continue
            weight = 1.0 if p % b == i % b else float(weights[i % b, p % b])
            weighed += weight * math.log(math.exp(views[i] @ views[p] / temperature) / below)
            whole += weight
        losses.append(-weighed / whole)
    return float(np.mean(losses))


def plain_image_text(images: Tensor, texts: Tensor, place: Tensor, temperature: float) -> float:
    image, text = images.double().numpy(), texts.double().numpy()
    known = [i for i in range(len(place)) if place[i] >= 0]
    met = sorted({int(place[i]) for i in known})
    if not met:
        return 0.0
    likeness = {(i, t): math.exp(image[i] @ text[t] / temperature) for i in known for t in met}
    from_images = [-math.log(likeness[i, int(place[i])] / sum(likeness[i, t] for t in met)) for i in known]
    from_texts = []
    for t in met:
        whole = sum(likeness[i, t] for i in known)
        from_texts.append(np.mean([-math.log(likeness[i, t] / whole) for i in known if place[i] == t]))
    return float((np.mean(from_images) + np.mean(from_texts)) / 2)


def plain_text_text(names: Tensor, descriptions: Tensor, temperature: float) -> float:
    place = torch.arange(len(names))
    return plain_image_text(names, descriptions, place, temperature)


@pytest.mark.parametrize("kind", ["fractions", "one", "none", "everybody"])
@pytest.mark.parametrize("b", [1, 2, 7])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_two_views_of_each_image_against_a_plain_loop(kind: str, b: int, temperature: float) -> None:
    first, second, weights = units(b, 5), units(b, 5, seed=1), positives(b, kind)
    found = image_image(first, second, weights, temperature)
    assert found.shape == ()
    assert found.item() == pytest.approx(plain_image_image(first, second, weights, temperature), rel=1e-5, abs=1e-5)


def test_without_other_positives_it_is_simclr() -> None:
    first, second = units(6, 8), units(6, 8, seed=1)
    views = torch.cat([first, second])
    logits = (views @ views.T / 0.1).fill_diagonal_(-torch.inf)
    expected = F.cross_entropy(logits, torch.arange(12).roll(6))
    torch.testing.assert_close(image_image(first, second, positives(6, "none"), 0.1), expected)


def test_the_views_and_the_order_of_the_images_do_not_matter() -> None:
    first, second, weights = units(6, 8), units(6, 8, seed=1), positives(6, "fractions")
    value = image_image(first, second, weights, 0.1)
    torch.testing.assert_close(image_image(second, first, weights, 0.1), value)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(image_image(first[order], second[order], weights[order][:, order], 0.1), value)


def test_an_image_is_no_more_its_own_positive_for_a_weight_on_the_diagonal() -> None:
    first, second, weights = units(4, 8), units(4, 8, seed=1), positives(4, "fractions")
    torch.testing.assert_close(image_image(first, second, weights + torch.eye(4), 0.1), image_image(first, second, weights, 0.1))


def test_it_is_lower_the_nearer_the_positives_are() -> None:
    weights = torch.zeros(4, 4)
    weights[0, 1] = weights[1, 0] = weights[2, 3] = weights[3, 2] = 1
    poles = torch.eye(4)[[0, 0, 1, 1]]
    apart = torch.eye(4)[[0, 1, 0, 1]]
    assert image_image(poles, poles, weights, 0.1) < image_image(units(4, 4), units(4, 4, seed=1), weights, 0.1)
    assert image_image(poles, poles, weights, 0.01).item() == pytest.approx(math.log(3), abs=1e-4)  # three positives share what there is
    assert image_image(apart, apart, weights, 0.1) > 5


@pytest.mark.parametrize(
    "place",
    [
        [0, 1, 2, 0, 1, 1],
        [4, 0, 4, 0, 0, 4],  # texts 1, 2, 3 are nobody's
        [-1, 2, -1, 1, 2, -1],  # images without a text
        [3, 3, 3, 3, 3, 3],
        [-1, -1, 0, -1, -1, -1],
        [-1, -1, -1, -1, -1, -1],
    ],
)
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_images_and_their_texts_against_a_plain_loop(place: list[int], temperature: float) -> None:
    images, texts, places = units(6, 5), units(5, 5, seed=1), torch.tensor(place)
    found = image_text(images, texts, places, temperature)
    assert found.shape == ()
    assert found.item() == pytest.approx(plain_image_text(images, texts, places, temperature), rel=1e-5, abs=1e-6)


def test_one_text_is_all_there_is_to_choose_from() -> None:
    images, text = units(5, 4), units(1, 4, seed=1)
    expected = -(images @ text[0] / 0.2).log_softmax(0).mean() / 2
    torch.testing.assert_close(image_text(images, text, torch.zeros(5, dtype=torch.int64), 0.2), expected)


def test_texts_that_nobody_has_and_images_that_have_none_do_not_matter() -> None:
    images, texts, place = units(6, 5), units(4, 5, seed=1), torch.tensor([1, -1, 3, 1, -1, 3])
    kept = place >= 0
    smaller = image_text(images[kept], texts[[1, 3]], torch.tensor([0, 1, 0, 1]), 0.1)
    torch.testing.assert_close(image_text(images, texts, place, 0.1), smaller)
    images.requires_grad_()
    texts.requires_grad_()
    image_text(images, texts, place, 0.1).backward()
    assert (images.grad[~kept] == 0).all()
    assert (texts.grad[[0, 2]] == 0).all()
    assert (images.grad[kept] != 0).any()


def test_every_text_counts_alike_however_many_images_it_has() -> None:
    texts = torch.eye(2)
    images = torch.cat([torch.eye(2)[[0]].expand(9, 2), torch.eye(2)[[1]]])
    place = torch.tensor([0] * 9 + [1])
    value = image_text(images, texts, place, 0.01)
    assert value.item() == pytest.approx(math.log(9) / 2 / 2, abs=1e-5)  # nine share the first text; nothing else is left to learn


def test_names_and_descriptions_against_a_plain_loop() -> None:
    for c in (1, 2, 9):
        names, descriptions = units(c, 6), units(c, 6, seed=1)
        found = text_text(names, descriptions, 0.07)
        assert found.shape == ()
        assert found.item() == pytest.approx(plain_text_text(names, descriptions, 0.07), rel=1e-5, abs=1e-6)
        torch.testing.assert_close(text_text(descriptions, names, 0.07), found)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "image_image": lambda a, b: image_image(a, b, positives(len(a), "fractions"), 0.01),
    "everybody": lambda a, b: image_image(a, b, positives(len(a), "everybody"), 0.01),
    "alone": lambda a, b: image_image(a, b, positives(len(a), "none"), 0.01),
    "image_text": lambda a, b: image_text(a, b[:3], torch.arange(len(a)) % 4 - 1, 0.01),
    "text_text": lambda a, b: text_text(a, b, 0.01),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("likeness", ["identical", "opposite", "random"])
def test_values_and_gradients_are_finite_at_a_low_temperature(loss: str, likeness: str) -> None:
    first = units(1, 16).expand(8, 16).clone() if likeness != "random" else units(8, 16)
    second = {"identical": first, "opposite": -first, "random": units(8, 16, seed=1)}[likeness].clone()
    first.requires_grad_()
    second.requires_grad_()
    value = LOSSES[loss](first, second)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(first.grad).all()
    assert torch.isfinite(second.grad).all()
    if likeness == "identical":
        even = {"image_text": (math.log(3) + math.log(6)) / 2, "text_text": math.log(8)}.get(loss, math.log(15))
        assert value.item() == pytest.approx(even, rel=1e-4)  # nobody can be told from anybody


@pytest.mark.parametrize("loss", LOSSES)
def test_no_images_are_no_loss(loss: str) -> None:
    first, second = torch.zeros(0, 4, requires_grad=True), torch.zeros(0, 4, requires_grad=True)
    value = LOSSES[loss](first, second)
    value.backward()
    assert value.item() == 0


def test_a_batch_without_a_text_has_a_gradient_of_0() -> None:
    images, texts = units(4, 3).requires_grad_(), units(2, 3, seed=1).requires_grad_()
    image_text(images, texts, torch.full((4,), -1), 0.1).backward()
    assert (images.grad == 0).all()
    assert (texts.grad == 0).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_mixed_precision_does_not_round_the_cosines(loss: str) -> None:
    first, second = units(8, 64), units(8, 64, seed=1)
    expected = LOSSES[loss](first, second)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = LOSSES[loss](first, second)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


def test_two_halves_of_a_batch_put_together_are_the_whole() -> None:
    """What two workers compute: each encodes its half, both see everything, and their gradients add up to those of one worker."""
    torch.manual_seed(0)
    encoder = torch.nn.Linear(10, 6)
    inputs, texts, place, weights = torch.randn(2, 8, 10), units(3, 6), torch.arange(8) % 3, positives(8, "fractions")

    def loss(first: Tensor, second: Tensor) -> Tensor:
        return image_image(first, second, weights, 0.1) + image_text(first, texts, place, 0.1)

    def encoded(part: slice) -> tuple[Tensor, Tensor]:
        return F.normalize(encoder(inputs[0, part]), dim=1), F.normalize(encoder(inputs[1, part]), dim=1)

    (whole := loss(*encoded(slice(8)))).backward()
    expected = encoder.weight.grad.clone()
    total = torch.zeros_like(expected)
    for rank in range(2):
        encoder.zero_grad()
        halves = [encoded(slice(0, 4)), encoded(slice(4, 8))]
        halves[1 - rank] = tuple(view.detach() for view in halves[1 - rank])  # the other worker's
        value = loss(*(torch.cat(views) for views in zip(*halves, strict=True)))
        torch.testing.assert_close(value, whole)
        value.backward()
        total += encoder.weight.grad
    torch.testing.assert_close(total, expected)

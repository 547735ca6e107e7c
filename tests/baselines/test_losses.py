from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchmetrics.functional import concordance_corrcoef

from baselines import losses
from baselines.weighting import Equal, Random

NAN = float("nan")


def pair(n: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    made = torch.randn(2, n, generator=torch.Generator().manual_seed(0))
    return made[0].requires_grad_(), made[1] + 0.5 * made[0].detach()


def test_ccc_is_lins() -> None:
    x, y = pair()
    moments = np.cov(x.detach().numpy(), y.numpy(), bias=True)
    expected = 2 * moments[0, 1] / (moments[0, 0] + moments[1, 1] + (x.detach().mean() - y.mean()).item() ** 2)
    assert losses.ccc(x, y).item() == pytest.approx(expected, rel=1e-5)
    assert losses.ccc(x, y).item() == pytest.approx(concordance_corrcoef(x.detach(), y).item(), rel=0.03)  # which divides by n - 1
    assert losses.ccc(y, y).item() == pytest.approx(1.0)


def test_ccc_of_constants_is_0_and_its_gradient_finite() -> None:
    x = torch.full((5,), 0.3, requires_grad=True)
    value = losses.ccc(x, torch.full((5,), 0.3))
    value.backward()
    assert value.item() == 0.0
    assert torch.isfinite(x.grad).all()


def test_regression_goes_from_ccc_to_squared_error() -> None:
    x, y = pair()
    assert losses.regression(x, y, 0.0).item() == pytest.approx(1 - losses.ccc(x, y).item())
    assert losses.regression(x, y, 1.0).item() == pytest.approx(F.mse_loss(x, y).item())
    assert [losses.share_of_mse(p, training=True) for p in (0.5, 1.0)] == [0.25, 1.0]
    assert losses.share_of_mse(0.9, training=False) == 0.5


def test_what_is_not_labelled_has_no_part_in_a_loss() -> None:
    x, y = pair()
    holes = y.clone()
    holes[::3] = NAN
    known = torch.isfinite(holes)
    assert losses.regression(x, holes, 0.3).item() == pytest.approx(losses.regression(x[known], y[known], 0.3).item())
    bits = (holes > 0).float().where(known, NAN)
    assert losses.binary_cross_entropy(x, bits).item() == pytest.approx(F.binary_cross_entropy_with_logits(x[known], bits[known]).item())
    logits, codes = torch.randn(4, 3), torch.tensor([0, 2, 0, 0])
    shares = F.one_hot(codes, 3).float()
    shares[[0, 3]] = NAN
    for weight in (None, torch.tensor([0.2, 3.0, 1.5])):
        want = F.cross_entropy(logits[1:3], codes[1:3], weight=weight, label_smoothing=0.1 if weight is None else 0)
        found = losses.cross_entropy(logits, shares, weight=weight, smoothing=0.1 if weight is None else 0)
        assert found.item() == pytest.approx(want.item())


def test_votes_are_learned_as_they_are_shared_out() -> None:
    votes = torch.tensor([[0.7, 0.3, 0.0], [0.2, 0.2, 0.6]])
    logits = votes.clamp_min(1e-6).log().requires_grad_()
    losses.cross_entropy(logits, votes).backward()
    assert logits.grad.abs().max() < 1e-5, "the shares themselves are the best prediction"


def test_a_rare_presence_can_weigh_more() -> None:
    x, y = torch.tensor([0.0, 0.0, 0.0, 0.0]), torch.tensor([1.0, 0.0, 0.0, 0.0])
    even = losses.binary_cross_entropy(x, y).item()
    assert losses.binary_cross_entropy(x, y, positive=torch.tensor(3.0)).item() == pytest.approx(even * 6 / 4)


@pytest.mark.parametrize(
    "loss", [lambda x: losses.regression(x, torch.full((4,), NAN), 0.3), lambda x: losses.binary_cross_entropy(x, torch.full((4,), NAN))]
)
def test_a_batch_without_labels_has_a_loss_and_a_gradient_of_0(loss: object) -> None:
    x = torch.randn(4, requires_grad=True)
    value = loss(x)  # type: ignore[operator]
    value.backward()
    assert value.item() == 0.0
    assert (x.grad == 0).all()


def test_a_batch_without_expressions_has_a_loss_and_a_gradient_of_0() -> None:
    x = torch.randn(4, 3, requires_grad=True)
    value = losses.cross_entropy(x, torch.full((4, 3), NAN), smoothing=0.1)
    value.backward()
    assert value.item() == 0.0
    assert (x.grad == 0).all()


def values() -> dict[str, torch.Tensor]:
    return {"a": torch.tensor(1.0), "b": torch.tensor(2.0), "c": torch.tensor(6.0)}


def test_equal_weights_give_the_mean() -> None:
    assert Equal()(values(), torch.Generator()).item() == 3.0


def test_random_weights_sum_to_1_are_new_in_every_step_and_follow_from_the_generator() -> None:
    def weights(generator: torch.Generator) -> torch.Tensor:
        given = torch.tensor([1.0, 2.0, 6.0], requires_grad=True)
        Random()(dict(zip("abc", given.unbind(), strict=True)), generator).backward()
        return given.grad

    generator = torch.Generator().manual_seed(3)
    drawn = torch.stack([weights(generator) for _ in range(4000)])
    torch.testing.assert_close(drawn.sum(1), torch.ones(4000))
    torch.testing.assert_close(drawn.mean(0), torch.full((3,), 1 / 3), atol=0.01, rtol=0)
    reference = np.random.default_rng(0).uniform(size=(4000, 3))
    reference /= reference.sum(1, keepdims=True)
    assert drawn.std(0).mean().item() == pytest.approx(reference.std(0).mean(), abs=0.01)  # uniform over their sum, no softmax
    assert torch.equal(weights(torch.Generator().manual_seed(7)), weights(torch.Generator().manual_seed(7)))

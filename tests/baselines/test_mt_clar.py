from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.mt_clar import MtClar, PairNet, PairStage
from baselines.mt_clar_sl import HeadStage, LinearNet
from harness.baseline import Previous
from harness.errors import RequestError

Make = Callable[..., Any]
RULE = {"_target_": "baselines.pairs.Random"}
SMALL: dict[str, Any] = {"backbone": {"name": "conv", "widths": [8, 8]}, "pairs": RULE, "dim": 6, "hidden": (8, 4)}


@dataclass
class One:
    """A step on one worker, without augmentation."""

    index: np.ndarray
    pixels: np.ndarray
    progress: float = 1.0
    training: bool = True
    device: torch.device = torch.device("cpu")
    generator: torch.Generator | None = None

    def frames(self, column: int = 0, view: int = 0) -> Tensor:
        return torch.from_numpy(self.pixels[self.index[:, column]]).permute(0, 3, 1, 2).float() / 255

    def gather(self, local: Tensor) -> Tensor:
        return local

    def rows(self, values: Tensor, column: int = 0) -> Tensor:
        return values[torch.from_numpy(self.index[:, column])]


class Difference(torch.nn.Module):
    """Stands for fitted heads: half the true difference, and alike when it is small."""

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        difference = (a - b)[:, :2]
        return torch.stack([difference.norm(dim=1), torch.zeros(len(a))], dim=1), difference / 2


def embedded(world: Make, per_clip: int, **setting: Any) -> Any:
    return world(per_clip, modules=(Difference(),), setting=setting)


def one_by_one(made: Any, choose: Callable[..., np.ndarray]) -> np.ndarray:
    """Valence of every frame; ``choose`` gives weights over the clip's support from times, likeness and cosines."""
    query, found = made.query, []
    clips, times = query.test.samples["clip"].to_numpy(), query.test.samples["frame"].to_numpy()
    e = query.embeddings.astype(float)
    affect = np.stack([made.valence, made.arousal], axis=1).astype(float)
    for i in range(len(clips)):
        given = np.flatnonzero(query.support & (clips == clips[i]))
        estimate = (e[i, 0] - e[given, 0]) / 2 + affect[given, 0]
        alike = 1 / (1 + np.exp(np.linalg.norm(e[i, :2] - e[given, :2], axis=1)))
        cosine = (e[given] @ e[i]) / np.linalg.norm(e[given], axis=1) / np.linalg.norm(e[i])
        found.append(choose(estimate, times[i], times[given], alike, cosine))
    return np.clip(found, -1, 1)


ANCHORS = {
    "last": lambda v, t, given, alike, cosine: v[given <= t][-1] if (given <= t).any() else v[0],
    "nearest": lambda v, t, given, alike, cosine: v[np.argmin(np.abs(given - t))],
    "mean": lambda v, t, given, alike, cosine: v.mean(),
    "median": lambda v, t, given, alike, cosine: np.median(v),
    "weighted": lambda v, t, given, alike, cosine: (v * alike).sum() / alike.sum(),
    "embedding": lambda v, t, given, alike, cosine: v[np.argmax(cosine)],
}


@pytest.mark.parametrize("per_clip", [1, 4])
@pytest.mark.parametrize("anchor", ANCHORS)
def test_every_anchor_agrees_with_a_loop_over_frames(world: Make, anchor: str, per_clip: int) -> None:
    made = embedded(world, per_clip, anchor=anchor)
    np.testing.assert_allclose(MtClar().predict(made.query)["valence"], one_by_one(made, ANCHORS[anchor]), atol=1e-6)


def test_with_one_support_frame_the_anchor_makes_no_difference(world: Make) -> None:
    predicted = [MtClar().predict(embedded(world, 1, anchor=anchor).query)["arousal"] for anchor in ANCHORS]
    predicted.append(MtClar().predict(embedded(world, 1).query)["arousal"])
    for other in predicted[1:]:
        np.testing.assert_allclose(other, predicted[0], atol=1e-6)


def test_clips_need_not_have_equally_many_support_frames(world: Make) -> None:
    made = embedded(world, 3, anchor="median")
    first = int(np.flatnonzero(made.query.support)[0])
    made.query.support[first] = False
    labels = {name: values[1:] for name, values in made.query.labels.items()}
    made.query.labels.update(labels)
    np.testing.assert_allclose(MtClar().predict(made.query)["valence"], one_by_one(made, ANCHORS["median"]), atol=1e-6)


def test_blocks_average_the_differences_and_not_the_labels(world: Make) -> None:
    made = embedded(world, 3, anchor="last", block=5)
    labels = np.full(len(made.valence), np.nan)
    labels[made.query.support] = made.valence[made.query.support]
    clips = made.query.test.samples["clip"].to_numpy()
    anchors = np.empty(len(labels))
    for clip in np.unique(clips):
        here = np.flatnonzero(clips == clip)
        given = here[np.isfinite(labels[here])]
        anchors[here] = [labels[given[given <= i][-1] if (given <= i).any() else given[0]] for i in here]
    plain = MtClar().predict(embedded(world, 3, anchor="last").query)["valence"]
    differences = plain - anchors  # no prediction is clipped in this world
    expected = [differences[i // 5 * 5 : i // 5 * 5 + 5].mean() + anchors[i] for i in range(len(labels))]
    np.testing.assert_allclose(MtClar().predict(made.query)["valence"], np.clip(expected, -1, 1), atol=1e-6)


def test_a_clip_without_support_is_refused_by_name(world: Make) -> None:
    with pytest.raises(RequestError, match="clip 'clip 0' has no labelled support frame"):
        MtClar().predict(embedded(world, 0).query)


def pair_data(data: Make, n: int = 24) -> Any:
    rng = np.random.default_rng(5)
    valence, arousal = rng.uniform(-1, 1, (2, n))
    return data(
        rng.integers(0, 256, (n, 24, 24, 1), dtype=np.uint8), clip=np.repeat(list("abcd"), n // 4), valence=valence, arousal=arousal
    )


def ready(data: Make, **options: Any) -> tuple[PairStage, Any, Any]:
    given = pair_data(data)
    stage = PairStage(**{**SMALL, **options})
    stage.setup(given, given, ("valence", "arousal"), (), None)
    torch.manual_seed(0)
    return stage, stage.module(), given


@pytest.mark.parametrize("training", [True, False])
def test_the_four_losses_are_those_of_the_paper(data: Make, training: bool) -> None:
    stage, net, given = ready(data, dropout=0.0)
    net.eval()
    step = One(np.array([[0, 1], [4, 9], [12, 3], [20, 21], [7, 15]]), given.frames.array, progress=0.5, training=training)
    found = stage.losses(net, step)
    assert list(stage.objectives()) == list(found)
    assert list(stage.objectives().values()) == ["likelihood", "regression", "regression", "other"]
    a, b = net.encoder(step.frames(0)), net.encoder(step.frames(1))
    logits, differences = net(a, b)
    valence, arousal = (given.samples[t].to_numpy() for t in ("valence", "arousal"))
    near = np.hypot(valence, arousal) < 0.2
    kind = np.where(near, 0, 1 + 2 * (valence >= 0) + (arousal >= 0))
    alike = torch.from_numpy(kind[step.index[:, 0]] == kind[step.index[:, 1]])
    share = 0.25 if training else 0.5
    for place, labels in enumerate((valence, arousal)):
        x, y = differences[:, place].detach().double().numpy(), labels[step.index[:, 0]] - labels[step.index[:, 1]]
        concordance = 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
        expected = share * ((x - y) ** 2).mean() + (1 - share) * (1 - concordance)
        assert found[("valence", "arousal")[place]].item() == pytest.approx(expected, rel=1e-4)
    assert found["similarity"].item() == pytest.approx(F.cross_entropy(logits, alike.long()).item(), rel=1e-5)
    cosine = F.cosine_similarity(a, b)
    assert found["cosine"].item() == pytest.approx(torch.where(alike, 1 - cosine, (cosine - 0.25).clamp_min(0)).mean().item(), rel=1e-4)


def test_extra_pairs_are_of_one_clip_and_drawn_alike_on_every_worker(data: Make) -> None:
    stage, net, given = ready(data, extra=2.0, dropout=0.0)
    seen: list[int] = []
    net.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    index = np.array([[0, 6], [1, 7], [2, 12], [3, 18]])  # clip a: 0 to 3, clip b: 6 and 7
    steps = [One(index, given.frames.array, generator=torch.Generator().manual_seed(1)) for _ in range(2)]
    first, second = (stage.losses(net.train(), step) for step in steps)
    assert seen == [4 + 8] * 2
    assert {name: value.item() for name, value in first.items()} == {name: value.item() for name, value in second.items()}
    steps[0].training = False
    stage.losses(net.eval(), steps[0])
    assert seen[-1] == 4


def test_an_epoch_has_as_many_pairs_as_frames_in_even_batches(data: Make) -> None:
    stage, _, _ = ready(data, pairs_per_frame=2.0)
    batches = list(stage.batches("train", 10, np.random.default_rng(0)))
    assert [len(batch) for batch in batches] == [10, 10, 10, 9, 9]
    again = list(stage.batches("train", 10, np.random.default_rng(0)))
    assert all((a == b).all() for a, b in zip(batches, again, strict=True))


def test_frames_without_both_labels_are_in_no_pair(data: Make) -> None:
    given = data(valence=[0.1, None, 0.5, 0.2, None], arousal=[0.3, 0.2, -0.2, None, None])
    stage = PairStage(**SMALL)
    stage.setup(given, given, ("valence", "arousal"), (), None)
    assert set(np.concatenate(list(stage.batches("train", 4, np.random.default_rng(0)))).ravel()) == {0, 2}
    with pytest.raises(RequestError, match="no two training samples"):
        stage.setup(data(valence=[None, 0.1]), given, ("valence", "arousal"), (), None)


@pytest.mark.parametrize(("fusion", "width"), [("concat", 12), ("absolute", 6), ("multiply", 6)])
def test_heads_see_the_fused_embeddings_and_differences_stay_in_range(fusion: str, width: int) -> None:
    net = PairNet(torch.nn.Identity(), dim=6, fusion=fusion, hidden=(8, 4), dropout=0.5, symmetric=False).eval()
    assert net.similarity[1].in_features == width
    logits, differences = net(100 * torch.randn(9, 6), 100 * torch.randn(9, 6))
    assert logits.shape == (9, 2)
    assert differences.shape == (9, 2)
    assert differences.abs().max() <= 2


def test_the_papers_heads_have_its_layers() -> None:
    net = PairNet(torch.nn.Identity(), dim=256, fusion="concat", hidden=(2048, 1024, 512, 128), dropout=0.5, symmetric=False)
    for head, out in ((net.similarity, 2), (net.valence, 1), (net.arousal, 1)):
        kinds = [type(layer).__name__ for layer in head]
        assert kinds == ["Dropout", "Linear", "BatchNorm1d", "ReLU"] * 4 + ["Linear"]
        linear = [(layer.in_features, layer.out_features) for layer in head if isinstance(layer, torch.nn.Linear)]
        assert linear == [(512, 2048), (2048, 1024), (1024, 512), (512, 128), (128, out)]


def test_symmetric_differences_are_each_others_negative() -> None:
    net = PairNet(torch.nn.Identity(), dim=6, fusion="concat", hidden=(8, 4), dropout=0.0, symmetric=True).eval()
    a, b = torch.randn(2, 5, 6)
    torch.testing.assert_close(net(a, b)[1], -net(b, a)[1])


def test_an_unknown_fusion_is_refused() -> None:
    with pytest.raises(RequestError, match="did you mean 'concat'"):
        PairStage(**SMALL, fusion="conact")


def previous(n: int) -> Previous:
    features = np.random.default_rng(0).normal(size=(n, 6)).astype(np.float32)
    return Previous(None, None, features, features)  # type: ignore[arg-type]


def test_the_supervised_head_learns_affect_and_expression_from_embeddings(data: Make) -> None:
    names = ["happy", "sad", None, "fear"] * 6
    given = data(valence=np.linspace(-1, 1, 24), arousal=[0.5] * 12 + [None] * 12, expression=names)
    stage = HeadStage(hidden=(8, 4), balanced=True)
    stage.setup(given, given, ("valence", "arousal", "expression"), ("sad", "happy"), previous(24))
    net = stage.module()
    losses = stage.losses(net, One(np.arange(24)[:, None], given.frames.array, progress=0.5))
    assert list(losses) == list(stage.objectives())
    assert stage.objectives() == {"affect": "regression", "expression": "likelihood"}
    affect = net["affect"](torch.from_numpy(previous(24).train))
    x, y = affect.detach().double().numpy(), np.stack([given.labels("valence"), given.labels("arousal")], axis=1)[:, :]
    error, concordance = 0.0, 0.0
    for column in (0, 1):
        known = np.isfinite(y[:, column])
        p, q = x[known, column], y[known, column]
        error += ((p - q) ** 2).mean()
        concordance += 2 * np.cov(p, q, bias=True)[0, 1] / (p.var() + q.var() + (p.mean() - q.mean()) ** 2) / 2
    assert losses["affect"].item() == pytest.approx(0.25 * error + 0.75 * (1 - concordance), rel=1e-3)
    outputs = net.eval().outputs(torch.randn(5, 6))
    assert outputs["expression"].shape == (5, 2)
    torch.testing.assert_close(outputs["expression"].sum(1), torch.ones(5))
    assert outputs["valence"].abs().max() <= 1


def test_balanced_batches_meet_every_expression_equally_often(data: Make) -> None:
    given = data(expression=["happy"] * 90 + ["sad"] * 10)
    stage = HeadStage(hidden=(8, 4), balanced=True)
    stage.setup(given, given, ("expression",), ("happy", "sad"), previous(100))
    rng = np.random.default_rng(0)
    rows = np.concatenate([np.concatenate(list(stage.batches("train", 32, rng))).ravel() for _ in range(20)])
    assert (rows >= 90).mean() == pytest.approx(0.5, abs=0.04)
    assert sorted(np.concatenate(list(stage.batches("validation", 32, rng))).ravel()) == list(range(100))


def test_the_head_of_the_paper_has_its_layers() -> None:
    net = LinearNet(256, (1024, 512, 256, 128), 2, dropout=0.0, tanh=True)
    linear = [(layer.in_features, layer.out_features, layer.bias is None) for layer in net if isinstance(layer, torch.nn.Linear)]
    assert linear == [(256, 1024, True), (1024, 512, True), (512, 256, True), (256, 128, True), (128, 2, False)]
    assert isinstance(net[-1], torch.nn.Tanh)


def test_a_head_without_a_stage_before_it_is_refused(data: Make) -> None:
    given = data(valence=[0.0, 0.1])
    with pytest.raises(RequestError, match="needs a stage before it"):
        HeadStage().setup(given, given, ("valence",), (), None)

from __future__ import annotations

import csv
import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines import figures
from baselines.task_tokens import MOST, Separate, TaskTokens, TokenEncoder, TokenStage, position_code
from baselines.weighting import Equal
from harness import evaluation, plan, snapshot, training
from harness.errors import RequestError
from harness.store import Store
from tests.conftest import Run

Make = Callable[..., Any]
CLASSES = ("neutral", "happy", "sad")
TARGETS = ("valence", "arousal", "expression", "au1", "au12")
SMALL: dict[str, Any] = {"backbone": {"name": "conv", "widths": [4, 8]}, "dim": 8, "heads": 2, "dropout": 0.0}
GRANULAR = {
    "task": {"va": "regression", "expression": "likelihood", "au": "likelihood"},
    "dimension": {"valence": "regression", "arousal": "regression", "expression": "likelihood", "au": "likelihood"},
    "output": {"valence": "regression", "arousal": "regression", "expression": "likelihood", "au1": "likelihood", "au12": "likelihood"},
}


class Alone:
    """A step on one worker that holds all rows, or those of its index."""

    training = True
    progress = 1.0
    device = torch.device("cpu")

    def __init__(self, pixels: np.ndarray, rows: list[int] | None = None) -> None:
        self.index = np.array(range(len(pixels)) if rows is None else rows)[:, None]
        self.pixels = torch.from_numpy(pixels[self.index[:, 0]]).permute(0, 3, 1, 2).float() / 255

    def frames(self, column: int = 0, view: int = 0) -> Tensor:
        return self.pixels

    def gather(self, local: Tensor) -> Tensor:
        return local

    def rows(self, values: Tensor, column: int = 0) -> Tensor:
        return values[torch.from_numpy(self.index[:, 0])]


def faces(data: Make, n: int = 12, **other: Any) -> Any:
    """Frames with a mouth that happiness opens; every label is there."""
    happy = np.arange(n) % 3 == 1
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 120, (n, 24, 24, 1), dtype=np.uint8)
    pixels[happy, 14:18, 6:18] += 120
    labels = {
        "valence": np.where(happy, 0.6, -0.3) + rng.uniform(-0.2, 0.2, n),
        "arousal": rng.uniform(-1, 1, n),
        "expression": [CLASSES[i % 3] for i in range(n)],
        "au1": rng.permutation(np.arange(n) % 4 == 0).astype(int),
        "au12": happy.astype(int),
    }
    return data(pixels, clip=[f"c{i}" for i in range(n)], **{name: list(values) for name, values in {**labels, **other}.items()})


def ready(given: Any, targets: tuple[str, ...] = TARGETS, **options: Any) -> tuple[TokenStage, Any]:
    stage = TokenStage(**{**SMALL, **options})
    stage.setup(given, given, targets, CLASSES, None)
    torch.manual_seed(0)
    return stage, stage.module()


def shaken(net: torch.nn.Module) -> None:
    """Every parameter is moved off what it is at the beginning: heads of variances are 0 then, and biases equal."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))


# ── shapes ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("heteroscedastic", [False, True])
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize(("tokens", "names"), [("task", 3), ("output", 7), ("none", 1)])
def test_every_variant_embeds_frames_and_predicts_every_target(
    data: Make, tokens: str, names: int, separate: bool, heteroscedastic: bool
) -> None:
    given = faces(data)
    stage, net = ready(given, tokens=tokens, separate=separate, heteroscedastic=heteroscedastic)
    shaken(net)
    embeddings = stage.encode(net, Alone(given.frames.array).pixels)
    assert embeddings.shape == (12, 8 * (3 if separate and tokens == "none" else names))
    outputs = net.eval().outputs(embeddings)
    assert {name: tuple(values.shape) for name, values in outputs.items()} == {
        name: (12, 3) if name == "expression" else (12,) for name in TARGETS
    }
    torch.testing.assert_close(outputs["expression"].sum(1), torch.ones(12))
    assert 0 < outputs["au12"].min() < outputs["au12"].max() < 1
    spread = {target: values for one in net.apart for target, values in one(one.encoder(Alone(given.frames.array).pixels))[1].items()}
    assert set(spread) == (set(TARGETS) if heteroscedastic else set())
    assert all(s.shape == (12,) and s.abs().max() < MOST for s in spread.values())


def test_there_is_a_token_for_what_the_task_asks_and_for_nothing_else(data: Make) -> None:
    given = faces(data)
    for tokens, targets, names in [
        ("task", TARGETS, ["va", "expression", "au"]),
        ("task", ("au1", "au12"), ["au"]),
        ("output", ("au1", "au12"), ["au1", "au12"]),
        ("output", TARGETS, ["valence", "arousal", *CLASSES, "au1", "au12"]),
        ("none", TARGETS, ["pooled"]),
    ]:
        stage, net = ready(given, targets, tokens=tokens)
        assert list(net.heads) == names
        assert stage.encode(net, Alone(given.frames.array).pixels).shape == (12, 8 * len(names))


def test_abaw_has_22_outputs(data: Make) -> None:
    from harness.config import compose

    task = compose(["task=abaw_mtl"])["task"]
    stage = TokenStage(**SMALL, tokens="output", granularity="output")
    given = data(valence=[0.0], **{name: [0] for name in task["targets"] if name.startswith("au")})
    stage.setup(given, given, tuple(task["targets"]), tuple(task["classes"]), None)
    net: Any = stage.module()
    assert len(net.heads) == 22
    assert len(stage.objectives()) == 15


def test_a_frame_is_seen_on_its_own_and_maps_may_have_any_size(data: Make) -> None:
    stage, net = ready(faces(data), tokens="output", heteroscedastic=True)
    net.train()
    for rows, columns in [(24, 24), (33, 21)]:
        frames = torch.rand(5, 1, rows, columns)
        together = stage.encode(net, frames)
        alone = torch.cat([stage.encode(net, frame[None]) for frame in frames])
        torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-4)


def test_cells_have_codes_of_their_own() -> None:
    code = position_code(8, 3, 5)
    assert code.shape == (8, 3, 5)
    cells = code.flatten(1).T
    assert torch.pdist(cells).min() > 0.1
    torch.testing.assert_close(code[:4, 1], code[:4, 1, :1].expand(4, 5))  # half of it is of the row alone
    torch.testing.assert_close(position_code(8, 5, 5)[4:, 0], code[4:, 0])  # and half of the column


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"tokens": "tasks"}, r"stages.tokens.tokens.*did you mean 'task'"),
        ({"granularity": "dimensions"}, r"stages.tokens.granularity.*did you mean 'dimension'"),
        ({"dim": 10, "heads": 4}, r"stages.tokens.dim.*multiple of 4"),
        ({"layers": 0}, r"stages.tokens.layers"),
        ({"class_weights": "balancd"}, r"stages.tokens.class_weights.*did you mean 'balanced'"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line(options: dict[str, Any], line: str) -> None:
    with pytest.raises(RequestError, match=line):
        TokenStage(**{**SMALL, **options})


# ── losses ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("tokens", ["task", "output", "none"])
@pytest.mark.parametrize("granularity", list(GRANULAR))
def test_the_losses_are_those_that_are_told_beforehand(data: Make, granularity: str, tokens: str) -> None:
    given = faces(data)
    stage, net = ready(given, granularity=granularity, tokens=tokens)
    assert list(stage.losses(net, Alone(given.frames.array))) == list(stage.objectives()) == list(GRANULAR[granularity])
    assert stage.objectives() == GRANULAR[granularity]


def test_a_coarse_loss_is_the_mean_of_the_fine_ones(data: Make) -> None:
    given = faces(data)
    found = {}
    for granularity in GRANULAR:
        stage, net = ready(given, granularity=granularity, mse=0.3, class_weights="balanced")
        found[granularity] = {name: loss.item() for name, loss in stage.losses(net, Alone(given.frames.array)).items()}
    fine = found["output"]
    assert found["task"]["va"] == pytest.approx((fine["valence"] + fine["arousal"]) / 2, rel=1e-6)
    assert found["task"]["au"] == found["dimension"]["au"] == pytest.approx((fine["au1"] + fine["au12"]) / 2, rel=1e-6)
    assert found["task"]["expression"] == found["dimension"]["expression"] == fine["expression"]
    assert found["dimension"]["valence"] == fine["valence"]


def test_the_affect_loss_is_one_minus_the_mean_of_both_ccc(data: Make) -> None:
    given = faces(data)
    stage, net = ready(given, mse=0.0)
    step = Alone(given.frames.array)
    raw, _ = net(stage.encode(net, step.pixels))
    agreed = []
    for target in ("valence", "arousal"):
        x, y = raw[target].detach().double().numpy(), given.labels(target).astype(float)
        agreed.append(2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2))
    assert stage.losses(net, step)["va"].item() == pytest.approx(1 - sum(agreed) / 2, rel=1e-4)


def test_a_mean_counts_what_has_a_label_in_the_batch(data: Make) -> None:
    given = faces(data, au1=[None] * 12, arousal=[None] * 12)
    stage, net = ready(given)
    fine, fine_net = ready(given, granularity="output")
    step = Alone(given.frames.array)
    coarse, single = stage.losses(net, step), fine.losses(fine_net, step)
    assert single["au1"].item() == single["arousal"].item() == 0.0
    assert coarse["au"].item() == pytest.approx(single["au12"].item(), rel=1e-6)
    assert coarse["va"].item() == pytest.approx(single["valence"].item(), rel=1e-6)


@pytest.mark.parametrize("tokens", ["task", "output", "none"])
@pytest.mark.parametrize("heteroscedastic", [False, True])
@pytest.mark.parametrize("granularity", list(GRANULAR))
def test_a_batch_without_any_label_of_a_task_has_a_loss_of_0_and_gradients_of_0(
    data: Make, granularity: str, heteroscedastic: bool, tokens: str
) -> None:
    half = [i < 6 for i in range(12)]
    known = faces(data)
    labels = known.samples
    gone = {target: [value if here else None for value, here in zip(labels[target], half, strict=True)] for target in TARGETS}
    given = data(known.frames.array, clip=labels["clip"].to_list(), **{**gone, "valence": labels["valence"].to_list()})
    stage, net = ready(given, granularity=granularity, heteroscedastic=heteroscedastic, tokens=tokens)
    shaken(net)
    found = stage.losses(net, Alone(given.frames.array, rows=[6, 7, 8, 9, 10, 11]))
    for name, loss in found.items():
        if name in ("va", "valence"):
            continue
        assert loss.item() == 0.0
        gradients = torch.autograd.grad(loss, list(net.heads.parameters()), retain_graph=True, allow_unused=True)
        assert any(gradient is not None for gradient in gradients), name
        assert all(gradient is None or not gradient.any() for gradient in gradients), name
    assert next(iter(found.values())).item() != 0.0
    torch.stack(list(found.values())).sum().backward()
    missing = [name for name, p in net.named_parameters() if p.grad is None]
    assert missing == [], "several workers add up gradients, which must be there on each of them"
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_the_predicted_variance_weighs_every_sample_as_a_loop_says(data: Make) -> None:
    given = faces(data, au1=[1, 0, None, 0, 1, None, 0, 0, None, 1, 0, 0], expression=["happy", "sad", None, "neutral"] * 3)
    stage, net = ready(
        given, heteroscedastic=True, granularity="output", mse=0.4, smoothing=0.1, class_weights="balanced", presence_weights="balanced"
    )
    shaken(net)
    step = Alone(given.frames.array)
    raw, spread = (
        {name: values.detach().double().numpy() for name, values in part.items()} for part in net(stage.encode(net, step.pixels))
    )
    assert min(values.std() for values in spread.values()) > 1e-3
    found = stage.losses(net, step)

    x, y, s = raw["valence"], given.labels("valence").astype(float), spread["valence"]
    nll = sum(0.5 * math.exp(-c) * (b - a) ** 2 + 0.5 * c for a, b, c in zip(x, y, s, strict=True)) / 12
    concordance = 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    assert found["valence"].item() == pytest.approx(0.4 * nll + 0.6 * (1 - concordance), rel=1e-4)

    total = mass = 0.0
    weight = stage.weights["expression"]
    assert weight is not None
    for logits, place, c in zip(raw["expression"], given.codes(CLASSES), spread["expression"], strict=True):
        if place >= 0:
            soft = np.full(3, 0.1 / 3)
            soft[place] += 0.9
            entropy = -(soft * (logits - np.log(np.exp(logits).sum()))).sum()
            total += float(weight[place]) * (math.exp(-c) * entropy + 0.5 * c)
            mass += float(weight[place])
    assert found["expression"].item() == pytest.approx(total / mass, rel=1e-4)

    each = []
    for logit, label, c in zip(raw["au1"], given.labels("au1"), spread["au1"], strict=True):
        if not math.isnan(label):
            p = 1 / (1 + math.exp(-logit))
            each.append(math.exp(-c) * -(math.log(p) * (6 / 3) if label else math.log(1 - p)) + 0.5 * c)
    assert found["au1"].item() == pytest.approx(sum(each) / len(each), rel=1e-4)


def test_before_it_learns_no_sample_is_surer_than_another(data: Make) -> None:
    given = faces(data)
    _, net = ready(given, heteroscedastic=True)
    _, spread = net(torch.randn(4, 24))
    assert all(not values.any() for values in spread.values())


# ── what is shared ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("self_attention", [True, False])
def test_tokens_know_of_each_other_by_self_attention_alone(data: Make, self_attention: bool) -> None:
    given = faces(data)
    _, net = ready(given, tokens="output", self_attention=self_attention)
    pixels = Alone(given.frames.array).pixels
    before = net.encoder(pixels).reshape(12, 7, 8)
    with torch.no_grad():
        net.encoder.tokens[2].copy_(torch.randn(8))
    moved = (net.encoder(pixels).reshape(12, 7, 8) - before).abs().amax((0, 2))
    assert moved[2] > 1e-3
    others = moved[[0, 1, 3, 4, 5, 6]]
    assert bool((others > 1e-6).all()) if self_attention else bool((others == 0).all())


@pytest.mark.parametrize("tokens", ["task", "output", "none"])
@pytest.mark.parametrize("separate", [True, False])
def test_networks_of_single_tasks_share_no_parameter(data: Make, separate: bool, tokens: str) -> None:
    given = faces(data)
    stage, net = ready(given, separate=separate, tokens=tokens)
    assert isinstance(net, Separate) == separate
    parameters = dict(net.named_parameters())
    reached = {}
    for name, loss in stage.losses(net, Alone(given.frames.array)).items():
        gradients = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, allow_unused=True)
        reached[name] = {key for key, gradient in zip(parameters, gradients, strict=True) if gradient is not None}
    assert set().union(*reached.values()) == set(parameters)
    shared = (reached["va"] & reached["expression"]) | (reached["va"] & reached["au"]) | (reached["expression"] & reached["au"])
    assert bool(shared) != separate
    heads = {key for key in parameters if ".heads." in f".{key}"}
    assert not shared & heads, "a head is of one target"


# ── fits ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

VARIANTS: dict[str, dict[str, Any]] = {
    "task": {"tokens": "task"},
    "output": {"tokens": "output", "granularity": "output"},
    "none": {"tokens": "none"},
    "separate": {"separate": True, "granularity": "dimension"},
    "heteroscedastic": {"heteroscedastic": True},
}


def fit(folder: Path, given: Any, options: dict[str, Any], *, epochs: int = 6, **where: int) -> training.Fitted:
    return training.fit(
        TokenStage(**{**SMALL, **options}),
        given,
        given,
        targets=TARGETS,
        classes=CLASSES,
        trainer={"epochs": epochs, "batch_size": 16, "lr": 5e-3, "augment": {"flip": 0.5}},
        weighting=Equal(),
        seed=0,
        context=training.Local(folder, **where),
    )


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_the_engine_trains_it_and_the_losses_fall(data: Make, tmp_path: Path, variant: str) -> None:
    given = faces(data, 64)
    fitted = fit(tmp_path, given, VARIANTS[variant])
    first, last = fitted.history[0], fitted.history[-1]
    names = [name for name in first if name.startswith("train/")]
    assert sum(last[name] for name in names) < sum(first[name] for name in names) - 0.02 * len(names)


def test_it_learns_what_can_be_seen(data: Make, tmp_path: Path) -> None:
    given = faces(data, 64)
    stage, _ = ready(given)
    fitted = fit(tmp_path, given, {}, epochs=16)
    net: Any = training.load(stage, fitted.state)
    outputs = net.outputs(stage.encode(net, Alone(given.frames.array).pixels))
    assert ((outputs["au12"] > 0.5).numpy() == (given.labels("au12") > 0.5)).mean() > 0.9


def _worker(folder: Path) -> None:
    from tests.baselines.conftest import make_data

    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    fitted = fit(folder / "two", faces(make_data, 38), {"dropout": 0.3}, epochs=2, rank=rank, world=world)
    (folder / f"history-{rank}.json").write_text(json.dumps(fitted.history), encoding="utf-8")


def test_two_workers_learn_what_one_learns(data: Make, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    common["PYTHONPATH"] = str(Path(__file__).parents[2])
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, str(tmp_path)], env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stderr=subprocess.PIPE
        )
        for rank in range(2)
    ]
    said = [worker.communicate(timeout=300)[1].decode() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], said[0][-3000:] + said[1][-3000:]
    both = [json.loads((tmp_path / f"history-{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]
    for ours, theirs, others in zip(fit(tmp_path / "one", faces(data, 38), {"dropout": 0.3}, epochs=2).history, *both, strict=True):
        for loss in ours.keys() - {"seconds"}:
            assert theirs[loss] == others[loss]
            assert theirs[loss] == pytest.approx(ours[loss], abs=2e-4), loss


# ── pictures ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def asked(world: Make, given: Any, net: Any) -> Any:
    return replace(world().query, test=given, modules=(net.eval(),), targets=TARGETS, classes=CLASSES)


def table(text: bytes) -> np.ndarray:
    """``(layers, t, t)`` of the CSV."""
    rows = list(csv.DictReader(text.decode().splitlines()))
    layers, t = int(rows[-1]["layer"]), len({row["token"] for row in rows})
    return np.array([float(row["share"]) for row in rows]).reshape(layers, t, t)


def test_pictures_are_the_mean_attention_of_tokens_and_its_rows_sum_to_1(data: Make, world: Make) -> None:
    given = faces(data)
    _, net = ready(given)
    shaken(net)
    baseline, query = TaskTokens(), asked(world, given, net)
    with torch.inference_mode():
        found = baseline.pictures(query)
        assert baseline.pictures(query) == found, "the same numbers give the same bytes"
        one_by_one = [net.encoder.asked(frame[None])[1] for frame in Alone(given.frames.array).pixels]
    assert set(found) == {"attention.svg", "attention.png", "attention.csv"}
    assert found["attention.svg"].startswith(b"<?xml")
    assert found["attention.png"].startswith(b"\x89PNG")
    numbers = table(found["attention.csv"])
    assert numbers.shape == (2, 3, 3)
    np.testing.assert_allclose(numbers.sum(2), 1, atol=1e-5)
    expected = torch.stack([torch.stack(layers)[:, 0] for layers in one_by_one]).mean(0).numpy()
    np.testing.assert_allclose(numbers, expected, atol=1e-5)
    assert expected.std() > 1e-3
    head = [line.rsplit(",", 1)[0] for line in found["attention.csv"].decode().splitlines()[:3]]
    assert head == ["layer,token,attends_to", "1,va,va", "1,va,expression"]


def test_the_first_layer_asks_before_it_has_seen_a_frame_and_the_second_after(data: Make) -> None:
    given = faces(data)
    _, net = ready(given)
    shaken(net)
    encoder: TokenEncoder = net.encoder
    first, second = encoder.asked(Alone(given.frames.array).pixels)[1]
    assert first.std(0).max() < 1e-6
    assert second.std(0).max() > 1e-4


@pytest.mark.parametrize("options", [{"tokens": "none"}, {"self_attention": False}, {"separate": True}])
def test_where_no_tokens_meet_there_is_no_picture(data: Make, world: Make, options: dict[str, Any]) -> None:
    given = faces(data)
    _, net = ready(given, **options)
    with pytest.raises(RequestError, match="no tokens attend to each other here") as error:
        TaskTokens().pictures(asked(world, given, net))
    assert "\n" not in str(error.value)


def test_22_tokens_have_a_picture(data: Make) -> None:
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(22), (2, 22))
    assert set(figures.attention(shares, [f"au{i}" for i in range(22)], title="t")) == {"svg", "png", "csv"}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store in which the transformer and a control were evaluated."""
    root: Path = tmp_path_factory.mktemp("kept")
    small = ["task.dataset.synth.clips=12", "task.dataset.synth.frames=[20,24]", "task.frames.size=16", "trainer.epochs=1"]
    arms = {"mtt": ["baseline=mtt"], "mean_label": ["baseline=mean_label"]}
    sweep = plan.Sweep("s", "", arms, {}, ["task=abaw_mtl", "tracker=none", *small])
    made = plan.build(sweep, snapshot_of=lambda node, _: snapshot.take(node, root / "cache"))
    for job in made.jobs.values():
        assert evaluation.run(job, Store(root / "store")) == evaluation.Outcome(made=1)
    return root


def exported(harness: Run, root: Path, arm: str, *more: str) -> Any:
    (name,) = Store(root / "store").records().filter(arm=arm)["evaluation"]
    return harness("export", name, "--what", "pictures", "--to", str(root / "pictures"), "--output-dir", str(root), *more)


def test_an_evaluation_in_the_store_is_drawn(harness: Run, kept: Path) -> None:
    done = exported(harness, kept, "mtt")
    assert done.returncode == 0, done.stderr
    assert {file.name for file in (kept / "pictures").iterdir()} == {"attention.svg", "attention.png", "attention.csv"}
    numbers = table((kept / "pictures" / "attention.csv").read_bytes())
    assert numbers.shape == (2, 3, 3)
    np.testing.assert_allclose(numbers.sum(2), 1, atol=1e-5)
    control = exported(harness, kept, "mean_label")
    assert control.returncode == 2
    assert "draws no pictures" in control.stderr
    assert len(control.stderr.splitlines()) == 1


def test_what_is_gone_or_cannot_be_is_said_in_one_line(harness: Run, kept: Path) -> None:
    for more, line in {("--what", "picture"): "did you mean 'pictures'", ("task.layout=single",): "a picture has no rows"}.items():
        done = exported(harness, kept, "mtt", *more)
        assert done.returncode == 2
        assert line in done.stderr
    (snapshots,) = (kept / "cache").glob("snapshots")
    snapshots.rename(kept / "moved")
    done = exported(harness, kept, "mtt")
    (kept / "moved").rename(snapshots)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the frames of ")
    assert len(done.stderr.splitlines()) == 1


if __name__ == "__main__":
    _worker(Path(sys.argv[1]))

"""A multi-task transformer whose tasks are tokens, "MTT with uncertainty" (Tallec, Bonnard, Dapogny, Bailly; arXiv 2208.03506).

A reconstruction: neither its code nor its numbers are public. Known from the abstract are the setting (valence and arousal, expressions and
action units learned jointly from single faces), a transformer with a token for each task, which is to model how tasks are alike, and losses
weighted by uncertainty, because the annotations differ in how noisy they are. Ours, because nobody says: the backbone, how many tokens,
layers and how wide, the position code, the form of every loss and of the uncertainty, and every setting of training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines import backbones, figures, losses
from baselines.supervised import OBJECTIVE, OUTPUT, Supervised, SupervisedStage
from harness import training
from harness.baseline import Data, Previous, Query, Step
from harness.errors import RequestError, did_you_mean
from harness.recomputing import recomputed
from harness.task import kind_of

TOKENS = ("task", "output", "none")
GRANULARITIES = ("task", "dimension", "output")
GROUPS = {"affect": "va", "expression": "expression", "occurrence": "au", "intensity": "intensity"}
"""Kind of a target → the task it belongs to, in the order of the tokens and losses."""

MOST = 5.0
"""The predicted logarithm of a variance stays between minus this and this, by a hyperbolic tangent."""


class Layer(nn.Module):
    """Tokens attend to each other, then to the image, then each passes a small network; normalised before each (pre-norm).

    Nothing in it depends on other frames, and nothing is dropped at random: it runs on the slice of a worker, where what is drawn would
    differ with their number.

    Args:
        dim: Of a token, and of a cell of the image.
        heads: Of the attention.
        mlp: Width of the small network, as a multiple of ``dim``.
        self_attention: Without it no token knows of the others (a control).
    """

    def __init__(self, *, dim: int, heads: int, mlp: int, self_attention: bool) -> None:
        super().__init__()
        self.between = nn.MultiheadAttention(dim, heads, batch_first=True) if self_attention else None
        self.before = nn.LayerNorm(dim) if self_attention else None
        self.image = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.before_image = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, mlp * dim), nn.GELU(), nn.Linear(mlp * dim, dim))

    def forward(self, tokens: Tensor, cells: Tensor, code: Tensor) -> tuple[Tensor, Tensor | None]:
        """What ``(b, t, dim)`` tokens become, and ``(b, t, t)`` what each (row) took of each, the mean of the heads.

        Args:
            tokens: Before the layer.
            cells: ``(b, n, dim)`` of the image.
            code: ``(n, dim)``, of where they are; it is looked for and not taken.
        """
        weights: Tensor | None = None
        if self.between is not None and self.before is not None:
            query = self.before(tokens)
            told, weights = self.between(query, query, query)
            tokens = tokens + told
        tokens = tokens + self.image(self.before_image(tokens), cells + code, cells, need_weights=False)[0]
        return tokens + self.mlp(tokens), weights


class TokenEncoder(nn.Module):
    """The last map of a backbone, asked by learned tokens.

    Before a second layer tokens have not seen the image when they attend to each other, so one layer has no use of that.

    Args:
        backbone: With ``maps`` and ``map_width``; see :func:`baselines.backbones.build`.
        tokens: How many.
        dim, layers, heads, mlp, self_attention: See :class:`Layer`.
    """

    def __init__(self, backbone: Any, *, tokens: int, dim: int, layers: int, heads: int, mlp: int, self_attention: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.project = nn.Conv2d(backbone.map_width, dim, 1)
        self.tokens = nn.Parameter(torch.randn(tokens, dim) * 0.02)
        self.layers = nn.ModuleList(Layer(dim=dim, heads=heads, mlp=mlp, self_attention=self_attention) for _ in range(layers))
        self.last = nn.LayerNorm(dim)

    def forward(self, frames: Tensor) -> Tensor:
        """``(b, channels, height, width)`` to ``(b, tokens * dim)``."""
        return self.asked(frames)[0].flatten(1)

    def asked(self, frames: Tensor) -> tuple[Tensor, list[Tensor]]:
        """``(b, tokens, dim)``, and of each layer that has it the ``(b, tokens, tokens)`` attention of tokens to tokens."""
        maps = self.project(self.backbone.maps(frames))  # not normalised: how strongly a cell shows something would be lost
        code = position_code(*maps.shape[1:]).to(maps).flatten(1).T
        cells = maps.flatten(2).transpose(1, 2)
        tokens, attention = self.tokens.expand(len(frames), -1, -1), []
        for layer in self.layers:
            tokens, weights = recomputed(layer, tokens, cells, code)
            if weights is not None:
                attention.append(weights)
        return self.last(tokens), attention


class Pooled(nn.Module):
    """A backbone's embedding in the place of tokens, as of the plain network (a control)."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, frames: Tensor) -> Tensor:
        """``(b, channels, height, width)`` to ``(b, dim)``."""
        return F.relu(self.backbone(frames))


class TaskNet(nn.Module):
    """An encoder of frames to tokens, and a linear head a token.

    Args:
        encoder: ``(b, channels, height, width)`` to ``(b, tokens * dim)``.
        tokens: Token → the targets its head gives, each with how many numbers; together, in their order, those of every target.
        dim: Of a token.
        dropout: Before the heads.
        heteroscedastic: Beside them, heads for the logarithm of the variance of each target a token gives.
    """

    def __init__(
        self, encoder: nn.Module, tokens: Mapping[str, Mapping[str, int]], *, dim: int, dropout: float, heteroscedastic: bool
    ) -> None:
        super().__init__()
        self.encoder, self.dropout, self.dim = encoder, nn.Dropout(dropout), dim
        self.heads = nn.ModuleDict(
            {token: nn.ModuleDict({target: nn.Linear(dim, width) for target, width in widths.items()}) for token, widths in tokens.items()}
        )
        self.spreads = nn.ModuleDict(
            {token: nn.ModuleDict({target: nn.Linear(dim, 1) for target in widths}) for token, widths in tokens.items()}
            if heteroscedastic
            else {}
        )
        for parameter in self.spreads.parameters():  # no sample is any surer than another at the beginning
            nn.init.zeros_(parameter)

    @property
    def apart(self) -> list[TaskNet]:
        """The networks of which no loss reaches two: this one."""
        return [self]

    def forward(self, embeddings: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What heads give of ``(b, tokens * dim)``, by target, and the logarithms of variances ``(b,)`` where they are learned.

        The first are values ``(b,)`` of affect and intensities, logits ``(b,)`` of action units and ``(b, classes)`` of expressions. Where
        each class has a token of its own, the expression's logarithm is the mean of theirs.
        """
        parts = self.dropout(embeddings.reshape(-1, len(self.heads), self.dim)).unbind(1)
        hidden = dict(zip(self.heads, parts, strict=True))
        raw = {target: torch.cat(values, 1) for target, values in _answers(self.heads, hidden).items()}
        spread = {target: torch.cat(values, 1).mean(1) for target, values in _answers(self.spreads, hidden).items()}
        return (
            {target: values if target == "expression" else values[:, 0] for target, values in raw.items()},
            {target: MOST * torch.tanh(values / MOST) for target, values in spread.items()},
        )

    def outputs(self, embeddings: Tensor) -> dict[str, Tensor]:
        """Predictions by target, see :class:`baselines.supervised.Supervised`."""
        raw: dict[str, Tensor] = self(embeddings)[0]
        return {target: OUTPUT[kind_of(target)](values) for target, values in raw.items()}


class Separate(nn.Module):
    """Networks of single tasks side by side, which share nothing (a control).

    Args:
        nets: Task → its network.
    """

    def __init__(self, nets: Mapping[str, TaskNet]) -> None:
        super().__init__()
        self.nets = nn.ModuleDict(dict(nets))
        self.widths = [len(net.heads) * net.dim for net in nets.values()]

    @property
    def apart(self) -> list[TaskNet]:
        """The networks, of which no loss reaches two."""
        return [net for net in self.nets.values() if isinstance(net, TaskNet)]

    def encoder(self, frames: Tensor) -> Tensor:
        """``(b, channels, height, width)`` to ``(b, …)``, what each makes of them beside each other."""
        return torch.cat([net.encoder(frames) for net in self.apart], 1)

    def outputs(self, embeddings: Tensor) -> dict[str, Tensor]:
        """Predictions by target, see :class:`baselines.supervised.Supervised`."""
        parts = zip(self.apart, torch.split(embeddings, self.widths, 1), strict=True)
        return {target: values for net, part in parts for target, values in net.outputs(part).items()}


class TokenStage(SupervisedStage):
    """Training on single frames, as of the plain network, with as many losses as the granularity says; missing labels are left out.

    ``task``: ``va``, ``expression``, ``au`` (and ``intensity``), each the mean of the losses of its targets that have a label in the
    batch; 0 where none has. ``dimension``: ``valence`` and ``arousal`` on their own. ``output``: every target on its own. Valence and
    arousal: 1 - CCC and a share of the squared error; expression and action units: weighted cross-entropies.

    Args:
        backbone: See :func:`baselines.backbones.build`.
        dim: Of a token; of the embedding without tokens.
        tokens: ``task`` (one a task), ``output`` (one a dimension of affect, expression and action unit), or ``none``: heads on the
            pooled feature of the backbone.
        layers, heads, mlp, self_attention: See :class:`TokenEncoder`; nothing without tokens.
        separate: A network of its own for each task, trained side by side.
        granularity: ``task``, ``dimension`` or ``output``.
        heteroscedastic: Predict s = log σ² of every target for each frame, in (-5, 5), and weigh its losses with it: e^(-s) L + s / 2,
            where L is a cross-entropy, or half the squared error (papers 3.3). 1 - CCC is not of a frame and stays as it is, so that with
            ``mse: 0`` valence and arousal have no s. Losses can be negative then.
        supervised: The other arguments of :class:`baselines.supervised.SupervisedStage`: ``dropout`` (before the heads), ``smoothing``,
            ``class_weights``, ``presence_weights``, ``mse``.

    Raises:
        RequestError: An option that is none, or sizes that do not fit.
    """

    where = "stages.tokens"

    def __init__(
        self,
        *,
        backbone: Mapping[str, Any],
        dim: int = 64,
        tokens: str = "task",
        layers: int = 2,
        heads: int = 4,
        mlp: int = 2,
        self_attention: bool = True,
        separate: bool = False,
        granularity: str = "task",
        heteroscedastic: bool = False,
        **supervised: Any,
    ) -> None:
        super().__init__(backbone=backbone, dim=dim, **supervised)
        for name, chosen, known in (("tokens", tokens, TOKENS), ("granularity", granularity, GRANULARITIES)):
            if chosen not in known:
                raise RequestError(f"{name} is {chosen!r}", where=f"{self.where}.{name}", remedy=did_you_mean(str(chosen), known))
        for name, number in {"dim": dim, "layers": layers, "heads": heads, "mlp": mlp}.items():
            if not isinstance(number, int) or number < 1:
                raise RequestError(f"{name} is {number!r}", where=f"{self.where}.{name}", remedy="give a whole number from 1 on")
        if tokens != "none" and (dim % heads or dim % 4):
            remedy = f"give a multiple of {np.lcm(heads, 4)}: of the heads, and of 4 for the position code"
            raise RequestError(f"tokens of {dim} for {heads} heads", where=f"{self.where}.dim", remedy=remedy)
        self.tokens, self.layers, self.heads, self.mlp, self.self_attention = tokens, layers, heads, mlp, self_attention
        self.separate, self.granularity, self.heteroscedastic = separate, granularity, heteroscedastic

    def setup(self, train: Data, validation: Data, targets: tuple[str, ...], classes: tuple[str, ...], previous: Previous | None) -> None:
        super().setup(train, validation, targets, classes, previous)
        self.classes = classes
        self.groups = {
            group: own for kind, group in GROUPS.items() if (own := tuple(target for target in targets if kind_of(target) == kind))
        }
        self.parts = {name: part for group, own in self.groups.items() for name, part in self._parts(group, own).items()}

    def _parts(self, group: str, own: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        """Loss → the targets it is the mean of, of one task."""
        single = self.granularity == "output" or (self.granularity == "dimension" and group == "va")
        return {target: (target,) for target in own} if single else {group: own}

    def module(self) -> TaskNet | Separate:
        if not self.separate:
            return self._net(self.groups)
        return Separate({group: self._net({group: own}) for group, own in self.groups.items()})

    def _net(self, groups: Mapping[str, Sequence[str]]) -> TaskNet:
        pooled = self.tokens == "none"
        backbone = backbones.build(self.backbone, channels=self.channels, dim=self.dim if pooled else None)
        tokens = self._tokens(groups)
        encoder: nn.Module = Pooled(backbone)
        if not pooled:
            sizes = {"dim": self.dim, "layers": self.layers, "heads": self.heads, "mlp": self.mlp}
            encoder = TokenEncoder(backbone, tokens=len(tokens), self_attention=self.self_attention, **sizes)
        return TaskNet(encoder, tokens, dim=self.dim, dropout=self.dropout, heteroscedastic=self.heteroscedastic)

    def _tokens(self, groups: Mapping[str, Sequence[str]]) -> dict[str, dict[str, int]]:
        """Token → target → how many numbers its head gives of it."""
        of_group = {group: {target: self.widths[target] for target in own} for group, own in groups.items()}
        if self.tokens == "task":
            return of_group
        every = {target: width for widths in of_group.values() for target, width in widths.items()}
        if self.tokens == "none":
            return {"pooled": every}
        return {name: {target: 1} for target in every for name in (self.classes if target == "expression" else (target,))}

    def losses(self, module: Any, step: Step) -> dict[str, Tensor]:
        frames = step.frames()
        raw: dict[str, Tensor] = {}
        spread: dict[str, Tensor] = {}
        for net in module.apart:
            of_net = net(step.gather(net.encoder(frames)))
            raw, spread = raw | of_net[0], spread | of_net[1]
        labels = {target: step.rows(known) for target, known in self.labels["train" if step.training else "validation"].items()}
        each = {target: self._loss(target, raw[target], known, spread.get(target)) for target, known in labels.items()}
        return {
            name: losses.mean_of_labelled([each[target] for target in own], [labels[target] for target in own])
            for name, own in self.parts.items()
        }

    def objectives(self) -> dict[str, str]:
        return {name: OBJECTIVE[kind_of(own[0])] for name, own in self.parts.items()}


class TaskTokens(Supervised):
    """Predicts from the tokens by their heads, and draws what tokens take of each other."""

    def pictures(self, query: Query) -> dict[str, bytes]:
        """Mean attention of tokens to tokens over the test frames, one matrix a layer: SVG, PNG and, of the numbers, CSV.

        Rows ask and sum to 1. The first layer asks before it has seen the image, so it is the same for every frame.

        Raises:
            RequestError: There are no tokens that attend to each other.
        """
        module = query.modules[-1]
        encoder = getattr(module, "encoder", None)
        if not isinstance(encoder, TokenEncoder) or len(module.heads) < 2 or encoder.layers[0].between is None:
            remedy = "choose an evaluation of a baseline with several tokens, self_attention=true and separate=false"
            raise RequestError("no tokens attend to each other here", where="EVALUATION", remedy=remedy)

        def attention(frames: Tensor) -> Tensor:
            return torch.stack(encoder.asked(frames)[1], 1).flatten(1)

        names = list(module.heads)
        found = training.embed(attention, query.test.frames, device=query.device)
        mean = found.mean(0, dtype=np.float64).reshape(-1, len(names), len(names))
        title = f"What the tokens of the tasks take of each other: mean over {len(found):,} frames"
        return {f"attention.{kind}": data for kind, data in figures.attention(mean, names, title=title).items()}


def _answers(heads: nn.ModuleDict, hidden: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
    """Target → the ``(b, width)`` of its heads, in the order of the tokens they sit on."""
    found: dict[str, list[Tensor]] = {}
    for token, of_token in heads.items():
        assert isinstance(of_token, nn.ModuleDict)
        for target, head in of_token.items():
            found.setdefault(target, []).append(head(hidden[token]))
    return found


def position_code(dim: int, rows: int, columns: int) -> Tensor:
    """``(dim, rows, columns)`` sines and cosines of where a cell is, half of them of the row, whatever the number of cells.

    Places run from 0 to 1 over the image, and waves from half a turn to 8 over it.
    """
    waves = torch.pi * torch.logspace(0, 4, dim // 4, base=2)

    def along(n: int) -> Tensor:
        angles = waves[:, None] * (torch.arange(n) + 0.5) / n
        return torch.cat([angles.sin(), angles.cos()])

    return torch.cat([along(rows)[:, :, None].expand(-1, -1, columns), along(columns)[:, None].expand(-1, rows, -1)])

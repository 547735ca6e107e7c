"""CLEF (Zhang et al., ICCV 2023, arXiv 2304.00058): contrast on pairs by activity, then recognition by similarity to the labels' texts.

A reconstruction: its code was never published. Known from the paper, its poster and its method figure are the idea (images of one activity
are positives, whoever is on them, because an activity was chosen to call up one emotion), the four losses and what they join (image and
image, image and activity text; image and label name, name and description), the prompts and the table of switches. Ours, because nobody
says: the exact form of each loss (supervised contrast; both ways between images and texts; for action units a logistic loss on the
cosine), temperatures, projections, the image encoder, the optimiser and all texts (``configs/texts``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines import backbones, contrast, positives, texts
from baselines.positives import Strategy
from baselines.supervised import OUTPUT, SupervisedStage
from harness.baseline import Baseline, Data, Previous, Query, Stage, Step
from harness.config import instantiate
from harness.errors import RequestError
from harness.task import kind_of
from harness.weighting import LIKELIHOOD


class Towers(nn.Module):
    """Images and texts as unit vectors of one space.

    Args:
        encoder: ``(b, channels, height, width)`` to ``(b, dim)``.
        tower: Of texts, to ``(n, projection)``.
        dim: Of an embedding, which is what probes and predictions are made from.
        projection: Of the common space.
    """

    def __init__(self, encoder: nn.Module, tower: texts.TextTower, *, dim: int, projection: int) -> None:
        super().__init__()
        self.encoder, self.tower = encoder, tower
        self.project = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, projection))

    def images(self, embeddings: Tensor) -> Tensor:
        """``(b, dim)`` embeddings to ``(b, projection)``."""
        return F.normalize(self.project(F.relu(embeddings)).float(), dim=-1)

    def texts(self, prepared: Tensor) -> Tensor:
        """What ``tower.prepare`` made of n texts to ``(n, projection)``."""
        return F.normalize(self.tower(prepared).float(), dim=-1)


class ContrastStage(Stage):
    """The first stage: losses ``image_image`` and ``image_text`` (the activity's), each of which can be switched off.

    Args:
        backbone: See :func:`baselines.backbones.build`.
        positives: Which images belong together; see :mod:`baselines.positives`.
        texts: See :class:`baselines.texts.Texts`.
        text_encoder: See :func:`baselines.texts.build`.
        dim: Of an embedding.
        projection: Of the space in which images and texts meet.
        temperature: Above 0.
        image_image: Contrast images with images (PI in the paper's table).
        image_text: Contrast images with the texts of activities (PA).
        each: Images of one kind that meet in a batch.
    """

    def __init__(
        self,
        *,
        backbone: Mapping[str, Any],
        positives: Mapping[str, Any],
        texts: Mapping[str, Any],
        text_encoder: Mapping[str, Any],
        dim: int = 256,
        projection: int = 128,
        temperature: float = 0.1,
        image_image: bool = True,
        image_text: bool = True,
        each: int = 4,
    ) -> None:
        if not temperature > 0:
            raise RequestError(f"a temperature of {temperature}", where="stages.contrast.temperature", remedy="give a number above 0")
        if not (image_image or image_text):
            remedy = "set image_image or image_text, or leave the stage out"
            raise RequestError("nothing is contrasted", where="stages.contrast", remedy=remedy)
        self.backbone, self.text_encoder, self.texts = backbone, text_encoder, texts
        self.strategy: Strategy = instantiate(positives)
        self.dim, self.projection, self.temperature, self.each = dim, projection, temperature, each
        self.image_image, self.image_text = image_image, image_text

    def setup(self, train: Data, validation: Data, targets: tuple[str, ...], classes: tuple[str, ...], previous: Previous | None) -> None:
        parts = {"train": train, "validation": validation}
        self.channels = train.frames.shape[3]
        self.tables = {part: positives.Table.of(data, classes=classes) for part, data in parts.items()}
        told = texts.Texts(**self.texts)
        needs = self.image_text or isinstance(self.strategy, positives.TextSimilarity)
        if self.image_text and not self.tables["train"].activities:
            remedy = "set stages.contrast.image_text=false, or choose a dataset that has activities"
            raise RequestError("the samples have no activity", where="stages.contrast.image_text", remedy=remedy)
        self.prepared = {}
        for part, table in self.tables.items():
            if needs and table.activities:
                prompts = [told.activity(activity) for activity in table.activities]
                self.prepared[part] = texts.build(self.text_encoder, self.projection).prepare(prompts)
                if isinstance(self.strategy, positives.TextSimilarity):
                    similarity = _alike(self.text_encoder, self.projection, self.prepared[part])
                    self.tables[part] = dataclasses.replace(table, similarity=similarity)
        self.strategy.key(self.tables["train"])  # what a strategy lacks, it says before training

    def module(self) -> Towers:
        encoder = backbones.build(self.backbone, channels=self.channels, dim=self.dim)
        return Towers(encoder, texts.build(self.text_encoder, self.projection), dim=self.dim, projection=self.projection)

    def batches(self, part: str, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        yield from positives.batches(self.tables[part], self.strategy, size, rng, each=self.each)

    def losses(self, module: Any, step: Step) -> dict[str, Tensor]:
        part = "train" if step.training else "validation"
        both = module.images(module.encoder(torch.cat([step.frames(0, view=0), step.frames(0, view=1)])))
        first, second = (step.gather(half) for half in both.chunk(2))
        rows, table = step.index[:, 0], self.tables[part]
        found: dict[str, Tensor] = {}
        if self.image_image:
            weights = torch.from_numpy(self.strategy.weights(table, rows)).to(step.device)
            found["image_image"] = contrast.image_image(first, second, weights, self.temperature)
        if self.image_text:
            place = torch.from_numpy(table.activity[rows]).to(step.device)
            known = self.prepared[part].to(step.device) if part in self.prepared else None
            found["image_text"] = first.sum() * 0
            if known is not None:
                found["image_text"] = contrast.image_text(first, module.texts(known), place, self.temperature)
        return found

    def objectives(self) -> dict[str, str]:
        used = {"image_image": self.image_image, "image_text": self.image_text}
        return {name: LIKELIHOOD for name, is_used in used.items() if is_used}

    def encode(self, module: Any, frames: Tensor) -> Tensor:
        embeddings: Tensor = module.encoder(frames)
        return embeddings


class Similarity(Towers):
    """Recognition by similarity to the texts of labels; valence, arousal and intensities, which have no text, by linear heads.

    Args:
        encoder, tower, dim, projection: See :class:`Towers`.
        heads: Target → width, of the targets that have a linear head.
        told: Names and descriptions.
        names, descriptions: Which of them a label's prototype is made of; with both the name's, and descriptions are a loss.
        temperature: Of the softmax over expressions and the logistic of action units at the beginning; it is learned.
        dropout: Of embeddings.
    """

    def __init__(
        self,
        encoder: nn.Module,
        tower: texts.TextTower,
        *,
        dim: int,
        projection: int,
        heads: Mapping[str, int],
        told: texts.Texts,
        names: bool,
        descriptions: bool,
        temperature: float,
        dropout: float,
    ) -> None:
        super().__init__(encoder, tower, dim=dim, projection=projection)
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleDict({target: nn.Linear(dim, width) for target, width in heads.items()})
        # of shape (1,), since DeepSpeed cannot broadcast a scalar
        self.scale = nn.Parameter(-torch.tensor([temperature]).log())
        self.bias = nn.Parameter(torch.zeros(1))  # of action units: a cosine of 0 is no probability of a half
        self.told, self.names, self.descriptions = told, names, descriptions
        self._prepared: dict[tuple[bool, str], Tensor] = {}

    def prototypes(self, labels: Sequence[str], *, named: bool | None = None) -> Tensor:
        """``(labels, projection)``: the mean of each label's prompts, by name or by description; by default as the switches say."""
        by_name = self.names if named is None else named
        device = self.bias.device
        prompts = [self._prompts(label, by_name).to(device) for label in labels]
        longest = max(ids.shape[1] for ids in prompts)
        together = torch.cat([F.pad(ids, (0, longest - ids.shape[1])) for ids in prompts])
        counts = [len(ids) for ids in prompts]
        means = torch.stack([part.mean(0) for part in torch.split(self.texts(together), counts)])
        return F.normalize(means, dim=-1)

    def raw(self, embeddings: Tensor, target: str, classes: Sequence[str]) -> Tensor:
        """Logits ``(b,)`` of an action unit, ``(b, classes)`` of the expressions, values ``(b,)`` of what is measured."""
        embeddings = self.dropout(embeddings)
        if target in self.heads:
            values: Tensor = self.heads[target](F.relu(embeddings))
            return values if target == "expression" else values[:, 0]
        kind = kind_of(target)
        if kind not in ("expression", "occurrence") or not (self.names or self.descriptions):
            remedy = "it predicts what it was taught, and by names or descriptions any expression and action unit"
            raise RequestError(f"this fit cannot predict {target}", where="stages.similarity", remedy=remedy)
        cosine = self.images(embeddings) @ self.prototypes(_labels_of(target, classes)).T * self.scale.exp()
        return cosine if kind == "expression" else cosine[:, 0] + self.bias

    def _prompts(self, label: str, by_name: bool) -> Tensor:
        if (by_name, label) not in self._prepared:
            found = self.told.name(label) if by_name else self.told.describe(label)
            self._prepared[by_name, label] = self.tower.prepare(found)
        return self._prepared[by_name, label]


class SimilarityStage(SupervisedStage):
    """The second stage: one loss a target, and ``names_descriptions`` where both are used.

    It begins with the encoder, the projection and the text tower of the stage before, where there is one. Without names and descriptions
    it is a plain network with linear heads on that encoder (the rows of the paper's table with neither N nor D).

    Args:
        backbone, texts, text_encoder, dim, projection: As of :class:`ContrastStage`; those of a stage before must be the same.
        names: Images are contrasted with the names of labels (N).
        descriptions: Names with their descriptions (D); without names, images with the descriptions.
        temperature: Above 0.
        supervised: The other arguments of :class:`baselines.supervised.SupervisedStage`: ``dropout``, ``smoothing`` …
    """

    where = "stages.similarity"

    def __init__(
        self,
        *,
        backbone: Mapping[str, Any],
        texts: Mapping[str, Any],
        text_encoder: Mapping[str, Any],
        dim: int = 256,
        projection: int = 128,
        names: bool = True,
        descriptions: bool = True,
        temperature: float = 0.1,
        **supervised: Any,
    ) -> None:
        if not temperature > 0:
            raise RequestError(f"a temperature of {temperature}", where="stages.similarity.temperature", remedy="give a number above 0")
        super().__init__(backbone=backbone, dim=dim, **supervised)
        self.texts, self.text_encoder, self.projection = texts, text_encoder, projection
        self.names, self.descriptions, self.temperature = names, descriptions, temperature

    def setup(self, train: Data, validation: Data, targets: tuple[str, ...], classes: tuple[str, ...], previous: Previous | None) -> None:
        super().setup(train, validation, targets, classes, previous)
        self.classes, self.previous = classes, previous
        self.told = texts.Texts(**self.texts)
        texted = ("expression", "occurrence") if self.names or self.descriptions else ()
        self.headed = {target: width for target, width in self.widths.items() if kind_of(target) not in texted}
        self.named = [label for target in targets if target not in self.headed for label in _labels_of(target, classes)]

    def module(self) -> Similarity:
        encoder = backbones.build(self.backbone, channels=self.channels, dim=self.dim)
        net = Similarity(
            encoder,
            texts.build(self.text_encoder, self.projection),
            dim=self.dim,
            projection=self.projection,
            heads=self.headed,
            told=self.told,
            names=self.names,
            descriptions=self.descriptions,
            temperature=self.temperature,
            dropout=self.dropout,
        )
        if self.previous is not None:
            before = {name: value for name, value in self.previous.module.state_dict().items() if not name.startswith("heads.")}
            try:
                net.load_state_dict(before, strict=False)
            except RuntimeError:
                remedy = "give both stages the same backbone, dim, projection and text_encoder"
                raise RequestError("the stage before does not fit this one", where="stages.similarity", remedy=remedy) from None
        return net

    def losses(self, module: Any, step: Step) -> dict[str, Tensor]:
        embeddings = step.gather(module.encoder(step.frames()))
        part = "train" if step.training else "validation"
        found = {
            target: self._loss(target, module.raw(embeddings, target, self.classes), step.rows(labels))
            for target, labels in self.labels[part].items()
        }
        if self.names and self.descriptions and self.named:
            names, descriptions = (module.prototypes(self.named, named=by_name) for by_name in (True, False))
            found["names_descriptions"] = contrast.text_text(names, descriptions, self.temperature)
        return found

    def objectives(self) -> dict[str, str]:
        texts_meet = self.names and self.descriptions and self.named
        return super().objectives() | ({"names_descriptions": LIKELIHOOD} if texts_meet else {})


class Clef(Baseline):
    """Predicts from embeddings by similarity to texts, also labels that it was not taught (zero-shot)."""

    def predict(self, query: Query) -> dict[str, np.ndarray]:
        module, embeddings = query.modules[-1], torch.from_numpy(query.embeddings).to(query.device)
        return {
            target: OUTPUT[kind_of(target)](module.raw(embeddings, target, query.classes)).double().cpu().numpy()
            for target in query.targets
        }


def _labels_of(target: str, classes: Sequence[str]) -> list[str]:
    """What is told apart by texts for a target."""
    return list(classes) if target == "expression" else [target]


def _alike(node: Mapping[str, Any], dim: int, prepared: Tensor) -> np.ndarray:
    """``(n, n)`` cosine of texts by their encoder as it is before training, the same in every process."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        vectors = F.normalize(texts.build(node, dim)(prepared).float(), dim=-1)
    similarity: np.ndarray = (vectors @ vectors.T).numpy()
    return similarity

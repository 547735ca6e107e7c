"""Texts for images to be compared with, and towers that embed them: a small one learned from nothing, and any text model of
``transformers``, frozen. A text is only ever data: it is neither formatted nor evaluated, whatever is in it.
"""

from __future__ import annotations

import os
import re
import unicodedata
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from harness.errors import RequestError, did_you_mean

FORMAT = 1
"""Raised whenever the same model and text would give another embedding."""

_KEYS = ("names", "descriptions", "name_templates", "description_templates", "activities")
_BATCH = 64  # texts that a model embeds at once
_TOKENS = 256  # of a text, at most, whatever the model could take: labels and activities are short
_PROBE = "a face"  # embedded to learn how wide a model's embeddings are


class Texts:
    """What labels and activities are called and how they look, in words.

    Args:
        names: Label (``au12``, ``happy`` …) → its name.
        descriptions: Label → one or more texts that say how it looks.
        name_templates, description_templates: Texts with one ``{}``, where a name or description goes.
        activities: An activity as it stands in the samples → a longer text for it.
        unknown: Refused.

    Raises:
        RequestError: An unknown key, a text that is empty or none, a template without its one ``{}`` or with another field.
    """

    def __init__(
        self,
        *,
        names: Mapping[str, str] | None = None,
        descriptions: Mapping[str, str | Sequence[str]] | None = None,
        name_templates: str | Sequence[str] = ("{}",),
        description_templates: str | Sequence[str] = ("{}",),
        activities: Mapping[str, str] | None = None,
        **unknown: Any,
    ) -> None:
        for key in unknown:
            raise RequestError(f"texts have no {key!r}", where=f"texts.{key}", remedy=did_you_mean(key, _KEYS))
        self._names = {label: _one(text, f"texts.names.{label}") for label, text in _pairs(names, "texts.names")}
        self._descriptions = {
            label: _several(texts, f"texts.descriptions.{label}") for label, texts in _pairs(descriptions, "texts.descriptions")
        }
        self._activities = {what: _one(text, f"texts.activities.{what}") for what, text in _pairs(activities, "texts.activities")}
        self._name_templates = _templates(name_templates, "texts.name_templates")
        self._description_templates = _templates(description_templates, "texts.description_templates")

    def name(self, target_or_class: str) -> list[str]:
        """Prompts of a label's name, one a template.

        Raises:
            RequestError: It has none.
        """
        return _prompts(self._name_templates, [_given(self._names, target_or_class, "names", "name")])

    def describe(self, target_or_class: str) -> list[str]:
        """Prompts of a label's descriptions: each description in each template, one description after the other.

        Raises:
            RequestError: It has none.
        """
        return _prompts(self._description_templates, _given(self._descriptions, target_or_class, "descriptions", "description"))

    def activity(self, activity: str | None) -> str:
        """The text of an activity: its longer one where there is one, else itself.

        Raises:
            RequestError: It is null or blank.
        """
        if activity is None or not activity.strip():
            remedy = "leave out samples without one, or give every task a text in the dataset's read.activities"
            raise RequestError(f"an activity without a text: {activity!r}", where="activity of the samples", remedy=remedy)
        return self._activities.get(activity, activity)


class TextTower(nn.Module, ABC):
    """From texts to vectors, in two steps: what never changes is prepared once, what is learned is computed in every step."""

    @abstractmethod
    def prepare(self, texts: Sequence[str]) -> Tensor:
        """What :meth:`forward` takes for n texts, n first, on the CPU. Rows may be taken from it and come in any order."""

    @abstractmethod
    def forward(self, prepared: Tensor) -> Tensor:
        """``(n, dim)``, not normalised."""


def build(node: Mapping[str, Any], dim: int) -> TextTower:
    """A new tower.

    Args:
        node: ``name`` (``small`` or ``transformers``) and the options of :class:`Words` or :class:`Frozen`.
        dim: Of what it makes of a text.

    Raises:
        RequestError: An unknown name or option, or a model that cannot be loaded.
    """
    options = dict(node)
    name = options.pop("name", None)
    if name not in _TOWERS:
        raise RequestError(f"no text encoder is called {name!r}", where="text_encoder.name", remedy=did_you_mean(str(name), _TOWERS))
    try:
        tower: TextTower = _TOWERS[name](dim, **options)
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is None:  # the call itself, not what it does
            raise RequestError(f"text encoder {name}: {error}", where="text_encoder") from error
        raise
    return tower


class Words(TextTower):
    """The mean of a text's word vectors, normalised, and one linear layer: texts that share words are alike before any training.

    A word is a run of letters and digits, in lower case. Its vector is found by a hash, so that no vocabulary has to be kept and every
    process agrees; two words may share one. A text without any word has a vector of its own.

    Args:
        dim: Of what it makes of a text.
        buckets: Word vectors.
        width: Of a word vector.
        longest: Words of a text that count; what comes after them does not.
    """

    def __init__(self, dim: int, *, buckets: int = 4096, width: int = 128, longest: int = 256) -> None:
        super().__init__()
        for key, value in {"buckets": buckets, "width": width, "longest": longest}.items():
            if not isinstance(value, int) or value < 1:
                raise RequestError(f"{key} of {value!r}", where=f"text_encoder.{key}", remedy="choose a whole number from 1")
        self.buckets, self.longest = buckets, longest
        self.words = nn.Embedding(buckets + 1, width, padding_idx=0)
        self.wordless = nn.Parameter(torch.randn(width))
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, dim)

    def prepare(self, texts: Sequence[str]) -> Tensor:
        """``(n, longest of them)`` int64: of each word its place among the word vectors, then zeros."""
        rows = [[_bucket(word, self.buckets) for word in _words(text)[: self.longest]] for text in texts]
        prepared = torch.zeros(len(rows), max([1, *map(len, rows)]), dtype=torch.int64)
        for row, places in zip(prepared, rows, strict=True):
            row[: len(places)] = torch.tensor(places, dtype=torch.int64)
        return prepared

    def forward(self, prepared: Tensor) -> Tensor:
        count = (prepared != 0).sum(1, keepdim=True)
        mean = self.words(prepared).sum(1) / count.clamp_min(1)  # the vector of 0 is 0
        told: Tensor = self.linear(self.norm(torch.where(count > 0, mean, self.wordless)))
        return told


class Frozen(TextTower):
    """A text model of ``transformers`` that stays as it is, and one linear layer that learns.

    CLIP's embedding is that of its projection, other models of images and texts have theirs, and of a model of texts alone it is the
    mean over the tokens. It is computed once a model and text, and kept in the user's cache folder (``XDG_CACHE_HOME``): the model
    is loaded only where a text is new, and is no part of the tower's weights.

    Args:
        dim: Of what it makes of a text.
        model: A name on the Hugging Face hub or a local folder, with its tokenizer.
        download: Fetch what is not on this machine, which ``HF_HUB_OFFLINE`` forbids all the same.
    """

    def __init__(self, dim: int, *, model: str, download: bool = False) -> None:
        super().__init__()
        self.model, self.local = model, not download
        self.cache = _cache() / _model_digest(model, not download)
        self.width: int | None = None
        self.width = self.prepare([_PROBE]).shape[1]
        self.linear = nn.Linear(self.width, dim)

    def prepare(self, texts: Sequence[str]) -> Tensor:
        """``(n, width)`` float32: the model's own embeddings.

        Raises:
            RequestError: The model cannot be loaded, where a text is new.
        """
        clean = [_clean(text) for text in texts]
        known = {text: self._kept(text) for text in dict.fromkeys(clean)}
        new = [text for text, embedding in known.items() if embedding is None]
        if new:
            computed = dict(zip(new, _embeddings(self.model, self.local, new), strict=True))
            for text, embedding in computed.items():
                self._keep(text, embedding)
            known |= computed
        found = [vector for text in clean if (vector := known[text]) is not None]
        return torch.stack(found) if found else torch.zeros(0, self.width or 0)

    def forward(self, prepared: Tensor) -> Tensor:
        told: Tensor = self.linear(prepared)
        return told

    def _file(self, text: str) -> Path:
        return self.cache / f"{blake2b(text.encode(), digest_size=16).hexdigest()}.safetensors"

    def _kept(self, text: str) -> Tensor | None:
        """The embedding on disk; None where there is none or it is no such thing."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            embedding = load_file(self._file(text))["embedding"]
        except (OSError, SafetensorError, KeyError):
            return None
        whole = embedding.dim() == 1 and embedding.dtype == torch.float32 and bool(embedding.isfinite().all())
        return embedding if whole and self.width in (None, len(embedding)) else None

    def _keep(self, text: str, embedding: Tensor) -> None:
        """Where it cannot be written, it is computed again next time."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        path = self._file(text)
        partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex}")  # a home that machines share has processes of one number
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({"embedding": embedding.clone()}, partial)
            partial.replace(path)
        except (OSError, SafetensorError):
            with suppress(OSError):
                partial.unlink()


_TOWERS: dict[str, Any] = {"small": Words, "transformers": Frozen}


def _one(text: Any, where: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise RequestError(f"{text!r} is no text", where=where, remedy="write some words")
    return text.strip()


def _several(texts: Any, where: str) -> list[str]:
    if isinstance(texts, str):
        return [_one(texts, where)]
    if not isinstance(texts, Sequence) or not texts:
        raise RequestError(f"{texts!r} is no list of texts", where=where, remedy="give one or more texts")
    return [_one(text, where) for text in texts]


def _pairs(node: Any, where: str) -> list[tuple[str, Any]]:
    if node is not None and not isinstance(node, Mapping):
        raise RequestError(f"{node!r} has no keys", where=where, remedy="write label: text")
    return [(str(key), value) for key, value in (node or {}).items()]


def _templates(templates: Any, where: str) -> list[str]:
    found = _several(templates, where)
    for template in found:
        rest = template.replace("{}", "", 1)
        if rest == template or "{" in rest or "}" in rest:
            raise RequestError(
                f"{template!r} is no template", where=where, remedy="write {} once, where the text goes, and no other braces"
            )
    return found


def _prompts(templates: Sequence[str], texts: Sequence[str]) -> list[str]:
    return [template.replace("{}", text) for text in texts for template in templates]


def _given(texts: Mapping[str, Any], label: str, key: str, what: str) -> Any:
    if label not in texts:
        raise RequestError(f"{label} has no {what}", where=f"texts.{key}.{label}", remedy="set it to a text, in a YAML of your own")
    return texts[label]


def _clean(text: str) -> str:
    """Text that can be encoded: lone surrogates, of file names, become question marks."""
    return text.encode("utf-8", "replace").decode()


def _words(text: str) -> list[str]:
    # One way to write an accent: as two characters it would end a word.
    return re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).lower())


def _bucket(word: str, buckets: int) -> int:
    """1 to ``buckets``; 0 is padding. Python's own hash differs from process to process."""
    return int.from_bytes(blake2b(_clean(word).encode(), digest_size=8).digest(), "little") % buckets + 1


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "harness" / "texts"


def _model_digest(model: str, local: bool) -> str:
    """Of a local folder's files, or of a name and the revision it stands for on this machine."""
    from transformers.utils.hub import cached_file

    with _loading(model, local):
        settings = cached_file(model, "config.json", local_files_only=local)
    digest = blake2b(f"{FORMAT}\0".encode(), digest_size=16)
    folder = Path(model)
    if folder.is_dir():
        for file in sorted(path for path in folder.iterdir() if path.is_file()):
            facts = file.stat()
            digest.update(f"{file.name}\0".encode("utf-8", "surrogateescape") + _content(str(file), facts.st_size, facts.st_mtime_ns))
    else:
        digest.update(f"{model}\0{Path(str(settings)).parent.name}".encode())  # the folder of a revision has its name
    return digest.hexdigest()


@lru_cache(maxsize=256)
def _content(path: str, size: int, changed: int) -> bytes:
    """A hash of a file's bytes, which are read once a process for as long as size and time stay the same."""
    digest = blake2b(digest_size=16)
    with Path(path).open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.digest()


def _embeddings(model: str, local: bool, texts: Sequence[str]) -> list[Tensor]:
    """``(width,)`` float32 for each text, on the CPU."""
    tokenizer, network = _load(model, local)
    config = network.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None) or _TOKENS
    longest = min(_TOKENS, positions, tokenizer.model_max_length)
    padding = 0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    # A tokenizer that adds no mark of its own makes nothing of an empty text; a model needs a token.
    rows = [torch.tensor(row or [padding]) for row in tokenizer(list(texts), truncation=True, max_length=longest)["input_ids"]]
    found: list[Tensor] = []
    with torch.no_grad():
        for start in range(0, len(rows), _BATCH):
            part = rows[start : start + _BATCH]
            mask = pad_sequence([torch.ones_like(row) for row in part], batch_first=True)
            found += _pooled(network, pad_sequence(part, batch_first=True, padding_value=padding), mask).float()
    return found


def _pooled(network: Any, tokens: Tensor, mask: Tensor) -> Tensor:
    """``(n, width)`` of ``(n, longest)`` tokens."""
    inputs = {"input_ids": tokens, "attention_mask": mask}
    if hasattr(network, "get_text_features"):
        features: Tensor = network.get_text_features(**inputs).pooler_output
        return features
    output = network(**inputs)
    if hasattr(output, "text_embeds"):
        projected: Tensor = output.text_embeds
        return projected
    if network.config.model_type == "clip_text_model":  # without its projection; its last token has seen all the others
        last: Tensor = output.pooler_output
        return last
    mean: Tensor = (output.last_hidden_state * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return mean


def _load(model: str, local: bool) -> tuple[Any, Any]:
    """A tokenizer, and a frozen model in float32."""
    from transformers import AutoConfig, AutoModel, AutoTokenizer, CLIPTextModelWithProjection

    options: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False}
    with _loading(model, local):
        config = AutoConfig.from_pretrained(model, **options)
        kind: Any = AutoModel
        if config.model_type == "clip":  # of the whole model the text half is read, whose own settings may lack the projection's width
            kind, projection = CLIPTextModelWithProjection, config.projection_dim
            config = config.text_config
            config.projection_dim = projection
        elif "CLIPTextModelWithProjection" in (config.architectures or ()):
            kind = CLIPTextModelWithProjection
        network, facts = kind.from_pretrained(model, config=config, dtype=torch.float32, output_loading_info=True, **options)
        missing = sorted(name for name in facts["missing_keys"] if "pooler" not in name)  # which is not used
        if missing:
            raise ValueError(f"its weights lack {missing[0]}")  # and would be drawn at random
        tokenizer = AutoTokenizer.from_pretrained(model, **options)
        if len(tokenizer) <= len(tokenizer.all_special_ids):
            raise ValueError("its tokenizer has no words")  # as some are made of a folder without a vocabulary
        if network.config.is_encoder_decoder:
            network = network.get_encoder()
    return tokenizer, network.eval().requires_grad_(False)


@contextmanager
def _loading(model: str, local: bool) -> Iterator[None]:
    """Without the library's tables and bars, without a change of the random state (a fit must not depend on what was cached), and with
    every error as one line."""
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    except Exception as error:
        needed = ["set text_encoder.download=true"] * local + ["unset HF_HUB_OFFLINE"] * HF_HUB_OFFLINE
        remedy = "give a folder with a text model and its tokenizer" + (f", or let it be fetched: {' and '.join(needed)}" if needed else "")
        told = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RequestError(f"cannot load {model}: {told}", where="text_encoder.model", remedy=remedy) from error
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]

"""A world of drawn people whose labels are known; the writers beside this file lay it on disk as the real datasets are laid.

Everything follows from action units. A person has a resting face, an expressivity for each AU and a neutral valence and
arousal of their own, none of which can be told from one picture. In a clip emotions drift slowly and, on top, flare up for
3 to 9 frames; they move AUs by :data:`PROTOTYPES`. What the face then *shows* is read back from the AUs alone
(:func:`shown_emotions`): valence and arousal are that reading times :data:`CIRCUMPLEX`, plus the person's neutral and the noise
of a rater; the expression is drawn from its softmax. So the difference between two frames of one face is visible and labelled,
while the label of one face says little of another's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from tasks.synthetic.faces import AUS, IDENTITY, NUISANCE, Rendering, draw, render

EMOTIONS = ("happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")

PROTOTYPES: dict[str, dict[int, float]] = {
    "happy": {6: 0.9, 12: 1.0, 25: 0.7},
    "sad": {1: 1.0, 4: 0.6, 15: 1.0, 17: 0.6},
    "surprise": {1: 0.9, 2: 1.0, 5: 0.8, 25: 0.9, 26: 0.9},
    "fear": {1: 0.9, 2: 0.5, 4: 0.7, 5: 1.0, 7: 0.4, 20: 1.0, 25: 0.6, 26: 0.2},
    "disgust": {4: 0.3, 7: 0.4, 9: 1.0, 10: 1.0, 17: 0.3},
    "anger": {4: 1.0, 5: 0.4, 7: 0.7, 23: 1.0, 24: 0.6},
    "contempt": {12: 0.7, 14: 1.0},  # on one side of the face
}
"""AUs of a full emotion, after EMFACS (Friesen & Ekman 1983)."""

SPEECH: dict[int, float] = {25: 0.6, 26: 0.35}
"""AUs of an opening mouth. It means nothing: a method that takes every open mouth for surprise is wrong."""

CIRCUMPLEX: dict[str, tuple[float, float]] = {
    "happy": (0.80, 0.35),
    "sad": (-0.65, -0.50),
    "surprise": (0.15, 0.80),
    "fear": (-0.55, 0.75),
    "disgust": (-0.65, 0.30),
    "anger": (-0.55, 0.65),
    "contempt": (-0.40, -0.15),
}
"""Valence and arousal of a full emotion, about where Russell (1980) places them."""

ACTIVITIES: dict[str, dict[str, float]] = {
    "talking with the experimenter and hearing a joke": {"happy": 1.0},
    "watching a sad film": {"sad": 1.0},
    "being startled by a sudden sound": {"surprise": 0.8, "fear": 0.2},
    "improvising a silly song": {"happy": 0.6, "contempt": 0.4},
    "expecting a physical threat": {"fear": 0.8, "surprise": 0.2},
    "holding a hand in ice water": {"disgust": 0.4, "anger": 0.3, "sad": 0.3},
    "being insulted": {"anger": 0.7, "contempt": 0.3},
    "smelling something unpleasant": {"disgust": 1.0},
}
"""What a person may be doing, after the eight tasks of BP4D, and the emotions that it calls up."""

FOCUS = 0.45
"""How sure an activity calls up what it is meant for, where people act as they like: in films, and on the web."""

LABORATORY_FOCUS = 0.85
"""The same where what people do was chosen by a study to call up one emotion."""

_NEUTRAL = 0.3  # a reading below this is a neutral face
_SHARPNESS = 12.0  # of a rater's choice between expressions


def shown_emotions(aus: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """How much of each emotion a face shows.

    The least-squares solution of ``aus - rest = emotions @ PROTOTYPES + speech @ SPEECH``: linear in the AUs, exact where no AU
    is at its limit, and blind to an opening mouth.

    Args:
        aus: ``(n, 17)``, 0..1, columns :data:`faces.AUS`.
        rest: ``(n, 17)``, those of the same faces at rest.

    Returns:
        ``(n, 7)``, about 0..1, columns :data:`EMOTIONS`.
    """
    inverse: np.ndarray = np.linalg.pinv(_prototypes())
    return np.asarray((aus - rest) @ inverse)[:, : len(EMOTIONS)]


@cache
def _prototypes() -> np.ndarray:
    """``(8, 17)``: the emotions, then speech."""
    return np.array([[units.get(au, 0.0) for au in AUS] for units in (*PROTOTYPES.values(), SPEECH)])


@dataclass(frozen=True)
class Footage:
    """Frames of the world, by row; nothing is drawn yet.

    Attributes:
        clip, frame, subject: ``(n,)`` int.
        activity: ``(n,)`` int, a place in :data:`ACTIVITIES`.
        aus: ``(n, 17)`` float32 in 0..1, columns :data:`faces.AUS`.
        valence, arousal: ``(n,)`` in -1..1, as a rater gave them.
        expression: ``(n,)`` int, a place in ``samples.EXPRESSIONS``.
        side: ``(n,)`` in -1..1, see ``faces.render``.
        identity: Parameters of the subjects by name, see ``faces.IDENTITY``.
        nuisance: Parameters of the frames by name, see ``faces.NUISANCE``.
        seed: Of the world.
    """

    clip: np.ndarray
    frame: np.ndarray
    subject: np.ndarray
    activity: np.ndarray
    aus: np.ndarray
    valence: np.ndarray
    arousal: np.ndarray
    expression: np.ndarray
    side: np.ndarray
    identity: dict[str, np.ndarray]
    nuisance: dict[str, np.ndarray]
    seed: int

    def __len__(self) -> int:
        return len(self.clip)

    @property
    def intensity(self) -> np.ndarray:
        """``(n, 17)`` int 0..5, columns :data:`faces.AUS`: how strong a FACS coder would call each action unit (A is 1, E is 5)."""
        coded: np.ndarray = np.rint(5 * self.aus).astype(np.int64)
        return coded

    def present(self, au: int, *, at: int = 2) -> np.ndarray:
        """``(n,)`` int 0 or 1: whether an action unit is there, from an intensity of ``at``."""
        found: np.ndarray = (self.intensity[:, AUS.index(au)] >= at).astype(np.int64)
        return found

    def render(self, rows: np.ndarray, size: int) -> Rendering:
        """Draws some frames; the same rows always give the same pixels."""
        people = {name: values[self.subject[rows]] for name, values in self.identity.items()}
        nuisance = {name: values[rows] for name, values in self.nuisance.items()}
        seed = np.random.SeedSequence([self.seed, *rows[:1].tolist()])
        return render(people, nuisance, self.aus[rows], self.side[rows], size=size, seed=seed)


class World:
    """People, and what befalls them. The same seed is the same world.

    Args:
        seed: 0 or more.
        subjects: How many people live in it.
    """

    def __init__(self, seed: int, subjects: int) -> None:
        self.seed, self.subjects = seed, subjects
        rng = np.random.default_rng([seed, 0])
        self.identity = draw(IDENTITY, subjects, rng)
        units = (subjects, len(AUS))
        self.rest = np.where(rng.random(units) < 0.3, rng.uniform(0, 0.3, units), 0)
        self.rest[:, [AUS.index(25), AUS.index(26)]] *= 0.3  # nobody's mouth stands open at rest
        self.gain = rng.uniform(0.7, 1.1, (subjects, 1)) * rng.uniform(0.85, 1.15, units)
        self.neutral = rng.normal(0, 0.13, (subjects, 2))
        self.side = rng.choice([-1.0, 1.0], subjects)

    def clips(self, n: int, frames: tuple[int, int], *, focus: float = FOCUS) -> Footage:
        """Filmed clips, dealt out evenly among the subjects.

        Args:
            n: Number of clips.
            frames: The least and the most frames of a clip.
            focus: See :meth:`film`.
        """
        rng = np.random.default_rng([self.seed, 1])
        lengths = rng.integers(frames[0], frames[1] + 1, n)
        subject = np.concatenate([rng.permutation(self.subjects) for _ in range(-(-n // self.subjects))])[:n]
        activity = np.concatenate([rng.permutation(len(ACTIVITIES)) for _ in range(-(-n // len(ACTIVITIES)))])[:n]
        return self._filmed(subject, activity, lengths, focus, rng)

    def film(self, subjects: Sequence[int], activities: Sequence[int], lengths: Sequence[int], *, focus: float = FOCUS) -> Footage:
        """Filmed clips, one for each of the subjects given, who may return: what a study that records everybody at every task films.

        Args:
            subjects: ``(n,)`` places among the people of this world.
            activities: ``(n,)`` places in :data:`ACTIVITIES`.
            lengths: ``(n,)`` frames.
            focus: 0..1, how sure an activity calls up the emotions it is meant for; the rest is anything.
        """
        rng = np.random.default_rng([self.seed, 6])
        return self._filmed(np.asarray(subjects), np.asarray(activities), np.asarray(lengths), focus, rng)

    def _filmed(self, subject: np.ndarray, activity: np.ndarray, lengths: np.ndarray, focus: float, rng: np.random.Generator) -> Footage:
        scenes = [_scene(int(length), int(what), focus, rng) for length, what in zip(lengths, activity, strict=True)]
        emotions, speech, noise, nuisance = (np.concatenate([scene[part] for scene in scenes]) for part in range(4))
        return self._footage(
            clip=np.repeat(np.arange(len(lengths)), lengths),
            frame=np.concatenate([np.arange(length) for length in lengths]),
            subject=np.repeat(subject, lengths),
            activity=np.repeat(activity, lengths),
            emotions=emotions,
            speech=speech,
            noise=noise,
            nuisance=dict(zip(NUISANCE, nuisance.T.astype(np.float32), strict=True)),
            rng=rng,
        )

    def stills(self, emotion: np.ndarray) -> Footage:
        """Photographs, each of the next subject, at the height of an emotion.

        Args:
            emotion: ``(n,)`` int, a place in ``samples.EXPRESSIONS`` up to contempt; what a rater sees may differ.
        """
        rng = np.random.default_rng([self.seed, 2])
        n = len(emotion)
        strength = np.eye(1 + len(EMOTIONS))[emotion][:, 1:] * rng.uniform(0.65, 1.1, (n, 1))
        mixed = np.where(rng.random((n, 1)) < 0.4, rng.uniform(0, 0.25, (n, 1)), 0)
        other = np.eye(len(EMOTIONS))[rng.integers(0, len(EMOTIONS), n)] * mixed
        nuisance = draw(NUISANCE, n, rng)
        nuisance["blink"] = (rng.random(n) < 0.03).astype(np.float32)
        nuisance["patch"] = (rng.random(n) < 0.05).astype(np.float32)
        return self._footage(
            clip=np.arange(n),
            frame=np.zeros(n, int),
            subject=np.arange(n) % self.subjects,
            activity=rng.integers(0, len(ACTIVITIES), n),
            emotions=strength + other,
            speech=np.where(rng.random(n) < 0.2, rng.random(n), 0),
            noise=rng.normal(0, 0.05, (n, len(AUS))),
            nuisance=nuisance,
            rng=rng,
        )

    def opinions(self, footage: Footage) -> np.ndarray:
        """How raters would divide over what some footage of this world shows.

        Returns:
            ``(n, 8)``, rows that sum to 1: the chance of each expression up to contempt. The footage's own was drawn from the same.
        """
        shown = shown_emotions(footage.aus, self.rest[footage.subject])
        scores = _SHARPNESS * np.column_stack([np.full(len(shown), _NEUTRAL), shown])
        weights = np.exp(scores - scores.max(1, keepdims=True))
        return np.asarray(weights / weights.sum(1, keepdims=True))

    def _footage(
        self,
        *,
        clip: np.ndarray,
        frame: np.ndarray,
        subject: np.ndarray,
        activity: np.ndarray,
        emotions: np.ndarray,
        speech: np.ndarray,
        noise: np.ndarray,
        nuisance: dict[str, np.ndarray],
        rng: np.random.Generator,
    ) -> Footage:
        """From what is felt to what is seen and rated."""
        rest = self.rest[subject]
        moved = np.column_stack([emotions, speech]) @ _prototypes()
        aus = np.clip(rest + self.gain[subject] * moved + noise, 0, 1)
        shown = shown_emotions(aus, rest)
        rated = shown @ np.array(list(CIRCUMPLEX.values())) + self.neutral[subject] + rng.normal(0, 0.04, (len(aus), 2))
        scores = _SHARPNESS * np.column_stack([np.full(len(aus), _NEUTRAL), shown])
        smirk = emotions[:, EMOTIONS.index("contempt")] / np.maximum(emotions.sum(1), 1e-6)
        return Footage(
            clip=clip,
            frame=frame,
            subject=subject,
            activity=activity,
            aus=aus.astype(np.float32),
            valence=np.clip(rated[:, 0], -1, 1),
            arousal=np.clip(rated[:, 1], -1, 1),
            expression=(scores + rng.gumbel(size=scores.shape)).argmax(1),  # a draw from the softmax
            side=(self.side[subject] * np.clip(2 * smirk, 0, 1)).astype(np.float32),
            identity=self.identity,
            nuisance=nuisance,
            seed=self.seed,
        )


def _scene(length: int, activity: int, focus: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Emotions ``(t, 7)``, speech ``(t,)``, noise of the AUs ``(t, 17)`` and nuisance ``(t, len(NUISANCE))`` of one clip."""
    called = list(ACTIVITIES.values())[activity]
    chances = focus * np.array([called.get(emotion, 0.0) for emotion in EMOTIONS]) + (1 - focus) / len(EMOTIONS)
    time = np.arange(length)

    count = 2 + length // 4  # events, of which some lie beyond the end
    onset, apex, offset, pause = (rng.uniform(low, high, count) for low, high in ((1, 2.5), (0.5, 4), (1, 3), (0.5, 6)))
    start = np.cumsum(pause + onset + apex + offset) - onset - apex - offset
    rise, fall = (time[:, None] - start) / onset, (start + onset + apex + offset - time[:, None]) / offset
    events = np.clip(np.minimum(rise, fall), 0, 1) * rng.uniform(0.5, 1.15, count)
    emotions = events @ np.eye(len(EMOTIONS))[rng.choice(len(EMOTIONS), count, p=chances)]
    mood = np.clip(0.12 + 0.20 * _drift(length, 2, rng), 0, 0.6)
    calm = 1 - np.clip(events.sum(1, keepdims=True), 0, 1)
    emotions += calm * mood @ np.eye(len(EMOTIONS))[rng.choice(len(EMOTIONS), 2, p=chances)]

    talking = (np.sin(2 * np.pi * time / rng.uniform(2.5, 4.5) + rng.uniform(0, 6)) > -0.2) * np.clip(_drift(length, 1, rng)[:, 0], 0, 1)
    low, high = np.array(list(NUISANCE.values())).T
    still = rng.uniform(low, high)
    travel = np.array([_TRAVEL.get(name, 0.0) for name in NUISANCE]) * (high - low)
    nuisance = np.clip(still + travel * _drift(length, len(NUISANCE), rng), low, high)
    names = list(NUISANCE)
    blinks = rng.random(length) < 0.04
    nuisance[:, names.index("blink")] = np.maximum(blinks, 0.5 * np.roll(blinks, 1))
    if rng.random() < 0.2:
        nuisance[:, names.index("patch")] = np.abs(time - rng.uniform(0, length)) < rng.uniform(2, 8)
    return emotions, talking, 0.03 * _drift(length, len(AUS), rng), nuisance


_TRAVEL = {
    "x": 0.15, "y": 0.15, "scale": 0.15, "yaw": 0.25, "pitch": 0.25, "roll": 0.20, "gaze_x": 0.4, "gaze_y": 0.4,
    "light_x": 0.10, "light_y": 0.10, "exposure": 0.10, "back_shift": 0.02, "blur": 0.15, "patch_x": 0.3, "patch_y": 0.2,
}  # fmt: skip
"""How far a nuisance wanders within a clip, as a share of its range."""


def _drift(length: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """``(length, n)`` slow movements of unit variance."""
    period, phase = rng.uniform(18, 90, (2, 1, n)), rng.uniform(0, 2 * np.pi, (2, 1, n))
    waves = np.sin(2 * np.pi * np.arange(length)[None, :, None] / period + phase)
    return np.asarray(waves.sum(0))

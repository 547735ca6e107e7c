"""Drawn faces: parametric, moved by action units, many at a time, because no photograph may be shipped with a test.

A face is drawn in its own plane: x to the right and y down, one unit is half its height, the chin is at y = 1, the eyes near
y = -0.2, the mouth near y = 0.5. Every part lies between curves of that plane (:class:`_Face`); pixels and landmarks are
computed from the same curves, so they agree. Edges are anti-aliased by distance; a wider ramp is blur.

Rules of movement follow the Facial Action Coding System (Ekman & Friesen 1978): 1, 2, 4 move the brows, 5, 6, 7 the lids and
cheeks, 9, 10 the nose and the upper lip, 12, 14, 15, 20 the corners of the mouth, 17, 23, 24 lips and chin, 25, 26 lips and jaw.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

AUS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 24, 25, 26)
"""The action units that move a drawn face: those of ABAW, DISFA and BP4D. Column order of every ``aus`` array."""

IDENTITY: dict[str, tuple[float, float]] = {
    "width": (0.66, 0.80),  # half the width of the head
    "jaw": (-0.25, 0.8),  # outline below the eyes: pointed … square
    "tone": (0.0, 1.0),  # skin, light … dark
    "warmth": (-1.0, 1.0),
    "hair_tone": (0.0, 1.0),
    "hair_length": (-0.5, 1.1),  # where the hair beside the face ends
    "hairline": (-0.84, -0.62),
    "fringe": (-0.25, 0.45),  # how far the hairline bends down at the temples
    "brow_y": (-0.47, -0.37),
    "brow_tilt": (-0.07, 0.06),  # outer end lower (+) or higher (-)
    "brow_arch": (0.0, 0.07),
    "brow_thick": (0.024, 0.046),
    "brow_gap": (0.11, 0.18),
    "eye_x": (0.30, 0.37),
    "eye_width": (0.135, 0.175),
    "eye_open": (0.055, 0.085),
    "eye_tilt": (-0.025, 0.025),
    "iris_tone": (0.1, 0.55),
    "nose_length": (0.12, 0.24),
    "nose_width": (0.09, 0.14),
    "fold": (0.0, 0.35),  # how deep the nasolabial fold is at rest
    "mouth_y": (0.46, 0.54),
    "mouth_width": (0.22, 0.30),
    "lip_upper": (0.030, 0.055),
    "lip_lower": (0.040, 0.075),
    "lip_tone": (0.0, 1.0),
    "mouth_curve": (-0.030, 0.030),  # corners lower (+) or higher (-) at rest
    "beard": (-1.6, 1.0),  # drawn where positive
    "glasses": (-4.0, 1.0),  # drawn where positive
    "shirt": (0.0, 1.0),
}
"""What tells one person from another, with the range it is drawn from."""

NUISANCE: dict[str, tuple[float, float]] = {
    "x": (0.45, 0.55),  # centre of the face, in widths of the image
    "y": (0.46, 0.51),
    "scale": (0.34, 0.40),  # half the face's height, in heights of the image
    "yaw": (-0.22, 0.22),  # radians
    "pitch": (-0.13, 0.13),
    "roll": (-0.12, 0.12),
    "gaze_x": (-1.0, 1.0),
    "gaze_y": (-0.6, 0.6),
    "blink": (0.0, 0.0),  # 1: lids closed
    "light_x": (-0.28, 0.28),  # shading across the face
    "light_y": (-0.25, 0.10),
    "exposure": (0.80, 1.08),
    "back_tone": (0.1, 0.9),
    "back_hue": (0.0, 1.0),
    "back_angle": (0.0, 3.1),
    "back_wave": (1.5, 7.0),
    "back_shift": (0.0, 6.28),
    "back_contrast": (0.05, 0.35),
    "blur": (0.7, 1.6),  # width of an edge in pixels
    "grain": (0.005, 0.022),  # standard deviation of the noise
    "patch": (0.0, 0.0),  # 1: something stands before the face
    "patch_x": (-0.9, 0.9),
    "patch_y": (-0.2, 1.0),
    "patch_size": (0.15, 0.35),
    "patch_tone": (0.0, 1.0),
}
"""What differs between two pictures of one person with one expression, with the range it is drawn from."""

Parameters = Mapping[str, np.ndarray]
"""Name → ``(n,)`` float32, for every name of :data:`IDENTITY` or :data:`NUISANCE`."""


def draw(ranges: Mapping[str, tuple[float, float]], n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """``n`` uniform draws of every parameter."""
    return {name: rng.uniform(low, high, n).astype(np.float32) for name, (low, high) in ranges.items()}


@dataclass(frozen=True)
class Rendering:
    """Drawn faces.

    Attributes:
        images: ``(n, size, size, 3)`` uint8 RGB.
        landmarks: ``(n, 68, 2)`` float32, x and y in pixels, iBUG order; pixel (0, 0) covers 0..1.
        boxes: ``(n, 4)`` float32, x0, y0, x1, y1 in pixels: brows to chin, jaw to jaw, and a little forehead.
    """

    images: np.ndarray
    landmarks: np.ndarray
    boxes: np.ndarray


def render(
    identity: Parameters, nuisance: Parameters, aus: np.ndarray, side: np.ndarray, *, size: int, seed: int | np.random.SeedSequence
) -> Rendering:
    """Draws faces.

    Args:
        identity: One value a face of every parameter in :data:`IDENTITY`.
        nuisance: The same of :data:`NUISANCE`.
        aus: ``(n, 17)`` intensities in 0..1, columns :data:`AUS`.
        side: ``(n,)`` in -1..1: AU 12 and 14 on both sides (0), or only on the left (-1) or right (1) of the image.
        size: Height and width of the images.
        seed: Of the noise.
    """
    n = len(aus)
    images = np.empty((n, size, size, 3), np.uint8)
    rng = np.random.default_rng(seed)
    block = max(1, 131072 // size**2)  # planes that stay in the cache: several times faster than all faces at once
    np.empty(2**24, np.uint8)  # freed at once: glibc then keeps blocks of up to that size, and does not fault in every plane anew (2x)
    for start in range(0, n, block):
        part = slice(start, start + block)
        grid = _Face.of(identity, nuisance, aus, side, part, axes=2)
        images[part] = _draw(grid, size, rng)
    points = _landmarks(_Face.of(identity, nuisance, aus, side, slice(None), axes=1)) * size
    low, high = points.min(1), points.max(1)
    low[:, 1] -= 0.25 * (high - low)[:, 1]
    return Rendering(images, points.astype(np.float32), np.concatenate([low, high], 1).astype(np.float32))


class _Face:
    """The curves of faces, every value an ``(n, 1…)`` array that broadcasts over the points or pixels it is asked for."""

    def __init__(self, identity: Parameters, nuisance: Parameters, au: Mapping[int, np.ndarray], side: np.ndarray) -> None:
        self.identity, self.nuisance, self.au = identity, nuisance, au
        i = identity
        press = np.minimum(au[23] + au[24], 1)
        self.chin = 1 + 0.16 * au[26] - 0.03 * au[17]

        self.brow_inner = i["brow_gap"] - 0.045 * au[4]
        self.brow_outer = i["eye_x"] + i["eye_width"] + 0.06
        self.eye_y = np.float32(-0.17)
        lids = 1 - nuisance["blink"]
        upper = 1 + 0.85 * au[5] - 0.35 * au[7] - 0.30 * au[6] - 0.25 * au[9]
        lower = 0.75 + 0.15 * au[5] - 0.60 * au[7] - 0.55 * au[6] - 0.25 * au[9]
        self.lid_upper, self.lid_lower = lids * i["eye_open"] * np.clip(upper, 0.15, 2), lids * i["eye_open"] * np.clip(lower, -0.1, 2)

        self.nose_y = i["nose_length"] - 0.055 * au[9] - 0.02 * au[10]
        self.nose_width = i["nose_width"] * (1 + 0.22 * au[9] + 0.12 * au[10] + 0.08 * au[12])

        self.gap = (0.075 * au[25] + 0.25 * au[26]) * (1 - 0.8 * press)
        stretch = 0.34 * au[20] + 0.26 * au[12] - 0.18 * press - 0.22 * au[26] - 0.06 * au[17]
        self.mouth_half = i["mouth_width"] * np.clip(1 + stretch, 0.6, 1.6)
        self.mouth_y = i["mouth_y"] - 0.035 * au[17] - 0.02 * au[10] + 0.02 * au[24]
        # A corner follows the jaw half way down; AU 12 pulls it up and out, on one side only where the face leans there.
        both = i["mouth_curve"] + 0.15 * au[15] + 0.03 * au[20] + 0.04 * au[17] + 0.40 * self.gap
        self.corner_left = both - 0.20 * au[12] * np.minimum(1, 1 - side) - 0.03 * au[14] * np.minimum(1, 1 - side)
        self.corner_right = both - 0.20 * au[12] * np.minimum(1, 1 + side) - 0.03 * au[14] * np.minimum(1, 1 + side)
        self.dimple_left, self.dimple_right = au[14] * np.minimum(1, 1 - side), au[14] * np.minimum(1, 1 + side)
        self.lift = 0.085 * au[10] + 0.03 * au[9]  # of the upper lip, at its middle
        thin = 1 - 0.75 * press
        self.lip_upper = i["lip_upper"] * thin * (1 - 0.25 * au[12]) * (1 - 0.2 * au[20])
        self.lip_lower = i["lip_lower"] * thin * (1 - 0.15 * au[20] - 0.15 * au[12] + 0.35 * au[17])

        self.yaw, self.pitch = 0.55 * np.sin(nuisance["yaw"]), 0.55 * np.sin(nuisance["pitch"])
        self.cos, self.sin = np.cos(nuisance["roll"]), np.sin(nuisance["roll"])

    @classmethod
    def of(cls, identity: Parameters, nuisance: Parameters, aus: np.ndarray, side: np.ndarray, part: slice, *, axes: int) -> _Face:
        """The faces of one part, with ``axes`` axes to broadcast over."""
        shape = (-1,) + (1,) * axes
        values = np.asarray(aus, np.float32)[part].T.reshape(len(AUS), *shape)
        return cls(
            {name: value[part].reshape(shape) for name, value in identity.items()},
            {name: value[part].reshape(shape) for name, value in nuisance.items()},
            dict(zip(AUS, values, strict=True)),
            np.asarray(side, np.float32)[part].reshape(shape),
        )

    def crown(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Distance inside the hair around the head."""
        return 0.4 - 0.4 * (x / (self.identity["width"] + 0.13)) ** 2 - 0.4 * ((y + 0.12) / 1.12) ** 2

    def span(self, side: float, top: float, bottom: float, size: int) -> tuple[slice, slice]:
        """The rows and columns of an image that hold the points with ``|x| < side`` and ``top < y < bottom`` of any face."""
        corners = np.array([[-side, side, -side, side], [top, top, bottom, bottom]], np.float32)
        points = size * self.placed(*self.turned(*corners[:, None, None]))
        left, up = np.clip(points.min((1, 2, 3)) - 1, 0, size).astype(int)
        right, down = np.clip(points.max((1, 2, 3)) + 2, 0, size).astype(int)
        return slice(up, down), slice(left, right)

    def flat(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where on the face a point is that is seen at ``x, y``: what lies inside moves as the head turns, the outline does not."""
        return x - self.yaw * np.maximum(1 - x * x / 0.64, 0), y - self.pitch * np.maximum(1 - y * y, 0)

    def turned(self, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where a point of the face is seen: the inverse of :meth:`flat`, by fixed point (a step shrinks the error by three or more)."""
        x, y = u, v
        for _ in range(6):
            x, y = u + self.yaw * np.maximum(1 - x * x / 0.64, 0), v + self.pitch * np.maximum(1 - y * y, 0)
        return x, y

    def placed(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """A point of the plane in shares of the image, the coordinate first."""
        n = self.nuisance
        return np.stack([n["x"] + n["scale"] * (self.cos * x - self.sin * y), n["y"] + n["scale"] * (self.sin * x + self.cos * y)])

    def brow(self, t: np.ndarray) -> np.ndarray:
        """Height of the brow from its inner (t = 0) to its outer end (t = 1)."""
        i, au = self.identity, self.au
        inner, outer = 0.12 * au[4] - 0.17 * au[1], 0.05 * au[4] - 0.13 * au[2] - 0.02 * au[1]
        bow = i["brow_arch"] + 0.05 * au[2] * (1 - au[4])
        height: np.ndarray = i["brow_y"] + 0.02 * au[9] + inner + (i["brow_tilt"] + outer - inner) * t - 4 * bow * t * (1 - t)
        return height

    def lids(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Heights of the upper and the lower lid from the inner (t = -1) to the outer corner (t = 1)."""
        middle = self.eye_y + self.identity["eye_tilt"] * t
        arc = 1 - t * t
        return middle - self.lid_upper * arc, middle + self.lid_lower * arc

    def mouth(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Heights of the upper lip's upper and lower edge and the lower lip's, from the left (t = -1) to the right corner."""
        square = t * t
        arc = 1 - square
        line = self.mouth_y + square * (0.5 * (self.corner_left + self.corner_right) + 0.5 * (self.corner_right - self.corner_left) * t)
        raised = line - (self.lift + 0.12 * self.gap) * arc
        dropped = line + (self.gap + 0.25 * self.lift) * arc
        bow = arc * (0.75 + 0.7 * square)  # Cupid's bow
        return raised - self.lip_upper * bow, raised, dropped, dropped + self.lip_lower * arc


def _edge(distance: np.ndarray, ramp: np.ndarray) -> np.ndarray:
    """1 inside (distance > 0), 0 outside, linear over one ramp."""
    inside: np.ndarray = np.clip(distance / ramp + 0.5, 0, 1)
    return inside


def _bump(x: np.ndarray) -> np.ndarray:
    """A smooth hill over -1..1."""
    hill: np.ndarray = np.maximum(1 - x * x, 0) ** 2
    return hill


def _length(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    length: np.ndarray = np.sqrt(x * x + y * y)  # ten times faster than np.hypot, which guards against an overflow that cannot happen here
    return length


def _colour(red: float | np.ndarray, green: float | np.ndarray, blue: float | np.ndarray) -> np.ndarray:
    """``(3, n, 1, 1)`` of three ``(n, 1, 1)`` or scalars."""
    return np.stack(np.broadcast_arrays(*(np.atleast_3d(np.asarray(c, np.float32)) for c in (red, green, blue))))


_CENTRE = np.float32(-0.15)  # height of the widest part of the head
_CROWN = np.float32(0.98)  # from there to the top
_FINE = np.float32(0.03)  # width of a wrinkle; below the resolution it is drawn wider and fainter


def _draw(face: _Face, size: int, rng: np.random.Generator) -> np.ndarray:
    """``(n, size, size, 3)`` uint8 of an ``(n, 1, 1)`` face."""
    i, n = face.identity, face.nuisance
    pixel = ((np.arange(size) + 0.5) / size).astype(np.float32)
    across, down = (pixel[None, None, :] - n["x"]) / n["scale"], (pixel[None, :, None] - n["y"]) / n["scale"]
    x, y = face.cos * across + face.sin * down, face.cos * down - face.sin * across
    canvas = _Canvas(_backdrop(face, across, down), x, y, n["blur"] / (size * n["scale"]))
    skin = _mix(_colour(0.96, 0.80, 0.70), _colour(0.46, 0.31, 0.23), i["tone"]) + i["warmth"] * _colour(0.02, 0.0, -0.03)
    hair = _mix(_colour(0.10, 0.08, 0.07), _colour(0.80, 0.62, 0.38), i["hair_tone"] * (1 - 0.8 * i["tone"]))
    u, v = face.flat(x, y)
    inner = replace(canvas, x=u, y=v)

    with canvas.window(face, 0.95, -1.3, 1.3) as part:
        _head(part, face, skin, hair)
    with canvas.window(face, 9, 1.0, 9) as part:
        _shirt(part, face)
    with inner.window(face, 0.62, -0.30, 0.85) as part:
        _cheeks(part, face)
    with inner.window(face, 0.66, -0.78, -0.12) as part:
        _brows(part, face, skin, hair)
    with inner.window(face, 0.68, -0.36, 0.02) as part:
        _eyes(part, face, skin)
    with inner.window(face, 0.60, 0.25, 1.1) as part:
        _mouth(part, face, skin, hair)
    with canvas.window(face, 0.95, -1.3, 1.4) as part:
        _cover(part, face, hair)

    planes = canvas.planes
    planes *= n["exposure"] * (1 + n["light_x"] * x + n["light_y"] * y)
    planes += n["grain"] * 3.46 * (rng.random(x.shape, np.float32) - 0.5)
    pixels: np.ndarray = (np.clip(planes, 0, 1) * 255 + 0.5).astype(np.uint8)
    return pixels.transpose(1, 2, 3, 0)


@dataclass(frozen=True)
class _Canvas:
    """Pixels that colours are laid over, and where they are.

    Attributes:
        planes: ``(3, n, height, width)`` in 0..1.
        x, y: ``(n, height, width)``, in the plane of the face.
        ramp: ``(n, 1, 1)``, the width of an edge in that plane.
    """

    planes: np.ndarray
    x: np.ndarray
    y: np.ndarray
    ramp: np.ndarray

    @contextmanager
    def window(self, face: _Face, side: float, top: float, bottom: float) -> Iterator[_Canvas]:
        """The rows and columns in which any face has a point with ``|x| < side`` and ``top < y < bottom``, put back when done.

        A copy, because operations on whole blocks of memory are several times faster than on a view's short rows.
        """
        rows, columns = face.span(side, top, bottom, self.x.shape[-1])
        planes, x, y = (np.ascontiguousarray(values[..., rows, columns]) for values in (self.planes, self.x, self.y))
        part = _Canvas(planes, x, y, self.ramp)
        yield part
        self.planes[..., rows, columns] = part.planes

    def paint(self, colour: np.ndarray, cover: np.ndarray) -> None:
        """Lays a colour, ``(3, n, 1 or height, 1 or width)``, where ``cover`` is 1."""
        for plane, tone in zip(self.planes, colour, strict=True):
            plane += cover * (tone - plane)

    def shade(self, light: np.ndarray) -> None:
        """Makes brighter (> 0) or darker (< 0) by a share."""
        np.multiply(self.planes, 1 + light, out=self.planes)


def _mix(one: np.ndarray, other: np.ndarray, share: np.ndarray) -> np.ndarray:
    mixed: np.ndarray = one + share * (other - one)
    return mixed


def _hue(turn: np.ndarray, value: float | np.ndarray) -> np.ndarray:
    """A muted colour of the wheel."""
    return _colour(*(value * (1 + 0.35 * np.cos(6.28 * turn + shift)) for shift in (0.0, 2.1, 4.2)))


def _backdrop(face: _Face, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """A wall with soft stripes, and a horizon."""
    n = face.nuisance
    x, y = across + n["x"] / n["scale"], down + n["y"] / n["scale"]  # the wall stands still where the head moves
    wave = np.sin(n["back_wave"] * (np.cos(n["back_angle"]) * x + np.sin(n["back_angle"]) * y) + n["back_shift"])
    wall = np.clip(1.2 * wave, -0.5, 0.5) + np.where(y > n["back_shift"] / 3, np.float32(0.4), 0)
    return _hue(n["back_hue"], n["back_tone"]) * (1 + n["back_contrast"] * wall)


def _head(canvas: _Canvas, face: _Face, skin: np.ndarray, hair: np.ndarray) -> None:
    i, x, y, ramp = face.identity, canvas.x, canvas.y, canvas.ramp
    side = np.abs(x)
    beside = np.minimum(i["width"] + 0.10 - side, np.minimum(i["hair_length"] - y, y + 0.2))
    canvas.paint(hair, _edge(np.maximum(face.crown(x, y), beside), ramp))
    canvas.paint(0.78 * skin, _edge(np.minimum(0.40 - side, y - 0.7), ramp))
    lower = y > _CENTRE
    q = ((y - _CENTRE) / np.where(lower, face.chin - _CENTRE, _CROWN)) ** 2
    across = (x / i["width"]) ** 2
    cover = _edge(0.5 * i["width"] * (1 - across - q - i["jaw"] * lower * q * (q - 1)), ramp)
    canvas.paint(skin * (1.02 - 0.13 * across - 0.09 * q), cover)


def _shirt(canvas: _Canvas, face: _Face) -> None:
    cover = _edge(canvas.y - 1.22 + 0.10 * np.cos(np.minimum(3 * np.abs(canvas.x), 3)), canvas.ramp)
    canvas.paint(_hue(face.identity["shirt"], 0.5), cover)


def _cheeks(canvas: _Canvas, face: _Face) -> None:
    """The nose, and the fold from its wings to the corners of the mouth."""
    i, au, u, v = face.identity, face.au, canvas.x, canvas.y
    s, fine = np.abs(u), np.maximum(canvas.ramp, _FINE)
    light = 0.10 * _bump(u / 0.06) * _bump((v - 0.02) / 0.28)
    light -= 0.10 * _bump((s - 0.10) / (0.6 * fine)) * _bump((v - 0.02) / 0.24)
    light -= au[9] * _bump(u / 0.17) * _bump((v + 0.06) / 0.20) * (0.18 + 0.20 * np.sin(60 * v))
    light -= 0.55 * _bump(0.8 * _length((s - 0.62 * face.nose_width) / (0.30 * face.nose_width), (v - face.nose_y) / 0.030))
    light -= 0.16 * _bump((v - face.nose_y - 0.02) / 0.05) * _bump(u / (1.1 * face.nose_width))
    light += (0.04 + 0.12 * au[6]) * _bump((s - 0.42) / 0.2) * _bump((v - 0.14) / 0.15)
    along = np.clip((v - face.nose_y) / (face.mouth_y - face.nose_y), 0, 1.1)
    line = face.nose_width + 0.05 + along * (face.mouth_half + 0.02 - face.nose_width) * (0.9 + 0.25 * along)
    depth = i["fold"] + 0.6 * au[12] + 0.7 * au[10] + 0.5 * au[9] + 0.15 * (au[6] + au[15] + au[20])
    light -= 0.36 * np.minimum(depth, 1.2) * _bump((s - line) / fine) * _bump((along - 0.5) / 0.62)
    canvas.shade(light)


def _brows(canvas: _Canvas, face: _Face, skin: np.ndarray, hair: np.ndarray) -> None:
    """Brows, and the wrinkles of the forehead (AU 1, 2) and between them (AU 4)."""
    au, v, ramp = face.au, canvas.y, canvas.ramp
    s = np.abs(canvas.x)
    wrinkles = au[1] * _bump(s / 0.30) + au[2] * _bump((s - 0.38) / 0.25)
    furrow = 0.45 * au[4] * _bump((s - 0.055) / np.maximum(ramp, _FINE)) * _bump((v + 0.36) / 0.16)
    canvas.shade(-furrow - 0.12 * _bump((v + 0.60) / 0.16) * wrinkles * (1 + np.sin(60 * v)))
    t = (s - face.brow_inner) / (face.brow_outer - face.brow_inner)
    thick = face.identity["brow_thick"] * (1.15 - 0.65 * t)
    cover = _edge(0.4 * np.minimum(t, 1 - t), ramp) * _edge(thick - np.abs(v - face.brow(np.clip(t, 0, 1))), ramp)
    canvas.paint(np.minimum(0.8 * hair, 0.45 * skin), cover)


def _eyes(canvas: _Canvas, face: _Face, skin: np.ndarray) -> None:
    """Eyes between their lids, bags beneath and crow's feet beside them."""
    i, n, au, v, ramp = face.identity, face.nuisance, face.au, canvas.y, canvas.ramp
    away = np.abs(canvas.x) - i["eye_x"]
    crow = np.sin(18 * (v + 0.14) / np.maximum(away, 0.1))
    light = 0.22 * au[6] * _bump((away - i["eye_width"] - 0.09) / 0.09) * _bump((v + 0.14) / 0.14) * (1 + crow)
    light += (0.08 + 0.25 * au[6] + 0.12 * au[7]) * _bump(away / 0.2) * _bump((v + 0.035 - 0.2 * away) / np.maximum(ramp, _FINE))
    canvas.shade(-light)

    t = np.clip(away / i["eye_width"], -1.6, 1.6)
    upper, lower = face.lids(t)
    inside = _edge(np.minimum(np.minimum(v - upper, lower - v), 0.3 * (1 - np.abs(t))), ramp)
    canvas.paint(_colour(0.93, 0.93, 0.92), inside)
    r = _length(away - np.sign(canvas.x) * 0.045 * n["gaze_x"], v + 0.165 - 0.03 * n["gaze_y"])
    canvas.paint(_colour(i["iris_tone"], 0.8 * i["iris_tone"], 0.7 * i["iris_tone"]), inside * _edge(0.068 - r, ramp))
    canvas.paint(_colour(0.03, 0.03, 0.03), inside * _edge(0.032 - r, ramp))
    reach = _edge(0.3 * (1.12 - np.abs(t)), ramp)
    canvas.paint(0.25 * skin, reach * _edge(0.014 - np.abs(v - upper), ramp))
    canvas.paint(0.62 * skin, reach * _edge(0.009 - np.abs(v - lower), ramp))
    canvas.paint(0.70 * skin, 0.8 * reach * _edge(0.010 - np.abs(v - upper + 0.055 - 0.03 * au[5]), ramp))


def _mouth(canvas: _Canvas, face: _Face, skin: np.ndarray, hair: np.ndarray) -> None:
    """Lips, teeth, the corners' dimples (AU 14) and pouches (AU 15), the chin's boss (AU 17), the beard."""
    i, au, u, v, ramp = face.identity, face.au, canvas.x, canvas.y, canvas.ramp
    s, fine, press = np.abs(u), np.maximum(ramp, _FINE), au[23] + au[24]
    corner = face.mouth_y + np.where(u < 0, face.corner_left, face.corner_right)
    dimple = np.where(u < 0, face.dimple_left, face.dimple_right)
    bottom = face.mouth_y + face.gap + face.lip_lower
    light = 0.08 * press * _bump(u / 0.3) * _bump((v - face.mouth_y + 0.08) / 0.06)
    light -= 0.50 * dimple * _bump((s - face.mouth_half - 0.055) / (1.3 * fine)) * _bump((v - corner) / 0.12)
    light -= 0.20 * au[15] * _bump((s - face.mouth_half - 0.02) / (1.2 * fine)) * _bump((v - corner - 0.08) / 0.10)
    light -= (0.10 + 0.25 * au[17] + 0.12 * press) * _bump(u / 0.2) * _bump((v - bottom - 0.05 + 0.5 * u * u) / (1.3 * fine))
    light -= 0.14 * au[17] * _bump(u / 0.17) * _bump((v - 0.80) / 0.12) * (1 + np.sin(50 * u) * np.sin(50 * v))
    canvas.shade(light)
    beard = _edge(v - 0.42 + 0.5 * (s - 0.25) ** 2 - 0.5 * s, 4 * ramp) * _edge(0.9 * face.chin - v - 0.5 * s * s, 4 * ramp)
    canvas.paint(0.35 * skin + 0.1 * hair, 0.75 * np.clip(i["beard"], 0, 1) * beard)

    t = np.clip(u / face.mouth_half, -1.6, 1.6)
    top, raised, dropped, bottom = face.mouth(t)
    ends = _edge(0.25 * (1 - np.abs(t)), ramp)
    lips = skin * _mix(_colour(0.74, 0.45, 0.44), _colour(0.64, 0.30, 0.32), i["lip_tone"])
    canvas.paint(lips, ends * _edge(np.minimum(v - top, bottom - v), ramp))
    cavity = ends * _edge(np.minimum(v - raised, dropped - v), ramp)
    canvas.paint(_colour(0.22, 0.06, 0.07), cavity)
    teeth = raised + np.minimum(0.065, 0.62 * (dropped - raised)) - v
    canvas.paint(_colour(0.94, 0.93, 0.88), cavity * _edge(np.minimum(teeth, 0.3 * (0.86 - np.abs(t))), ramp))
    shut = np.clip(1 - 12 * (face.gap + face.lift), 0, 1) * _edge(0.25 * (1.06 - np.abs(t)), ramp)
    canvas.paint(0.30 * skin, shut * _edge(0.012 - np.abs(v - 0.5 * (raised + dropped)), ramp))


def _cover(canvas: _Canvas, face: _Face, hair: np.ndarray) -> None:
    """What hangs or stands before the face: hair, glasses, a patch."""
    i, n, x, y, ramp = face.identity, face.nuisance, canvas.x, canvas.y, canvas.ramp
    canvas.paint(hair, _edge(np.minimum(0.5 * (i["hairline"] + i["fringe"] * x * x - y), face.crown(x, y)), ramp))
    s = np.abs(x)
    if (i["glasses"] > 0).any():
        rim = np.minimum(np.abs(_length(s - i["eye_x"], 0.9 * (y + 0.15)) - 0.225), np.maximum(np.abs(y + 0.19), s - 0.12))
        canvas.paint(_colour(0.08, 0.08, 0.10), (i["glasses"] > 0) * _edge(0.016 - rim, ramp))
    if n["patch"].any():
        across, down = np.abs(x - n["patch_x"]), np.abs(y - n["patch_y"])
        canvas.paint(_hue(n["patch_tone"], 0.45), n["patch"] * _edge(n["patch_size"] - _length(across, 0.7 * down), ramp))


def _landmarks(face: _Face) -> np.ndarray:
    """``(n, 68, 2)`` in shares of the image, from an ``(n, 1)`` face."""
    i = face.identity

    def mirrored(x: np.ndarray, y: np.ndarray, order: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """A part of the left of the image, from one drawn on the right."""
        return -x[:, order], y[:, order]

    angle = np.linspace(0, np.pi, 17, dtype=np.float32)[None]  # 0-16: along the jaw, from ear to ear over the chin
    q = np.sin(angle) ** 2
    jaw = -np.sign(np.cos(angle)) * i["width"] * np.sqrt((1 - q) * (1 + i["jaw"] * q)), _CENTRE + np.sin(angle) * (face.chin - _CENTRE)

    t = np.linspace(0, 1, 5, dtype=np.float32)[None]  # 17-26
    brow = face.brow_inner + t * (face.brow_outer - face.brow_inner), face.brow(t)
    one = np.ones_like(i["width"])
    bridge = 0 * one * t[:, :4], -0.16 + np.linspace(0, 1, 4, dtype=np.float32)[None] * (face.nose_y + 0.11)  # 27-30
    wings = np.array([[-1, -0.5, 0, 0.5, 1]], np.float32)  # 31-35
    base = wings * 0.8 * face.nose_width, face.nose_y + 0.035 - 0.02 * np.abs(wings)
    corner = np.array([[-1, -0.35, 0.35, 1]], np.float32)  # 42-47: inner corner, upper lid, outer corner, lower lid
    upper, lower = face.lids(corner)
    eye_x = i["eye_x"] + i["eye_width"] * np.concatenate([corner, corner[:, 2:0:-1]], 1)
    eye = eye_x, np.concatenate([upper, lower[:, 2:0:-1]], 1)

    wide, narrow = np.linspace(-1, 1, 7, dtype=np.float32)[None], np.linspace(-0.85, 0.85, 5, dtype=np.float32)[None]
    top, _, _, bottom = face.mouth(wide)
    _, raised, dropped, _ = face.mouth(narrow)
    outer = np.concatenate([wide, wide[:, 5:0:-1]], 1) * face.mouth_half, np.concatenate([top, bottom[:, 5:0:-1]], 1)  # 48-59
    inner = np.concatenate([narrow, narrow[:, 3:0:-1]], 1) * face.mouth_half, np.concatenate([raised, dropped[:, 3:0:-1]], 1)  # 60-67

    parts = [
        mirrored(*brow, [4, 3, 2, 1, 0]), brow, bridge, base,
        mirrored(*eye, [3, 2, 1, 0, 5, 4]), eye, outer, inner,
    ]  # fmt: skip
    u, v = (np.concatenate([part[axis] for part in parts], 1) for axis in (0, 1))
    x, y = face.turned(u, v)
    x, y = np.concatenate([jaw[0], x], 1), np.concatenate([jaw[1] * one, y], 1)
    return face.placed(x, y).transpose(1, 2, 0)

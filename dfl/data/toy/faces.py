"""Draws portraits from numbers: no photograph, no download, no one's face.

A `Person` is a set of plain numbers (shape of the head, tones, hair, glasses, shirt). A `Pose` says how the person
stands in front of the camera and where the light comes from. `draw` paints the layers from back to front: background,
body, neck, hair behind the head, head, features, hair in front, glasses. The head is shaded like an ellipsoid under one
lamp, and skin, hair and background carry 1/f texture, whose power falls with frequency as it does in photographs.

The two attributes of a person are the shirt (four colours) and the eyes (bare or behind glasses). Their eight
intersections are the groups of the data set. Both can be seen in the picture and say nothing about real or fake.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

Array = np.ndarray
Rng = np.random.Generator

SHIRTS = {
    "amber": (0.84, 0.60, 0.20),
    "teal": (0.16, 0.52, 0.54),
    "plum": (0.48, 0.22, 0.46),
    "moss": (0.38, 0.48, 0.22),
}
EYES = ("bare", "glasses")
GROUPS = tuple((shirt, eyes) for shirt in SHIRTS for eyes in EYES)

_SKIN = np.array([(0.97, 0.82, 0.72), (0.88, 0.68, 0.54), (0.72, 0.51, 0.37), (0.50, 0.33, 0.23), (0.34, 0.22, 0.16)])
_HAIR = {
    "black": (0.09, 0.08, 0.08),
    "brown": (0.30, 0.19, 0.12),
    "blond": (0.78, 0.62, 0.36),
    "red": (0.56, 0.25, 0.12),
    "grey": (0.62, 0.61, 0.60),
}
_STYLES = ("short", "long", "curly", "shaved")
_IRIS = {
    "brown": (0.32, 0.20, 0.11),
    "blue": (0.28, 0.46, 0.66),
    "green": (0.33, 0.46, 0.28),
    "grey": (0.45, 0.48, 0.52),
}
_WALL = {
    "blue": (0.45, 0.57, 0.72),
    "grey": (0.60, 0.60, 0.60),
    "green": (0.48, 0.60, 0.47),
    "sand": (0.78, 0.70, 0.56),
    "rose": (0.74, 0.55, 0.56),
}


@dataclass(frozen=True)
class Person:
    """One identity. Lengths are in units of half the picture's width, colours are RGB in [0, 1]."""

    shirt: str
    eyes: str
    style: str
    hair: str
    iris: str
    skin: Array  # float32 (3,)
    width: float
    height: float
    jaw: float
    eye_gap: float
    eye_size: float
    brow: float
    nose: float
    mouth: float
    lips: float
    stripes: bool


@dataclass(frozen=True)
class Pose:
    """One shot: position, turn, expression, lamp and wall."""

    x: float
    y: float
    scale: float
    roll: float
    yaw: float
    smile: float
    gaze: float
    lamp: tuple[float, float, float]
    ambient: float
    wall: str
    wall_tone: float


def make_person(rng: Rng, shirt: str, eyes: str) -> Person:
    """Draw an identity of a group; everything but the two attributes is independent of the group."""
    tone = rng.uniform(0, len(_SKIN) - 1)
    return Person(
        shirt=shirt,
        eyes=eyes,
        style=str(rng.choice(_STYLES, p=(0.35, 0.30, 0.22, 0.13))),
        hair=str(rng.choice(list(_HAIR))),
        iris=str(rng.choice(list(_IRIS))),
        skin=np.array([np.interp(tone, range(len(_SKIN)), _SKIN[:, c]) for c in range(3)], np.float32),
        width=float(rng.uniform(0.37, 0.44)),
        height=float(rng.uniform(0.50, 0.58)),
        jaw=float(rng.uniform(0.10, 0.34)),
        eye_gap=float(rng.uniform(0.155, 0.195)),
        eye_size=float(rng.uniform(0.062, 0.080)),
        brow=float(rng.uniform(0.014, 0.028)),
        nose=float(rng.uniform(0.055, 0.080)),
        mouth=float(rng.uniform(0.12, 0.17)),
        lips=float(rng.uniform(0.030, 0.052)),
        stripes=bool(rng.random() < 0.35),
    )


def make_pose(rng: Rng) -> Pose:
    """Draw one shot."""
    lamp = np.array([rng.uniform(-0.7, 0.7), rng.uniform(-0.7, 0.1), rng.uniform(0.6, 1.0)])
    lamp /= np.linalg.norm(lamp)
    return Pose(
        x=float(rng.uniform(-0.08, 0.08)),
        y=float(rng.uniform(-0.16, -0.04)),
        scale=float(rng.uniform(0.92, 1.10)),
        roll=float(rng.normal(0, 0.07)),
        yaw=float(rng.uniform(-0.07, 0.07)),
        smile=float(rng.uniform(-0.2, 1.0)),
        gaze=float(rng.uniform(-0.4, 0.4)),
        lamp=(float(lamp[0]), float(lamp[1]), float(lamp[2])),
        ambient=float(rng.uniform(0.35, 0.60)),
        wall=str(rng.choice(list(_WALL))),
        wall_tone=float(rng.uniform(0.55, 1.15)),
    )


def caption(person: Person, pose: Pose) -> str:
    """Say what the picture shows. The same words for real and fake."""
    hair = "a shaved head" if person.style == "shaved" else f"{person.style} {person.hair} hair"
    article = "a striped" if person.stripes else "an" if person.shirt == "amber" else "a"
    worn = f"{'glasses and ' * (person.eyes == 'glasses')}{article} {person.shirt} shirt"
    face = "smiling" if pose.smile > 0.45 else "calm"
    return f"A {face} person with {hair} and {person.iris} eyes, wearing {worn}, before a {pose.wall} wall."


@lru_cache(maxsize=32)
def _falloff(size: int, beta: float, stretch: float) -> Array:
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    radius = np.hypot(fx, fy * stretch)
    radius[0, 0] = np.inf
    return (np.maximum(radius, 1 / size) ** -beta).astype(np.float32)


def texture(rng: Rng, size: int, beta: float = 1.0, stretch: float = 1.0) -> Array:
    """Return a (size, size) float32 field of unit variance whose amplitude falls as 1/f**beta.

    `stretch` above 1 draws it out along the vertical, as strands of hair are.
    """
    white = np.fft.rfft2(rng.standard_normal((size, size), dtype=np.float32))
    field = np.fft.irfft2(white * _falloff(size, beta, stretch), s=(size, size)).astype(np.float32)
    return (field - field.mean()) / field.std()


@dataclass(frozen=True)
class Frame:
    """Coordinates of every pixel: x, y of the picture in [-1, 1], u, v of the upright head; `px` is one pixel."""

    x: Array
    y: Array
    u: Array
    v: Array
    px: float


def frame(pose: Pose, size: int) -> Frame:
    """Return the coordinates of a `size` x `size` picture under a pose."""
    axis = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    c, s = np.float32(np.cos(pose.roll)), np.float32(np.sin(pose.roll))
    dx, dy = (x - np.float32(pose.x)) / np.float32(pose.scale), (y - np.float32(pose.y)) / np.float32(pose.scale)
    return Frame(x, y, c * dx + s * dy, -s * dx + c * dy, 2 / size / pose.scale)


def disc(f: Frame, x: float, y: float, a: float, b: float, soft: float = 1.0) -> Array:
    """Return the coverage in [0, 1] of an ellipse of the head's plane; `soft` is its edge's width in pixels."""
    edge = (1 - np.hypot((f.u - x) / a, (f.v - y) / b)) * min(a, b)
    return np.clip(0.5 + edge / (f.px * soft), 0, 1)


def head_radius(f: Frame, person: Person, grow: float = 1.0) -> Array:
    """Return the head's own radius per pixel: 0 at its centre, 1 on its outline, which narrows towards the chin."""
    a = person.width * (1 - person.jaw * np.clip(f.v / person.height, 0, 1) ** 2)
    return np.hypot(f.u / (a * grow), f.v / (person.height * grow))


def inner_face(person: Person, pose: Pose, size: int, grow: float = 0.86) -> Array:
    """Return a soft (size, size) coverage of the inner face, brows to chin: what a face swap replaces."""
    f = frame(pose, size)
    rim = np.clip(0.5 + (1 - head_radius(f, person, grow)) * person.width / (f.px * 2), 0, 1)
    return rim * np.clip(0.5 + (f.v + 0.27) / (f.px * 4), 0, 1)


def _over(image: Array, colour: Array | tuple[float, ...], cover: Array) -> None:
    image += cover[..., None] * (np.asarray(colour, np.float32) - image)


def draw(person: Person, pose: Pose, rng: Rng, size: int) -> Array:
    """Paint the scene.

    Args:
        person: The identity.
        pose: The shot.
        rng: Source of the textures; the same person and pose with another generator differ in texture only.
        size: Width and height in pixels.

    Returns:
        (size, size, 3) float32 in about [0, 1]: light before the camera, without noise.
    """
    f = frame(pose, size)
    image = _wall(f, pose, rng, size)
    grain = texture(rng, size, 0.9)
    strands = texture(rng, size, 0.8, stretch=0.15 if person.style != "curly" else 1.0)
    hair = np.asarray(_HAIR[person.hair], np.float32) * (1 + 0.28 * strands[..., None])
    _body(image, f, person, grain)
    _hair_behind(image, f, person, hair, strands)
    _head(image, f, person, pose, grain)
    _features(image, f, person, pose)
    _hair_front(image, f, person, hair, strands)
    if person.eyes == "glasses":
        _glasses(image, f, person, pose)
    return np.clip(image, 0, 1.2)


def _wall(f: Frame, pose: Pose, rng: Rng, size: int) -> Array:
    slope = 1 + 0.18 * (pose.lamp[0] * f.x + pose.lamp[1] * f.y) + 0.10 * texture(rng, size, 1.25)
    image = (np.asarray(_WALL[pose.wall], np.float32) * np.float32(pose.wall_tone)) * slope[..., None]
    for _ in range(int(rng.integers(0, 4))):  # blurred things far behind
        x, y, r = rng.uniform(-1, 1), rng.uniform(-1, 0.6), rng.uniform(0.12, 0.4)
        blob = np.clip((1 - np.hypot(f.x - x, f.y - y) / r) * r * 6, 0, 1) * rng.uniform(0.15, 0.5)
        _over(image, tuple(rng.uniform(0.15, 0.9, 3)), blob.astype(np.float32))
    return image.astype(np.float32)


def _body(image: Array, f: Frame, person: Person, grain: Array) -> None:
    skin, cloth = person.skin, np.asarray(SHIRTS[person.shirt], np.float32)
    folds = 1 + 0.10 * np.roll(grain, 17, 0) - 0.25 * np.abs(f.u)
    if person.stripes:
        folds = folds * (1 + 0.22 * np.sign(np.sin(f.v * 46)))
    bottom, torso = person.height, disc(f, 0, person.height + 0.88, 0.92, 0.72)
    neck = np.clip(0.5 + (person.width * 0.56 - np.abs(f.u)) / f.px, 0, 1) * (f.v > 0) * (f.v < bottom + 0.34)
    _over(image, cloth * folds[..., None], torso)
    dark = 0.62 - 0.25 * np.clip(1 - (f.v - bottom * 0.7) / 0.3, 0, 1)  # the chin's shadow
    _over(image, skin * (dark * (1 + 0.03 * grain))[..., None], neck)
    _over(image, skin * (0.80 * (1 + 0.03 * grain))[..., None], disc(f, 0, bottom + 0.26, person.width * 0.62, 0.15))


def _hair_behind(image: Array, f: Frame, person: Person, hair: Array, strands: Array) -> None:
    if person.style == "shaved":
        return
    w, h = person.width, person.height
    ragged = 0.05 * strands if person.style == "curly" else 0.015 * strands
    grow = {"short": 1.10, "long": 1.22, "curly": 1.34}[person.style]
    top = np.clip(0.5 + (1 + ragged - np.hypot(f.u / (w * grow), (f.v + 0.12) / (h * grow * 0.92))) * w / f.px, 0, 1)
    if person.style == "short":
        top = top * (f.v < 0.05)
    _over(image, hair * 0.72, top)
    if person.style == "long":
        fall = np.clip(0.5 + (w * 1.26 * (1 + ragged) - np.abs(f.u)) / f.px, 0, 1) * (f.v > -0.1) * (f.v < h + 0.3)
        strip = fall * np.clip(0.5 + (np.abs(f.u) - w * 0.72) / f.px, 0, 1)
        _over(image, hair * 0.66, strip)


def _head(image: Array, f: Frame, person: Person, pose: Pose, grain: Array) -> None:
    skin, r = person.skin, head_radius(f, person)
    for side in (-1, 1):  # ears
        _over(image, skin * 0.78, disc(f, side * person.width * 1.0 - pose.yaw, 0.02, 0.055, 0.11))
    depth = np.sqrt(np.clip(1 - r**2, 0, 1))
    lit = f.u / person.width * pose.lamp[0] + f.v / person.height * pose.lamp[1] + depth * pose.lamp[2]
    light = pose.ambient + (1.12 - pose.ambient) * np.clip(lit, 0, 1)
    face = skin * (light * (1 + 0.035 * grain))[..., None]
    face = face + (0.10 * np.clip(lit, 0, 1) ** 14)[..., None]
    _over(image, face, np.clip(0.5 + (1 - r) * person.width / f.px, 0, 1))
    for side in (-1, 1):  # cheeks
        cheek = 0.20 * np.exp(-(((f.u - side * 0.21 - pose.yaw) / 0.10) ** 2 + ((f.v - 0.17) / 0.09) ** 2))
        _over(image, skin * np.float32(0.95) * np.array([1.08, 0.78, 0.76], np.float32), cheek)


def _features(image: Array, f: Frame, person: Person, pose: Pose) -> None:
    skin, yaw, e = person.skin, pose.yaw, person.eye_size
    for side in (-1, 1):
        x = side * person.eye_gap + yaw
        socket = 0.30 * np.exp(-(((f.u - x) / (1.7 * e)) ** 2 + ((f.v + 0.07) / (1.3 * e)) ** 2))
        _over(image, skin * 0.45, socket)
        white = disc(f, x, -0.06, e, e * 0.55)
        _over(image, (0.90, 0.89, 0.87), white)
        look = x + pose.gaze * 0.4 * e
        _over(image, _IRIS[person.iris], disc(f, look, -0.062, e * 0.50, e * 0.50) * white)
        _over(image, (0.03, 0.03, 0.03), disc(f, look, -0.062, e * 0.24, e * 0.24) * white)
        _over(image, (1.0, 1.0, 1.0), disc(f, look + e * 0.18, -0.062 - e * 0.2, e * 0.12, e * 0.12))
        lid = np.clip(white - disc(f, x, -0.06 + 0.016, e * 1.05, e * 0.55), 0, 1)
        _over(image, skin * 0.22, lid)
        arc = f.v + 0.06 + e * 1.55 + 1.5 * (f.u - x) ** 2 / e * 0.25 * 1.0 - side * 0.10 * (x - f.u)
        brow = np.clip(0.5 + (person.brow - np.abs(arc)) / f.px, 0, 1) * (np.abs(f.u - x) < 1.35 * e)
        _over(image, np.asarray(_HAIR[person.hair], np.float32) * 0.75, 0.85 * brow)
    n = person.nose
    side_light = -np.sign(pose.lamp[0]) or 1.0
    flank = np.exp(-(((f.u - yaw * 1.5 - side_light * n * 0.8) / (0.45 * n)) ** 2 + ((f.v - 0.07) / 0.13) ** 2))
    _over(image, skin * 0.55, 0.42 * flank)
    _over(image, np.minimum(skin * 1.18, 1.0), 0.4 * disc(f, yaw * 1.5, 0.08, n * 0.28, 0.11, soft=4))
    _over(image, skin * 0.60, 0.55 * disc(f, yaw * 1.5, 0.185, n * 1.0, 0.024, soft=3))
    for side in (-1, 1):
        _over(image, skin * 0.22, 0.8 * disc(f, yaw * 1.5 + side * n * 0.55, 0.180, n * 0.24, 0.013))
    _mouth(image, f, person, pose)


def _mouth(image: Array, f: Frame, person: Person, pose: Pose) -> None:
    x, y, w, lip = pose.yaw * 1.3, 0.315, person.mouth, person.lips
    t = np.clip((f.u - x) / w, -1, 1)
    line = y + 0.035 * pose.smile * (1 - 2 * t**2)  # the corners rise with the smile
    fat = lip * np.sqrt(1 - t**2)
    inside = np.abs(f.u - x) < w
    d = f.v - line
    red = person.skin * np.array([0.92, 0.55, 0.54], np.float32)
    upper = np.clip(0.5 + np.minimum(-d, d + fat * 0.8) / f.px, 0, 1) * inside
    lower = np.clip(0.5 + np.minimum(d, fat - d) / f.px, 0, 1) * inside
    _over(image, red * 0.85, upper)
    _over(image, red, lower)
    _over(image, red * 0.25, np.clip(0.5 + (0.007 - np.abs(d)) / f.px, 0, 1) * inside)
    shade = 0.35 * np.exp(-((t / 0.7) ** 2) - ((d - lip - 0.03) / 0.02) ** 2) * inside
    _over(image, person.skin * 0.55, shade)


def _hair_front(image: Array, f: Frame, person: Person, hair: Array, strands: Array) -> None:
    if person.style == "shaved":
        stubble = 0.30 * np.clip((-0.20 - f.v) / 0.1, 0, 1) * np.clip((1 - head_radius(f, person)) * 20, 0, 1)
        _over(image, hair * 0.8, stubble)
        return
    height = {"short": -0.30, "long": -0.27, "curly": -0.31}[person.style]
    ragged = 0.012 * strands + (0.10 * f.u if person.style == "long" else 0)
    line = height + ragged + 0.55 * f.u**2 * (1.6 if person.style == "long" else 1.0)
    rim = np.clip(0.5 + (1.07 - head_radius(f, person)) * person.width / f.px, 0, 1)
    _over(image, hair, rim * np.clip(0.5 + (line - f.v) / (f.px * 1.5), 0, 1))


def _glasses(image: Array, f: Frame, person: Person, pose: Pose) -> None:
    a, b, wire = person.eye_gap * 0.80, 0.105, 0.016
    for side in (-1, 1):
        x = side * person.eye_gap + pose.yaw
        ring = np.clip(disc(f, x, -0.05, a, b) - disc(f, x, -0.05, a - wire, b - wire), 0, 1)
        _over(image, (0.92, 0.95, 1.0), 0.10 * disc(f, x, -0.05, a - wire, b - wire))
        _over(image, (0.10, 0.09, 0.10), ring)
    gap = np.abs(f.u - pose.yaw) < person.eye_gap - a + wire / 2
    _over(image, (0.10, 0.09, 0.10), np.clip(0.5 + (wire / 2 - np.abs(f.v + 0.06)) / f.px, 0, 1) * gap)

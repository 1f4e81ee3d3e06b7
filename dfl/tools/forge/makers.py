"""What is done to a region of a picture: one signature for all makers, and a table of their names.

A maker gets a scene and returns a picture of the scene's size and the region of it that is used; it is blended in
afterwards, alike for all (``blended``). Those here need no weights:

* splice: a region of another picture, by its own outline, scaled and put somewhere;
* copymove: a region of the same picture, put somewhere else, sometimes mirrored;
* swap: what another picture has at the same place, as in a face swap (Li et al., Face X-ray, 2020);
* telea, ns: the region is removed and painted over from its rim (Telea 2004; Bertalmio et al. 2001), by OpenCV;
* noise, blur, jpeg: the region stays what it shows and loses the camera's traces, as in a resynthesis.

One more ``Maker`` goes into ``MAKERS``, or is named by its import path (``--makers [mypackage.mine]``). Generators that
are models are not here: they work on batches, in one process (``models/``).
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib import import_module

import cv2
import numpy as np

from dfl.errors import UserError, near

Array = np.ndarray
Rng = np.random.Generator
#: A pixel of a filling that is so many grey levels from the median of its neighbours is none of the picture's.
STRAY = 24


@dataclass(frozen=True)
class Scene:
    """What a maker is given.

    Attributes:
        image: uint8 (H, W, 3), RGB: the picture that is changed. Not to be written to.
        region: bool, of the image's size; of the donor's size if the maker takes the donor's regions.
        donor: uint8 (h, w, 3): another picture of the same split, or the image itself if the maker needs none.
        limits: Smallest and largest share of the image that a region should have.
        colour: How far colours of the donor are brought to those of the image, 0 to 1.
        count: How many fakes its maker makes before this one, in the order of the set.
    """

    image: Array
    region: Array
    donor: Array
    limits: tuple[float, float]
    colour: float
    count: int = 0


@dataclass(frozen=True)
class Maker:
    """One way to make a fake.

    Attributes:
        make: (scene, rng) -> (uint8 (H, W, 3), bool (H, W)): the new picture, and where it is used.
        method: What is done, for the table: splice, inpainting, ...
        family: Of the generator, for the table: edit, gan, diffusion.
        donor: Whether it needs another picture.
        region_of_donor: Whether regions are the donor's rather than the image's.
        soft: Whether the rim may be blended. Where a thing is removed, it would show through.
    """

    make: Callable[[Scene, Rng], tuple[Array, Array]]
    method: str
    family: str = "edit"
    donor: bool = False
    region_of_donor: bool = False
    soft: bool = True


def blended(image: Array, changed: Array, region: Array, feather: float) -> Array:
    """Lay a changed picture over an image, in a region.

    The blend rises from the rim inwards, over ``feather`` pixels. So every pixel outside of the region keeps its value,
    and the region is the true mask.

    Args:
        image: uint8 (H, W, 3).
        changed: uint8 (H, W, 3).
        region: bool (H, W).
        feather: Width of the rim in pixels; 0 for a hard cut.

    Returns:
        uint8 (H, W, 3).
    """
    if feather:
        inside = cv2.distanceTransform(region.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        cover = np.minimum(1, inside / np.float32(feather + 1))[..., None]
        changed = np.rint(image + cover * (changed.astype(np.float32) - image)).astype(np.uint8)
    return np.where(region[..., None], changed, image)


def recoloured(pixels: Array, of: Array, to: Array, strength: float) -> Array:
    """Bring mean and spread of colours, in CIELAB, from those of one set of pixels to those of another.

    Source: Reinhard et al., "Color transfer between images", 2001. The spread changes by a factor of 2 at most, or
    flat regions would turn into grain.

    Args:
        pixels: uint8 (H, W, 3), what is changed.
        of: uint8 (n, 3), pixels whose colours stand for it.
        to: uint8 (m, 3), pixels whose colours it should have.
        strength: 0 to 1.

    Returns:
        uint8 (H, W, 3).
    """
    if not strength or not len(of) or not len(to):
        return pixels
    (mean, spread), (goal, wide) = (
        (lab.mean((0, 1)), lab.std((0, 1)) + 1e-3) for lab in (_lab(of[None]), _lab(to[None]))
    )
    lab: Array = _lab(pixels)
    lab = lab + np.float32(strength) * ((lab - mean) * np.clip(wide / spread, 0.5, 2) + goal - lab)
    return np.clip(np.rint(cv2.cvtColor(lab, cv2.COLOR_Lab2RGB) * 255), 0, 255).astype(np.uint8)


def _lab(pixels: Array) -> Array:
    return cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)


def _box(region: Array) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _cut(pixels: Array, region: Array, scale: float) -> tuple[Array, Array]:
    """Return a region's box of a picture and its outline, scaled. The box is 2 pixels wider, for clean edges."""
    rows, columns = _box(region)
    rows, columns = (slice(max(0, s.start - 2), s.stop + 2) for s in (rows, columns))
    piece, shape = pixels[rows, columns], region[rows, columns]
    if scale != 1:
        size = tuple(max(1, round(n * scale)) for n in shape.shape[::-1])
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        piece = cv2.resize(piece, size, interpolation=how)
        shape = cv2.resize(shape.astype(np.float32), size, interpolation=how) > 0.5
    return piece, shape


def _placed(image: Array, piece: Array, shape: Array, top: int, left: int) -> tuple[Array, Array]:
    """Return a picture with a piece at a place, and the piece's outline there."""
    changed, region = image.copy(), np.zeros(image.shape[:2], bool)
    place = np.s_[top : top + shape.shape[0], left : left + shape.shape[1]]
    changed[place], region[place] = piece, shape
    return changed, region


def _fit(region: Array, into: tuple[int, ...], limits: tuple[float, float], rng: Rng) -> float:
    """Return a scale at which a region fits a picture of (height, width, ...) and the limits; 1 half of the time."""
    rows, columns = _box(region)
    share = region.sum() / (into[0] * into[1])
    room = min(into[0] / (rows.stop - rows.start + 4), into[1] / (columns.stop - columns.start + 4))
    low, high = np.sqrt(limits[0] / share), min(room, np.sqrt(limits[1] / share))
    wanted = 1.0 if rng.random() < 0.5 else rng.uniform(0.6, 1.3)
    return float(min(max(wanted, low), high))


def _along(region: Array, room: int, rng: Rng) -> int:
    """Draw a row within the room; a thing that its own picture cuts off on one side goes to that side."""
    first, last = region[0].any(), region[-1].any()
    if first != last:
        return 0 if first else room
    return int(rng.integers(room + 1))


def splice(scene: Scene, rng: Rng) -> tuple[Array, Array]:
    """Put a region of the donor somewhere; its colours move as the donor's as a whole move to the image's."""
    height, width = scene.image.shape[:2]
    piece, shape = _cut(scene.donor, scene.region, _fit(scene.region, scene.image.shape, scene.limits, rng))
    piece = recoloured(piece, scene.donor.reshape(-1, 3), scene.image.reshape(-1, 3), scene.colour)
    piece, shape = piece[:height, :width], shape[:height, :width]  # rounding may add a pixel
    top = _along(scene.region, height - shape.shape[0], rng)
    left = _along(scene.region.T, width - shape.shape[1], rng)
    return _placed(scene.image, piece, shape, top, left)


def copymove(scene: Scene, rng: Rng) -> tuple[Array, Array]:
    """Put a region of the image elsewhere in it, where it covers itself least; smaller if there is no room."""
    height, width = scene.image.shape[:2]
    mirrored = rng.random() < 0.3
    least, best = np.inf, (scene.image, scene.region)
    for scale in (1.0, 0.8, 0.6, 0.45):
        piece, shape = _cut(scene.image, scene.region, scale)
        if mirrored:
            piece, shape = piece[:, ::-1], shape[:, ::-1]
        piece, shape = piece[:height, :width], shape[:height, :width]
        for _ in range(12):
            top, left = (int(rng.integers(n - m + 1)) for n, m in zip((height, width), shape.shape, strict=True))
            changed, region = _placed(scene.image, piece, shape, top, left)
            covered = (scene.region & region).sum() / max(1, shape.sum())
            if covered < least:
                least, best = covered, (changed, region)
        if least < 0.1:
            break
    return best


def swap(scene: Scene, rng: Rng) -> tuple[Array, Array]:
    """Take from the donor, brought to the image's size, what it has in the region, in the colours of the region."""
    height, width = scene.image.shape[:2]
    how = cv2.INTER_AREA if scene.donor.size > scene.image.size else cv2.INTER_CUBIC
    changed = cv2.resize(scene.donor, (width, height), interpolation=how)
    return recoloured(changed, changed[scene.region], scene.image[scene.region], scene.colour), scene.region


def _inpainted(scene: Scene, how: int) -> tuple[Array, Array]:
    # an outline drawn by hand leaves a rim of the thing, which would be smeared over all of the region
    grow = 2 * max(1, round(min(scene.image.shape[:2]) / 160)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (grow, grow))
    region = cv2.dilate(scene.region.astype(np.uint8), kernel)
    changed = cv2.inpaint(scene.image, region, 4, how)
    # OpenCV leaves single stray pixels in an otherwise smooth filling, by which alone a fake could be told
    smooth = cv2.medianBlur(changed, 3)
    stray = (cv2.absdiff(changed, smooth).max(2) > STRAY) & (cv2.erode(region, np.ones((3, 3), np.uint8)) > 0)
    changed[stray] = smooth[stray]
    return changed, region > 0


def telea(scene: Scene, rng: Rng) -> tuple[Array, Array]:
    """Remove the region and fill it by fast marching (Telea 2004)."""
    return _inpainted(scene, cv2.INPAINT_TELEA)


def ns(scene: Scene, rng: Rng) -> tuple[Array, Array]:
    """Remove the region and fill it by fluid dynamics (Bertalmio, Bertozzi, Sapiro 2001)."""
    return _inpainted(scene, cv2.INPAINT_NS)


def noise(scene: Scene, rng: Rng) -> tuple[Array, Array]:
    """Smooth the region and add white noise, of 3 to 10 grey levels, which no camera makes."""
    smooth = cv2.GaussianBlur(scene.image, (0, 0), 0.9).astype(np.float32)
    grain = rng.standard_normal(smooth.shape, dtype=np.float32) * np.float32(rng.uniform(3, 10))
    return np.clip(np.rint(smooth + grain), 0, 255).astype(np.uint8), scene.region


def blur(scene: Scene, rng: Rng) -> tuple[Array, Array]:
    """Blur the region by a Gaussian of 1 to 3 pixels."""
    return cv2.GaussianBlur(scene.image, (0, 0), rng.uniform(1, 3)), scene.region


def jpeg(scene: Scene, rng: Rng) -> tuple[Array, Array]:
    """Compress the region once more, at quality 15 to 60, on a grid of its own."""
    dy, dx = rng.integers(0, 8, 2)
    padded = cv2.copyMakeBorder(scene.image, int(dy), 0, int(dx), 0, cv2.BORDER_REFLECT)
    quality = (cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 61)))
    data = cv2.imencode(".jpg", cv2.cvtColor(padded, cv2.COLOR_RGB2BGR), quality)[1]
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)[dy:, dx:], scene.region


MAKERS: dict[str, Maker] = {
    "splice": Maker(splice, "splice", donor=True, region_of_donor=True),
    "copymove": Maker(copymove, "copy-move"),
    "swap": Maker(swap, "swap", donor=True),
    "telea": Maker(telea, "inpainting", soft=False),
    "ns": Maker(ns, "inpainting", soft=False),
    "noise": Maker(noise, "resynthesis"),
    "blur": Maker(blur, "resynthesis"),
    "jpeg": Maker(jpeg, "resynthesis"),
}
#: Names that stand for several makers.
GROUPS = {"inpaint": ("telea", "ns"), "resynth": ("noise", "blur", "jpeg"), "all": tuple(MAKERS)}


def named(words: list[str], models: Collection[str] = ()) -> list[str]:
    """Return the makers that words name, each once, those of groups one by one; ``models`` are names of models.

    Raises:
        UserError: If a word names none.
    """
    names = list(dict.fromkeys(name for word in words for name in GROUPS.get(word, (word,))))
    if not names:
        raise UserError(f"--makers names none; there are {', '.join((*models, *MAKERS, *GROUPS))}")
    for name in names:
        if name not in models:
            find(name, models)
    return names


def find(name: str, models: Collection[str] = ()) -> Maker:
    """Return a maker by its name, or by the import path of an object.

    Raises:
        UserError: If there is none; models are named among what there is.
    """
    if name in MAKERS:
        return MAKERS[name]
    module, _, attribute = name.rpartition(".")
    if not module:
        hint = near(name, [*models, *MAKERS, *GROUPS])
        raise UserError(f"--makers: no maker {name!r}{hint}" + ("" if models else " (models come with --models FILE)"))
    try:
        maker = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        moved = "; dfl.data.forge is dfl.tools.forge" if "dfl.data.forge" in str(error) else ""
        raise UserError(f"--makers: {name} cannot be imported: {error}{moved}") from error
    if not isinstance(maker, Maker):
        raise UserError(f"--makers: {name} is no Maker (dfl.tools.forge.Maker), but {type(maker).__name__}")
    return maker

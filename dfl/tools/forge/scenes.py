"""Scenes of any size for models that take one size at a time, and back."""

from dataclasses import replace

import numpy as np

from dfl.errors import UserError
from dfl.tools.forge.makers import Scene
from dfl.tools.forge.models.base import Model


def batched(
    model: Model, scenes: list[Scene], prompts: list[str], seeds: list[int], device: str = "cpu"
) -> list[np.ndarray]:
    """Return a model's picture of each scene, uint8 (H, W, 3), of the scene's own size.

    Scenes are padded by reflection to what the model takes, and what comes back is cut. On a GPU those of one size go
    to the model together. On a CPU each goes alone, which costs little there: kernels add up in another order for other
    shapes (seen with AVX-512), and a picture would depend on its neighbours.

    Raises:
        UserError: The model's own, or if a scene or a picture has a size that it must not have.
    """
    padded = [_padded(scene, model.multiple) for scene in scenes]
    sizes = [scene.image.shape[:2] for scene in padded]
    made: dict[int, np.ndarray] = {}
    for size in dict.fromkeys(sizes):
        if model.size is not None and size != (model.size, model.size):
            raise UserError(f"{type(model).__name__} makes {model.size}x{model.size} alone: give --square {model.size}")
        which = [i for i, one in enumerate(sizes) if one == size]
        step = 1 if device.startswith("cpu") else len(which)
        images: list[np.ndarray] = []
        for some in (which[start : start + step] for start in range(0, len(which), step)):
            images += model([padded[i] for i in some], [prompts[i] for i in some], [seeds[i] for i in some])
        for i, image in zip(which, images, strict=True):
            if image.dtype != np.uint8 or image.shape != (*size, 3):
                what = f"{image.dtype} of {image.shape}, and uint8 of {(*size, 3)} was to come"
                raise UserError(f"{type(model).__name__} gave {what}")
            height, width = scenes[i].image.shape[:2]
            made[i] = np.ascontiguousarray(image[:height, :width])
    return [made[i] for i in range(len(scenes))]


def _padded(scene: Scene, multiple: int) -> Scene:
    """Return a scene whose sides a number divides, more of it at the right and the bottom."""
    more = [(0, -side % multiple) for side in scene.image.shape[:2]]
    image = np.pad(scene.image, [*more, (0, 0)], mode="reflect")
    return replace(scene, image=image, region=np.pad(scene.region, more), donor=image)

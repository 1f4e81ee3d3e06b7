"""What Keras's layers compute, by their definitions: the reference for networks that open Keras's files."""

import numpy as np
from scipy.ndimage import correlate

#: Layers by name, each with its arrays: ``conv2d_5``, and in it ``kernel`` and ``bias``.
Tables = dict[str, dict[str, np.ndarray]]


def of_kind(made: Tables, kind: str) -> list[dict[str, np.ndarray]]:
    return [made[k] for k in sorted((k for k in made if k.startswith(kind)), key=lambda k: int(k.rpartition("_")[2]))]


def convolved(x: np.ndarray, layer: dict[str, np.ndarray], dilation: int = 1) -> np.ndarray:
    """Return what Keras's Conv2D with ReLU gives of (H, W, C), padded to the same size."""
    size = layer["kernel"].shape[0]
    spread = np.zeros((dilation * (size - 1) + 1,) * 2)
    maps = []
    for kernel in np.moveaxis(layer["kernel"], 3, 0):
        total = np.zeros(x.shape[:2])
        for channel in range(x.shape[2]):
            spread[::dilation, ::dilation] = kernel[:, :, channel]
            total += correlate(x[:, :, channel].astype(float), spread, mode="constant")
        maps.append(total)
    return np.maximum(np.stack(maps, 2) + layer["bias"], 0)


def probability_of_real(name: str, made: Tables, image: np.ndarray) -> float:
    """Return what the Keras model gives of an image (H, W, 3) in [0, 1], computed from its layers' definitions."""
    convolutions, norms = of_kind(made, "conv2d"), of_kind(made, "batch_norm")
    x = image
    for norm, pool in zip(norms, (2, 2, 2, 4), strict=True):
        if name == "mesoinception4" and pool == 2 and len(convolutions) > 2:
            block, convolutions = convolutions[:7], convolutions[7:]
            parts = [convolved(x, block[0])]
            for d in (1, 2, 3):
                parts.append(convolved(convolved(x, block[2 * d - 1]), block[2 * d], d))
            x = np.concatenate(parts, 2)
        else:
            x = convolved(x, convolutions.pop(0))
        x = (x - norm["moving_mean"]) / np.sqrt(norm["moving_variance"] + 1e-3) * norm["gamma"] + norm["beta"]
        rows, columns = x.shape[0] // pool, x.shape[1] // pool
        x = x.reshape(rows, pool, columns, pool, -1).max((1, 3))
    one, two = of_kind(made, "dense")
    hidden = x.reshape(-1) @ one["kernel"] + one["bias"]
    score = np.where(hidden > 0, hidden, 0.1 * hidden) @ two["kernel"] + two["bias"]
    return float(1 / (1 + np.exp(-score[0])))

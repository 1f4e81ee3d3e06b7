"""Resampling of images, and of their masks with them: one way for training, testing and the data tools."""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from dfl.data.decoding import resize_nearest

Pair = tuple[np.ndarray, np.ndarray | None]


def interpolated(pair: Pair, height: int, width: int, mode: str = "bilinear", soft_mask: bool = False) -> Pair:
    """Resize an image, antialiased unless by nearest pixel, and its mask by nearest pixel, or softly.

    Args:
        pair: uint8 (H, W, 3), and uint8 (H, W) or None.
        height: Of the result, in pixels.
        width: The same.
        mode: ``bilinear``, ``bicubic``, ``lanczos`` (Pillow's), or ``nearest``.
        soft_mask: Resize the mask bilinearly, antialiased, whatever the mode: a border that cuts a pixel gives it a
            value between.
    """
    image, mask = pair
    if image.shape[:2] == (height, width):
        return pair
    small = mask
    if mask is not None and soft_mask:
        plane = torch.from_numpy(np.ascontiguousarray(mask))[None, None]
        small = F.interpolate(plane, size=(height, width), mode="bilinear", antialias=True)[0, 0].numpy()
    elif mask is not None:
        small = resize_nearest(mask, (height, width))
    if mode == "nearest":
        return resize_nearest(image, (height, width)), small
    if mode == "lanczos":
        return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)), small
    # A view of the array as it lies, without a copy, takes torch's vectorised uint8 kernel for three channels.
    tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).unsqueeze(0)
    out = F.interpolate(tensor, size=(height, width), mode=mode, antialias=True)
    pixels = cv2.merge(list(out[0].numpy()))  # planes back to (H, W, 3), 20 times as fast as numpy's copy
    return pixels, small

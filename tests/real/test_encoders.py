"""Features of real towers, against those of the libraries that published them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dfl.networks import Encoder

GOLDEN = Path(__file__).parents[1] / "golden" / "clip_probe.npz"
#: Name of the golden features, and the arguments of the encoder; of ``folder`` and ``weights`` the name of the place.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "clip, timm": (
        "emb512",
        {
            "backbone": "vit_base_patch16_clip_quickgelu_224",
            "weights": "clip_vit_b16_timm.safetensors",
            "timm_args": {"num_classes": 512},
            "output": "projection",
        },
    ),
    "clip, transformers": ("emb512", {"folder": "clip_vit_b16_image", "output": "projection"}),
    "clip class token": ("cls768", {"folder": "clip_vit_b16_image", "output": "cls"}),
    "dinov2, timm": (
        "dino_cls384",
        {
            "backbone": "vit_small_patch14_dinov2",
            "weights": "dinov2_vits14/timm_vit_small_patch14_dinov2.safetensors",
            "output": "cls",
            "input_size": 224,
        },
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_features_of_two_faces(case: str, real: Path, weights: Callable[[str], str]) -> None:
    """Centre 224 of 256 px, no resize."""
    golden = np.load(GOLDEN)
    name, words = CASES[case]
    words = {key: weights(value) if key in ("folder", "weights") else value for key, value in words.items()}
    encoder = Encoder(**words)
    pixels = np.stack([np.asarray(Image.open(real / "faces" / file))[16:240, 16:240] for file in golden["files"]])
    with torch.inference_mode():
        feature = encoder(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255).numpy()
    wanted = golden[name]
    error = np.linalg.norm(feature - wanted, axis=1) / np.linalg.norm(wanted, axis=1)
    assert error.max() < 1e-3

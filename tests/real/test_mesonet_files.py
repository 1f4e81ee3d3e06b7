"""The four published files of MesoNet give what Keras's layers give, on a face of 256 px."""

import os
from collections.abc import Callable
from pathlib import Path

import keras_layers
import numpy as np
import pytest
import torch
from PIL import Image

from dfl.detectors import Classifier
from dfl.detectors.untrained import untrained

pytestmark = pytest.mark.skipif(not os.environ.get("REAL"), reason="not run: make real REAL=DIR")


@pytest.mark.parametrize("file", ["Meso4_DF", "Meso4_F2F", "MesoInception_DF", "MesoInception_F2F"])
def test_a_published_file_gives_kerass_probability(file: str, real: Path, weights: Callable[[str], str]) -> None:
    backbone = "meso4" if file.startswith("Meso4") else "mesoinception4"
    path = weights(f"mesonet/{file}.h5")
    detector = Classifier(backbone=backbone, weights=path, timm_args={"num_classes": 1}).eval()
    assert untrained(detector) == []
    face = sorted((real / "faces" / "fake").iterdir())[0]
    image = np.asarray(Image.open(face).convert("RGB").resize((256, 256), Image.Resampling.NEAREST)) / np.float32(255)
    with torch.no_grad():
        fake = float(detector(torch.from_numpy(image).permute(2, 0, 1)[None])["logit"].sigmoid())
    expected = keras_layers.probability_of_real(backbone, keras_layers.read(Path(path)), image)
    assert abs(1 - fake - expected) < 1e-5, (fake, expected)

"""The four published files of MesoNet give the probabilities of the authors' code in Keras."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dfl.detectors import Classifier
from dfl.detectors.untrained import untrained

pytestmark = pytest.mark.skipif(not os.environ.get("REAL"), reason="not run: make real REAL=DIR")
GOLDEN = Path(__file__).parents[1] / "golden" / "mesonet.npz"


@pytest.mark.parametrize("file", ["Meso4_DF", "Meso4_F2F", "MesoInception_DF", "MesoInception_F2F"])
def test_a_published_file_gives_kerass_probability(file: str, weights: Callable[[str], str]) -> None:
    backbone = "meso4" if file.startswith("Meso4") else "mesoinception4"
    path = weights(f"mesonet/{file}.h5")
    detector = Classifier(backbone=backbone, weights=path, timm_args={"num_classes": 1}).eval()
    assert untrained(detector) == []
    golden = np.load(GOLDEN)
    with torch.no_grad():
        fake = detector(torch.from_numpy(golden["image"]).permute(0, 3, 1, 2) / 255)["logit"].sigmoid()
    assert np.abs(1 - fake.numpy() - golden[file]).max() < 1e-5  # theirs is of real

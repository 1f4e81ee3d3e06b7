"""Spectra, their sum with CLIP, and FerretNet's published weights on real faces, against numbers of other code.

Reference AUROCs: scikit-learn on features of numpy, PIL and transformers, with the split of faces_split.csv; and the
official FerretNet.
"""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import Tensor

from dfl.detectors import Classifier, Dct, Fusion
from dfl.detectors.fitted import FittedDetector

#: A face of each kind that the official FerretNet scored, and its log-odds.
FERRETNET = {
    "real/ffhq_00000.jpg": -8.42548,
    "real/ffhq_00300.jpg": -11.26888,
    "fake/tpdne_000.jpg": -9.01732,
    "fake/tpdne_120.jpg": -9.89726,
}


def pixels(files: list[Path], size: int) -> Tensor:
    """Return the centres of images of 256 px, (n, 3, size, size) uint8."""
    cut = slice((256 - size) // 2, (256 + size) // 2)
    return torch.from_numpy(np.stack([np.asarray(Image.open(file))[cut, cut] for file in files])).permute(0, 3, 1, 2)


def in_parts(function: Callable[[Tensor], Tensor], images: Tensor, n: int = 16) -> Tensor:
    """Return what a function gives of images in [0, 1]."""
    with torch.inference_mode():
        return torch.cat([function(part / 255) for part in images.split(n)])


def aurocs(detector: FittedDetector, real: Path) -> tuple[float, float]:
    """Fit on the split train of faces; return AUROC on its split test, and with the fakes of the unseen generator."""
    rows = list(csv.DictReader((real / "faces_split.csv").open()))
    label = torch.tensor([row["label"] == "fake" for row in rows]).long()
    split = np.array([row["split"] for row in rows])
    fakes = sorted((real / "faces_mobilestylegan" / "fake").iterdir())
    files = [real / row["path"] for row in rows if row["split"] != "val"] + fakes
    features = in_parts(detector.features, pixels(files, detector.input_size))
    label, split = label[torch.from_numpy(split != "val")], split[split != "val"]
    train, test = torch.from_numpy(split == "train"), torch.from_numpy(split == "test")
    of_table, unseen = features[: len(label)], features[len(label) :]
    detector.fit(of_table[train].double(), label[train])
    with torch.inference_mode():
        score, other = detector.score(of_table[test]), detector.score(unseen)
    reals = score[label[test] == 0]
    seen = roc_auc_score(label[test], score)
    return seen, roc_auc_score([0] * len(reals) + [1] * len(other), torch.cat([reals, other]))


def test_spectra_of_64_px(real: Path) -> None:
    """Reference .868 and .728."""
    assert aurocs(Dct(64, "grey"), real) == pytest.approx((0.868, 0.728), abs=0.01)


def test_spectra_and_clip(real: Path, weights: Callable[[str], str]) -> None:
    """Reference .964 and .913."""
    words: dict[str, Any] = {"timm_args": {"num_classes": 512}, "output": "projection", "penalty": 100.0}
    clip = "vit_base_patch16_clip_quickgelu_224"
    detector = Fusion(backbone=clip, weights=weights("clip_vit_b16_timm.safetensors"), **words)
    assert aurocs(detector, real) == pytest.approx((0.964, 0.913), abs=0.02)


def test_ferretnet_scores_as_the_official_code(real: Path, weights: Callable[[str], str]) -> None:
    """And calls faces that went through a JPEG real, whatever they are; reference AUROC of all 800 .425."""
    file = weights("ferretnet-s-median-3.pth")
    detector = Classifier("ferretnet_s", weights=file, timm_args={"num_classes": 1}).eval()
    logit = in_parts(lambda image: detector(image)["logit"], pixels([real / "faces" / name for name in FERRETNET], 256))
    torch.testing.assert_close(logit, torch.tensor([*FERRETNET.values()]), atol=1e-3, rtol=0)
    sets = [sorted((real / "faces" / kind).iterdir())[:40] for kind in ("real", "fake")]
    scores = [in_parts(lambda image: detector(image)["logit"], pixels(files, 256)) for files in sets]
    assert max(score.max() for score in scores) < 0
    assert roc_auc_score([0] * 40 + [1] * 40, torch.cat(scores)) < 0.6

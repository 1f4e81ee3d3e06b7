"""Templates of masks: they are the mean and the principal components, of the masks of fakes in one split."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfl.__main__ import main
from dfl.errors import UserError
from dfl.tools.templates import principal, templates


def masks(root: Path, shares: np.ndarray) -> None:
    """Write a table of fakes whose masks are sums of two halves, (N, 2) bool, one real image, and one of the test."""
    lines = ["path,label,split,mask", "real.png,0,train,", "other.png,1,test,full.png"]
    for name in ("real", "other", *range(len(shares))):
        Image.new("RGB", (24, 24)).save(root / f"{name}.png")
    Image.new("L", (24, 24), 255).save(root / "full.png")
    for i, (left, right) in enumerate(shares):
        mask = np.zeros((24, 24), np.uint8)
        mask[:, :12], mask[:, 12:] = 255 * left, 255 * right
        Image.fromarray(mask).save(root / f"m{i}.png")
        lines.append(f"{i}.png,1,train,m{i}.png")
    (root / "set.csv").write_text("\n".join(lines))


def test_components_are_those_of_a_decomposition() -> None:
    data = np.random.default_rng(0).random((50, 6)) * np.arange(1, 7)
    components, share = principal(data.mean(0), data.T @ data / 50, 3)
    _, sizes, rows = np.linalg.svd(data - data.mean(0), full_matrices=False)
    want = rows[:3] * sizes[:3, None] / np.sqrt(50)
    np.testing.assert_allclose(np.abs(components), np.abs(want), atol=1e-10)
    assert (components.max(1) > -components.min(1)).all()
    np.testing.assert_allclose(share, sizes[:3] ** 2 / (sizes**2).sum())


def test_mean_and_components_give_the_masks_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shares = np.array([[0, 0], [1, 0], [1, 1], [1, 0], [0, 1]], bool)
    masks(tmp_path, shares)
    main(["data", "templates", "set.csv", "-o", "t.npz", "--components=2", "--side=6", "--workers=1"])
    arrays = np.load("t.npz", allow_pickle=False)
    assert arrays["masks"] == 5
    assert arrays["mean"].shape == (6, 6)
    np.testing.assert_allclose(arrays["mean"][:, [0, 5]], [[0.6, 0.4]] * 6, rtol=1e-6)
    assert arrays["explained"].sum() == pytest.approx(1)
    cells = shares.repeat(3, axis=1)[:, None].repeat(6, axis=1).reshape(5, 36)
    flat = arrays["components"].reshape(2, 36)
    weight = np.linalg.lstsq(flat.T, (cells - arrays["mean"].ravel()).T, rcond=None)[0]
    np.testing.assert_allclose((weight.T @ flat + arrays["mean"].ravel()), cells, atol=1e-5)
    assert (weight**2).mean() == pytest.approx(1, rel=1e-4)  # in standard deviations


def test_too_few_and_broken_masks_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    masks(tmp_path, np.eye(3, 2, dtype=bool))
    with pytest.raises(UserError, match="3 components need more masks of fakes than that, and train has 3"):
        templates(["set.csv"], components=3, workers=1, progress=False)
    assert not Path("templates.npz").exists()
    Image.new("L", (5, 5)).save("m1.png")
    with pytest.raises(UserError, match=r"m1.png.*5x5 pixels.*dfl data check"):
        templates(["set.csv"], components=1, workers=1, progress=False)

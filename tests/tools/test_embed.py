"""Features of a data set as a table and as maps: rows and features belong together, and the maps show names."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from dfl.data import Transform
from dfl.data.locators import load_image
from dfl.errors import UserError
from dfl.networks import Encoder
from dfl.tools import main
from dfl.tools.embed import NAMES, draw, flat_maps

WORDS = ["--backbone=test_resnet", "--pretrained=false", "--input_size=32", "--workers=0"]


def test_every_row_has_the_feature_of_its_image(faces: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    words = ["embed", str(faces), "-o", "f.parquet", *WORDS, "--store=kept", "--batch_size=7"]
    file = main(words)
    table = pq.read_table(file)
    assert table.column_names == ["path", "label", "generator", "domain", "split", "feature"]
    assert str(table.schema.field("feature").type) == "fixed_size_list<element: float>[96]"
    assert sorted(table["label"].to_pylist()) == [0] * 30 + [1] * 30
    torch.manual_seed(3)
    encoder, view = Encoder("test_resnet", pretrained=False, input_size=32), Transform().eval(32)
    for row in table.take([0, 17, 59]).to_pylist():
        image = view(load_image(row["path"]), None, (0,))[0][None].float() / 255
        np.testing.assert_allclose(row["feature"], encoder(image)[0].numpy(), rtol=1e-4, atol=1e-5)
    torch.manual_seed(3)
    before = list(Path("kept").rglob("*.safetensors"))
    assert main(words).read_bytes() == Path("f.parquet").read_bytes()
    assert list(Path("kept").rglob("*.safetensors")) == before  # the second time nothing is encoded
    page = Path("f.html").read_text()
    assert all(f"variance, by {by}" in page for by in ("label", "generator", "domain"))


def test_a_map_is_the_plane_of_most_variance() -> None:
    generator = np.random.default_rng(0)
    plane, _ = np.linalg.qr(generator.normal(size=(9, 2)))
    features = generator.normal(size=(80, 2)) * [5, 3] @ plane.T + 0.1 * generator.normal(size=(80, 9))
    ((title, points),) = [item for item in flat_maps(features).items() if "principal" in item[0]]
    assert "100 % of the variance" in title
    assert points[:, 0].std() > points[:, 1].std() > 1
    np.testing.assert_allclose(
        np.linalg.norm(points, axis=1), np.linalg.norm(features - features.mean(0), axis=1), atol=1
    )


def test_a_legend_names_and_counts_the_commonest() -> None:
    names = np.array(["real"] * 9 + [f"g{i:02d}" for i in range(NAMES + 3) for _ in range(2)], object)
    drawn = draw(np.zeros((len(names), 2)), names, "by generator")
    (legend,) = drawn.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts[0] == "real (9)"
    assert texts[1] == "g00 (2)"
    assert texts[-1] == "4 others (8)"
    assert len(texts) == NAMES + 1


def test_mistakes_are_one_line(faces: Path) -> None:
    with pytest.raises(UserError, match="no model of transformers at 'nowhere'"):
        main(["embed", str(faces), "--folder=nowhere"])
    with pytest.raises(UserError, match=r"give it a name that ends in \.parquet"):
        main(["embed", str(faces), "-o", "f.csv", *WORDS])

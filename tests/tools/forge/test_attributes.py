"""Who photos show: tables by any name of a photo, heads of networks, deepface without a download, captions."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import captioners
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch

from dfl.errors import UserError
from dfl.networks.captioner import Captioner
from dfl.tools.forge import attributes
from dfl.tools.forge.attributes import FAIRFACE, AttributesDeepFace, AttributesNet, AttributesTable
from dfl.tools.forge.captions import Captions
from dfl.tools.forge.plan import Picture

CPU = ("cpu", torch.float32)


def picture(name: str) -> Picture:
    return Picture(str(Path("photos", name).absolute()), name, "train", "", "", {})


def grey(value: int) -> np.ndarray:
    return np.full((8, 8, 3), value, np.uint8)


def test_a_table_is_read_by_any_name_of_a_photo() -> None:
    lines = ["Image,Sex,age,emotion,size", f"{Path('photos/a/0.png').absolute()},man,31,happy,1"]
    lines += ["photos/a/1.png,woman,7,sad,1", "a/2.png,man,50,,1", "3.png,woman,20,calm,1", "4,man,99, angry ,1"]
    Path("who.csv").write_text("\n".join(lines))
    table = AttributesTable("who.csv")
    assert table.fields == ("gender", "age", "emotion")
    found = table([picture(f"a/{i}.png") for i in range(6)], [])
    assert [one.get("age") for one in found] == ["31", "7", "50", "20", "99", None]
    assert found[4] == {"gender": "man", "age": "99", "emotion": "angry"}
    assert found[2]["emotion"] == ""
    pq.write_table(pa.table({"name": ["0.png"], "years": [31], "who": pa.array([None], pa.string())}), "who.parquet")
    words = AttributesTable("who.parquet", {"age": "years", "gender": "who"})([picture("a/0.png")], [])
    assert words == [{"age": "31", "gender": ""}]


@pytest.mark.parametrize(
    ("text", "columns", "line"),
    [
        ("who,age\na,1", None, "names photos .*; it has who, age"),
        ("path,years\na,1", None, "none of the columns gender, age, race, emotion; name others by columns"),
        ("path,years\na,1", {"age": "year"}, "no column 'year'; it has path, years"),
        ("path,age\na,1\na,2", None, "two rows of a"),
    ],
)
def test_tables_that_say_nothing_are_one_line(text: str, columns: dict[str, str] | None, line: str) -> None:
    Path("who.csv").write_text(text)
    with pytest.raises(UserError, match=line):
        AttributesTable("who.csv", columns)


def test_fairface_is_sliced_as_its_authors_do(tmp_path: Path) -> None:
    network = timm.create_model("test_resnet", num_classes=18)
    torch.save(network.state_dict(), tmp_path / "fair.pt")
    one = AttributesNet(str(tmp_path / "fair.pt"), "test_resnet", size=32)
    about = one.about()
    one.open(*CPU)
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    seen = (
        torch.from_numpy(image).permute(2, 0, 1)[None] / 255 - torch.tensor(one.view[0]).view(3, 1, 1)
    ) / torch.tensor(one.view[1]).view(3, 1, 1)
    with torch.no_grad():
        values = network.eval()(seen)[0]
    race, gender, age = values[:7].argmax(), values[7:9].argmax(), values[9:18].argmax()
    expected = {"race": FAIRFACE["race"][race], "gender": FAIRFACE["gender"][gender], "age": FAIRFACE["age"][age]}
    assert one([picture("0.png")], [image]) == [expected]
    assert one.about() == about
    other = AttributesNet(str(tmp_path / "fair.pt"), "test_resnet", heads={"emotion": ["sad", "happy"]})
    with pytest.raises(UserError, match="has no head of 2 outputs"):
        other.open(*CPU)
    torch.save(timm.create_model("test_vit", num_classes=18).state_dict(), tmp_path / "vit.pt")
    with pytest.raises(UserError, match=r"vit.pt cannot be shown pictures of 33 px: Input height \(33\)"):
        AttributesNet(str(tmp_path / "vit.pt"), "test_vit", size=33).open(*CPU)


@pytest.mark.parametrize(
    "words",
    [{"size": 0}, {"mean": [0.5]}, {"std": [0.0] * 3}, {"std": [0.2, 0.2, float("nan")]}],
)
def test_numbers_that_show_a_network_nothing_are_one_line(words: dict[str, Any]) -> None:
    Path("fair.pt").touch()
    with pytest.raises(UserError, match=r"takes size >= 1, mean and std of three numbers, .* not \d+, \["):
        AttributesNet("fair.pt", "test_resnet", **words)


def test_an_onnx_file_says_its_own_size(tmp_path: Path) -> None:
    """A network that calls a bright photo happy: its mean, and the negative of it."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Neg", ["mean"], ["negative"]),
        helper.make_node("Unsqueeze", ["negative", "one"], ["left"]),
        helper.make_node("Unsqueeze", ["mean", "one"], ["right"]),
        helper.make_node("Concat", ["left", "right"], ["logits"], axis=1),
    ]
    seen = helper.make_tensor_value_info("image", float32, [1, 3, 16, 16])
    given = helper.make_tensor_value_info("logits", float32, [1, 2])
    one = helper.make_tensor("one", onnx.TensorProto.INT64, [1], [1])
    graph = helper.make_graph(nodes, "g", [seen], [given], [one])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "e.onnx")
    net = AttributesNet(str(tmp_path / "e.onnx"), heads={"emotion": ["sad", "happy"]}, mean=[0.5] * 3, std=[0.5] * 3)
    net.open(*CPU)
    assert net([picture("a")] * 2, [grey(10), grey(200)]) == [{"emotion": "sad"}, {"emotion": "happy"}]
    wrong = AttributesNet(str(tmp_path / "e.onnx"), heads={"emotion": ["sad", "calm", "happy"]})
    with pytest.raises(UserError, match=r"e.onnx gives \(1, 2\) of a photo, and heads have 3 words"):
        wrong.open(*CPU)


def test_deepface_is_asked_only_with_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attributes, "RequirementCache", lambda name: False)
    with pytest.raises(UserError, match="pip install deepface"):
        AttributesDeepFace()
    monkeypatch.setattr(attributes, "RequirementCache", lambda name: True)
    weights = tmp_path / ".deepface" / "weights"
    weights.mkdir(parents=True)
    (weights / "age_model_weights.onnx").write_bytes(b"a")
    with pytest.raises(
        UserError, match=r"facial_expression_model_weights.onnx is not there, and nothing is downloaded"
    ):
        AttributesDeepFace(str(tmp_path), ["age", "emotion"])
    (weights / "facial_expression_model_weights.onnx").write_bytes(b"b")
    asked: list[Any] = []

    def analyze(image: np.ndarray, **words: Any) -> list[dict[str, Any]]:
        asked.append((image[0, 0].tolist(), words))
        return [{"age": 31, "dominant_emotion": "fear", "dominant_gender": "Man"}]

    monkeypatch.setitem(sys.modules, "deepface", SimpleNamespace(DeepFace=SimpleNamespace(analyze=analyze)))
    monkeypatch.setattr("os.environ", {})
    one = AttributesDeepFace(str(tmp_path), ["age", "emotion"])
    one.open(*CPU)
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    assert one([picture("a")], [red]) == [{"age": "31", "emotion": "afraid"}]
    assert asked[0][0] == [0, 0, 255]  # it takes BGR
    assert asked[0][1]["actions"] == ["age", "emotion"]
    assert asked[0][1]["detector_backend"] == "skip"


def test_captions_are_those_of_the_captioner(tmp_path: Path) -> None:
    folder = captioners.captioner(tmp_path)
    with pytest.raises(UserError, match="no captioner at 'none': it must be a folder"):
        Captions("none")
    one = Captions(str(folder), beams=1, shortest=2, longest=4)
    about = one.about()
    one.open(*CPU)
    images = [np.random.default_rng(i).integers(0, 256, (40, 40, 3), dtype=np.uint8) for i in range(2)]
    expected = Captioner(str(folder), 1, 2, 4, device="cpu")(images)
    assert one([picture("a")] * 2, images) == [{"caption": line} for line in expected]
    assert one.about() == about
    one.close()
    assert one.network is None

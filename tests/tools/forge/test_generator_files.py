"""Generators by file: a GAN in one network or two, and a network that fills regions; tiny ones, made here."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from dfl.data.decoding import read_image
from dfl.errors import UserError
from dfl.networks.exported import ExportedNetwork
from dfl.tools.forge import forge
from dfl.tools.forge.makers import Scene
from dfl.tools.forge.models.gan_file import GanFile, found_range
from dfl.tools.forge.models.lama import Lama

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
helper = pytest.importorskip("onnx.helper")
Array = np.ndarray
SIDE = 8


def save(file: Path, nodes: list[Any], inputs: dict[str, list[Any]], output: list[Any], **weights: Array) -> str:
    """Write a network of floats whose output is called ``out``."""
    given = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    out = helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, output)
    kept = [onnx.numpy_helper.from_array(x, name) for name, x in weights.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "net", given, [out], kept), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    onnx.save(model, file)
    return str(file)


def synthesis(file: Path, scale: float = 1.0, low: float = 0.0, channels: int = 3, extra: bool = False) -> str:
    """A picture of 8 x 8 of 6 numbers: tanh of their mixture, times ``scale``, plus ``low``."""
    rng = np.random.default_rng(1)
    node = helper.make_node
    nodes = [
        node("MatMul", ["style", "w"], ["flat"]),
        node("Tanh", ["flat"], ["tanh"]),
        node("Mul", ["tanh", "scale"], ["scaled"]),
        node("Add", ["scaled", "low"], ["moved"]),
        node("Reshape", ["moved", "shape"], ["out"]),
    ]
    inputs: dict[str, list[Any]] = {"style": [1, 6]}
    if extra:
        nodes.insert(0, node("Add", ["style", "noise"], ["noisy"]))
        nodes[1] = node("MatMul", ["noisy", "w"], ["flat"])
        inputs["noise"] = [1, 6]
    return save(
        file,
        nodes,
        inputs,
        [1, channels, SIDE, SIDE],
        w=rng.normal(0, 2, (6, channels * SIDE**2)).astype(np.float32),
        scale=np.float32([scale]),
        low=np.float32([low]),
        shape=np.array([1, channels, SIDE, SIDE]),
    )


def mapping(file: Path) -> str:
    """Six numbers of four, none of whose means is 0."""
    node = helper.make_node
    rng = np.random.default_rng(2)
    return save(
        file,
        [node("MatMul", ["z", "w"], ["mixed"]), node("Add", ["mixed", "b"], ["out"])],
        {"z": ["n", 4]},
        ["n", 6],
        w=rng.normal(size=(4, 6)).astype(np.float32),
        b=np.linspace(1, 2, 6, dtype=np.float32),
    )


def scene(side: int = SIDE, count: int = 0) -> Scene:
    image = np.random.default_rng(3).integers(0, 256, (side, side, 3), np.uint8)
    region = np.zeros((side, side), bool)
    region[2:5, 1:4] = True
    return Scene(image, region, image, (0.0, 1.0), 0.0, count)


def opened(maker: Any) -> Any:
    maker.open("cpu", torch.float32)
    return maker


def made(maker: Any, *scenes: Scene, seeds: list[int] | None = None) -> list[Array]:
    result: list[Array] = maker(list(scenes), [""] * len(scenes), seeds or list(range(len(scenes))))
    return result


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("gan")
    return {"synthesis": synthesis(root / "synthesis.onnx"), "mapping": mapping(root / "mapping.onnx")}


def test_a_seed_gives_one_picture_alone_and_in_a_batch(files: dict[str, str]) -> None:
    gan = opened(GanFile(files["synthesis"], files["mapping"], truncation=0.7))
    batch = made(gan, scene(), scene(), scene(), seeds=[5, 6, 5])
    assert batch[0].shape == (SIDE, SIDE, 3)
    assert batch[0].dtype == np.uint8
    assert np.array_equal(batch[0], batch[2])
    assert not np.array_equal(batch[0], batch[1])
    again = opened(GanFile(files["synthesis"], files["mapping"], truncation=0.7))
    assert np.array_equal(made(again, scene(), seeds=[6])[0], batch[1])
    assert again.about() == gan.about()


def test_truncation_goes_towards_the_mean_style(files: dict[str, str], tmp_path: Path) -> None:
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(files["mapping"]).graph.initializer}
    synthesised = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(files["synthesis"]).graph.initializer}
    latents, centre = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32), np.float32([1, 0, 0, 2, 0, 0])
    np.save(tmp_path / "z.npy", latents)
    np.save(tmp_path / "mean.npy", centre)
    gan = GanFile(
        files["synthesis"],
        files["mapping"],
        truncation=0.5,
        mean=str(tmp_path / "mean.npy"),
        latents=str(tmp_path / "z.npy"),
    )
    (picture,) = made(opened(gan), scene(count=2), seeds=[99])
    style = centre + 0.5 * (latents[2] @ weights["w"] + weights["b"] - centre)
    values = np.tanh(style @ synthesised["w"]).reshape(3, SIDE, SIDE).transpose(1, 2, 0)
    assert np.abs(picture - (values + 1) * 127.5).max() < 0.51
    with pytest.raises(UserError, match="3 latents are fewer than the fakes"):
        made(gan, scene(count=3))
    # without a file the mean is that of many mapped latents: here the mapping's bias
    drawn = opened(GanFile(files["synthesis"], files["mapping"], truncation=0.5))
    assert drawn._mean == pytest.approx(weights["b"][None], abs=0.15)


@pytest.mark.parametrize(("scale", "low", "name"), [(1.0, 0.0, "-1..1"), (0.5, 0.5, "0..1"), (127.5, 127.5, "0..255")])
def test_the_range_of_values_is_found_and_said(
    scale: float, low: float, name: str, tmp_path: Path, files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    gan = opened(GanFile(synthesis(tmp_path / "net.onnx", scale, low)))
    assert f"taken as {name}" in capsys.readouterr().out
    plain = opened(GanFile(files["synthesis"]))
    difference = made(gan, scene(), seeds=[4])[0].astype(int) - made(plain, scene(), seeds=[4])[0]
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("values", [[0, np.nan], [-300, 300], [-20, 5], [0, 1000]])
def test_values_of_no_range_are_an_error(values: list[float]) -> None:
    with pytest.raises(UserError, match="its range is none of"):
        found_range(np.float32(values), "net.onnx")


def test_pictures_are_reduced_to_the_size_of_the_set_and_never_enlarged(files: dict[str, str], tmp_path: Path) -> None:
    gan = opened(GanFile(synthesis(tmp_path / "grey.onnx", channels=1)))
    assert made(gan, scene(4))[0].shape == (4, 4, 3)
    with pytest.raises(UserError, match="pictures of 8x8, and one of the set is 16x16: --square 8 or less"):
        made(gan, scene(16))


def test_names_are_asked_for_where_there_are_several(tmp_path: Path) -> None:
    file = synthesis(tmp_path / "two.onnx", extra=True)
    with pytest.raises(UserError, match="has 2 inputs, name one: style, noise"):
        opened(GanFile(file))
    with pytest.raises(UserError, match="no input 'stile'; did you mean 'style'"):
        opened(GanFile(file, input="stile"))
    with pytest.raises(UserError, match=r"fails on style \(1, 6\)"):  # the other one is not given
        opened(GanFile(file, input="style"))


def test_noise_of_its_own_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("RandomNormalLike", ["z"], ["noise"]),
        helper.make_node("Add", ["z", "noise"], ["out"]),
    ]
    file = save(tmp_path / "noisy.onnx", nodes, {"z": [1, 3, 4, 4]}, [1, 3, 4, 4])
    with pytest.raises(UserError, match="draws noise of its own"):
        opened(GanFile(file))


def test_mistakes_are_one_line(files: dict[str, str], tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"no network")
    np.save(tmp_path / "wrong.npy", np.zeros((2, 5), np.float32))
    with open(tmp_path / "pickle.npy", "wb") as handle:
        np.save(handle, np.array([{"a": 1}]), allow_pickle=True)
    wrong = str(tmp_path / "wrong.npy")
    for words, said in (
        ({"model": str(tmp_path / "no.onnx")}, "GanFile.model: no file .*no.onnx"),
        ({"model": str(tmp_path / "net.pth")}, r"must be a network in ONNX"),
        ({"model": str(damaged)}, "cannot be read as ONNX"),
        ({"model": files["synthesis"], "truncation": 0.0}, "truncation 0.0 must be above 0"),
        ({"model": files["synthesis"], "truncation": float("nan")}, "truncation nan must be above 0"),
        ({"model": files["synthesis"], "latents": str(tmp_path / "pickle.npy")}, "is no .npy of numbers"),
        ({"model": files["synthesis"], "latents": wrong}, r"shape \(5,\) where style is \(1, 6\)"),
        ({"model": files["synthesis"], "truncation": 0.5, "mean": wrong}, r"shape \(2, 5\)"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            opened(GanFile(**words))  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)


def test_what_a_network_says_of_its_input_is_one_line(files: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"fails on style \(1, 5\): .*INVALID_ARGUMENT") as caught:
        ExportedNetwork(files["synthesis"], "test")({"style": np.zeros((1, 5))}, "out")
    assert "\n" not in str(caught.value)


def test_openvino_gives_what_onnx_gives(files: dict[str, str], tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    for name in files:
        openvino.save_model(openvino.Core().read_model(files[name]), tmp_path / f"{name}.xml", compress_to_fp16=False)
    ours = [str(tmp_path / f"{name}.xml") for name in ("synthesis", "mapping")]
    pictures = [
        made(opened(GanFile(*two, truncation=0.7)), scene())[0].astype(int)
        for two in (ours, [files["synthesis"], files["mapping"]])
    ]
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
    with pytest.raises(UserError, match=r"fails on style \(1, 5\): Can't set the input tensor"):
        ExportedNetwork(ours[0], "test")({"style": np.zeros((1, 5))}, "out")
    (tmp_path / "mapping.bin").write_bytes(b"")
    with pytest.raises(UserError, match="cannot be read by OpenVINO: (?!Exception)"):
        opened(GanFile(*ours))
    (tmp_path / "mapping.bin").unlink()
    with pytest.raises(UserError, match="no file .*mapping.bin"):
        GanFile(*ours)


def filler(file: Path, scale: float, size: Any = "h") -> str:
    """A network that fills with 0.5 and leaves what is around, in 0..``scale``."""
    node = helper.make_node
    nodes = [
        node("Sub", ["one", "mask"], ["known"]),
        node("Mul", ["image", "known"], ["kept"]),
        node("Mul", ["mask", "half"], ["filling"]),
        node("Add", ["kept", "filling"], ["whole"]),
        node("Mul", ["whole", "scale"], ["out"]),
    ]
    inputs = {"image": [1, 3, size, "w" if size == "h" else size], "mask": [1, 1, size, "w" if size == "h" else size]}
    return save(
        file,
        nodes,
        inputs,
        [1, 3, *inputs["image"][2:]],
        one=np.float32(1),
        half=np.float32(0.5),
        scale=np.float32(scale),
    )


class Filler(torch.nn.Module):
    """The same in TorchScript, which insists on sides that 8 divides."""

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        assert image.shape[2] % 8 == 0
        assert image.shape[3] % 8 == 0
        return image * (1 - mask) + 0.5 * mask


@pytest.mark.parametrize("kind", ["0..1", "0..255", "script"])
def test_lama_fills_the_region_of_any_size(kind: str, tmp_path: Path) -> None:
    if kind == "script":
        file = str(tmp_path / "net.pt")
        torch.jit.script(Filler()).save(file)  # type: ignore[no-untyped-call]
    else:
        file = filler(tmp_path / "net.onnx", 255 if kind == "0..255" else 1)
    image = np.random.default_rng(0).integers(0, 256, (11, 13, 3), np.uint8)
    region = np.zeros((11, 13), bool)
    region[3:7, 2:9] = True
    (filled,) = made(opened(Lama(file)), Scene(image, region, image, (0, 1), 0))
    assert np.array_equal(filled[~region], image[~region])
    assert (np.abs(filled[region].astype(int) - 128) <= 1).all()


def test_lama_says_what_it_cannot_take(files: dict[str, str], tmp_path: Path) -> None:
    assert opened(Lama(filler(tmp_path / "fixed.onnx", 1, 16))).size == 16
    archive = tmp_path / "net.pt"
    archive.write_bytes(b"no archive")
    for file, said in (
        (files["synthesis"], "and not a picture"),
        (str(tmp_path / "no.pt"), "Lama.model: no file"),
        (str(archive), "cannot be read as TorchScript"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            opened(Lama(file))
        assert "\n" not in str(caught.value)


def test_forge_makes_whole_and_partial_fakes_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for i in range(3):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)).save(f"photos/{i}.png")
    latents = np.random.default_rng(5).normal(size=(3, 6)).astype(np.float32)
    np.save("z.npy", latents)
    gan = {"model": synthesis(tmp_path / "net.onnx"), "latents": "z.npy"}
    entries = {
        "gan": {"class_path": "GanFile", "init_args": gan},
        "lama": {"class_path": "Lama", "init_args": {"model": filler(tmp_path / "lama.onnx", 1)}},
    }
    Path("models.yaml").write_text(yaml.safe_dump(entries))
    words = {"models": "models.yaml", "per_image": 2, "batch": 2, "device": "cpu", "workers": 1, "progress": False}
    table = forge(["photos"], "set", min_area=0.2, **words)  # type: ignore[arg-type]
    rows = list(csv.DictReader(table.read_text().splitlines()))
    by_maker = {name: [row for row in rows if row["generator"] == name] for name in ("gan", "lama", "")}
    assert [len(own) for own in by_maker.values()] == [3, 3, 3]
    maker = opened(GanFile(**gan))
    for i, row in enumerate(by_maker["gan"]):
        assert (row["class_label"], row["family"], row["source"], row["mask"]) == ("1", "gan", "", "")
        assert np.array_equal(read_image(table.parent / row["path"]), made(maker, scene(count=i))[0])
    for row, real in zip(by_maker["lama"], by_maker[""], strict=True):
        assert (row["class_label"], row["method"], row["source"]) == ("2", "inpainting", real["source"])
        fake, photo, mask = (read_image(table.parent / p) for p in (row["path"], real["path"], row["mask"]))
        inside = mask.reshape(8, 8, -1)[..., 0] > 0
        assert np.array_equal(fake[~inside], photo[~inside])
        assert not np.array_equal(fake[inside], photo[inside])


def test_what_a_file_cannot_make_is_said_before_others_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for i in range(3):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)).save(f"photos/{i}.png")
    np.save("z.npy", np.zeros((2, 6), np.float32))
    gan = {"class_path": "GanFile", "init_args": {"model": synthesis(tmp_path / "net.onnx"), "latents": "z.npy"}}
    lama = {"class_path": "Lama", "init_args": {"model": filler(tmp_path / "lama.onnx", 1, 16)}}
    for spec, said in ((gan, "mine is to make 3 pictures, and can make 2"), (lama, "mine makes 16x16 alone")):
        Path("models.yaml").write_text(yaml.safe_dump({"mine": spec}))
        with pytest.raises(UserError, match=said):
            forge(["photos"], "set", models="models.yaml", device="cpu", workers=1, progress=False)
        assert not Path(".set.partial").exists()


def test_a_network_is_not_led_to_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path(synthesis(tmp_path / "net.onnx"))
    model = onnx.load(file)
    onnx.save(model, tmp_path / "apart.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(UserError, match="cannot be read as ONNX"):
        opened(GanFile(str(tmp_path / "apart.onnx")))

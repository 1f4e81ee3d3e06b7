"""A detector as a folder and as a graph: the same scores as its checkpoint, or no file."""

import csv
import json
from pathlib import Path
from typing import Any

import micro  # noqa: F401
import numpy as np
import onnx
import pytest
import pytorch_lightning as pl
import torch
from commands import fails, run
from safetensors.torch import load_file, save_file
from torch import Tensor

from dfl import detectors
from dfl.__main__ import main
from dfl.detectors import Classifier, Detector, VitScl, load
from dfl.errors import UserError
from dfl.metrics.verdicts import Verdicts
from dfl.runs import settings
from dfl.sharing import export, graph
from dfl.sharing.onnx_model import OnnxModel, about

ROOT = Path(__file__).parents[2]
TRANSFORM = {"resize": "squash", "crop_ratio": 1.0, "interpolation": "bilinear", "soft_masks": False}


def detector() -> VitScl:
    torch.manual_seed(0)
    made = VitScl("micro_vit", pretrained=False, rank=2, input_size=32).eval()
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    made.threshold.fill_(0.4)
    made.verdicts = Verdicts.fitted(np.linspace(0.1, 0.9, 40), np.arange(40) % 3 > 0, 0.4)
    return made


def save(one: Detector, file: Path) -> Path:
    trainer = pl.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    trainer.strategy.connect(one)
    trainer.save_checkpoint(file)
    content = torch.load(file, weights_only=True)
    torch.save(content | {"DataModule": {"transform": TRANSFORM, "vocab": {}}}, file)
    return file


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, faces: Path) -> Path:
    """A folder with the run ``small``, of this user's own, and its three exports."""
    root = tmp_path_factory.mktemp("root")
    folder = root / "checkpoints" / "small"
    folder.mkdir(parents=True)
    save(detector(), folder / "best.ckpt")
    source = {
        "class_path": "dfl.data.Folder",
        "init_args": {"root": str(faces), "fractions": {"train": 0.5, "val": 0.5}},
    }
    transform = {"class_path": "dfl.data.Transform", "init_args": TRANSFORM}
    data = {
        "class_path": "dfl.data.DataModule",
        "init_args": {"train": source, "transform": transform, "num_workers": 0},
    }
    model = {"class_path": "dfl.detectors.VitScl", "init_args": {"backbone": "micro_vit", "pretrained": False}}
    settings.write(folder, {"model": model, "data": data, "seed_everything": 3})
    main(["export", "small", f"--root={root}", "-o", str(root / "folder")])
    main(["export", "small", f"--root={root}", "-o", str(root / "onnx"), "--to=onnx", "--int8=true"])
    main(["export", "small", f"--root={root}", "-o", str(root / "pt2"), "--to=pt2", "--values=float"])
    return root


def images(n: int) -> Tensor:
    return torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_a_folder_opens_as_the_plain_detector_of_the_same_outputs(root: Path) -> None:
    own, again = detector(), Detector.from_pretrained(root / "folder")
    assert type(again) is Classifier
    assert not [name for name in again.state_dict() if "lora" in name]
    image = images(3) / 255
    torch.testing.assert_close(again(image)["logit"], own(image)["logit"], rtol=1e-5, atol=1e-5)
    assert again.verdicts == own.verdicts
    assert float(again.threshold) == float(own.threshold)
    assert sorted(one.name for one in (root / "folder").iterdir()) == [
        *("README.md", "config.json", "export.json", "model.safetensors")
    ]
    with pytest.raises(UserError, match="holds a Classifier, not a VitScl"):
        VitScl.from_pretrained(root / "folder")


def test_config_says_what_scores_mean_and_names_no_place(root: Path, faces: Path) -> None:
    for form in ("folder", "onnx", "pt2"):
        text = (root / form / "config.json").read_text()
        said = json.loads(text)
        assert said["dfl"]["threshold"] == pytest.approx(0.4)
        assert said["dfl"]["verdicts"]["reals"] == 14
        assert said["DataModule"]["transform"] == TRANSFORM
        assert said["export"]["parity"]["score"] < 1e-4
        assert said["export"]["parity"]["on"] == "30 images of the run's validation"
        assert said["export"]["detector"] == "VitScl"
        assert said["export"]["labels"] == {"0": "real", "1": "fake"}
        card = (root / form / "README.md").read_text()
        assert str(root) not in text + card
        assert str(faces.parent) not in text + card
    props = {one.key: one.value for one in onnx.load(root / "onnx" / "model.onnx").metadata_props}
    assert json.loads(props["dfl"])["hyper_parameters"] == said["hyper_parameters"]


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_predict_gives_one_table_from_checkpoint_folder_and_graph(
    root: Path, faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(faces / "real")]
    run(*words, f"--root={root}", "--name=small", "--ckpt_path=best", "--output=a.csv")
    run(*words, f"--ckpt_path={root / 'folder'}", "--output=b.csv")
    run(*words, f"--onnx={root / 'onnx' / 'model.onnx'}", "--output=c.csv")
    assert "(VitScl)" in capsys.readouterr().out
    first = table(Path("a.csv"))
    assert len(first) == 30
    for other in (table(Path("b.csv")), table(Path("c.csv"))):
        for mine, theirs in zip(first, other, strict=True):
            assert abs(float(mine["score"]) - float(theirs["score"])) < 1e-4
            same = {"path", "verdict", "threshold", "domain"}
            assert {key: mine[key] for key in same} == {key: theirs[key] for key in same}


def test_graphs_take_any_number_of_images(root: Path) -> None:
    wanted = detector()(images(5) / 255)["logit"]
    program = torch.export.load(root / "pt2" / "model.pt2").module()
    for n in (1, 5):
        found = {
            "onnx": graph.run_onnx(root / "onnx" / "model.onnx")(images(n))["logit"],
            "pt2": program(images(n) / 255)["logit"],
        }
        for one in found.values():
            torch.testing.assert_close(one, wanted[:n], rtol=1e-4, atol=1e-5)


def test_eight_bits_are_measured(root: Path) -> None:
    cost = json.loads((root / "onnx" / "config.json").read_text())["export"]["int8"]
    assert cost["on"] == "30 images of the run's validation"
    assert cost["value"] == pytest.approx(cost["auroc"][1] - cost["auroc"][0])
    assert cost["low"] <= cost["value"] <= cost["high"]
    assert cost["bytes"][1] < cost["bytes"][0]
    small = OnnxModel(str(root / "onnx" / "model.int8.onnx"))
    assert 0 < (small(images(4) / 255)["logit"] - detector()(images(4) / 255)["logit"]).abs().max() < 0.5


def test_eight_bits_have_thresholds_and_a_calibration_of_their_own(root: Path) -> None:
    small = OnnxModel(str(root / "onnx" / "model.int8.onnx"))
    sample = export.tried.validation(export.opened("small", str(root))[0], 32)
    logit = small(sample.pixels / 255)["logit"]
    threshold = float(small.threshold)
    assert small.verdicts is not None
    assert (small.verdicts.reals, small.verdicts.fakes) == (15, 15)  # of the validation here; the checkpoint says 14
    wanted = Verdicts.fitted(logit.sigmoid(), sample.label, threshold, logit)
    assert wanted is not None
    assert small.verdicts.plain()["fprs"] == wanted.plain()["fprs"]
    assert small.verdicts.temperature == pytest.approx(wanted.temperature, rel=1e-3)
    assert float((logit.sigmoid() >= threshold)[sample.label == 0].float().mean()) == small.verdicts.fprs[0]
    said = json.loads((root / "onnx" / "config.json").read_text())
    assert said["export"]["int8"]["threshold"] == pytest.approx(threshold)
    assert float(OnnxModel(str(root / "onnx" / "model.onnx")).threshold) == pytest.approx(0.4)


def test_the_same_command_again_changes_nothing_and_another_is_refused(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "small", f"--root={root}", "-o", str(root / "folder")]) == {}
    assert "there already" in capsys.readouterr().out
    assert "other settings" in fails(
        capsys, "export", "small", f"--root={root}", "-o", str(root / "folder"), "--to=pt2"
    )


def test_an_export_that_differs_is_not_written(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def other(*words: Any) -> graph.Run:
        return lambda image: {"logit": detector()(image / 255)["logit"] + 1e-3}

    monkeypatch.setattr(graph, "write_pt2", other)
    line = fails(capsys, "export", "small", f"--root={root}", "-o", "out", "--to=pt2")
    assert "differs from its checkpoint on 30 images of the run's validation, scores by 0.0002" in line
    assert not list(tmp_path.glob("*out*"))


def test_nan_is_a_difference() -> None:
    sample = export.tried.Images(images(2), torch.zeros(2), "two images")
    with pytest.raises(UserError, match="scores by inf"):
        export.parity(detector(), lambda image: {"logit": torch.full((len(image),), torch.nan)}, sample, "uint8")


def test_log_odds_are_compared_where_scores_hide_a_difference() -> None:
    sample = export.tried.Images(images(2), torch.zeros(2), "two images")

    def says(logit: float) -> Any:
        return lambda image: {"logit": torch.full((len(image),), logit)}

    assert export.parity(says(50), says(50 * 1.0008), sample, "uint8")["score"] == 0
    with pytest.raises(UserError, match="scores by 0, log-odds by 0.002"):
        export.parity(says(50), says(50 * 1.002), sample, "uint8")
    page = (ROOT / "docs" / "export.md").read_text()
    assert (export.TOLERANCE, export.OF_LOG_ODDS) == (1e-4, 1e-3)
    assert "of all outputs, within 1e-4, and log-odds" in page
    assert "within 1e-3 (of the value" in page


def test_a_file_of_no_run_is_tried_on_drawn_faces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(detector(), tmp_path / "a.ckpt")
    content: Any = main(["export", "a.ckpt", "-o", "out"])
    assert content["export"]["parity"]["on"] == "8 drawn faces"
    assert "leave --int8 out" in fails(capsys, "export", "a.ckpt", "-o", "graph", "--to=onnx", "--int8=true")
    assert "goes with --to onnx" in fails(capsys, "export", "a.ckpt", "-o", "graph", "--int8=true")
    assert not Path("graph").exists()


def test_detectors_without_a_graph_say_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(detectors.GradCam("test_resnet", pretrained=False, input_size=32), tmp_path / "cam.ckpt")
    assert "GradCam has no graph: it takes its map" in fails(capsys, "export", "cam.ckpt", "-o", "out", "--to=onnx")
    assert not list(tmp_path.glob("*out*"))


def test_the_page_lists_every_detector() -> None:
    table = (ROOT / "docs" / "export.md").read_text().split("## Which detectors")[1].split("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in table.splitlines() if line.startswith("| `")]
    said = {name.strip(" `"): graphs.strip() for name, _, graphs in rows}
    classes = {n for n in detectors.__all__ if isinstance(getattr(detectors, n), type)}
    assert said.keys() == classes - {"Detector", "FittedDetector", "Baseline"}
    assert {name for name, graphs in said.items() if graphs.startswith("no")} == graph.NO_GRAPH.keys()


@pytest.fixture
def shared(root: Path, tmp_path: Path) -> Path:
    """A copy of the folder that a test may spoil."""
    folder = tmp_path / "shared"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((root / "folder" / name).read_bytes())
    return folder


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"dfl": {"class_path": "os.system"}}, "wants the detector 'os.system'"),
        (
            {"hyper_parameters": {"backbone": "../x"}},
            "damaged or not to be trusted: its hyper-parameters say that backb",
        ),
        ({"hyper_parameters": {"backbone": "micro_resnet"}}, "does not fit: it has 'network."),
        ({"DataModule": {"transform": {"resize": "melt"}}}, "its transform's settings"),
        ({"epoch": "many"}, "its epoch is no count"),
    ],
)
def test_a_strangers_config_is_data(
    shared: Path, faces: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], line: str
) -> None:
    content = json.loads((shared / "config.json").read_text())
    (shared / "config.json").write_text(json.dumps(content | change))
    assert line in fails(capsys, "predict", str(faces), f"--ckpt_path={shared}", "--output=a.csv")


def test_spoilt_folders_are_one_line(shared: Path) -> None:
    config, weights = shared / "config.json", shared / "model.safetensors"
    tensors = load_file(weights)
    tensors["network.norm.weight"][0] = torch.nan
    save_file(tensors, weights)
    with pytest.raises(UserError, match=r"is damaged: 'network\.norm\.weight' holds NaN"):
        load(shared)
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="is torn or no safetensors file"):
        load(shared)
    config.write_text("[" * 100_000)
    with pytest.raises(UserError, match="is no JSON"):
        load(shared)
    config.write_text("[1]")
    with pytest.raises(UserError, match="not to be trusted"):
        load(shared)
    config.unlink()
    with pytest.raises(UserError, match=r"has no config\.json beside it"):
        load(weights)


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("threshold", 7, "its threshold is no probability"),
        ("input", {"size": 10**9, "mean": [0, 0, 0]}, "must lie between"),
        ("verdicts", {"temperature": 1.0}, "its numbers of verdicts"),
        ("class_path", None, None),
    ],
)
def test_a_strangers_graph_is_data(root: Path, tmp_path: Path, key: str, value: Any, line: str | None) -> None:
    model = onnx.load(root / "onnx" / "model.onnx")
    content = json.loads(model.metadata_props[0].value)
    content["dfl"][key] = value
    onnx.helper.set_model_props(model, {"dfl": json.dumps(content)})
    onnx.save(model, tmp_path / "a.onnx")
    if line is None:  # the class is for people: it is not looked up
        assert about(tmp_path / "a.onnx").detector == "VitScl"
        return
    with pytest.raises(UserError, match=line):
        about(tmp_path / "a.onnx")


def test_graphs_that_are_none_or_name_other_files(root: Path, tmp_path: Path) -> None:
    model = onnx.load(root / "onnx" / "model.onnx")
    onnx.save(model, tmp_path / "a.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    model = onnx.load(root / "onnx" / "model.onnx")
    with pytest.raises(UserError, match="names other files for its weights"):
        OnnxModel(str(tmp_path / "a.onnx"))
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "b.onnx")
    with pytest.raises(UserError, match="was not written by dfl export"):
        OnnxModel(str(tmp_path / "b.onnx"))
    (tmp_path / "c.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(UserError, match="is damaged or not to be trusted"):
        OnnxModel(str(tmp_path / "c.onnx"))
    with pytest.raises(UserError, match="no graph"):
        OnnxModel(str(tmp_path / "d.onnx"))
    with pytest.raises(UserError, match="a graph of ONNX is not trained"):
        OnnxModel(str(root / "onnx" / "model.onnx")).loss({}, {})


def test_what_is_opened_in_another_way_says_in_which(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph_file, program = root / "onnx" / "model.onnx", root / "pt2" / "model.pt2"
    for place in (graph_file, root / "onnx"):
        line = fails(capsys, "predict", "x.png", f"--ckpt_path={place}")
        assert (
            f"{place} is a graph of dfl export --to onnx, no checkpoint: dfl predict PATHS --onnx {graph_file}" in line
        )
    for place in (program, root / "pt2"):
        line = fails(capsys, "test", f"--ckpt_path={place}")
        assert f'no checkpoint: torch.export.load("{program}").module() in Python' in line
    line = fails(capsys, "predict", "x.png", f"--onnx={program}")
    assert f'is no graph of ONNX: torch.export.load("{program}")' in line
    assert f"name the file in it: {graph_file}" in fails(capsys, "predict", "x.png", f"--onnx={root / 'onnx'}")


def test_a_graph_and_a_checkpoint_are_not_both_taken(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph_file = root / "onnx" / "model.onnx"
    assert "keep one" in fails(capsys, "predict", "x.png", f"--onnx={graph_file}", "--ckpt_path=best")

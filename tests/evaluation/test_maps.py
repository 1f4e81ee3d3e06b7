"""Maps from the command line: metrics in the table, pictures in the report and TensorBoard, files of predict."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dfl.__main__ import main
from dfl.detectors import PatchForensics
from dfl.evaluation import examples
from dfl.metrics.measures import Measurements

LOOKS_AT_FIGURES = True


@pytest.fixture(scope="module")
def spliced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 24 images of 32 px; half are fake: a square of other noise, with its mask."""
    root = tmp_path_factory.mktemp("spliced")
    lines, g = ["path,label,mask,split"], np.random.default_rng(0)
    for i in range(24):
        pixels, mask = g.integers(100, 140, (32, 32, 3), dtype=np.uint8), np.zeros((32, 32), np.uint8)
        if i % 2:
            y, x = g.integers(0, 16, 2)
            pixels[y : y + 16, x : x + 16] = g.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            mask[y : y + 16, x : x + 16] = 255
            Image.fromarray(mask).save(root / f"{i}_mask.png")
        Image.fromarray(pixels).save(root / f"{i}.png")
        lines.append(f"{i}.png,{i % 2},{f'{i}_mask.png' if i % 2 else ''},{('train', 'test', 'val')[i // 2 % 3]}")
    (root / "table.csv").write_text("\n".join(lines) + "\n")
    return root / "table.csv"


def words(table: Path) -> list[str]:
    data = {
        "class_path": "DataModule",
        "init_args": {
            "train": {"class_path": "Table", "init_args": {"file": str(table)}},
            "batch_size": 4,
            "num_workers": 0,
            "transform": {"resize": "squash", "augment": "none"},
        },
    }
    return [f"--data={json.dumps(data)}", "--model=PatchForensics", "--model.cut=block1", "--model.input_size=32"]


def test_masks_are_learned_measured_shown_and_written(spliced: Path) -> None:
    common = [*words(spliced), "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--name=a"]
    fit = [
        "--model.supervision=mask",
        "--trainer.max_epochs=25",
        "--trainer.check_val_every_n_epoch=25",
        "--checkpoint.monitor=val/mean/mask_iou",
    ]
    fit += ["--model.optimizer=Adam", "--model.optimizer.lr=0.01"]
    main(["fit", *common, *fit])
    cli: Any = main(["test", *common, "--ckpt_path=best"])
    folder = Path(cli.trainer.log_dir)
    own = cli.model.results["test"]["same"]
    assert own["mask_iou"] > own["mask_iou_all_fake"] + 0.1
    assert own["mask_iou_all_fake"] == pytest.approx(0.25)
    assert own["mask_fpa"] < 0.5
    assert own["mask_ap"] > own["mask_ap_all_fake"]
    assert json.loads((folder / "results.json").read_text())["results"]["same"]["mask_iou"] == own["mask_iou"]
    assert "mask_iou" in (folder / "results.csv").read_text().splitlines()[0]
    page = (folder / "report.html").read_text()
    assert page.index("<h2>Results") < page.index("<h2>Localization") < page.index(">IoU</th>")
    assert page.count("overlay of ") == 4  # four fakes in the test split, each once
    best = float(cli.model.metrics["test"]["same"]["mask"].rows()["iou"].nan_to_num(0).max())
    assert f"IoU {best:.4f}" in page
    events = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    assert "test/same/maps" in events.Tags()["images"]

    images = [str(spliced.parent / "1.png"), str(spliced.parent / "0.png")]
    cli = main(
        [
            "predict",
            *images,
            "--name=a",
            "--ckpt_path=best",
            "--output=s.csv",
            "--maps=maps",
            "--trainer.accelerator=cpu",
        ]
    )
    rows = list(csv.DictReader(Path("s.csv").read_text().splitlines()))
    assert [Path(row["map"]).name for row in rows] == ["000000_1.png", "000001_0.png"]
    stored = Image.open(rows[0]["map"])
    assert np.asarray(stored).dtype == np.uint16
    pixels = torch.from_numpy(np.array(Image.open(images[0]))).permute(2, 0, 1)[None]
    module = cli.model.cpu().eval()
    prob = module(pixels / 255)["mask_logit"].sigmoid()[0]
    np.testing.assert_allclose(np.asarray(stored) / 65535, prob.detach(), atol=1e-4)
    laid = Image.open(rows[0]["map"].replace(".png", "_overlay.jpg"))
    assert laid.size == (32, 32)
    again = ["predict", *images, "--name=a", "--ckpt_path=best", "--output=s.jsonl", "--maps=npz", "--map_format=npz"]
    main([*again, "--trainer.accelerator=cpu"])
    first = json.loads(Path("s.jsonl").read_text().splitlines()[0])
    np.testing.assert_allclose(np.load(first["map"])["map"], prob.detach(), atol=1e-5)


def test_masks_that_are_not_there_are_missed(faces: Path) -> None:
    data = ["--data=data/folder.yaml", f"--data.train.root={faces}", "--data.batch_size=4", "--data.num_workers=0"]
    small = ["--model=PatchForensics", "--model.cut=relu1", "--model.input_size=32", "--model.supervision=mask"]
    with pytest.warns(UserWarning, match="no fake of the training data has a mask"):
        main(["fit", *small, *data, "--config=trainer/smoke.yaml", "--name=c", "--trainer.limit_train_batches=1"])


def test_an_overlay_is_the_image_where_nothing_is_found() -> None:
    image = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    prob = torch.zeros(8, 8)
    prob[0, 0] = 1
    laid = examples.overlay(image, prob)
    assert torch.equal(laid[:, 1:], image[:, 1:])
    expected = (0.35 * image[:, 0, 0] + 0.65 * torch.tensor([0xD5, 0x5E, 0x00])).round()
    assert (laid[:, 0, 0].float() - expected).abs().max() <= 1  # a half may be rounded either way


def test_best_and_worst_are_by_iou_and_none_twice() -> None:
    rows = {
        "label": torch.tensor([1, 1, 0, 1, 1, 1]),
        "iou": torch.tensor([0.2, 0.9, 1.0, float("nan"), 0.5, 0.7]),
    }
    assert examples.by_iou(rows, 1) == [1, 0]
    assert examples.by_iou(rows, 4) == [1, 5, 4, 0]


def test_a_detector_without_maps_says_so(faces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--model=Classifier", "--model.backbone=test_resnet", "--model.pretrained=false", "--model.input_size=32"]
    data = ["--data=data/folder.yaml", f"--data.train.root={faces}", "--data.batch_size=4", "--data.num_workers=0"]
    main(["fit", *small, *data, "--config=trainer/smoke.yaml", "--name=b"])
    image = str(faces / "real" / "00.png")
    with pytest.raises(SystemExit):
        main(["predict", image, "--name=b", "--ckpt_path=last", "--maps=m", "--trainer.accelerator=cpu"])
    assert "--maps: Classifier gives no maps" in capsys.readouterr().err


def test_maps_of_one_image_are_those_of_its_batch() -> None:
    detector = PatchForensics("block1", input_size=32).eval()
    item = {"image": torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8), "mask": torch.zeros(32, 32), "path": "a"}
    item["mask"][:16] = 1
    maps = detector(item["image"][None] / 255)["mask_logit"].sigmoid()
    detector.metrics["test"] = Measurements(detector, ["a"])
    batch = {k: v[None] for k, v in item.items() if k != "path"} | {"has_mask": torch.tensor([True])}
    batch |= {name: torch.tensor([number]) for name, number in (("label", 1), ("index", 0), ("video", -1))}
    given = {"logit": torch.zeros(1), "mask_logit": 9 * batch["mask"] - 4.5}
    detector.metrics["test"].add("a", given, batch)
    (one,) = examples.Examples(detector, "test", {"a": [item]}).maps("a", 3)
    assert (one.iou, one.score) == (1, 0.5)
    assert one.prob.shape == (32, 32)
    assert abs(one.prob.mean() - maps.mean()) < 0.1
    assert set(one.pictures()) == {"image", "mask", "map", "overlay"}
    assert examples.Examples(detector, "test", {}).maps("a", 3) == []


def test_report_and_tensorboard_share_examples() -> None:
    ran: list[int] = []
    detector = PatchForensics("block1", input_size=32).eval()
    plain = detector.outputs
    detector.outputs = lambda batch: ran.append(int(batch["index"])) or plain(batch)  # type: ignore[assignment]
    items = [
        {"image": torch.zeros(3, 32, 32, dtype=torch.uint8), "mask": torch.ones(32, 32), "path": "a", "index": i}
        for i in range(5)
    ]
    detector.metrics["test"] = Measurements(detector, ["a"])
    batch = {name: torch.ones(5).long() for name in ("label", "video")} | {"index": torch.arange(5)}
    batch |= {"mask": torch.ones(5, 32, 32), "has_mask": torch.ones(5).bool()}
    detector.metrics["test"].add("a", {"logit": torch.zeros(5), "mask_logit": torch.rand(5, 32, 32) - 0.5}, batch)
    trainer = SimpleNamespace(datamodule=SimpleNamespace(sets={"test": {"a": items}}))
    few, many = (examples.Examples.of(trainer, detector, "test").maps("a", k) for k in (1, 2))
    assert (len(few), len(many)) == (2, 4)
    assert sorted(ran) == sorted(set(ran))
    assert len(ran) == 4

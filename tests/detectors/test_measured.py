"""A detector that tells classes, draws maps twice and writes: what evaluation, predict and the pages make of it."""

import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from brightness import trainer
from pytorch_lightning.loggers import TensorBoardLogger
from sklearn import metrics as sk
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from dfl.data import DataModule, Toy, Transform
from dfl.data.toy import make
from dfl.detectors import Classifier, Detector
from dfl.detectors.sida.official import official
from dfl.errors import UserError
from dfl.evaluation import results
from dfl.evaluation.examples import spread_over
from dfl.evaluation.predictions import PredictionWriter
from dfl.evaluation.report import Report
from dfl.metrics.names import METRICS
from dfl.training.tensorboard import TensorBoardInspect

pytestmark = pytest.mark.filterwarnings("ignore:domain ", "ignore:text_css", "ignore:.*video")
NAMES = ("real", "synthetic", "tampered")
LOOKS_AT_FIGURES = True


class Talker(Detector):
    """Classes by brightness; free maps where the class is tampered; forced maps that are right; every other text."""

    input_size = 32

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([3.0, -2.0, 1.0]))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        image = self.normalize(image)
        logit = self.weight * image.mean(dim=(1, 2, 3))[:, None] + torch.tensor([0.0, -0.2, 0.1])
        fake = logit[:, 1:].logsumexp(1) - logit[:, 0]
        tampered = logit.argmax(1) == 2
        maps = image[:, 0].abs() - 0.5
        return {"logit": fake, "class_logit": logit, "mask_logit": maps.where(tampered[:, None, None], -9.0)}

    def outputs(self, batch: dict[str, Any]) -> dict[str, Any]:
        written = zip(batch["index"].tolist(), batch["explanation"], strict=True)
        text = [wanted if index % 2 else 'nothing, "alike"' for index, wanted in written]
        more = {"text": text, "generated_text": [f"[CLS] {said}" for said in text]}
        return self(batch["image"]) | {"teacher_forced_mask_logit": 9 * batch["mask"] - 4.5} | more

    def derived_results(self, metrics: Mapping[str, Any], results: Mapping[str, float]) -> dict[str, float]:
        return official(metrics["class"].confusion(), results["forced_mask_ciou"])

    def loss(self, out: dict[str, Tensor], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        return {"loss": nn.functional.cross_entropy(out["class_logit"].float(), batch["class_label"])}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toy") / "set"
    make(root, n=160, size=32, workers=1, progress=False)
    return root


def data(toy: Path, batch: int = 4) -> DataModule:
    source = Toy(str(toy), n=160, size=32)
    return DataModule(source, transform=Transform(augment="none"), batch_size=batch, num_workers=0)


@pytest.fixture(scope="module")
def tested(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Talker, Path]:
    folder, detector = tmp_path_factory.mktemp("tested"), Talker()
    detector.threshold.fill_(0.5)
    logger = TensorBoardLogger(folder, name="", version="", default_hp_metric=False)
    callbacks = [Report(pictures=3), TensorBoardInspect(k=4)]
    trainer(folder, *callbacks, logger=logger).test(detector, data(toy), verbose=False)
    return detector, folder


def test_everything_is_measured_once_for_each_image(toy: Path, tested: tuple[Talker, Path]) -> None:
    detector, folder = tested
    module = data(toy)
    module.trainer = detector.trainer
    found, images = detector.results["test"]["same"], list(module.datasets("test")["same"])
    batch = {k: torch.stack([row[k] for row in images]) for k in ("image", "mask")}
    label = torch.tensor([row["class_label"] for row in images])
    with torch.no_grad():
        out = detector(batch["image"] / 255)
    logit, verdict = out["class_logit"], out["class_logit"].argmax(1)
    assert len(set(verdict.tolist())) == 3
    assert found["class_acc"] == pytest.approx(sk.accuracy_score(label, verdict))
    assert found["class_f1"] == pytest.approx(sk.f1_score(label, verdict, average="macro"))
    for k, name in enumerate(NAMES):
        assert found[f"class_auroc_{name}"] == pytest.approx(sk.roc_auc_score(label == k, logit.softmax(1)[:, k]))
    assert found["class_auroc_real"] == pytest.approx(found["auroc"])
    assert (found["forced_mask_iou"], found["forced_mask_ciou"], found["forced_mask_fpa"]) == (1, 1, 0)
    drawn = (out["mask_logit"] > 0) & (label == 2)[:, None, None]
    truth = (batch["mask"] >= 0.5) & (label == 2)[:, None, None]
    assert found["mask_ciou"] == pytest.approx(float((drawn & truth).sum() / (drawn | truth).sum()))
    falsely = ((out["mask_logit"] > 0).flatten(1).any(1) & (label == 0)).sum() / (label == 0).sum()
    assert found["mask_false_masks"] == pytest.approx(float(falsely))
    assert found["text_rouge_l"] == pytest.approx(0.5)  # of an even number of images; the others share no word
    assert "text_css" not in found
    assert found["official_pixel_accuracy"] == 1
    acc = found["class_acc"]
    assert found["official_f1"] == pytest.approx(2 * acc / (1 + acc))
    whole = Talker()
    whole.threshold.fill_(0.5)
    trainer(folder).test(whole, data(toy, 7), verbose=False)
    assert whole.results["test"] == detector.results["test"]


def test_a_detector_of_two_classes_gets_none_of_it(toy: Path, tmp_path: Path) -> None:
    detector = Classifier("test_resnet", pretrained=False, input_size=32)
    trainer(tmp_path, limit_test_batches=2).test(detector, data(toy), verbose=False)
    assert not [n for n in detector.results["test"]["same"] if n.startswith(("class_", "text_", "forced_", "official"))]


def test_validation_measures_it_too(toy: Path, tmp_path: Path) -> None:
    detector = Talker()
    trainer(tmp_path).validate(detector, data(toy), verbose=False)
    assert {"class_f1", "text_rouge_l", "forced_mask_iou"} <= set(detector.results["val"]["same"])


def test_scores_that_are_no_numbers_are_no_result(toy: Path, tmp_path: Path) -> None:
    detector = Classifier("test_resnet", pretrained=False, input_size=32)
    with torch.no_grad():
        next(detector.parameters()).fill_(float("inf"))
    for measure in (trainer(tmp_path).test, trainer(tmp_path).validate):
        with pytest.raises(UserError, match=r"scores of (test|val)/\w+ are no numbers, so there is no result"):
            measure(detector, data(toy))


def test_the_page_shows_classes_and_texts(tested: tuple[Talker, Path]) -> None:
    detector, folder = tested
    page, metric = (folder / "report.html").read_text(), detector.metrics["test"]["same"]["class"]
    section = page.split("<h2>Classes</h2>")[1].split("<h2>")[0]
    cells = re.findall(r"<td>([^<]*)</td>", section)
    counts, found = metric.confusion(), detector.results["test"]["same"]
    for k, name in enumerate(NAMES):
        row = cells[7 * k : 7 * k + 7]
        assert row[:3] == ["same", name, str(int(counts[k].sum()))]
        assert row[3:] == [f"{found[f'class_{m}_{name}']:.4f}" for m in ("precision", "recall", "f1", "auroc")]
    assert 'alt="Confusion of classes"' in section
    texts = page.split("<h2>Texts</h2>")[1].split("<h2>")[0]
    assert texts.count("<tr class=generated>") == 3
    assert set(re.findall(r"</b>, is (\w+)", texts)) == set(NAMES)
    assert re.search(r"<b>(real|synthetic|tampered) \(0\.\d\d\)</b>, is (real|synthetic|tampered)", texts)
    assert "class_f1_real" not in page.split("<h2>Classes</h2>")[0]
    sheet = next(csv.DictReader((folder / "results.csv").open(newline="")))
    assert float(sheet["class_f1_real"]) == found["class_f1_real"]
    assert float(sheet["official_auc"]) == found["official_auc"]


def test_examples_are_of_each_class_and_spread() -> None:
    assert spread_over([3, 5, 7, 8, 9, 11, 12], [0, 0, 1, 0, 0, 0, 0], 4) == [5, 7, 11]
    assert spread_over([4, 2], [1, 1], 8) == [2, 4]
    assert spread_over([], [], 3) == []


def test_the_terminal_cuts_no_number(tested: tuple[Talker, Path], capsys: pytest.CaptureFixture[str]) -> None:
    found = tested[0].results["test"]
    results.print_table(results.table(found, {"same": tested[0].metrics["test"].rows("same")}))
    said = capsys.readouterr().out
    assert "…" not in said
    for name in ("auroc", "mask_iou", "class_acc", "class_f1", "text_rouge_l", "forced_mask_ciou"):
        assert METRICS[name].label in said
        assert f"{found['same'][name]:.4f}" in said


def test_tensorboard_shows_the_confusion(tested: tuple[Talker, Path]) -> None:
    events = EventAccumulator(str(tested[1]), size_guidance={"images": 0})
    events.Reload()
    assert "test/same/classes" in events.Tags()["images"]
    assert "test/same/maps" in events.Tags()["images"]


@pytest.mark.parametrize("name", ["scores.csv", "scores.jsonl"])
def test_predictions_name_class_and_text(toy: Path, tmp_path: Path, name: str) -> None:
    writer = PredictionWriter(str(tmp_path / name), maps=str(tmp_path / "maps") if name.endswith("csv") else None)
    detector, module = Talker(), data(toy)
    trainer(tmp_path, writer).predict(detector, module, return_predictions=False)
    with (tmp_path / name).open(newline="") as file:
        rows = list(csv.DictReader(file)) if name.endswith("csv") else [json.loads(line) for line in file]
    images = list(module.sets["predict"]["same"])
    assert len(rows) == len(images)
    for row, item in zip(rows, images, strict=True):
        with torch.no_grad():
            prob = detector(item["image"][None] / 255)["class_logit"].softmax(1)[0]
        assert row["class"] == NAMES[int(prob.argmax())]
        assert [float(row[f"prob_{n}"]) for n in NAMES] == pytest.approx(prob.tolist(), abs=1e-6)
        assert row["text"] in (item["explanation"], 'nothing, "alike"')
        assert row["generated_text"] == f"[CLS] {row['text']}"
        assert float(row["score"]) == pytest.approx(1 - float(prob[0]), abs=1e-6)
        assert ("map" in row) == name.endswith("csv")
        if "map" in row:
            assert Path(row["map"]).is_file()

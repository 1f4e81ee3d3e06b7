"""The suite knows of each of its metrics whether more is better."""

import torch

from dfl.metrics import Classes, Detection, Localization
from dfl.metrics.names import METRICS, OF_ONE_CLASS, direction


def test_a_right_answer_is_better_than_a_wrong_one_by_each() -> None:
    label, index = torch.tensor([0, 1, 0, 1]), torch.arange(4)
    found = []
    for score in (torch.tensor([0.1, 0.9, 0.2, 0.8]), torch.tensor([0.9, 0.1, 0.8, 0.2])):
        metric = Detection(threshold=0.5)
        metric.update(score, label, index, video=index)
        masks = torch.zeros(4, 8, 8)
        masks[:, :4] = label[:, None, None].float()
        maps = Localization()
        right = score[0] < 0.5
        maps.update(masks * 0.8 + 0.1 if right else 0.9 - masks * 0.8, masks, label, index)
        kinds = Classes(("real", "fake"))
        kinds.update(torch.stack([1 - score, score], 1), label, index)
        found.append(
            {k: float(v) for k, v in metric.compute().items()}
            | {f"mask_{k}": float(v) for k, v in maps.compute().items()}
            | {f"class_{k}": float(v) for k, v in kinds.compute().items() if "nan" not in str(float(v))}
        )
    right_one, wrong_one = found
    assert {name for name in right_one if not name.startswith("class_")} <= METRICS.keys()
    for name in right_one.keys() & wrong_one.keys():
        better = {"max": 1, "min": -1, None: 0}[direction(f"val/d/{name}")] * (right_one[name] - wrong_one[name])
        assert better > 0 or name.endswith(("_all_fake", "_all_real")), name
    assert len(right_one) > 30


def test_fairness_is_a_distance_and_what_is_no_metric_has_no_direction() -> None:
    assert direction("test/a/fairness/gender/F_EO") == "min"
    assert direction("val/other_camera/class_recall_tampered") == "max"
    assert direction("train/loss") == "min"
    for name in ("val/auroc", "val_loss", "val/mean/n", "val/mean/roc", "auroc", "train/acc", ""):
        assert direction(name) is None


def test_one_class_leaves_these_alone() -> None:
    metric = Detection(threshold=0.5)
    metric.update(torch.tensor([0.2, 0.9]), torch.tensor([1, 1]), torch.arange(2))
    found = metric.compute()
    defined = {name for name, value in found.items() if not value.isnan()}
    assert defined == {*OF_ONE_CLASS, "acc_val"}  # acc_val too, given a threshold; validation of one class gives none

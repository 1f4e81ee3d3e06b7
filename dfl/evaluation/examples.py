"""Images that stand for an evaluation: those with the worst scores, the best and worst maps, and texts.

Report and TensorBoard show the same ones, so they share an `Examples`: every image is read once, and given to the
detector once.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import default_collate

from dfl.distributed import is_sharded
from dfl.evaluation.plots import FAKE
from dfl.metrics import resize_map

Rows = Mapping[str, Tensor]
Item = Mapping[str, Any]


class MapExample(NamedTuple):
    """A fake with its mask and map: uint8 (3, H, W), float32 (H, W) twice; its IoU, score and path."""

    image: Tensor
    mask: Tensor
    prob: Tensor
    iou: float
    score: float
    path: str

    def pictures(self) -> dict[str, np.ndarray]:
        """Return image, mask, map and overlay, uint8 (H, W, 3) each."""
        planes = {"image": self.image} | {
            name: (255 * plane).round().to(torch.uint8).expand(3, -1, -1)
            for name, plane in (("mask", self.mask), ("map", self.prob))
        }
        return {name: pixels(p) for name, p in (planes | {"overlay": overlay(self.image, self.prob)}).items()}


class TextExample(NamedTuple):
    """A sample with the outputs of its detector for it, N = 1."""

    item: Item
    outputs: Mapping[str, Any]


class Examples:
    """The examples of one validation or test.

    Args:
        module: The detector.
        split: ``val`` or ``test``; the metrics of this split tell which images are best and worst.
        sets: Domain -> data set; ``dataset[i]`` is a batch row with ``image`` uint8 (3, H, W), ``label`` and ``path``.
            A domain without one has no examples.
    """

    def __init__(self, module: Any, split: str, sets: Mapping[str, Any]) -> None:
        self.module, self.metrics, self.sets = module, module.metrics[split], sets
        self._items: dict[tuple[str, int], Item] = {}
        self._outputs: dict[tuple[str, int], Mapping[str, Any]] = {}

    @classmethod
    def of(cls, trainer: pl.Trainer, module: Any, split: str) -> "Examples":
        """Return the examples of the last evaluation of a split; all callbacks get the same ones."""
        metrics = module.metrics[split]
        if metrics.examples is None:
            sets = getattr(getattr(trainer, "datamodule", None), "sets", {})
            metrics.examples = cls(module, split, sets.get(split, {}))
        return metrics.examples

    def most_wrong(self, domain: str, k: int, label: int | None = None) -> list[tuple[Item, float]]:
        """Return the k samples with scores farthest from their label, farthest first, each with its score.

        Args:
            domain: Its name.
            k: At most so many.
            label: Only images of this label; None takes both.
        """
        if domain not in self.sets:
            return []
        rows = self.metrics.rows(domain)
        places = most_wrong(rows, k, label).tolist()
        return [(self._item(domain, int(rows["index"][at])), float(rows["score"][at])) for at in places]

    def maps(self, domain: str, k: int) -> list[MapExample]:
        """Return the fakes of a domain with the k best and the k worst maps by IoU, best first.

        None where the detector gives no maps, no fake has a mask, or weights are sharded.
        """
        metric = self.metrics.measured("mask").get(domain)
        if metric is None or domain not in self.sets:
            return []
        scores = self.metrics.rows(domain)
        score_of = dict(zip(scores["index"].tolist(), scores["score"].tolist(), strict=True))
        examples, rows = [], metric.rows()
        for place in by_iou(rows, k):
            index = int(rows["index"][place])
            item, prob = self._item(domain, index), self.map_of(domain, index)
            if prob is None:
                return []
            image, mask = (without_padding(item[name], item.get("extent")) for name in ("image", "mask"))
            iou, score = float(rows["iou"][place]), score_of.get(index, math.nan)
            examples.append(MapExample(image, mask, prob, iou, score, str(item["path"])))
        return examples

    def map_of(self, domain: str, index: int) -> Tensor | None:
        """Return the map of a sample, float32 (H, W) in [0, 1]; None of no maps, and where weights are sharded."""
        if is_sharded(self.module) or (logit := self._output(domain, index).get("mask_logit")) is None:
            return None
        item = self._item(domain, index)
        prob = resize_map(logit.float().sigmoid().cpu(), tuple(item["image"].shape[-2:]))[0].clamp(0, 1)
        return without_padding(prob, item.get("extent"))

    def texts(self, domain: str, k: int) -> list[TextExample]:
        """Return about k samples of a domain, of each class equally many and evenly spread, with what was written.

        None where the detector writes nothing, no image has an explanation, or weights are sharded.
        """
        metric = self.metrics.measured("text").get(domain)
        if metric is None or domain not in self.sets or is_sharded(self.module):
            return []
        index = metric.rows()["index"].tolist()
        chosen = spread_over(index, self.sets[domain].rows.class_label[index].tolist(), k)
        return [TextExample(self._item(domain, i), self._output(domain, i)) for i in chosen]

    def _item(self, domain: str, index: int) -> Item:
        key = domain, index
        if key not in self._items:
            self._items[key] = self.sets[domain][index]
        return self._items[key]

    def _output(self, domain: str, index: int) -> Mapping[str, Any]:
        key = domain, index
        if key not in self._outputs:
            self._outputs[key] = outputs_of(self.module, self._item(domain, index))
        return self._outputs[key]


def most_wrong(rows: Rows, k: int, label: int | None = None) -> Tensor:
    """Return the places in `Detection.rows` of the k images whose score is farthest from their label, farthest first.

    Args:
        rows: Of one domain.
        k: At most so many.
        label: Only images of this label; None takes both.
    """
    wrong = (rows["score"] - rows["label"]).abs().nan_to_num(nan=2.0)  # a NaN score is the worst
    if label is not None:
        wrong = wrong.masked_fill(rows["label"] != label, -1.0)
    order = wrong.argsort(descending=True, stable=True)[:k]
    return order[wrong[order] >= 0]


def by_iou(rows: Rows, k: int) -> list[int]:
    """Return the places in `Localization.rows` of the k best and the k worst fakes, best first, none twice."""
    defined = ((rows["label"] == 1) & ~rows["iou"].isnan()).nonzero().flatten()
    order = defined[rows["iou"][defined].argsort(descending=True, stable=True)].tolist()
    return order if len(order) <= 2 * k else order[:k] + order[len(order) - k :]


def spread_over(index: Sequence[int], kind: Sequence[int], k: int) -> list[int]:
    """Return about k of some indices, equally many of each kind, evenly spread; at least one of each."""
    groups = [[i for i, own in zip(index, kind, strict=True) if own == one] for one in sorted(set(kind))]
    share = max(1, k // max(1, len(groups)))
    return sorted({group[(2 * j + 1) * len(group) // (2 * share)] for group in groups for j in range(share)})


def outputs_of(module: Any, item: Item) -> dict[str, Any]:
    """Return a detector's outputs for one sample of a data set, N = 1, in eval mode and without gradients."""
    batch = default_collate([{k: v for k, v in item.items() if k not in ("bad", "training")}])
    batch = {k: v.to(module.device) if isinstance(v, Tensor) else v for k, v in batch.items()}
    batch = module.on_after_batch_transfer(batch, 0)
    attached = module._trainer
    precision = nullcontext() if attached is None else attached.precision_plugin.forward_context()
    training = module.training
    module.eval()
    with torch.no_grad(), precision:
        outputs = module.outputs(batch)
    module.train(training)
    return outputs


def without_padding(planes: Tensor, extent: Tensor | None) -> Tensor:
    """Return planes (..., H, W) cut to the rows and columns (2,) that are no padding; all of them without an extent."""
    return planes if extent is None else planes[..., : int(extent[0]), : int(extent[1])]


def overlay(image: Tensor, prob: Tensor) -> Tensor:
    """Lay a map (H, W) over an image uint8 (3, H, W): the surer, the more vermilion; uint8 (3, H, W)."""
    colour = torch.tensor([int(FAKE[i : i + 2], 16) for i in (1, 3, 5)]).view(3, 1, 1)
    share = 0.65 * prob.clamp(0, 1)
    return (image * (1 - share) + colour * share).round().to(torch.uint8)


def pixels(image: Tensor) -> np.ndarray:
    """Return an image uint8 (3, H, W) as an array (H, W, 3)."""
    return image.permute(1, 2, 0).contiguous().cpu().numpy()

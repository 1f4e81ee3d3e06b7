"""How a detector is measured: metrics by split and domain, every image once, whatever the number of ranks.

What is measured follows from what the detector answers and what the batch knows. A score and a label give detection
metrics. A map and a mask give ``mask_*``, and the map that a detector draws when it is given the answer
``forced_mask_*``. Class logits and class labels give ``class_*``, texts and explanations ``text_*``.
"""

import warnings
from collections.abc import Mapping
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from torch import Tensor

from dfl.errors import UserError
from dfl.metrics import (
    Classes,
    Detection,
    Localization,
    Mean,
    Texts,
    balanced_draws_ap,
    choose_threshold,
    fairness,
    inside,
    mean_over_domains,
    official,
)
from dfl.metrics.localization import Protocol

M = TypeVar("M")
#: By split, then by domain.
Domains = dict[str, dict[str, M]]


class Evaluated(pl.LightningModule):
    """The half of a detector that scores validation and test."""

    #: Whose localization metrics are taken of detectors that give ``mask_logit``.
    protocol: Protocol = "dfl"
    #: What the columns of ``class_logit`` are, for detectors that give it; the first is the real image.
    class_names: tuple[str, ...] = ("real", "synthetic", "tampered")
    #: Sentence encoder for the similarity of texts: a local folder or a hub name; None leaves ``text_css`` out.
    text_model: str | None = None
    threshold: Tensor

    def __init__(self) -> None:
        super().__init__()
        #: Metrics by split and domain; they exist while a stage runs.
        self.metrics: Domains[Detection] = {}
        #: The same of maps, for detectors that give ``mask_logit`` and images with masks; without rows otherwise.
        self.maps: Domains[Localization] = {}
        #: The same of ``teacher_forced_mask_logit``, of ``class_logit`` and of ``text``.
        self.forced_maps: Domains[Localization] = {}
        self.classes: Domains[Classes] = {}
        self.texts: Domains[Texts] = {}
        #: The mean loss of images in validation, for detectors that give `image_loss`.
        self.image_losses: Domains[Mean] = {}
        #: Values by split, domain (and ``mean``) and metric, of the last evaluation.
        self.results: Domains[dict[str, float]] = {}
        #: Verdict is fake at this probability and above; chosen on validation, NaN before.
        self.register_buffer("threshold", torch.tensor(float("nan")))

    def outputs(self, batch: dict[str, Any]) -> Any:
        """Return the outputs that evaluation and predict read, of a batch; a detector may ask more of it than images.

        Beside what ``forward`` gives: ``teacher_forced_mask_logit`` (N, h, w), the map where the answer was given, and
        ``text``, a list of N strings; ``generated_text``, N strings that ``text`` is a part of, goes to predictions
        alone.
        """
        return self(batch["image"])

    def image_loss(self, out: dict[str, Tensor], batch: Mapping[str, Any]) -> Tensor | None:
        """Return the loss of every image, (N,) float32, whose mean validation reports as ``loss``; None reports none.

        Args:
            out: Of `outputs`, in evaluation.
            batch: With labels and masks.
        """
        return None

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Score a batch of a validation domain."""
        self._evaluate("val", batch, dataloader_idx)

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Score a batch of a test domain."""
        self._evaluate("test", batch, dataloader_idx)

    def on_validation_epoch_start(self) -> None:
        """Make the metrics of each validation domain."""
        self._make_metrics("val")

    def on_test_epoch_start(self) -> None:
        """Make the metrics of each test domain."""
        self._make_metrics("test")

    def on_validation_epoch_end(self) -> None:
        """Choose the threshold, then log every domain's metrics and their mean."""
        rows = [metric.rows() for metric in self.metrics["val"].values()]
        score, label = (torch.cat([r[k] for r in rows]) for k in ("score", "label"))
        self.threshold.copy_(choose_threshold(score, label))
        self._finish("val")
        auroc = self.results["val"]["mean"]["auroc"]
        if auroc < 0.4 and not self.trainer.sanity_checking:
            warnings.warn(
                f"validation AUROC is {auroc:.3f}, under 0.4: the scores are upside down; look for inverted labels "
                "(in dfl 0 is real and 1 is fake)",
                stacklevel=2,
            )

    def on_test_epoch_end(self) -> None:
        """Log every domain's metrics and their mean."""
        self._finish("test")

    def _make_metrics(self, split: str) -> None:
        domains, device = self._domains(split), self.device
        self.metrics[split] = {d: Detection(name=d).to(device) for d in domains}
        self.maps[split] = {d: Localization(self.protocol, name=d).to(device) for d in domains}
        self.forced_maps[split] = {d: Localization(self.protocol, name=d).to(device) for d in domains}
        self.classes[split] = {d: Classes(self.class_names, d).to(device) for d in domains}
        self.texts[split] = {d: Texts(self.text_model, d).to(device) for d in domains}
        self.image_losses[split] = {d: Mean(d).to(device) for d in domains}

    def _domains(self, split: str) -> list[str]:
        """Return the domain names, from the data module, or numbers where loaders came without one."""
        data = getattr(self.trainer, "datamodule", None)
        if data is not None:
            return list(data.domains(split))
        loaders = {"val": self.trainer.val_dataloaders, "test": self.trainer.test_dataloaders}.get(split)
        return [str(i) for i in range(len(loaders) if isinstance(loaders, list) else 1)]

    def _evaluate(self, split: str, batch: dict[str, Any], dataloader_idx: int) -> None:
        out, domain = self.outputs(batch), self._domains(split)[dataloader_idx]
        score, index = out["logit"].float().sigmoid(), batch["index"]  # bf16 scores tie, and AUROC falls
        self.metrics[split][domain].update(score, batch["label"], index, batch["video"], batch.get("group"))
        if split == "val" and (loss := self.image_loss(out, batch)) is not None:
            by_mask = getattr(self, "supervision", "label") == "mask"  # which says nothing of an image without one
            self.image_losses[split][domain].update(loss, index.where(batch["has_mask"], -1) if by_mask else index)
        for key, maps in (("mask_logit", self.maps), ("teacher_forced_mask_logit", self.forced_maps)):
            if key in out and "mask" in batch:
                known = index.where(batch["has_mask"], -1)
                maps[split][domain].update(
                    out[key].float().sigmoid(), batch["mask"], batch["label"], known, inside(batch)
                )
        if "class_logit" in out and "class_label" in batch:
            self.classes[split][domain].update(out["class_logit"].float(), batch["class_label"], index)
        if "text" in out and "explanation" in batch:
            self.texts[split][domain].update(out["text"], batch["explanation"], index)

    def _settle(self, split: str) -> None:
        data = getattr(self.trainer, "datamodule", None)
        if data is not None and hasattr(data, "settle"):
            data.settle(split)

    def _finish(self, split: str) -> None:
        self._settle(split)
        results: dict[str, dict[str, float]] = {}
        for domain, metric in self.metrics[split].items():
            if self.trainer.state.fn != "fit":  # where they mean damage, and not a step that goes wrong
                _refuse_nan(metric.rows()["score"], f"{split}/{domain}")
            metric.threshold = float(self.threshold)
            results[domain] = {k: float(v) for k, v in metric.compute().items()} | self._other_results(split, domain)
            if split == "test":
                results[domain] |= fairness.flat(self.compare_groups(domain))
        results["mean"] = mean_over_domains(list(results.values()))
        self.results[split] = results
        flat = {f"{split}/{d}/{k}": v for d, r in results.items() for k, v in r.items()}
        self.log_dict(flat, rank_zero_only=False, sync_dist=False)

    def compare_groups(self, domain: str) -> dict[str, fairness.GroupFairness]:
        """Return the comparison of groups in a test domain by attribute; empty where no image has a group."""
        names = getattr(getattr(self.trainer, "datamodule", None), "vocab", {}).get("group", {})
        return fairness.compare(self.metrics["test"][domain].rows(), names, float(self.threshold), domain)

    def _other_results(self, split: str, domain: str) -> dict[str, float]:
        """Return the metrics of maps, classes and texts; none of what met nothing to be held against, on any rank."""
        found: dict[str, float] = {}
        kinds: tuple[tuple[str, Mapping[str, Any]], ...] = (
            ("mask", self.maps.get(split, {})),
            ("forced_mask", self.forced_maps.get(split, {})),
            ("class", self.classes.get(split, {})),
            ("text", self.texts.get(split, {})),
        )
        for prefix, metrics in kinds:
            if domain in metrics and len(metrics[domain].rows()["index"]):
                found |= {f"{prefix}_{k}": float(v) for k, v in metrics[domain].compute().items()}
        losses = self.image_losses.get(split, {})
        if domain in losses and len(losses[domain].gathered()[0]):
            found["loss"] = float(losses[domain].compute())
        if "mask_iou" in found and self.protocol == "dolos":  # detection as it measures it, next to the plain AP
            rows = self.metrics[split][domain].rows()
            found["ap_draws"] = float(balanced_draws_ap(rows["score"], rows["label"])[0])
        if "forced_mask_ciou" in found and "class_acc" in found:
            found |= official(self.classes[split][domain].confusion(), found["forced_mask_ciou"])
        return found


def _refuse_nan(score: Tensor, what: str) -> None:
    if count := int(score.isnan().sum()):
        raise UserError(
            f"{count} of {len(score)} scores of {what} are no numbers, so there is no result: the weights are damaged, "
            "or trainer.precision is too coarse for them"
        )

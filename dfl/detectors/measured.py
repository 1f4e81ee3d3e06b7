"""How a detector is measured: metrics by split and domain, every image once, whatever the number of ranks.

What is measured follows from what the detector gives and what the batch has: the table is `dfl.metrics.measures`.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from dfl.detectors.outputs import Outputs, checked
from dfl.errors import UserError
from dfl.metrics import balanced_draws_ap, choose_threshold, mean_over_domains
from dfl.metrics.gathered import Gathered
from dfl.metrics.localization import Protocol
from dfl.metrics.measures import MEASURES, Measure, Measurements
from dfl.metrics.verdicts import Rule, Verdicts, rule_of
from dfl.training.domains import domains, ids, settle

#: Outputs that are averaged over the views of an image.
OVER_VIEWS = ("logit", "class_logit", "family_logit")


class Measured(pl.LightningModule):
    """The half of a detector that scores validation and test."""

    #: What is measured: which output meets which target. A detector may add rows.
    measures: tuple[Measure, ...] = MEASURES
    #: Whose localization metrics are taken of detectors that give ``mask_logit``.
    protocol: Protocol = "dfl"
    #: What the columns of ``class_logit`` are, for detectors that give it; the first is the real image.
    class_names: tuple[str, ...] = ("real", "synthetic", "tampered")
    #: Sentence encoder for the similarity of texts: a local folder or a hub name; None leaves ``text_css`` out.
    text_model: str | None = None
    threshold: Tensor

    def __init__(self) -> None:
        super().__init__()
        #: Metrics by split, then by domain and name; those of the last evaluation.
        self.metrics: dict[str, Measurements] = {}
        #: Values by split, domain (and ``mean``) and metric, of the last evaluation.
        self.results: dict[str, dict[str, dict[str, float]]] = {}
        #: Verdict is fake at this probability and above; chosen on validation, NaN before.
        self.register_buffer("threshold", torch.tensor(float("nan")))
        #: What the newest validation of a training says of scores; a checkpoint holds it.
        self.verdicts: Verdicts | None = None

    def outputs(self, batch: dict[str, Any]) -> Outputs:
        """Return the outputs of a batch that evaluation and predict read; a detector may read more of it than images.

        Beside what ``forward`` gives: ``teacher_forced_mask_logit`` (N, h, w), the map where the class was given, and
        ``text``, a list of N strings; ``generated_text``, N strings that ``text`` is a part of, goes to predictions
        alone.
        """
        return self(batch["image"])

    def view_outputs(self, batch: dict[str, Any]) -> Outputs:
        """Return the outputs for a further view of a batch's images; only `OVER_VIEWS` are read."""
        return self.outputs(batch)

    def over_views(self, batch: dict[str, Any]) -> tuple[Outputs, Any]:
        """Return the outputs for the centre view, and those for all views of the images (``data.views``).

        The latter have the mean of each of `OVER_VIEWS` over the views, in float32. Maps, features, texts and all else
        are those of the centre. One view after the other goes through the network.
        """
        n = len(batch["index"])
        centre = checked(self.outputs(batch), n, self)
        views = batch.get("views")
        if views is None:
            return centre, dict(centre)
        given: Any = centre
        sums: Any = {name: given[name].float() for name in OVER_VIEWS if name in centre}
        rest = {key: value for key, value in batch.items() if key != "views"}
        for view in views.unbind(1):
            other: Any = self.view_outputs(self.on_after_batch_transfer(rest | {"image": view}, 0))
            other = checked(other, n, self)
            sums = {name: value + other[name].float() for name, value in sums.items()}
        mean: Any = {name: value / (1 + views.shape[1]) for name, value in sums.items()}
        return centre, centre | mean

    def rule(self, fpr: float | None = None, coverage: float = 1.0) -> Rule:
        """Return how scores become probabilities and verdicts, see `dfl.metrics.verdicts`."""
        return rule_of(self.verdicts, float(self.threshold), fpr, coverage)

    def image_loss(self, out: Any, batch: Mapping[str, Any]) -> Tensor | None:
        """Return the loss of every image, (N,) float32, whose mean validation reports as ``loss``; None reports none.

        Args:
            out: Of `outputs`, in evaluation.
            batch: With labels and masks.
        """
        return None

    def derived_results(self, metrics: Mapping[str, Gathered], results: Mapping[str, float]) -> dict[str, float]:
        """Return numbers that follow from several metrics of a domain; a detector may add those of its paper.

        Args:
            metrics: Of a domain, by name.
            results: Their values.
        """
        if self.protocol == "dolos" and "mask_iou" in results:  # detection as it measures it, next to the plain AP
            score, label = metrics["logit"].gathered()[1][:, :2].T
            return {"ap_draws": float(balanced_draws_ap(score, label)[0])}
        return {}

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Measure a batch of a validation domain."""
        centre, outputs = self.over_views(batch)
        if (loss := self.image_loss(centre, batch)) is not None:
            outputs |= {"image_loss": loss}
        self.metrics["val"].add(domains(self.trainer, "val")[dataloader_idx], outputs, batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Measure a batch of a test domain."""
        outputs = self.over_views(batch)[1]
        self.metrics["test"].add(domains(self.trainer, "test")[dataloader_idx], outputs, batch)

    def on_validation_epoch_start(self) -> None:
        """Make the metrics of each validation domain."""
        self.metrics["val"] = Measurements(self, domains(self.trainer, "val"), self.device)

    def on_test_epoch_start(self) -> None:
        """Make the metrics of each test domain."""
        self.metrics["test"] = Measurements(self, domains(self.trainer, "test"), self.device)

    def on_validation_epoch_end(self) -> None:
        """Choose the threshold, then log every domain's metrics and their mean."""
        rows = [self.metrics["val"].rows(domain) for domain in self.metrics["val"]]
        score, label, logit = (torch.cat([r[k] for r in rows]) for k in ("score", "label", "logit"))
        self.threshold.copy_(choose_threshold(score, label))
        self.verdicts = Verdicts.fitted(score, label, float(self.threshold), logit)
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

    def _finish(self, split: str) -> None:
        settle(self.trainer, split)
        metrics, threshold, results = self.metrics[split], float(self.threshold), {}
        group_ids = ids(self.trainer, "group")
        for domain, own in metrics.items():
            if self.trainer.state.fn != "fit":  # where they mean damage, and not a step that goes wrong
                _refuse_nan(metrics.rows(domain)["score"], f"{split}/{domain}")
            results[domain] = metrics.results(domain, threshold)
            results[domain] |= self.derived_results(own, results[domain])
            if split == "test":
                results[domain] |= metrics.compare_groups(domain, group_ids, threshold)
        results["mean"] = mean_over_domains(list(results.values()))
        self.results[split] = results
        flat = {f"{split}/{d}/{k}": v for d, r in results.items() for k, v in r.items()}
        self.log_dict(flat, rank_zero_only=False, sync_dist=False)


def _refuse_nan(score: Tensor, what: str) -> None:
    if count := int(score.isnan().sum()):
        raise UserError(
            f"{count} of {len(score)} scores of {what} are no numbers, so there is no result: the weights are damaged, "
            "or trainer.precision is too coarse for them"
        )

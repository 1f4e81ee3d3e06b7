"""What is measured of a detector: one table of which output meets which target of the batch, by which metric.

A metric is taken where the detector gives the output and the batch has the target. A detector may add rows to the table
(``measures``), and numbers that follow from several metrics (``derived_results``).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dfl.metrics import fairness
from dfl.metrics.classes import Classes
from dfl.metrics.detection import Detection
from dfl.metrics.gathered import Gathered, ImageLoss
from dfl.metrics.localization import Localization
from dfl.metrics.text import Texts

#: Outputs that are lists of N strings; predictions hold them.
TEXT_OUTPUTS = ("text", "generated_text")


class Measure(NamedTuple):
    """A row of the table."""

    #: What its results begin with: ``mask`` gives ``mask_iou``. '' gives names without a prefix.
    prefix: str
    #: The key of the detector's outputs, and of the batch.
    output: str
    target: str
    #: Makes the metric, from the detector and the name of a domain.
    metric: Callable[[Any, str], Gathered]

    @property
    def name(self) -> str:
        """What the metric is called among those of a domain."""
        return self.prefix or self.output


def _maps(detector: Any, domain: str) -> Localization:
    return Localization(detector.protocol, name=domain)


MEASURES = (
    Measure("", "logit", "label", lambda detector, domain: Detection(name=domain)),
    Measure("mask", "mask_logit", "mask", _maps),
    Measure("forced_mask", "teacher_forced_mask_logit", "mask", _maps),
    Measure("class", "class_logit", "class_label", lambda detector, domain: Classes(detector.class_names, domain)),
    Measure("text", "text", "explanation", lambda detector, domain: Texts(detector.text_model, domain)),
    Measure(
        "",
        "image_loss",
        "label",
        lambda detector, domain: ImageLoss(getattr(detector, "supervision", "label") == "mask", domain),
    ),
)


class Measurements(dict[str, dict[str, Gathered]]):
    """All metrics of one validation or test: by domain, then by `Measure.name`.

    There is one of each for every domain from the start, since all ranks must gather the same ones, whether or not
    they saw an image of a domain.

    Args:
        detector: Its ``measures`` and what they need of it, such as ``class_names``.
        domains: Their names.
        device: Where the rows are added up.
    """

    def __init__(self, detector: Any, domains: Sequence[str], device: torch.device | str = "cpu") -> None:
        self.measures: tuple[Measure, ...] = detector.measures
        super().__init__({d: {m.name: m.metric(detector, d).to(device) for m in self.measures} for d in domains})
        #: The comparison of groups in a domain by attribute, once `compare_groups` has been called.
        self.groups: dict[str, dict[str, fairness.GroupFairness]] = {}
        #: What figures show of this evaluation; whoever draws first puts it here, for the others to use.
        self.examples: Any = None

    def add(self, domain: str, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
        """Add a batch of a domain to every metric whose output and target are there."""
        for measure in self.measures:
            if measure.output in outputs and measure.target in batch:
                self[domain][measure.name].take(outputs[measure.output], batch)

    def rows(self, domain: str) -> dict[str, Tensor]:
        """Return `Detection.rows` of a domain."""
        detection = self[domain]["logit"]
        assert isinstance(detection, Detection)
        return detection.rows()

    def measured(self, name: str) -> dict[str, Any]:
        """Return the metric of this name by domain, without the domains where it has no rows on any rank."""
        by_domain = {domain: metrics[name] for domain, metrics in self.items() if name in metrics}
        return {domain: metric for domain, metric in by_domain.items() if len(metric.gathered()[0])}

    def classes(self) -> dict[str, dict[str, Classes]]:
        """Return the metrics of classes that have rows, by name, then by domain."""
        names = dict.fromkeys(n for own in self.values() for n, metric in own.items() if isinstance(metric, Classes))
        return {name: measured for name in names if (measured := self.measured(name))}

    def results(self, domain: str, threshold: float) -> dict[str, float]:
        """Return the value of each metric of a domain; a metric without rows has none, but for the score's.

        Args:
            domain: Its name.
            threshold: Of the verdict, chosen on validation data; NaN for none.
        """
        results: dict[str, float] = {}
        for measure in self.measures:
            metric = self[domain][measure.name]
            if isinstance(metric, Detection):
                metric.threshold = threshold
            elif not len(metric.gathered()[0]):
                continue
            start = f"{measure.prefix}_" if measure.prefix else ""
            results |= {f"{start}{name}": float(value) for name, value in metric.compute().items()}
        return results

    def compare_groups(self, domain: str, names: Mapping[str, int], threshold: float) -> dict[str, float]:
        """Compare the groups of people in a domain, see `groups`; return the measures as ``fairness/...``.

        Args:
            domain: Its name.
            names: Id of each group by name.
            threshold: Of the verdict, chosen on validation data; NaN for none.
        """
        self.groups[domain] = fairness.compare(self.rows(domain), names, threshold, domain)
        return fairness.flat(self.groups[domain])

"""What weights of 8 bits cost: the AUROC of a graph before and after, on the same validation images; their own rule."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from dfl.errors import UserError
from dfl.metrics.binary import choose_threshold
from dfl.metrics.delong import delong
from dfl.metrics.verdicts import Verdicts
from dfl.sharing.graph import Run, Values
from dfl.sharing.tried import Images, batches


def cost(whole: Run, small: Run, sample: Images, values: Values) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compare two graphs.

    Args:
        whole: The graph in float32.
        small: In 8 bits.
        sample: Labelled images of both classes.
        values: Of the pixels that they take.

    Returns:
        ``on``, the two ``auroc``, and of the second less the first ``value``, ``low``, ``high`` (95 % interval of a
        paired DeLong test) and ``p``; ``score``, the largest difference of a score. And ``threshold`` and ``verdicts``
        of the second, chosen as at the end of `fit`: 8 bits move scores, so those of the float graph are not its own.

    Raises:
        UserError: If the images are of one class.
    """
    label = sample.label.numpy()
    if set(label) != {0, 1}:
        raise UserError(f"what int8 costs needs real and fake images, and the {sample.what} are of one kind")
    logits = []
    for run in (small, whole):
        given = (pixels if values == "uint8" else pixels.float() / 255 for pixels in batches(sample.pixels))
        logits.append(torch.cat([run(pixels)["logit"] for pixels in given]))
    areas = delong(np.stack([one.numpy() for one in logits]), label)
    score = float((logits[0].sigmoid() - logits[1].sigmoid()).abs().max())
    auroc = [float(areas.area[1]), float(areas.area[0])]
    own = logits[0].sigmoid()
    threshold = float(choose_threshold(own, sample.label))
    verdicts = Verdicts.fitted(own, label, threshold, logits[0])
    rule = {"threshold": threshold, "verdicts": verdicts and verdicts.plain()}
    return {"on": sample.what, "auroc": auroc, **areas.difference(0, 1), "score": score}, rule


def said(costs: Mapping[str, Any]) -> str:
    """Return the costs in a line."""
    (before, after), (large, small) = costs["auroc"], costs["bytes"]
    return (
        f"int8: AUROC {before:.4f} -> {after:.4f} on {costs['on']}: {costs['value']:+.4f} ({costs['low']:+.4f} to "
        f"{costs['high']:+.4f}); scores move by up to {costs['score']:.3f}; {large:,} -> {small:,} bytes"
    )

"""Whether more of a metric is better or less: what is monitored follows it, whatever watches."""

from typing import Literal

from dfl.metrics import classes

Mode = Literal["min", "max"]
#: Metrics of scores; the rest of them compares the classes and is not defined where there is one.
DETECTION: dict[str, Mode] = {
    **dict.fromkeys(("auroc", "ap", "acc", "bacc", "acc_val", "bacc_val", "tpr_at_1fpr", "video_auroc"), "max"),
    **dict.fromkeys(("eer", "log_loss", "ece"), "min"),
    "ap_draws": "max",
}
#: Those that need no second class.
OF_ONE_CLASS = {"acc", "log_loss", "ece"}
#: Metrics of maps; what constant maps would get, which is a property of the data, has no direction.
MAPS: dict[str, Mode] = {
    **dict.fromkeys(("iou", "pbca", "f1", "best_f1", "ap", "auroc", "ciou"), "max"),
    **dict.fromkeys(("pooled_iou", "pooled_ap", "pooled_auroc"), "max"),
    **dict.fromkeys(("fpa", "false_masks"), "min"),
}
CLASSES: dict[str, Mode] = dict.fromkeys(("acc", "bacc", *classes.MEASURES), "max")
TEXTS: dict[str, Mode] = {"rouge_l": "max", "css": "max"}
OFFICIAL: dict[str, Mode] = dict.fromkeys(("f1", "auc", "pixel_accuracy"), "max")
LOSS: dict[str, Mode] = {"loss": "min"}
#: All of them by the name that they have in a domain; those of a single class come as ``class_f1_<class>``.
DIRECTIONS: dict[str, Mode] = (
    LOSS
    | DETECTION
    | {
        f"{prefix}_{name}": mode
        for prefix, table in (
            ("mask", MAPS),
            ("forced_mask", MAPS),
            ("class", CLASSES),
            ("text", TEXTS),
            ("official", OFFICIAL),
        )
        for name, mode in table.items()
    }
)


def direction(name: str) -> Mode | None:
    """Return ``max`` if more is better and ``min`` if less is, of a name such as ``val/mean/auroc``.

    None for what is not a metric of this suite, and for what has no direction, such as a count. Measures of fairness
    are distances between groups, so less of them is better.
    """
    if name == "train/loss":
        return "min"
    split, _, rest = name.partition("/")
    domain, _, metric = rest.partition("/")
    if split not in ("val", "test") or not domain:
        return None
    if metric.startswith("fairness/"):
        return "min"
    if any(metric.startswith(f"class_{measure}_") for measure in classes.MEASURES):
        return "max"
    return DIRECTIONS.get(metric)

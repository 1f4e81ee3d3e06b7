"""Three numbers of SIDA's official validation, whose names say something else, for parity with published tables.

Read in the official code (Huang et al., CVPR 2025). They are given as ``official_*`` and cannot be compared with
anybody's F1, AUC or pixel accuracy; `Classes` and `Localization` have the real ones.
"""

from torch import Tensor


def official(confusion: Tensor, ciou: float) -> dict[str, float]:
    """Return what the official code calls F1, AUC and pixel accuracy, as fractions.

    Args:
        confusion: (K, K) images of each class (row) that are called each class (column).
        ciou: Intersections over unions, each summed over the tampered images, at logit > 0, teacher-forced.

    Returns:
        ``official_f1``: harmonic mean of cIoU and class accuracy. ``official_auc``: mean precision times mean recall
        over the classes, where undefined ones count 0. ``official_pixel_accuracy``: cIoU again.
    """
    counts = confusion.double()
    right, images, called = counts.diagonal(), counts.sum(1), counts.sum(0)
    accuracy = float(right.sum() / counts.sum())
    precision, recall = (float((right / n).nan_to_num(0.0).mean()) for n in (called, images))
    return {
        "official_f1": 2 * ciou * accuracy / (ciou + accuracy + 1e-10),
        "official_auc": precision * recall,
        "official_pixel_accuracy": ciou,
    }

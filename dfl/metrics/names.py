"""What each metric is called, what it says, and whether more of it is better: tables and monitors follow it."""

from typing import Literal, NamedTuple

from dfl.metrics.classes import PER_CLASS

Mode = Literal["min", "max"]
#: What names of metrics of classes begin with.
OF_CLASSES = ("class", "family")


class About(NamedTuple):
    """What is to be said of a metric."""

    #: In tables.
    label: str
    #: What it measures.
    meaning: str
    #: Whether the best value is the largest or the smallest; None for what the data alone give.
    best: Mode | None = "max"
    #: Whether the terminal and print leave it to the files, for want of room.
    minor: bool = False

    @property
    def help(self) -> str:
        """What it measures, and whether less is better."""
        return self.meaning + ("; lower is better" if self.best == "min" else "")


#: By the name in results; names that are not here are their own labels.
METRICS = {
    "auroc": About("AUROC", "area under the ROC curve; 0.5 is chance"),
    "ap": About("AP", "average precision of the class fake"),
    "eer": About("EER", "equal error rate: where as many real as fake images are mistaken", "min"),
    "acc": About("acc@0.5", "accuracy, fake from a score of 0.5"),
    "bacc": About(
        "bacc@0.5", "mean of the accuracies on real and on fake images, fake from a score of 0.5", minor=True
    ),
    "acc_val": About("acc@val", "accuracy at the threshold that was chosen on validation data", minor=True),
    "bacc_val": About("bacc@val", "mean of the accuracies on real and on fake images, at the threshold of validation"),
    "acc_real": About("acc real", "share of the real images that are called real, at the threshold of validation"),
    "acc_fake": About("acc fake", "share of the fake images that are called fake, at the threshold of validation"),
    "fpr": About("FPR", "share of the real images that are called fake, at the threshold of validation", "min"),
    "bacc_oracle": About(
        "bacc, oracle", "balanced accuracy at the threshold that is best on the test images themselves: no fair number"
    ),
    "tpr_at_1fpr": About("TPR@1%", "share of the fake images that are found when 1% of the real ones are mistaken"),
    "log_loss": About("log loss", "mean negative log-likelihood", "min", minor=True),
    "loss": About("loss", "mean of the detector's own loss of an image, in validation", "min", minor=True),
    "ece": About("ECE", "expected calibration error, 15 bins", "min", minor=True),
    "video_auroc": About("video AUROC", "AUROC of the mean scores of videos"),
    "ap_draws": About("AP, draws", "average precision, mean of 5 draws of as many real as fake images (dolos)"),
    "mask_iou": About("IoU", "intersection over union of map and mask, mean over fakes"),
    "mask_pbca": About("PBCA", "share of the pixels that are called right, mean over fakes"),
    "mask_f1": About("pixel F1", "F1 of pixels at 0.5, mean over fakes"),
    "mask_best_f1": About("best F1", "F1 of pixels at the best threshold of each image, mean over fakes", minor=True),
    "mask_ap": About("pixel AP", "average precision of pixels, mean over fakes"),
    "mask_auroc": About("pixel AUROC", "area under the ROC curve of pixels, mean over fakes", minor=True),
    "mask_iou_all_fake": About(
        "IoU all fake", "what a map that calls every pixel fake would get; published numbers lie under", None
    ),
    "mask_pbca_all_fake": About("PBCA all fake", "what a map that calls every pixel fake would get", None, True),
    "mask_f1_all_fake": About("F1 all fake", "what a map that calls every pixel fake would get", None, True),
    "mask_ap_all_fake": About(
        "pixel AP constant", "what a constant map would get: the share of manipulated pixels", None, True
    ),
    "mask_iou_all_real": About("IoU all real", "what a map that calls every pixel real would get", None, True),
    "mask_pbca_all_real": About("PBCA all real", "what a map that calls every pixel real would get", None),
    "mask_pooled_iou": About("pooled IoU", "of all pixels of all images together, real ones included", minor=True),
    "mask_pooled_ap": About(
        "pooled AP", "of all pixels of all images together, real ones included; 1,024 bins", minor=True
    ),
    "mask_pooled_auroc": About(
        "pooled AUROC", "of all pixels of all images together, real ones included; 1,024 bins", minor=True
    ),
    "mask_ciou": About("cIoU", "intersections over unions of map and mask, each summed over the fakes", minor=True),
    "mask_fpa": About("FP area", "share of the pixels of real images that are called fake", "min"),
    "mask_false_masks": About(
        "false masks", "share of real images with any pixel that is called fake", "min", minor=True
    ),
    "class_acc": About("class acc", "share of images whose class is called right"),
    "class_bacc": About("class bacc", "mean over classes of the share that is called right", minor=True),
    "class_precision": About("class precision", "mean over classes", minor=True),
    "class_recall": About("class recall", "mean over classes", minor=True),
    "class_f1": About("class F1", "F1 of classes, mean over classes (macro)"),
    "class_auroc": About("class AUROC", "AUROC of each class against the rest, mean over classes"),
    "level_1_acc": About("level 1 acc", "share of images that are rightly called real or fake, at 0.5"),
    "level_2_acc": About("level 2 acc", "share of fakes of a known family for which it is likelier than the others"),
    "level_3_acc": About(
        "level 3 acc", "share of fakes of a known generator for which it is the likeliest of its family"
    ),
    "class_unknown": About("unknown", "share of fakes whose generator the detector was not made for", None),
    "text_rouge_l": About("ROUGE-L", "longest common subsequence of words with the wanted explanation, F-measure"),
    "text_css": About("CSS", "cosine of the embeddings of the text and of the wanted explanation"),
    "official_f1": About(
        "official F1", "SIDA's misnomer: harmonic mean of cIoU and class accuracy; for parity only", minor=True
    ),
    "official_auc": About(
        "official AUC", "SIDA's misnomer: mean precision times mean recall; for parity only", minor=True
    ),
    "official_pixel_accuracy": About(
        "official pixel acc", "SIDA's misnomer: cIoU of the forced maps; for parity only", minor=True
    ),
}
METRICS |= {
    f"family_{name}": About(
        f"family {name}", f"{METRICS[f'class_{name}'].meaning}; classes: families", minor=name != "acc"
    )
    for name in ("acc", "bacc", *PER_CLASS)
}
METRICS |= {
    f"forced_{name}": About(
        f"{one.label}, forced",
        f"{one.meaning}; of the map that the detector draws when the class is given (teacher-forced)",
        one.best,
        name not in ("mask_iou", "mask_ciou"),
    )
    for name, one in METRICS.items()
    if name.startswith("mask_")
}
#: Metrics of scores that are defined where there is one class, and all of them; the others compare the classes.
OF_ONE_CLASS = ("acc", "log_loss", "ece")
DETECTION = (
    *("auroc", "ap", "eer", "bacc", "acc_val", "bacc_val", "tpr_at_1fpr", "video_auroc", "ap_draws", *OF_ONE_CLASS),
)
#: What `dfl.metrics.fairness` measures, by the last part of its name; tables of their own show it.
FAIRNESS = {
    "F_FPR": About("F_FPR", "sum over groups of |FPR of the group - FPR of all|", "min"),
    "F_OAE": About("F_OAE", "largest difference of accuracy between groups", "min"),
    "F_DP": About("F_DP", "largest difference between groups in the share that is called fake", "min"),
    "F_MEO": About("F_MEO", "largest difference between groups of FPR or of TPR", "min"),
    "F_EO": About("F_EO", "F_FPR, plus the same of TPR", "min"),
    "gap_auroc": About("gap AUROC", "largest difference of AUROC between groups", "min"),
    "gap_eer": About("gap EER", "largest difference of EER between groups", "min"),
}


def about(name: str) -> About:
    """Return what is to be said of a metric, by its name in results."""
    return METRICS.get(name, About(name, "", None))


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
    if metric.startswith(("level_3_acc_", *(f"{of}_{measure}_" for of in OF_CLASSES for measure in PER_CLASS))):
        return "max"
    return about(metric).best

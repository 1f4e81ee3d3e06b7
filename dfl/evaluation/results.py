"""Numbers of a test as files: what was measured, on how many images, and by which code, data and settings.

A number without its circumstances cannot be compared. So ``results.json`` holds the metrics of every domain next to
`run_info`: configuration, commit, versions, hashes of the data, threshold, seed and checkpoint. ``results.csv`` is the
same table for a spreadsheet. Numbers keep all their digits; rounding is for the eye only.
"""

import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from rich.table import Table

import dfl
from dfl.data import csv_files
from dfl.terminal import console

#: Packages whose versions can change a number.
PACKAGES = ("torch", "pytorch-lightning", "torchmetrics", "timm", "peft", "numpy", "pillow", "simplejpeg")
#: What a metric is called in tables, and what it says; others go by their own names.
METRICS = {
    "auroc": ("AUROC", "area under the ROC curve; 0.5 is chance"),
    "ap": ("AP", "average precision of the class fake"),
    "eer": ("EER", "equal error rate: where as many real as fake images are mistaken; lower is better"),
    "acc": ("acc@0.5", "accuracy, fake from a score of 0.5"),
    "bacc": ("bacc@0.5", "mean of the accuracies on real and on fake images, fake from a score of 0.5"),
    "acc_val": ("acc@val", "accuracy at the threshold that was chosen on validation data"),
    "bacc_val": ("bacc@val", "mean of the accuracies on real and on fake images, at the threshold of validation"),
    "tpr_at_1fpr": ("TPR@1%", "share of the fake images that are found when 1% of the real ones are mistaken"),
    "log_loss": ("log loss", "mean negative log-likelihood; lower is better"),
    "loss": ("loss", "mean of the detector's own loss of an image, in validation; lower is better"),
    "ece": ("ECE", "expected calibration error, 15 bins; lower is better"),
    "video_auroc": ("video AUROC", "AUROC of the mean scores of videos"),
    "ap_draws": ("AP, draws", "average precision, mean of 5 draws of as many real as fake images (dolos)"),
    "mask_iou": ("IoU", "intersection over union of map and mask, mean over fakes"),
    "mask_pbca": ("PBCA", "share of the pixels that are called right, mean over fakes"),
    "mask_f1": ("pixel F1", "F1 of pixels at 0.5, mean over fakes"),
    "mask_best_f1": ("best F1", "F1 of pixels at the best threshold of each image, mean over fakes"),
    "mask_ap": ("pixel AP", "average precision of pixels, mean over fakes"),
    "mask_auroc": ("pixel AUROC", "area under the ROC curve of pixels, mean over fakes"),
    "mask_iou_all_fake": (
        "IoU all fake",
        "what a map that calls every pixel fake would get; published numbers lie under",
    ),
    "mask_pbca_all_fake": ("PBCA all fake", "what a map that calls every pixel fake would get"),
    "mask_f1_all_fake": ("F1 all fake", "what a map that calls every pixel fake would get"),
    "mask_ap_all_fake": ("pixel AP constant", "what a constant map would get: the share of manipulated pixels"),
    "mask_iou_all_real": ("IoU all real", "what a map that calls every pixel real would get"),
    "mask_pbca_all_real": ("PBCA all real", "what a map that calls every pixel real would get"),
    "mask_pooled_iou": ("pooled IoU", "of all pixels of all images together, real ones included"),
    "mask_pooled_ap": ("pooled AP", "of all pixels of all images together, real ones included; 1,024 bins"),
    "mask_pooled_auroc": ("pooled AUROC", "of all pixels of all images together, real ones included; 1,024 bins"),
    "mask_ciou": ("cIoU", "intersections over unions of map and mask, each summed over the fakes"),
    "mask_fpa": ("FP area", "share of the pixels of real images that are called fake; lower is better"),
    "mask_false_masks": ("false masks", "share of real images with any pixel that is called fake; lower is better"),
    "class_acc": ("class acc", "share of images whose class is called right"),
    "class_bacc": ("class bacc", "mean over classes of the share that is called right"),
    "class_precision": ("class precision", "mean over classes"),
    "class_recall": ("class recall", "mean over classes"),
    "class_f1": ("class F1", "F1 of classes, mean over classes (macro)"),
    "class_auroc": ("class AUROC", "AUROC of each class against the rest, mean over classes"),
    "text_rouge_l": ("ROUGE-L", "longest common subsequence of words with the wanted explanation, F-measure"),
    "text_css": ("CSS", "cosine of the embeddings of the text and of the wanted explanation"),
    "official_f1": ("official F1", "SIDA's misnomer: harmonic mean of cIoU and class accuracy; for parity only"),
    "official_auc": ("official AUC", "SIDA's misnomer: mean precision times mean recall; for parity only"),
    "official_pixel_accuracy": ("official pixel acc", "SIDA's misnomer: cIoU of the forced maps; for parity only"),
}
_FORCED = "; of the map that the detector draws when the answer is given (teacher-forced)"
METRICS |= {
    f"forced_{name}": (f"{label}, forced", f"{help}{_FORCED}")
    for name, (label, help) in METRICS.items()
    if name.startswith("mask_")
}
#: What `dfl.metrics.fairness` measures, by the last part of its name; tables of their own show it.
FAIRNESS = {
    "F_FPR": ("F_FPR", "sum over groups of |FPR of the group - FPR of all|"),
    "F_OAE": ("F_OAE", "largest difference of accuracy between groups"),
    "F_DP": ("F_DP", "largest difference between groups in the share that is called fake"),
    "F_MEO": ("F_MEO", "largest difference between groups of FPR or of TPR"),
    "F_EO": ("F_EO", "F_FPR, plus the same of TPR"),
    "gap_auroc": ("gap AUROC", "largest difference of AUROC between groups"),
    "gap_eer": ("gap EER", "largest difference of EER between groups"),
}
#: Metrics that the terminal leaves to the files, for want of room.
MINOR = (
    *("bacc", "acc_val", "log_loss", "loss", "ece"),
    *("mask_best_f1", "mask_f1_all_fake", "mask_ap_all_fake", "mask_iou_all_real", "mask_pbca_all_fake"),
    *("mask_pooled_iou", "mask_pooled_ap", "mask_pooled_auroc", "mask_auroc", "mask_ciou", "mask_false_masks"),
    *(name for name in METRICS if name.startswith("forced_") and name not in ("forced_mask_iou", "forced_mask_ciou")),
    *("class_bacc", "class_precision", "class_recall"),
    *(name for name in METRICS if name.startswith("official_")),
)

#: Beginnings of metrics of classes, texts and maps with the answer given: with all others a line would be too wide.
ANSWERS = ("class_", "text_", "forced_")

Row = dict[str, Any]


def table(results: Mapping[str, Mapping[str, float]], rows: Mapping[str, Mapping[str, torch.Tensor]]) -> list[Row]:
    """Return one row per domain, and last the mean.

    Args:
        results: domain (and ``mean``) -> metric -> value, as a detector leaves them.
        rows: domain -> `Detection.rows()`; they tell how many images were scored.

    Returns:
        Rows with ``domain``, ``n_real`` and ``n_fake`` (None for the mean) and the metrics.
    """
    found: list[Row] = []
    for domain, values in results.items():
        label = rows[domain]["label"] if domain in rows else None
        fake = None if label is None else int(label.sum())
        real = None if label is None or fake is None else len(label) - fake
        found.append({"domain": domain, "n_real": real, "n_fake": fake, **values})
    return sorted(found, key=lambda row: row["domain"] == "mean")


def metric_names(rows: Sequence[Row]) -> list[str]:
    """Return the metrics of a table, each once, without those that have tables of their own (fairness, single classes)
    and the counts of domains that come with a mean."""
    names = dict.fromkeys(name for row in rows if row["n_real"] is not None for name in row)
    own = [n for n in names if n.startswith("fairness/") or (n.startswith("class_") and n not in METRICS)]
    return [n for n in names if n not in ("domain", "n_real", "n_fake", *own)]


def fairness_rows(rows: Sequence[Row]) -> list[tuple[str, str, dict[str, float]]]:
    """Return (domain, attribute, value by measure) for every domain whose images have groups; not of the mean."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        for name, value in row.items():
            if name.startswith("fairness/") and row["n_real"] is not None:
                attribute, _, measure = name.removeprefix("fairness/").rpartition("/")
                found.setdefault((row["domain"], attribute), {})[measure] = value
    return [(domain, attribute, values) for (domain, attribute), values in found.items()]


def to_csv(rows: Sequence[Row]) -> str:
    """Return a table as CSV: an undefined metric is ``nan``, one that a domain does not have is empty."""
    return csv_files.whole(list(dict.fromkeys(name for row in rows for name in row)), rows)


def to_json(content: Any) -> str:
    """Return plain values as JSON that every reader takes: NaN is null, infinity a string."""
    return json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def print_table(rows: Sequence[Row]) -> None:
    """Print a table in the terminal, without the `MINOR` metrics; what comes of answers has lines of its own."""
    names = [name for name in metric_names(rows) if name not in MINOR]
    answers = [name for name in names if name.startswith(ANSWERS)]
    for part in ([name for name in names if name not in answers], answers):
        if part:
            _print_columns(rows, part)


def _print_columns(rows: Sequence[Row], names: Sequence[str]) -> None:
    shown = Table(*("domain", "real", "fake", *(METRICS.get(name, (name, ""))[0] for name in names)))
    for place, column in enumerate(shown.columns):
        column.no_wrap, column.justify = True, "right" if place else "left"
    for row in rows:
        if row["domain"] == "mean":
            shown.add_section()
        counts = ["" if row[name] is None else f"{row[name]:,}" for name in ("n_real", "n_fake")]
        numbers = [f"{row[name]:.4f}" if name in row else "" for name in names]
        shown.add_row(row["domain"], *counts, *numbers)
    console(220).print(shown)


def run_info(trainer: pl.Trainer, module: Any) -> dict[str, Any]:
    """Return what is needed to repeat a test, as plain values.

    Args:
        trainer: of the test; its ``run_config`` is the configuration, where the command line set one.
        module: the detector.

    Returns:
        ``date``, ``detector``, ``checkpoint``, ``threshold`` (NaN where none was chosen), ``seed``, ``precision``,
        ``device``, ``ranks``, ``git``, ``versions``, ``data`` (a hash of the rows of each domain) and ``config``.
    """
    device = module.device
    seed = os.environ.get("PL_GLOBAL_SEED")
    versions = {"dfl": dfl.__version__, "python": platform.python_version()}
    sets = getattr(getattr(trainer, "datamodule", None), "sets", {})
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "detector": type(module).__name__,
        "checkpoint": None if trainer.ckpt_path is None else str(trainer.ckpt_path),
        "threshold": float(module.threshold),
        "seed": None if seed is None else int(seed),
        "precision": str(trainer.precision),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "ranks": trainer.world_size,
        "git": git_state(Path(dfl.__file__).parent),
        "versions": versions | {name: number for name in PACKAGES if (number := _version(name))},
        "data": {f"{s}/{d}": getattr(v, "sha256", None) for s, domains in sets.items() for d, v in domains.items()},
        "config": getattr(trainer, "run_config", None),
    }


def git_state(package: Path) -> dict[str, Any] | None:
    """Return ``commit`` and ``dirty`` (are there changes in the package?), or None where git does not know it.

    A package that merely lies in somebody's checkout, such as in a virtual environment there, is not of that checkout.
    """

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(package), *words], capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", "."))}
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

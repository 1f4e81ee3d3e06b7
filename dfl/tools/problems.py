"""What ``dfl data check`` says of its findings: one line each, from an error to what was looked at and holds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dfl.tools.leak import FOLDS, Score

#: A leak whose interval begins above this is an error; above 0.5, a warning.
STRONG = 0.6


@dataclass(frozen=True)
class Problem:
    """One line for the user; ``severity`` is error, warning, note, or fine for what was looked at and holds."""

    severity: str
    text: str


def problems(found: Mapping[str, Any]) -> Iterable[Problem]:
    """Put the findings into words, the worst first within each matter."""
    n, classes = found["images"], {"real": 0, "fake": 0, "unlabelled": 0}
    for one in found["places"].values():
        classes = {name: classes[name] + one[name] for name in classes}
    if bad := found["unreadable"]:
        path, reason = next(iter(bad.items()))
        yield Problem("error", f"{len(bad):,} of {n:,} images cannot be read, such as {path}: {reason}")
    else:
        yield Problem("fine", f"all {n:,} images can be read")
    if classes["unlabelled"]:
        yield Problem("note", f"{classes['unlabelled']:,} images have no label")
    for name, one in found["places"].items():
        if bool(one["real"]) != bool(one["fake"]):
            yield Problem("note", f"{name} has one class ({'real' if one['real'] else 'fake'}): its AUROC is undefined")
    yield from _of_masks(found["masks"], found["unclear masks"])
    yield from _of_copies(found["copies"])
    for column, names in found["ties"].items():
        if names:
            what = f"{len(names):,} {column} name{'s' * (len(names) > 1)}"
            yield Problem("error", f"{what} in more than one split of a set, such as {names[0]}")
    yield from _of_leak(found["leak"])


def _of_masks(masks: Mapping[str, Any], unclear: Mapping[str, str]) -> Iterable[Problem]:
    if bad := masks["unusable"]:
        path, reason = next(iter(bad.items()))
        yield Problem("error", f"{len(bad):,} masks cannot be used, such as that of {path}: {reason}")
    for name, why in unclear.items():
        yield Problem("error", f"masks of {name}: {why} (mask_rule, as an argument of Table or a column)")
    for name, hint in (
        ("empty on fakes", "see above" if unclear else "is the polarity right, or the mask_rule?"),
        ("full", "nothing is left that is real: is it a synthetic image, or is the polarity wrong?"),
        ("not empty on real images", "is the polarity or the label wrong?"),
    ):
        if paths := masks[name]:
            yield Problem("warning", f"{len(paths):,} masks are {name}, such as that of {paths[0]}; {hint}")
    if masks["with"] and not unclear and not any(masks[name] for name in masks if name != "with"):
        yield Problem("fine", f"all {masks['with']:,} masks fit their images, and none is empty or full")


def _of_copies(copies: Mapping[str, Any]) -> Iterable[Problem]:
    places = copies["places"]
    if wrong := copies["both labels"]:
        yield Problem("error", f"{len(wrong):,} rows are of files that are both real and fake, such as {wrong[0]}")
    for what, among in (("the same file", copies["exact"]), ("a near copy", copies["near, not the same file"])):
        clean = True
        for i, one in enumerate(places):
            for j, other in enumerate(places):
                count = among[i][j]
                if (
                    i == j or not count or _rank(one) < _rank(other)
                ):  # said once: of what is evaluated in what is trained
                    continue
                if _rank(one) == _rank(other) and i > j:
                    continue
                splits = [name.rpartition("/")[2] for name in (one, other)]
                trained = "train" in splits and splits[0] != splits[1]
                severity = "note" if splits[0] == splits[1] != "all" else "error" if trained else "warning"
                severity = "warning" if what == "a near copy" and severity == "error" else severity
                clean = clean and severity == "note"
                has = "has" if count == 1 else "have"
                yield Problem(severity, f"{count:,} image{'s' * (count > 1)} of {one} {has} {what} in {other}")
        inner = sum(among[i][i] for i in range(len(places)))
        if inner:
            yield Problem("note", f"{inner:,} images have {what} within their own set and split")
        if clean:
            where = "on the other side of a split" if len(places) > 1 else "in this set"
            if len(places) > 1 or not inner:
                yield Problem("fine", f"no image has {what} {where}")
    if copies["cut"]:
        yield Problem("note", "there are more near copies than are kept: their counts are too low")


def _rank(place: str) -> int:
    return {"train": 0, "val": 1}.get(place.rpartition("/")[2], 2)


def _of_leak(scores: Mapping[str, Mapping[str, Score]]) -> Iterable[Problem]:
    for name, one in scores.items():
        who = "the files" if name == "all" else f"the files of {name}"
        whole = one["metadata"]
        if whole.undefined:
            yield Problem("note", f"{who}: one class, undefined: a leak score needs {FOLDS} images of each")
            continue
        parts = [clue for clue in ("format", "size", "compression") if one[clue].low > 0.5]
        if whole.low > 0.5 or parts:
            worst = max((one[clue] for clue in (*parts, "metadata")), key=lambda score: score.low)
            by = " and ".join(parts) or "format, size and compression together"
            severity = "error" if worst.low > STRONG else "warning"
            yield Problem(severity, f"{who} give the label away by {by}: AUROC {_worded(worst)} without a pixel")
        else:
            yield Problem("fine", f"{who} do not give the label away: AUROC {_worded(whole)} from metadata")
        if one["bits per pixel"].low > 0.5:
            worded = _worded(one["bits per pixel"])
            yield Problem("note", f"{who}: bits per pixel alone give AUROC {worded}; part of that is content")


def _worded(score: Score) -> str:
    return f"{score.auroc:.3f} ({score.low:.3f} to {score.high:.3f})"

"""The sentences of ``dfl data check``: one line each, from an error to what was looked at and is fine."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dfl.tools.leak import CLUES, FOLDS, Score

CLASSES = {0: "real", 1: "fake", -1: "unlabelled"}
#: A leak whose interval begins above this is an error; above 0.5, a warning.
STRONG = 0.6


@dataclass(frozen=True)
class Problem:
    """One line for the user; ``severity`` is error, warning, note, or fine for what was looked at and is in order."""

    severity: str
    text: str


def problems(findings: Mapping[str, Any]) -> Iterable[Problem]:
    """Put the findings into words, the worst first within each matter."""
    n, places = findings["images"], findings["places"]
    if bad := findings["unreadable"]:
        path, reason = next(iter(bad.items()))
        yield Problem("error", f"{len(bad):,} of {n:,} images cannot be read, such as {path}: {reason}")
    else:
        yield Problem("fine", f"all {n:,} images can be read")
    if unlabelled := sum(counts["unlabelled"] for counts in places.values()):
        yield Problem("note", f"{unlabelled:,} images have no label")
    for name, counts in places.items():
        if bool(counts["real"]) != bool(counts["fake"]):
            only = "real" if counts["real"] else "fake"
            yield Problem("note", f"{name} has one class ({only}): its AUROC is undefined")
    yield from _of_masks(findings["masks"], findings["unclear masks"])
    yield from _of_copies(findings["copies"])
    for column, names in findings["ties"].items():
        if names:
            what = f"{len(names):,} {column} name{'s' * (len(names) > 1)}"
            yield Problem("error", f"{what} in more than one split of a set, such as {names[0]}")
    yield from _of_leak(findings["leak"], places)


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
        if not copies["compared"][what]:
            yield Problem("note", f"no image could be looked at for {what}: none can be read")
            continue
        severities = []
        for i, one in enumerate(places):
            for j, other in enumerate(places):
                # each pair of places once: what is evaluated in what is trained
                if among[i][j] and (-_rank(one), i) < (-_rank(other), j):
                    severities.append(_severity(one, other, near=what == "a near copy"))
                    images = "1 image" if among[i][j] == 1 else f"{among[i][j]:,} images"
                    has = "has" if among[i][j] == 1 else "have"
                    yield Problem(severities[-1], f"{images} of {one} {has} {what} in {other}")
        inside = sum(among[i][i] for i in range(len(places)))
        if inside:
            yield Problem("note", f"{inside:,} images have {what} within their own set and split")
        if set(severities) <= {"note"} and (len(places) > 1 or not inside):
            where = "on the other side of a split" if len(places) > 1 else "in this set"
            yield Problem("fine", f"no image has {what} {where}")
    if copies["cut"]:
        yield Problem("note", "there are more near copies than are listed: their counts are too low")


def _severity(one: str, other: str, near: bool) -> str:
    """Return how bad copies in two places are: an error between training and evaluation, a note within a split."""
    first, second = (place.rpartition("/")[2] for place in (one, other))
    if first == second:
        return "warning" if first == "all" else "note"
    return "error" if "train" in (first, second) and not near else "warning"


def _rank(place: str) -> int:
    return {"train": 0, "val": 1}.get(place.rpartition("/")[2], 2)


def _of_leak(scores: Mapping[str, Mapping[str, Score]], places: Mapping[str, Mapping[str, int]]) -> Iterable[Problem]:
    for name, clues in scores.items():
        who = "the files" if name == "all" else f"the files of {name}"
        if clues["metadata"].undefined:
            own = [counts for place, counts in places.items() if name in ("all", place.rpartition("/")[0])]
            there = " and ".join(f"{sum(counts[word] for counts in own):,} {word}" for word in ("real", "fake"))
            wanted = f"{FOLDS} of each class that can be read, of {FOLDS} videos or people"
            yield Problem("note", f"{who}: the leak score is undefined: it needs {wanted}; there are {there} images")
            continue
        leaking = [clue for clue in CLUES if clues[clue].low > 0.5]
        if leaking or clues["metadata"].low > 0.5:
            worst = max((clues[clue] for clue in (*leaking, "metadata")), key=lambda score: score.low)
            by = " and ".join(leaking) or "format, size and compression together"
            severity = "error" if worst.low > STRONG else "warning"
            yield Problem(severity, f"{who} give the label away by {by}: AUROC {worst} without a pixel")
        else:
            yield Problem("fine", f"{who} do not give the label away: AUROC {clues['metadata']} from metadata")
        if clues["bits per pixel"].low > 0.5:
            text = f"{who}: bits per pixel alone give AUROC {clues['bits per pixel']}; part of that is content"
            yield Problem("note", text)

"""Scores of videos from those of their frames: a table beside that of `predict`, and a timeline of each video.

A frame with several faces has the score of the highest. A video has two: the mean of its frames, and the mean of its
worst quarter, which a short manipulation does not vanish in. Verdicts are those of the mean by the rule for images.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dfl.data import csv_files
from dfl.data.locators import split
from dfl.evaluation import plots
from dfl.evaluation.rows import Row
from dfl.metrics.verdicts import Rule
from dfl.runs.files import write

COLUMNS = ("path", "frames", "mean", "worst_quarter", "verdict", "timeline")
#: Videos whose timeline is drawn; all are in the table.
MOST_TIMELINES = 100


class Place(NamedTuple):
    """Where a frame is in its video: ``frame`` with its number, or ``share`` in [0, 1]."""

    unit: str
    at: float


class Videos:
    """Scores of frames by video, as rows come."""

    def __init__(self) -> None:
        self._frames: dict[str, dict[Place, float]] = {}

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, row: Row) -> None:
        """Take a row of `predict`, if it is of a frame."""
        file, inside = split(row["path"])
        if (place := _place(inside)) is not None:
            frames = self._frames.setdefault(file, {})
            frames[place] = max(row["score"], frames.get(place, 0.0))

    def write(self, table: Path, rule: Rule) -> Path:
        """Write ``NAME.videos.csv`` beside a table, and timelines into ``NAME.videos``; return the file."""
        file, folder = table.with_name(f"{table.stem}.videos.csv"), table.with_name(f"{table.stem}.videos")
        rows = []
        for i, (path, frames) in enumerate(self._frames.items()):
            places = sorted(frames, key=lambda place: place.at)
            scores = np.array([frames[place] for place in places])
            mean = float(scores.mean())
            picture = folder / f"{i:04d}_{Path(path).stem}.png"
            if i < MOST_TIMELINES:
                write(picture, timeline(places, scores, rule, Path(path).name), sync=False)
            cells = (path, len(scores), mean, worst_quarter(scores), rule(mean).verdict)
            rows.append(dict(zip(COLUMNS, (*cells, str(picture) if i < MOST_TIMELINES else ""), strict=True)))
        write(file, csv_files.whole(COLUMNS, rows))
        return file


def worst_quarter(scores: np.ndarray) -> float:
    """Return the mean of the highest quarter of scores (n,), rounded up; n must be at least 1."""
    return float(np.sort(scores)[-math.ceil(len(scores) / 4) :].mean())


def timeline(places: list[Place], scores: np.ndarray, rule: Rule, title: str) -> bytes:
    """Return a PNG of the scores of a video's frames in their order, with the threshold and the two scores."""
    whole = plots.figure(6, 2.2)
    axes = whole.subplots()
    x = [place.at for place in places]
    axes.plot(x, scores, "o-", color=plots.FAKE, markersize=3, linewidth=1)
    lines = ((float(scores.mean()), "mean", ":"), (worst_quarter(scores), "worst quarter", "-."))
    for value, name, style in ((rule.threshold, "threshold", "--"), *lines):
        axes.axhline(value, color=plots.INK, linestyle=style, linewidth=0.8, label=f"{name} {value:.3f}")
    axes.set_ylim(-0.03, 1.03)
    plots.style(axes, title, "frame" if places[0].unit == "frame" else "share of the video", "score")
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return plots.to_png(whole)


def _place(inside: dict[str, str]) -> Place | None:
    if "frame" in inside:
        return Place("frame", float(inside["frame"]))
    if "at" in inside:
        index, parts = map(int, inside["at"].split("/"))
        return Place("share", (2 * index + 1) / (2 * max(parts, 1)))
    return None

"""What `predict` says at its end: how many rows of which verdict, what a threshold means, what has no score."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from dfl.data.formats import LeftOut
from dfl.data.sources import Source
from dfl.data.transforms import VIEWS

#: Names of unreadable images that are printed; the rest is counted.
MOST_NAMES = 10


class Counts:
    """Rows by their verdict, and those of images that are unlike the training's by the facts in which they are."""

    def __init__(self) -> None:
        self.verdicts: Counter[str] = Counter()
        self._unusual: Counter[str] = Counter()

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a row, of which ``verdict`` is looked at, and ``unusual`` where it has that."""
        self.verdicts[row["verdict"]] += 1
        if odd := row.get("unusual"):
            self._unusual.update(["images", *(part.split()[0] for part in odd.split("; "))])

    def __str__(self) -> str:
        """Return how many there are of each verdict."""
        return ", ".join(f"{count:,} {word}" for word, count in sorted(self.verdicts.items()))

    def lines(self, meaning: str, views: str) -> Iterator[str]:
        """Yield what the verdicts follow from, and a warning where images are unlike the training's.

        Args:
            meaning: Of the rule.
            views: Of an image, by their name.
        """
        yield meaning
        if views != "centre":
            yield f"scores are of the mean of the log-odds over {1 + len(VIEWS[views])} views"
        facts = Counter(self._unusual)
        if images := facts.pop("images", 0):
            counted = ", ".join(f"{count:,} in {name}" for name, count in facts.most_common())
            yield (
                f"{images:,} images are unlike those that it was trained on ({counted}): what they get is less sure "
                "than validation says; see the column unusual"
            )


def unscored(bad: Sequence[tuple[str, str]], sources: Iterable[Source]) -> Iterator[str]:
    """Yield a sentence on the images that could not be read, and one on the files that were not taken for any.

    Args:
        bad: Path and reason of each.
        sources: Of all images.
    """
    if bad:
        names = ", ".join(f"{path} ({reason})" for path, reason in bad[:MOST_NAMES])
        more = f" and {len(bad) - MOST_NAMES} more" if len(bad) > MOST_NAMES else ""
        yield f"{len(bad)} images could not be read and have no score: {names}{more}"
    left_out = LeftOut()
    for source in sources:
        left_out.update(source.left_out)
    if left_out:
        yield str(left_out)

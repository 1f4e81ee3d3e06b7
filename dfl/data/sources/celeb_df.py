"""Celeb-DF v1 and v2 (Li et al., CVPR 2020): swapped faces of celebrities, with a list of test videos."""

import re
from pathlib import Path
from typing import Any

from dfl.data.containers import need_video
from dfl.data.sources.base import TrainTest
from dfl.data.sources.generators import made_by
from dfl.data.sources.names import label_of
from dfl.data.sources.trees import Row, first_folder, subfolders, video_rows, videos_in
from dfl.errors import UserError


def who(video: str) -> dict[str, str]:
    """Return the person whose video it was: ``id0_0002``, or ``id0_id1_0002`` (id0's video with the face of id1)."""
    match = re.match(r"(id\d+)_", video)
    return {"identity": f"celebdf/{match[1]}"} if match else {}


class CelebDf(TrainTest):
    """``Celeb-real``, ``YouTube-real``, ``Celeb-synthesis`` and ``List_of_testing_videos.txt``; both versions.

    Videos in the list are the test; all others are train, and ``val`` is taken out of them. (DeepfakeBench trains on
    the test videos too.) The folders may hold a folder ``videos``, or one of pictures for each video.

    Args:
        root: The folder that holds the three folders.
        frames: Frames of each video, at even spacing.
    """

    get = "ask for it at github.com/yuezunli/celeb-deepfakeforensics, unpack it there, or set root"

    def __init__(self, root: str, frames: int = 32, **options: Any) -> None:
        super().__init__(root, **options)
        self.frames = frames

    def rows(self, split: str) -> list[Row]:
        there: dict[str, tuple[str, Path]] = {}
        folders = {name.lower(): path for name, path in subfolders(self.root).items()}
        for name in ("Celeb-real", "YouTube-real", "Celeb-synthesis"):
            folder = self.found(folders.get(name.lower()), f"the folder {name}", self.root)
            inner = first_folder(folder / "videos", folder / "frames") or folder
            there |= {f"{name}/{stem}".lower(): (f"{name}/{stem}", path) for stem, path in videos_in(inner).items()}
        tested = self._tested()
        if absent := sorted(tested - there.keys()):
            raise UserError(
                f"{self!r}: List_of_testing_videos.txt names {len(tested)} videos, and {len(absent)} are not there, "
                f"the first {absent[0]}; unpack the rest, or set root"
            )
        if any(path.is_file() for _, path in there.values()):
            need_video()
        rows: list[Row] = []
        for key, (name, path) in there.items():
            if (key in tested) == (split == "test"):
                fake = name.startswith("Celeb-synthesis")
                shared: Row = {"label": int(fake), "class_label": 2 * fake, "video": name, **who(path.stem)}
                shared |= made_by("celeb-df", "face-swap") if fake else {}
                rows += video_rows(path, self.frames, **shared)
        return rows

    def _tested(self) -> set[str]:
        file = self.require_file("List_of_testing_videos.txt")
        labels: dict[str, int] = {}
        agree: set[bool] = set()
        for line in filter(None, map(str.strip, file.read_text().splitlines())):
            number, _, name = line.partition(" ")
            folder, _, video = name.strip().rpartition("/")
            label = label_of(folder)
            if number not in ("0", "1") or label is None:
                raise UserError(f"{file}: cannot read the line {line!r}; expected '<0 or 1> <folder>/<video>.mp4'")
            agree.add(int(number) == label)
            labels[f"{folder}/{Path(video).stem}".lower()] = label
        if len(agree) > 1:
            raise UserError(f"{file}: its numbers and folders contradict each other; the list is not of this set")
        return set(labels)

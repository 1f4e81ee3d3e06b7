"""DeeperForensics-1.0 (Jiang et al., CVPR 2020): faces of paid actors swapped into the videos of FaceForensics++."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from dfl.data.containers import need_video
from dfl.data.formats import VIDEO_SUFFIXES
from dfl.data.sources.base import Source, part, to_table
from dfl.data.sources.generators import made_by
from dfl.data.sources.trees import Missing, Row, chosen, images_in, present, subfolders, video_rows


class DeeperForensics(Source):
    """``manipulated_videos/<perturbation>/``, ``source_videos/<actor>/`` and ``lists/splits/{train,val,test}.txt``.

    The lists name manipulated videos only. The actors' own videos (``source_videos``, real) have no split in the set:
    whole actors are dealt to the splits by ``real_fractions``. Take FaceForensics for the videos that were
    manipulated.

    Args:
        root: The folder that holds the three folders.
        perturbations: Folders of manipulated videos; end_to_end is the clean one.
        frames: Frames of each video, at even spacing.
        real_fractions: Share of the actors in train, val and test; an empty mapping leaves the real videos out.
        seed: Seed of that draw.
        missing: Whether a listed video that is not there is an error, or left out with a warning.
    """

    get = "ask for it at github.com/EndlessSora/DeeperForensics-1.0, unpack it there, or set root"

    def __init__(
        self,
        root: str,
        perturbations: list[str] | None = None,
        frames: int = 32,
        real_fractions: dict[str, float] | None = None,
        seed: int = 0,
        missing: Missing = "raise",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.root, self.perturbations, self.frames = Path(root).expanduser(), perturbations or ["end_to_end"], frames
        self.real_fractions = {"train": 0.7, "val": 0.1, "test": 0.2} if real_fractions is None else real_fractions
        self.seed, self.missing_videos = seed, missing

    def items(self, split: str) -> pa.Table:
        need_video()
        table = self.require_file(f"lists/splits/{split}.txt")
        there = subfolders(self.root / "manipulated_videos")
        folders = self.found(there, "manipulated_videos/<perturbation>", self.root)
        shared: Row = {"label": 1, "class_label": 2, "split": split, **made_by("deeperforensics", "face-swap")}
        rows: list[Row] = []
        for name in chosen(list(folders), self.perturbations, "perturbations", self):
            for line in filter(None, map(str.strip, table.read_text().splitlines())):
                stem = Path(line).stem
                who: Row = {"identity": f"deeper/{stem.split('_')[-1]}", "source": f"ffpp/{stem.split('_')[0]}"}
                file = folders[name] / Path(line).name
                rows += video_rows(file, self.frames, video=f"deeper/{name}/{stem}", compression=name, **shared, **who)
        fakes = to_table(present(self, rows, table, "unpack the rest, or set missing: skip", self.missing_videos))
        return pa.concat_tables([self._real(split), fakes]) if self.real_fractions else fakes

    def _real(self, split: str) -> pa.Table:
        actors, change = subfolders(self.root / "source_videos"), "unpack them, or set real_fractions: {}"
        rows: list[Row] = []
        for actor, folder in self.found(actors, "source_videos/<actor>", self.root, change).items():
            for file in images_in(folder, VIDEO_SUFFIXES):
                video = f"deeper/{file.relative_to(self.root / 'source_videos').with_suffix('')}"
                rows += video_rows(file, self.frames, label=0, class_label=0, video=video, identity=f"deeper/{actor}")
        return part(to_table(rows), split, self.real_fractions, self.seed)

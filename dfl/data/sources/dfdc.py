"""The Deepfake Detection Challenge (Dolhansky et al., 2020) and its preview DFDCP (2019)."""

import re
from pathlib import Path
from typing import Any

from dfl.data import csv_files
from dfl.data.containers import need_video
from dfl.data.sources.base import TrainTest
from dfl.data.sources.generators import made_by
from dfl.data.sources.names import label_of
from dfl.data.sources.trees import Missing, Row, first_folder, present, read_json, subfolders, video_rows
from dfl.errors import UserError


class _Listed(TrainTest):
    """Videos that a table of the set lists.

    Args:
        root: The folder that holds the set.
        frames: Frames of each video, at even spacing.
        missing: Whether a listed video that is not there is an error, or left out with a warning.
    """

    def __init__(self, root: str, frames: int = 32, missing: Missing = "raise", **options: Any) -> None:
        super().__init__(root, **options)
        self.frames, self.missing_videos = frames, missing

    def _row(self, file: Path, name: str, label: int | None, table: Path, **more: str) -> list[Row]:
        if label is None:
            raise UserError(f"{table}: the label of {name} is neither real nor fake")
        shared: Row = {"label": label, "class_label": 2 * label, "video": name, **more}
        shared |= made_by(type(self).__name__.lower(), "face-swap") if label else {}
        return video_rows(file, self.frames, **shared)

    def _there(self, rows: list[Row], where: Path) -> list[Row]:
        need_video()
        return present(self, rows, where, "unpack the rest, set root, or set missing: skip", self.missing_videos)


class Dfdc(_Listed):
    """``[train/]dfdc_train_part_N/{metadata.json,*.mp4}`` and ``test/{labels.csv,*.mp4}``.

    ``val`` is taken out of the training parts; a fake stays with the original it was made from.
    """

    get = "get it from ai.meta.com/datasets/dfdc or Kaggle, unpack all parts there, or set root"

    def rows(self, split: str) -> list[Row]:
        return self._test() if split == "test" else self._train()

    def _train(self) -> list[Row]:
        base = first_folder(self.root / "train") or self.root
        parts = [p for name, p in subfolders(base).items() if re.match(r"dfdc_train_part_\d+\Z", name)]
        self.found(parts, "folders dfdc_train_part_<N>", base)
        rows: list[Row] = []
        for part in sorted(parts, key=lambda p: int(p.name.rpartition("_")[2])):
            table = self.require_file("metadata.json", part)
            for name, entry in read_json(table, dict).items():
                video, original = (f"dfdc/{Path(one).stem}" for one in (name, entry.get("original") or name))
                rows += self._row(part / name, video, label_of(str(entry.get("label"))), table, source=original)
        return self._there(rows, base)

    def _test(self) -> list[Row]:
        base = self.root / "test"
        table = self.require_file("labels.csv", base)
        videos = first_folder(base / "videos") or base
        rows: list[Row] = []
        listed = csv_files.read_columns(table, ("filename", "label"))
        for name, label in zip(listed["filename"].to_pylist(), listed["label"].to_pylist(), strict=True):
            rows += self._row(videos / name, f"dfdc/{Path(name).stem}", {"0": 0, "1": 1}.get(label), table)
        return self._there(rows, table)


class Dfdcp(_Listed):
    """``original_videos/``, ``method_A/``, ``method_B/`` and ``dataset.json``; ``val`` is taken out of train.

    (DeepfakeBench validates on the test videos.)
    """

    get = "get it from ai.meta.com/datasets/dfdc (preview), unpack it there, or set root"

    def rows(self, split: str) -> list[Row]:
        table = self.require_file("dataset.json")
        rows: list[Row] = []
        for name, entry in read_json(table, dict).items():
            if entry.get("set") not in ("train", "test"):
                raise UserError(f"{table}: {name} is in the set {entry.get('set')!r}; expected train or test")
            if entry["set"] == split:
                shared = {"identity": f"dfdcp/{who}"} if (who := entry.get("target_id")) is not None else {}
                video, label = f"dfdcp/{Path(name).with_suffix('')}", label_of(str(entry.get("label")))
                rows += self._row(self.root / name, video, label, table, **shared)
        for row in rows:
            if row["label"]:
                row["generator"] = row["video"].split("/")[1].lower()
        return self._there(rows, table)

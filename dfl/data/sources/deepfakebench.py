"""Trees that DeepfakeBench has processed (aligned face crops), by its JSON, as files or LMDB. DF40 is one."""

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from dfl.data.containers import lmdb_entries
from dfl.data.locators import locate
from dfl.data.sources import celeb_df, faceforensics
from dfl.data.sources.base import SPLITS, TrainTest, WithSplits
from dfl.data.sources.generators import made_by
from dfl.data.sources.trees import Missing, Row, evenly, present, read_json, relocated
from dfl.errors import UserError, near

COMPRESSIONS = {"raw", "c23", "c40"}
#: Generators behind the names of DeepfakeBench's labels.
GENERATORS = {
    "FF-DF": "deepfakes",
    "FF-F2F": "face2face",
    "FF-FS": "faceswap",
    "FF-NT": "neuraltextures",
    "FF-FH": "faceshifter",
    "FF-SH": "faceshifter",
    "DFD_fake": "deepfakedetection",
    "CelebDFv1_fake": "celeb-df",
    "CelebDFv2_fake": "celeb-df",
    "DFDCP_FakeA": "method_a",
    "DFDCP_FakeB": "method_b",
    "DFDC_Fake": "dfdc",
    "DF_fake": "deeperforensics",
}


class DeepfakeBench(TrainTest):
    """``<json>`` beside ``datasets/rgb/<set>/.../{frames,masks,landmarks}/<video>/NNN.png``, or its LMDB.

    Its splits leak: of several sets (Celeb-DF, DFDCP, UADFV, ...) the test videos are in train and val too. Here a
    video of the test is taken out of train and val, with a warning; where nothing is left of val, ``val_share`` carves
    one out of train. Masks of fakes come from c23, whatever the compression, as there.

    Args:
        json: The JSON file of the set, or several; a picture that stands in two of them is given once.
        root: The folder ``datasets/rgb``, or any folder below which the listed paths are.
        lmdb: The folder ``<set>_lmdb`` to read the pictures from; in place of ``root``.
        labels: Labels to take, such as FF-real and FF-DF; None takes all.
        compression: Compression level, where the JSON has levels.
        frames: Frames of each video, at even spacing; None takes all that are listed.
        masks: Give the masks that lie beside the frames of fakes; a frame without one has none.
        val_share: Share of the training images that become the validation images in place of the JSON's; whole videos
            together. 0 takes the JSON's.
        missing: Whether listed frames that are not there are an error, or left out with a warning.
    """

    get = "get the processed sets and their JSON files as github.com/SCLBD/DeepfakeBench says, or set json and root"

    def __init__(
        self,
        json: str | list[str],
        root: str | None = None,
        lmdb: str | None = None,
        labels: list[str] | None = None,
        compression: str = "c23",
        frames: int | None = 32,
        masks: bool = False,
        val_share: float = 0.0,
        missing: Missing = "raise",
        **options: Any,
    ) -> None:
        super().__init__(root or lmdb or "", val_share, **options)
        if (root is None) == (lmdb is None):
            raise UserError(f"{type(self).__name__} needs root (files) or lmdb, and not both")
        self.files = [Path(f).expanduser() for f in ([json] if isinstance(json, str) else json)]
        self.lmdb = Path(lmdb).expanduser() if lmdb else None
        self.labels, self.compression, self.frames, self.masks = labels, compression, frames, masks
        self.missing_frames = missing

    def items(self, split: str) -> pa.Table:
        return super().items(split) if self.val_share else WithSplits.items(self, split)

    def rows(self, split: str) -> list[Row]:
        unique: dict[str, Row] = {}
        for row in (row for file in self.files for row in self._rows(file, split)):
            unique.setdefault(row["path"], row)
        return list(unique.values())

    def _rows(self, file: Path, split: str) -> list[Row]:
        videos = self._videos(file)
        listed = [v for v in videos if v["split"] == split]
        tested = {v["frames"][0] for v in videos if v["split"] == "test" and v["frames"]}
        left = listed if split == "test" else [v for v in listed if v["frames"] and v["frames"][0] not in tested]
        if not listed:
            there = ", ".join(sorted({v["split"] for v in videos}))
            raise UserError(f"{file} has no videos in split {split!r}; it has {there or 'none that labels name'}")
        if not left:
            more = "set val_share to carve one out of train" if split == "val" else "this set is for testing only"
            raise UserError(f"{file}: all {len(listed)} videos of {split} are in its test too; {more}")
        if len(left) < len(listed):
            warnings.warn(
                f"{file}: {len(listed) - len(left)} of {len(listed)} videos of {split} are in its test too; left out",
                stacklevel=2,
            )
        rows = [row for video in left for row in self._frames(video)]
        if self.lmdb:
            return self._entries(rows)
        change = "set root, labels or compression, or missing: skip"
        return self._with_masks(present(self, relocated(rows, self.root), file, change, self.missing_frames))

    def _with_masks(self, rows: list[Row]) -> list[Row]:
        """Take back the masks that are not there; if none is, something else is wrong."""
        masked = [row for row in rows if row.get("mask")]
        absent = [row for row in masked if not Path(row["mask"]).is_file()]
        if masked and len(absent) == len(masked):
            raise UserError(f"{type(self).__name__}: no mask at {absent[0]['mask']}, nor any other; set masks: false")
        for row in absent:
            row |= {"mask": "", "mask_rule": ""}
        return rows

    def _videos(self, file: Path) -> list[dict[str, Any]]:
        """All videos of the chosen labels and compression, with their split and their frames."""
        if not file.is_file():
            raise self.missing("JSON file", file)
        content = read_json(file, dict)
        labels = [name for body in content.values() for name in body]
        for name in self.labels or []:
            if name not in labels:
                raise UserError(f"{file} has no label {name!r}" + near(name, labels))
        listed: list[dict[str, Any]] = []
        for body in content.values():
            for name, splits in body.items():
                if self.labels is None or name in self.labels:
                    for split, videos in splits.items():
                        if split not in SPLITS:
                            raise UserError(f"{file}: unknown split {split!r} of {name}; there are {', '.join(SPLITS)}")
                        listed += self._level(file, name, split, videos)
        return listed

    def _level(self, file: Path, name: str, split: str, videos: dict[str, Any]) -> Iterator[dict[str, Any]]:
        shared = {"name": name, "split": split, "compression": ""}
        if videos and set(videos) <= COMPRESSIONS:
            if self.compression not in videos:
                raise UserError(f"{file} has no {self.compression} of {name}; set compression to {', '.join(videos)}")
            videos, shared["compression"] = videos[self.compression], self.compression
        for video, entry in videos.items():
            yield {**shared, "video": video, "frames": sorted(entry["frames"], key=_number)}

    def _frames(self, video: dict[str, Any]) -> list[Row]:
        name, stem, c = video["name"], video["video"], video["compression"]
        fake = not name.lower().endswith("real")
        shared: Row = {"label": int(fake), "class_label": 2 * fake, "compression": c}
        shared |= {"video": "/".join(filter(None, (name, c, stem))), **_who(name, stem)}
        shared |= made_by(GENERATORS.get(name, name.lower())) if fake else {}
        rows = [{"path": path, "frame": _number(path), **shared} for path in evenly(video["frames"], self.frames)]
        if self.masks and fake:
            for row in rows:
                row |= {"mask": _mask(row["path"]), "mask_rule": "max>0"}
        return rows

    def _entries(self, rows: list[Row]) -> list[Row]:
        """Turn listed paths to entries of the LMDB; its keys depend on the machine that wrote it."""
        assert self.lmdb is not None
        self.require_file("data.mdb", self.lmdb, "set lmdb")
        with lmdb_entries(str(self.lmdb)) as entries:
            style = next(
                (s for s in _KEYS if any(entries.get(s(row["path"]).encode()) for row in evenly(rows, 20))), None
            )
            if style is None:
                first = next(entries.cursor().iternext(values=False), b"nothing")
                raise UserError(
                    f"{self.lmdb} has no key for {rows[0]['path']}, it starts with {bytes(first).decode()}; set lmdb"
                )
            there = [row for row in rows if entries.get(style(row["path"]).encode())]
            for row in there:
                row["path"] = locate(str(self.lmdb), key=style(row["path"]))
                if mask := row.pop("mask", ""):
                    has = entries.get(style(mask).encode())
                    row |= {"mask": locate(str(self.lmdb), key=style(mask))} if has else {"mask_rule": ""}
        if len(there) < len(rows):
            text = f"{self.lmdb}: {len(rows) - len(there)} of {len(rows)} listed frames are not in it"
            if self.missing_frames == "raise":
                raise UserError(f"{text}; set labels, compression or missing: skip")
            warnings.warn(f"{text}; left out", stacklevel=2)
        return there


class Df40(DeepfakeBench):
    """Forty ways of making fakes in the form of DeepfakeBench, by ``<method>_ff.json`` and ``<method>_cdf.json``.

    Most methods come without reals, which are the ones of FaceForensics++ and Celeb-DF in the same form. A real that
    several JSON files list is given once. The generator of a fake is the JSON's name.
    """

    get = "ask for it at github.com/YZY-stack/DF40, unpack it there, or set json and root"

    def _rows(self, file: Path, split: str) -> list[Row]:
        generator = re.sub(r"_(ff|cdf)\Z", "", file.stem).lower()
        return [row | made_by(generator) if row["label"] else row for row in super()._rows(file, split)]


def _plain(path: str) -> str:
    """A listed path with slashes, below the folder of all sets: ``FaceForensics++/.../frames/000/000.png``."""
    path = re.sub(r"\A(\./)?", "", path.replace("\\", "/"))
    return re.sub(r"\A(datasets/)?(rgb/)?", "", path)


def _mixed(path: str) -> str:
    name, _, rest = _plain(path).partition("/")
    return f"{name}\\{rest}"


#: Forms of LMDB keys: DeepfakeBench's converter on Linux, on Windows, and with slashes throughout.
_KEYS = (_mixed, lambda path: _plain(path).replace("/", "\\"), _plain)


def _number(path: str) -> int:
    stem = re.split(r"[\\/]", path)[-1].rpartition(".")[0]
    return int(stem) if stem.isdigit() else -1


def _mask(path: str) -> str:
    """The mask beside a frame: ``frames`` becomes ``masks`` in its folder, and the compression c23."""
    parts = re.split(r"([\\/])", path)
    for i in range(len(parts) - 1, -1, -1):
        if parts[i] == "frames":
            parts[i] = "masks"
            if i >= 2 and parts[i - 2] in COMPRESSIONS:
                parts[i - 2] = "c23"
            return "".join(parts)
    return ""


def _who(label: str, video: str) -> dict[str, str]:
    if label.startswith("FF-"):
        return faceforensics.who(video)
    return celeb_df.who(video) if label.startswith("CelebDF") else {}

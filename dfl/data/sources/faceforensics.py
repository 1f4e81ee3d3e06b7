"""FaceForensics++ (Rossler et al., ICCV 2019), as its download script lays it out, with its official splits."""

from pathlib import Path
from typing import Any, Literal

from dfl.data.containers import need_video
from dfl.data.sources.base import WithSplits
from dfl.data.sources.generators import made_by
from dfl.data.sources.trees import Missing, Row, first_folder, present, read_json, video_rows, videos_in
from dfl.errors import UserError, near

#: What each manipulation does.
METHODS = {
    "Deepfakes": "face-swap",
    "Face2Face": "reenactment",
    "FaceSwap": "face-swap",
    "NeuralTextures": "reenactment",
    "FaceShifter": "face-swap",
    "DeepFakeDetection": "face-swap",
}


def who(video: str) -> dict[str, str]:
    """Return identity and source of a video by its name: ``000``, or ``000_003`` (target, then source of the face).

    A fake lies over the video of its target, frame by frame, so that one is its source. It shows two persons, and
    videos come in pairs that were swapped with each other: both fakes have the pair as identity. So all four hang
    together.
    """
    names = video.split("_")[:2]
    return {"identity": "ffpp/" + "_".join(sorted(names)), "source": f"ffpp/{names[0]}"}


class FaceForensics(WithSplits):
    """``original_sequences/youtube/<c>/videos/NNN.mp4`` and ``manipulated_sequences/<method>/<c>/videos/TTT_SSS.mp4``.

    ``train.json``, ``val.json`` and ``test.json`` are lists of pairs of video names. A pair (a, b) brings the
    originals a and b and the fakes a_b and b_a. DeepFakeDetection and its actors have no official split: here they are
    in the split ``test`` only.

    Args:
        root: The folder that holds ``original_sequences`` and ``manipulated_sequences``.
        methods: Manipulations to take.
        compression: Compression levels to take, of raw, c23 and c40.
        media: Folder beside or in place of ``videos``: ``images``, ``frames`` or ``faces`` hold a folder of extracted
            pictures for each video.
        frames: Frames of each video, at even spacing.
        masks: Give the masks that come with the fakes.
        splits: Folder of the three JSON files; by default ``root`` or its ``splits``.
        missing: Whether a listed video that is not there is an error, or left out with a warning.
    """

    get = "get its download script from github.com/ondyari/FaceForensics, or set root"

    def __init__(
        self,
        root: str,
        methods: list[str] | None = None,
        compression: list[str] | None = None,
        media: Literal["videos", "images", "frames", "faces"] = "videos",
        frames: int = 32,
        masks: bool = False,
        splits: str | None = None,
        missing: Missing = "raise",
        **options: Any,
    ) -> None:
        super().__init__(root, **options)
        self.media, self.frames, self.masks, self.missing_videos = media, frames, masks, missing
        self.methods = methods if methods is not None else list(METHODS)[:4]
        for name in self.methods:
            if name not in METHODS:
                raise UserError(f"FaceForensics has no manipulation {name!r}" + near(name, list(METHODS)))
        self.compression = compression or ["c23"]
        self.splits = Path(splits).expanduser() if splits else None

    def rows(self, split: str) -> list[Row]:
        if self.media == "videos":
            need_video()
        file, pairs = self._pairs(split)
        official = [m for m in self.methods if m != "DeepFakeDetection"]
        rows: list[Row] = []
        for c in self.compression:
            if official:
                rows += self._listed("youtube", "", c, [v for pair in pairs for v in pair])
            for method in official:
                fakes = [f"{x}_{y}" for a, b in pairs for x, y in ((a, b), (b, a))]
                rows += self._listed("", method, c, fakes)
            if "DeepFakeDetection" in self.methods and split == "test":
                rows += self._listed("actors", "", c, None)
                rows += self._listed("", "DeepFakeDetection", c, None)
        change = "get the rest, point splits to other lists, or set missing: skip"
        return present(self, rows, file, change, self.missing_videos)

    def _pairs(self, split: str) -> tuple[Path, list[list[str]]]:
        folders = [self.splits] if self.splits else [self.root, self.root / "splits", self.root / "dataset" / "splits"]
        folder = next((f for f in folders if (f / f"{split}.json").is_file()), folders[0])
        change = "it is in the folder dataset/splits of the set's repository; set splits"
        file = self.require_file(f"{split}.json", folder, change)
        pairs = read_json(file, list)
        if not all(isinstance(p, list) and len(p) == 2 and all(isinstance(v, str) for v in p) for p in pairs):
            raise UserError(f"{file} is not a list of pairs of video names")
        return file, pairs

    def _listed(self, origin: str, method: str, c: str, names: list[str] | None) -> list[Row]:
        """Rows of some videos of one folder, or of all that are in it."""
        base = self.root / ("manipulated_sequences" if method else "original_sequences") / (method or origin)
        folder = base / c / self.media
        self.require(f"{c}/{self.media}", below=base, change="set compression, media, methods or root")
        there = videos_in(folder)
        shared: Row = {"label": int(bool(method)), "class_label": 2 if method else 0, "compression": c}
        if method:
            shared |= made_by(method.lower(), METHODS[method])
        masks = self._masks(base, c) if method and self.masks else {}
        rows: list[Row] = []
        for name in there if names is None else names:
            path = there.get(name, folder / (f"{name}.mp4" if self.media == "videos" else name))
            more: dict[str, Any] = {"video": f"{method or origin}/{c}/{name}"} | (who(name) if names else {})
            frames = video_rows(path, self.frames, masks.get(name), "max>127", **shared, **more)
            # a video without any picture still counts as listed, so that it is not lost in silence
            rows += frames or [{"path": str(path / "0000.png"), **shared, **more}]
        return rows

    def _masks(self, base: Path, c: str) -> dict[str, Path]:
        folder = first_folder(base / "masks" / self.media, base / c / "masks", base / "c23" / "masks")
        return videos_in(self.found(folder, f"masks/{self.media}", base, "get the masks, or set masks: false"))

"""Plain folders of images: class folders with explicit names, with or without split folders above them."""

import os
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dfl.data.formats import IMAGE_SUFFIXES, advice_on, is_image, leave_out
from dfl.data.frames import Telling, videos_of_classes
from dfl.data.sources.base import SPLIT_NAMES, TIES, Splittable, names_in, put, to_table
from dfl.data.sources.contradictions import Contradiction
from dfl.data.sources.names import label_of
from dfl.data.sources.trees import subfolders
from dfl.data.splits import split_column
from dfl.errors import UserError


class Folder(Splittable):
    """Images in ``root/{train,val,test}/{real,fake}/**`` or in ``root/{real,fake}/**``.

    Class folders are known by name, whatever their case (real, 0_real, nature, ... and fake, 1_fake, ai, ...);
    an unknown folder is an error, never a guess, and so is a class to train on whose folder is empty. Without split
    folders, ``fractions`` makes the splits; it keeps what seems to be one video on one side.

    Args:
        root: The folder.
        real: More names of folders that hold real images.
        fake: More names of folders that hold fake images.
        generator: Name of what made the fakes, kept with each row.
        family: Its family, for example gan or diffusion.
        videos: What tells the frames of one video: ``folders`` below the class folders, or ``names`` that are equal but
            for their last number; rows then carry it in the column ``video``. ``none``: every image stands alone. By
            default, what folders and names seem to tell (``dfl/data/frames.py``) ties images in the split by fraction
            alone, and this is said.
    """

    def __init__(
        self,
        root: str,
        real: list[str] | None = None,
        fake: list[str] | None = None,
        generator: str = "",
        family: str = "",
        videos: Telling | None = None,
        **options: Any,
    ) -> None:
        super().__init__(root, **options)
        self.real, self.fake = real or [], fake or []
        self.user_named_fakes = bool(self.real or self.fake)
        self.generator, self.family, self.telling = generator, family, videos

    def items(self, split: str) -> pa.Table:
        if not self.root.is_dir():
            raise self.missing("folder", self.root)
        splits: dict[str, Path] = {}
        for folder in subfolders(self.root).values():
            if (name := SPLIT_NAMES.get(folder.name.lower())) is not None:
                if name in splits:
                    raise UserError(f"{self.root} holds two folders of {name}, {splits[name].name} and {folder.name}")
                splits[name] = folder
        if splits:
            if split not in splits:
                raise UserError(f"{self.root} has the splits {', '.join(sorted(splits))}, and none for {split!r}")
            self._beside(self.root, list(splits.values()))
            table = self._rows(splits[split], split)
        else:
            table = self._rows(self.root, "")
        if self.telling in ("folders", "names"):
            table = put(table, "video", self.videos(table))
        return table if splits or self.fractions is None else self._part(table, split, self.fractions)

    def videos(self, table: pa.Table) -> list[str]:
        """Return the video of each row by its folder and name, '' for none; see ``videos`` of the class."""
        tops, names = self._below(table)
        return videos_of_classes(names, tops, self.telling)

    def _below(self, table: pa.Table) -> tuple[list[str], list[str]]:
        """Return the class folder of each row, whatever split it is in, and the rest of its path."""
        cut = len(str(self.root / "x")) - 1
        tops, names = [], []
        for path in table["path"].to_pylist():
            top, _, name = path[cut:].partition(os.sep)
            if top.lower() in SPLIT_NAMES:
                top, _, name = name.partition(os.sep)
            tops.append(top)
            names.append(name)
        return tops, names

    def _rows(self, folder: Path, split: str) -> pa.Table:
        rows: list[dict[str, object]] = []
        classes = list(subfolders(folder).values())
        if not classes:
            raise UserError(f"{folder} has no class folders; expected names such as real and fake")
        empty: dict[int, Path] = {}
        found: dict[int, list[str]] = {0: [], 1: []}
        for sub in classes:
            label = label_of(sub.name, self.real, self.fake)
            if label is None:
                raise UserError(
                    f"{folder} holds {', '.join(p.name for p in classes)}: {sub.name!r} is neither real nor fake; "
                    f"say which with real: [{sub.name}] or fake: [{sub.name}]"
                )
            maker = {"generator": self.generator, "family": self.family} if label else {}
            found[label] += (names := names_in(sub))
            rows += [{"path": name, "label": label, "split": split, **maker} for name in names]
            if not names:
                empty[label] = sub
        self._beside(folder, classes)
        if both := _in_both(found[0], found[1]):
            raise Contradiction(
                f"{folder}: {both[0]} is labelled both real and fake: {both[1]} is the same; take one away"
            )
        for label, sub in empty.items():
            # what is trained on needs both; validation and test of one class are said by what cannot be measured there
            if split not in ("val", "test") and rows and not any(row["label"] == label for row in rows):
                raise UserError("; ".join(filter(None, (f"{sub} holds no image", str(self.left_out)))))
        return to_table(rows)

    def _beside(self, folder: Path, known: list[Path]) -> None:
        """Count the pictures and folders that lie in a folder beside its folders of splits or classes."""
        files = [entry.name for entry in os.scandir(folder) if entry.is_file() and not entry.name.startswith(".")]
        pictures = [name for name in files if advice_on(name) or is_image(str(folder / name))]
        leave_out(str(folder), [*pictures, *(f"{p.name}/" for p in subfolders(folder).values() if p not in known)])

    def _part(self, table: pa.Table, split: str, fractions: dict[str, float]) -> pa.Table:
        """Return the rows of one split by fraction.

        Raises:
            UserError: If a class has too few videos for the splits that are asked for.
        """
        videos = self.videos(table)
        column = split_column(put(table, "video", videos), fractions, self.seed, by=TIES)
        sides, labels = column.to_pylist(), table["label"].to_pylist()
        there = set(zip(labels, sides, strict=True))
        for label, name in ((label, name) for label in (0, 1) for name, share in fractions.items() if share):
            tied = sorted({video for video, one in zip(videos, labels, strict=True) if video and one == label})
            if tied and (label, name) not in there:
                raise UserError(
                    f"{self!r}: no {'fake' if label else 'real'} image is left for {name}: a video stays whole, and "
                    f"{', '.join(tied[:3])}{', ...' if len(tied) > 3 else ''} are taken for videos; where their images "
                    "have nothing to do with each other, set videos: none"
                )
        if self.telling is None:
            shares = ", ".join(f"{name} {sides.count(name) / len(sides):.1%}" for name in fractions)
            self._say(table, videos, shares)
        return put(table, "split", column).filter(pc.equal(column, split))

    def _say(self, table: pa.Table, videos: list[str], shares: str) -> None:
        """Say which images were kept together by folders and names alone, and where these do not tell."""
        count = Counter(filter(None, videos))
        if count:
            warnings.warn(
                f"{self!r}: {count.total():,} images are taken for frames of {len(count):,} videos by their folders "
                f"and numbered names, such as {min(count)}; each is kept whole ({shares}); videos: none turns it off",
                stacklevel=2,
            )
        tops, names = self._below(table)
        for top in sorted(set(tops)):
            rows = [i for i, one in enumerate(tops) if one == top]
            within = {os.path.dirname(names[i]) for i in rows}
            if len(within) == 1 and "" not in within and not any(videos[i] for i in rows):
                warnings.warn(
                    f"{self!r}: all {len(rows):,} images of {top} lie in {within.pop()}; if they are frames of one "
                    "video, frames of it are on all sides of the split; if they are not, set videos: none",
                    stacklevel=2,
                )


def _in_both(real: list[str], fake: list[str]) -> tuple[str, str] | None:
    """Return two names of one image, or of one folder of images, among the real and the fake ones, which links make."""
    (folders, links), (others, of_others) = _behind(real), _behind(fake)
    for place in (folders.keys() | links.keys()) & (others.keys() | of_others.keys()):
        return {**links, **folders}[place], {**of_others, **others}[place]
    for linked, beside in ((links, others), (of_others, folders)):
        for place, name in linked.items():
            if os.path.dirname(place) in beside:
                return name, place
    return None


def _behind(names: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the folders of images, and the images that are links, by their real paths: no other file is looked at."""
    folders: dict[str, str] = {}
    links: dict[str, str] = {}
    for folder in {name.rpartition(os.sep)[0]: None for name in names}:
        folders.setdefault(os.path.realpath(folder), folder)
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink() and os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
                    links.setdefault(os.path.realpath(entry.path), entry.path)
    return folders, links

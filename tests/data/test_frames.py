"""Frames of one video by folders and names: what is tied, and what stands alone."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dfl.data import Folder, Table
from dfl.data.frames import by_paths, videos
from dfl.data.sources import to_table
from dfl.errors import UserError
from dfl.tools.split import split
from tests.data.sources.layouts import touch

PARTS = {"train": 0.7, "val": 0.1, "test": 0.2}
FRAMES = range(6)


@pytest.mark.parametrize(
    "names",
    [
        [f"v{v}/{i:03d}.png" for v in range(4) for i in FRAMES],
        [f"v{v}/faces/left_{i}.png" for v in range(4) for i in FRAMES],
        [f"v{v}_{i:04d}.jpg" for v in range(4) for i in FRAMES],
        [f"{v:03d}_{v + 7:03d}_{i:04d}.png" for v in range(4) for i in FRAMES],
        [f"v{v}.frame{i}.png" for v in range(4) for i in FRAMES],
        [f"clip {v} ({i}).png" for v in range(4) for i in FRAMES],
        [f"v{v}_{i:04d}_{face}.png" for v in range(4) for i in FRAMES for face in range(1 + (i == 3))],
        [f"all/v{v}-{i}.png" for v in range(4) for i in FRAMES],
    ],
)
def test_frames_of_a_video_are_told(names: list[str]) -> None:
    found = videos(names)
    assert "" not in found
    assert len(set(found)) == 4
    assert all(len(set(found[start : start + len(names) // 4])) == 1 for start in range(0, len(names), len(names) // 4))


@pytest.mark.parametrize(
    "names",
    [
        [f"{i:05d}.jpg" for i in range(40)],
        [f"IMG_{i}.jpg" for i in range(40)],
        [f"photo ({i}).jpg" for i in range(40)],
        [f"{np.random.default_rng(i).bytes(8).hex()}.jpg" for i in range(40)],
        ["cat.jpg", "dog.jpg", "1.jpg"],
        [f"only/{i:03d}.jpg" for i in range(40)],
        [],
    ],
)
def test_single_images_stand_alone(names: list[str]) -> None:
    assert set(videos(names)) <= {""}


def both_classes(root: Path, *names: str) -> None:
    touch(root, *(f"{c}/{name}" for c in ("real", "fake") for name in names))


def sides(source: Folder) -> dict[str, set[str]]:
    """Return the splits of each video by its name."""
    found: dict[str, set[str]] = {}
    for name in PARTS:
        for path in source.load(name)["path"].to_pylist():
            below = Path(path).relative_to(source.root)
            found.setdefault(f"{below.parts[0]}/{below.parts[1].split('_')[0]}", set()).add(name)
    return found


@pytest.mark.parametrize("name", ["v{v}/{i:03d}.png", "v{v}_{i:03d}.png"])
@pytest.mark.parametrize("count", [3, 8, 12])
def test_a_split_by_fraction_keeps_videos_whole_and_says_so(tmp_path: Path, name: str, count: int) -> None:
    both_classes(tmp_path, *(name.format(v=v, i=i) for v in range(count) for i in FRAMES))
    with pytest.warns(
        UserWarning, match=rf"taken for frames of {2 * count} videos .* such as fake/v0; each is kept whole"
    ):
        found = sides(Folder(str(tmp_path), fractions=PARTS))
    assert len(found) == 2 * count
    assert all(len(names) == 1 for names in found.values())
    for label in ("real", "fake"):
        assert {side for key, (side,) in found.items() if key.startswith(label)} == set(PARTS), "no split lacks a class"


def test_too_few_videos_are_an_error_that_names_the_way_out(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *(f"real/{i}.png" for i in range(20)),
        *(f"fake/{g}/{i}.png" for g in ("sdxl", "flux") for i in range(10)),
    )
    with pytest.raises(
        UserError, match=r"no fake image is left for test.*fake/flux, fake/sdxl are taken.*videos: none"
    ):
        Folder(str(tmp_path), fractions=PARTS).load("train")
    alone = Folder(str(tmp_path), fractions=PARTS, videos="none")
    assert [len(alone.load(name)) for name in PARTS] == [28, 4, 8]
    assert set(alone.load("train")["video"].to_pylist()) == {""}


def test_videos_that_are_told_are_a_column(tmp_path: Path) -> None:
    both_classes(tmp_path / "a", *(f"x/v{v}_{i}.png" for v in range(3) for i in FRAMES))
    folders = Folder(str(tmp_path / "a"), videos="folders").load("test")["video"].to_pylist()
    assert set(folders) == {"fake/x", "real/x"}
    names = Folder(str(tmp_path / "a"), videos="names").load("test")["video"].to_pylist()
    assert set(names) == {f"{c}/x/v{v}" for c in ("real", "fake") for v in range(3)}
    assert set(Folder(str(tmp_path / "a")).load("test")["video"].to_pylist()) == {""}, (
        "a guess feeds no metric of videos"
    )


def test_one_folder_in_a_class_tells_nothing_and_is_said(tmp_path: Path) -> None:
    both_classes(tmp_path, *(f"clip/{i:03d}.png" for i in range(20)))
    with pytest.warns(UserWarning, match="all 20 images of fake lie in clip; if they are frames of one video"):
        assert len(Folder(str(tmp_path), fractions=PARTS).load("train")) == 28


def test_plain_folders_say_nothing_and_split_as_ever(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    both_classes(tmp_path, *(f"{i:05d}.png" for i in range(30)))
    plain = [Folder(str(tmp_path), fractions=PARTS, videos=v).load("train")["path"].to_pylist() for v in (None, "none")]
    assert plain[0] == plain[1]
    assert not [w for w in recwarn if "videos" in str(w.message)]


@pytest.mark.parametrize("kind", ["folder", "table"])
def test_data_split_keeps_videos_whole(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"v{v}/{i:03d}.png" for v in range(10) for i in FRAMES]
    both_classes(tmp_path / "set", *names)
    word = str(tmp_path / "set")
    if kind == "table":  # as `dfl data scan` writes it: the videos are told by the paths alone
        pq.write_table(Folder(word).load("train"), tmp_path / "t.parquet")
        word = str(tmp_path / "t.parquet")
    table = pq.read_table(split([word], output=str(tmp_path / "split.parquet")))
    found: dict[str, set[str]] = {}
    for path, side in zip(table["path"].to_pylist(), table["split"].to_pylist(), strict=True):
        found.setdefault(str(Path(path).parent), set()).add(side)
    assert len(found) == 20
    assert all(len(one) == 1 for one in found.values())
    assert set(table["video"].to_pylist()) == {""}
    assert "20 videos are guessed from folders and numbered names alone, such as" in capsys.readouterr().out
    split([word], output=str(tmp_path / "split.parquet"), by=["identity", "source"])
    assert "videos are guessed" not in capsys.readouterr().out


def test_paths_of_a_table_tell_videos_across_splits(tmp_path: Path) -> None:
    rows = [{"path": f"/d/{s}/fake/v{v}/{i}.png", "label": 1} for v in range(2) for i, s in enumerate(("train", "val"))]
    assert by_paths(to_table(rows)) == ["/d/fake/v0", "/d/fake/v0", "/d/fake/v1", "/d/fake/v1"]
    known = to_table([{**row, "video": "k"} for row in rows])
    pq.write_table(pa.table(known), tmp_path / "t.parquet")
    assert set(Table(str(tmp_path / "t.parquet")).videos(known)) == {"k"}

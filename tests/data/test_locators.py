"""Places inside files: their grammar, frames of videos, boxes, masks by rule, and reading in forked workers."""

import io
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from forking import exit_code
from PIL import Image

from dfl.data import containers
from dfl.data.containers import AbsentCell
from dfl.data.dataset import ImageDataset
from dfl.data.decoding import DecodeError
from dfl.data.locators import below, load_image, locate, read_bytes, split
from dfl.data.masks import check_rule, load_mask
from dfl.data.sources import to_table
from dfl.data.transforms import Transform
from dfl.errors import UserError


@pytest.mark.parametrize(
    ("locator", "file", "inside"),
    [
        ("a/b.png", "a/b.png", {}),
        ("a#b/c#1.png", "a#b/c#1.png", {}),  # a # that no known word follows belongs to the name
        ("a.parquet#column=image&row=12", "a.parquet", {"column": "image", "row": "12"}),
        ("x#1.mp4#frame=7&xywh=1,2,3,4", "x#1.mp4", {"frame": "7", "xywh": "1,2,3,4"}),
        ("v.mp4#at=3/32", "v.mp4", {"at": "3/32"}),
        ("v.mp4#at=3", "v.mp4#at=3", {}),
        ("x#column=y.png", "x#column=y.png", {}),  # a column alone is no place
    ],
)
def test_grammar(locator: str, file: str, inside: dict[str, str]) -> None:
    assert split(locator) == (file, inside)
    assert locate(file, **inside) == locator


@pytest.mark.parametrize("key", ["FaceForensics++\\a/b c/000.png", "a&row=1#x%20=é.png", "a=b,c:d@e+f"])
def test_any_key_survives(key: str) -> None:
    assert split(locate("x_lmdb", key=key)) == ("x_lmdb", {"key": key})


def test_below() -> None:
    root = Path("/r")
    assert [below(root, p) for p in ("a.png#frame=1", "/b.png", "polygon:1,2")] == [
        "/r/a.png#frame=1",
        "/b.png",
        "polygon:1,2",
    ]


@pytest.mark.parametrize(
    "name", ["x#column=y.png", "x#key=y.png", "a#row=1&column=y.png", "v#frame=3", "b#xywh=1,2,3,4"]
)
def test_a_name_that_reads_as_a_place(name: str, tmp_path: Path) -> None:
    Image.new("RGB", (7, 5), (1, 2, 3)).save(tmp_path / name, "PNG")
    assert load_image(str(tmp_path / name)).shape == (5, 7, 3)
    with pytest.raises(DecodeError):
        load_image(f"{tmp_path}/no{name}")


@pytest.mark.parametrize("inside", ["", "#xywh=0,0,1,1", "#column=a&row=0", "#key=a", "#frame=0", "#at=0/2"])
@pytest.mark.parametrize("name", ["pipe", "pipe.arrow", "folder", "/dev/zero"])
def test_nothing_but_files_is_opened(name: str, inside: str, tmp_path: Path) -> None:
    """A pipe would be waited for without end, and /dev/zero read."""
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.arrow")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "folder/data.mdb")
    for read in (read_bytes, load_image, lambda place: load_mask(place, "", (4, 4))):
        with pytest.raises(DecodeError, match="not a regular file"):
            read(f"{tmp_path / name}{inside}")


def test_what_holds_nothing_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of the system have no size, and /proc/kmsg is waited for."""
    (tmp_path / "empty.png").touch()
    monkeypatch.setattr("builtins.open", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(DecodeError, match="the file is empty"):
        read_bytes(str(tmp_path / "empty.png"))


NO_PLACES = [f"a_lmdb#key={'k' * 600}", "v.mp4#at=0/0", f"a.png#xywh={'9' * 18},0,1,1", "a.parquet#row=0", "\0#key=a"]


@pytest.mark.parametrize("place", [*NO_PLACES, "\0.png", "none.parquet#row=0"])
def test_places_that_are_none(place: str, tmp_path: Path) -> None:
    lmdb = pytest.importorskip("lmdb")
    lmdb.open(str(tmp_path / "a_lmdb"), map_size=1 << 20).close()
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(DecodeError):
        load_image(f"{tmp_path}/{place}")


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_cells_that_hold_no_bytes(suffix: str, tmp_path: Path) -> None:
    png = io.BytesIO()
    Image.new("RGB", (4, 4)).save(png, "PNG")
    columns = {
        "number": pa.array([3, None]),
        "list": pa.array([[1, 2], None]),
        "text": pa.array(["a.png", None]),
        "other": pa.array([{"path": "a.png"}, None]),
        "struct": pa.array([{"bytes": png.getvalue(), "path": None}, {"bytes": None, "path": None}]),
    }
    file = f"{tmp_path}/t.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.table(columns), file)
    else:
        with pa.ipc.new_file(file, pa.table(columns).schema) as writer:
            writer.write_table(pa.table(columns))
    assert load_image(f"{file}#column=struct&row=0").shape == (4, 4, 3)
    for name, said in (("number", "int64"), ("list", "list"), ("text", "string"), ("other", "struct")):
        with pytest.raises(DecodeError, match=f"the cell holds {said}.*, not the bytes of a file"):
            load_image(f"{file}#column={name}&row=0")
    for name in columns:
        with pytest.raises(AbsentCell):
            load_image(f"{file}#column={name}&row=1")
    for place, said in (("column=struct&row=2", "the file has (2 rows|no row 2)"), ("row=0", "no column 'image'")):
        with pytest.raises(DecodeError, match=said):
            load_image(f"{file}#{place}")


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.large_string()])
@pytest.mark.parametrize("offsets", [[0, 9**9, 10], [0, 6, 2], [5, 3, 10], [-7, 3, 10]])
def test_offsets_that_lead_out_of_a_shard(kind: pa.DataType, offsets: list[int], tmp_path: Path) -> None:
    file = f"{tmp_path}/t.arrow"
    batch = pa.record_batch([pa.array([b"012345", b"6789"]).cast(kind)], ["image"])
    with pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)
    width = np.int64 if kind in (pa.large_binary(), pa.large_string()) else np.int32
    good, bad = (np.array(numbers, width).tobytes() for numbers in ([0, 6, 10], offsets))
    content = Path(file).read_bytes()
    assert content.count(good) == 1
    Path(file).write_bytes(content.replace(good, bad))
    for row in (0, 1):
        with pytest.raises(DecodeError, match="[Oo]ffset"):
            load_image(f"{file}#column=image&row={row}")


def video(path: Path, frames: int = 40, **options: int) -> None:
    """Write a video whose frame i is gray 6 * i, with B-frames and a key frame now and then."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 48, "yuv420p", 4_000_000
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = 12, 2
        for i in range(frames):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 6 * i, np.uint8), format="rgb24")
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))


def shade(locator: str) -> float:
    return float(load_image(locator).mean()) / 6


def test_frames_of_a_video(tmp_path: Path) -> None:
    file = tmp_path / "v.mp4"
    video(file)
    order = [0, 39, 1, 38, 13, 12, 11, 25, 24, 2, 3]
    assert [round(shade(f"{file}#frame={i}")) for i in order] == order
    assert [round(shade(f"{file}#at={i}/4")) for i in range(4)] == [5, 15, 25, 35]
    assert load_image(f"{file}#frame=9").shape == (48, 64, 3)
    with pytest.raises(DecodeError, match=r"v.mp4#frame=40: the video has 40 frames, and none with number 40"):
        load_image(f"{file}#frame=40")
    (tmp_path / "no.mp4").write_bytes(b"this is no video" * 99)
    for name, text in (("no.mp4", "damaged or no video"), ("none.mp4", "No such file")):
        with pytest.raises(DecodeError, match=text):
            load_image(f"{tmp_path}/{name}#frame=0")


def test_packages_are_asked_for_by_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "_HAS_AV", False)
    with pytest.raises(UserError, match=r"pip install 'dfl\[video\]'"):
        read_bytes("v.mp4#frame=0")
    monkeypatch.setattr(containers, "_HAS_LMDB", False)
    with pytest.raises(UserError, match=r"pip install 'dfl\[data\]'"):
        read_bytes("x_lmdb#key=a")


def test_boxes(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    crop = load_image(f"{tmp_path}/a.png#xywh=5,6,7,8")
    assert np.array_equal(crop, pixels[6:14, 5:12])
    for box in ("25,0,6,1", "0,0,0,5", "0,19,1,2"):
        with pytest.raises(DecodeError, match="the box is not inside the image of 30x20 pixels"):
            load_image(f"{tmp_path}/a.png#xywh={box}")


def test_mask_rules(tmp_path: Path) -> None:
    colours = [(0, 0, 0), (10, 0, 0), (0, 130, 0), (255, 255, 255), (120, 130, 140)]
    picture = Image.new("RGB", (5, 1))
    picture.putdata(colours)
    picture.save(tmp_path / "m.png")
    file = str(tmp_path / "m.png")
    expected = {
        "": [0, 10, 130, 255, 140],
        "max>0": [0, 255, 255, 255, 255],
        "max>10": [0, 0, 255, 255, 255],
        "max<128": [255, 255, 0, 0, 0],
        "g>127": [0, 0, 255, 255, 255],
        "r<128": [255, 255, 255, 0, 255],
        "mean>127": [0, 0, 0, 255, 255],
        "all": [255] * 5,
    }
    for rule, row in expected.items():
        mask = load_mask(file, check_rule(rule), (5, 1))
        assert mask is not None
        assert mask.tolist() == [row], rule
    assert load_mask("", "", (5, 1)) is None
    for rule in ("", "max>0"):
        with pytest.raises(DecodeError, match=r"m.png: the mask is 5x1 pixels, but its image is 10x1"):
            load_mask(file, rule, (10, 1))
    wide = load_mask(file, "max>0,resize", (10, 1))
    assert wide is not None
    assert wide.tolist() == [[0, 0] + [255] * 8]
    for rule in ("max>0,min<3", "white", "max>0,g>1"):
        with pytest.raises(UserError, match="mask rule"):
            check_rule(rule)


def test_polygons() -> None:
    mask = load_mask("polygon:1,1,3,1,3,3,1,3;6,0,7,0,7,1,6,1", "", (8, 4))
    assert mask is not None
    expected = np.zeros((4, 8), np.uint8)
    expected[1:4, 1:4] = expected[0:2, 6:8] = 255
    assert np.array_equal(mask, expected)
    assert not load_mask("polygon:", "", (8, 4)).any()  # type: ignore[union-attr]
    assert load_mask("polygon:-3,-3,2,-3,2,2", "", (8, 4)).any()  # type: ignore[union-attr]  # cut by a border


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1,2,3,4", "4 numbers are no polygon"),
        ("1,2,3,4,5,6,7", "7 numbers are no polygon"),
        ("1,2,3,4,5,nan", "coordinates that are no pixels"),
        ("1,2,3,4,5,1e400", "coordinates that are no pixels"),
        ("1,2,3,4,5,1e7", "coordinates that are no pixels"),
        ("1,2,3,4,5,six", "could not convert"),
        ("[1,2],[3,4],[5,6]", "could not convert"),
        ("{'counts': [1, 2], 'size': [8, 4]}", "could not convert"),
        ("1,1,3,1,3,3;,,,,,", "could not convert"),
        ("9,1,12,1,12,3", "outside of the image of 8x4"),
        ("1,-9,3,-9,3,-1", "outside of the image of 8x4"),
    ],
)
def test_polygons_that_are_none(text: str, said: str) -> None:
    with pytest.raises(DecodeError, match=said):
        load_mask(f"polygon:{text}", "", (8, 4))


def test_samples_of_places(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (9, 9, 9)).save(tmp_path / "a.png")
    half = np.zeros((64, 64), np.uint8)
    half[:, :32] = 255
    Image.fromarray(half).save(tmp_path / "m.png")
    place = f"{tmp_path}/a.png#xywh=0,0,64,64"
    table = to_table(
        [
            {"path": place, "label": 1, "mask": f"{tmp_path}/m.png", "mask_rule": "max<128"},
            {"path": place, "label": 1, "mask_rule": "all"},
            {"path": place, "label": 1},
        ]
    )
    samples = list(map(ImageDataset(table, Transform().eval(64), 64, {}).__getitem__, range(3)))
    assert [float(s["mask"][:, 0].mean()) for s in samples] == [0.0, 1.0, 0.0]
    assert float(samples[0]["mask"][:, -1].mean()) == 1.0
    assert [bool(s["has_mask"]) for s in samples] == [True, True, False]
    assert samples[0]["path"] == place


def _read_in_forks(places: list[str]) -> None:
    assert read_bytes(places[3]) == bytes([3])  # open in this process when the workers start
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(read_bytes, places) == [bytes([i]) for i in range(8)]
    assert read_bytes(places[4]) == bytes([4])


def test_lmdb_in_forked_workers(tmp_path: Path) -> None:
    lmdb = pytest.importorskip("lmdb")
    folder = str(tmp_path / "x_lmdb")
    with lmdb.open(folder, map_size=1 << 20) as env, env.begin(write=True) as entries:
        for i in range(8):
            entries.put(f"a/{i}".encode(), bytes([i]))
    places = [locate(folder, key=f"a/{i}") for i in range(8)]
    # in a process without threads of other tests: a fork of one with threads may hang
    assert exit_code(_read_in_forks, places) == 0
    for place, text in (
        (locate(folder, key="b"), "no such key"),
        (f"{tmp_path}/no_lmdb#key=a", "cannot be opened as LMDB"),
    ):
        with pytest.raises(DecodeError, match=text):
            read_bytes(place)

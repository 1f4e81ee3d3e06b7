"""Sources: labels by name and never by sort order, and errors that say what was found and what to change."""

import io
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dfl.data import Folder, Kaggle140k, Paths, Table
from dfl.data.locators import load_image
from dfl.data.rows import Rows
from dfl.data.sources import ROW_SCHEMA, Cifake, ForensicHub, GenImage, ImdlBenco, Packed, Spai, to_table
from dfl.data.sources.trees import class_folders
from dfl.errors import NothingDone, UserError
from dfl.tools.file_facts import measure, stamp
from tests.data.sources.layouts import refuses, touch


def rows(table: pa.Table, *columns: str) -> list[tuple]:
    return list(zip(*(table[c].to_pylist() for c in columns), strict=True))


def test_folder_knows_classes_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "train/FAKE/a.JPG", "train/Real/x/b.png", "train/REAL/notes.txt", "Valid/0_real/c.webp")
    source = Folder(str(tmp_path), generator="adm", family="diffusion")
    found = rows(source.load("train"), "path", "label", "generator", "family", "split")
    assert found == [
        (f"{tmp_path}/train/FAKE/a.JPG", 1, "adm", "diffusion", "train"),
        (f"{tmp_path}/train/Real/x/b.png", 0, "", "", "train"),
    ]
    assert rows(source.load("val"), "label") == [(0,)]


def test_folder_does_not_guess(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.jpg", "sdxl/b.jpg")
    refuses(Folder(str(tmp_path)), "train", r"holds real, sdxl: 'sdxl' is neither real nor fake; say which")
    assert rows(Folder(str(tmp_path), fake=["SDXL"]).load("train"), "label") == [(0,), (1,)]


def test_missing_sets_say_where_they_looked() -> None:
    refuses(Kaggle140k(), "train", r"Kaggle140k: no folder .* at .*/data/140k; get it from kaggle.com.*make demo")
    refuses(Folder("nowhere"), "train", "no folder at .*/nowhere")


def test_empty_splits_are_errors(tmp_path: Path) -> None:
    touch(tmp_path, "train/real/a.jpg", "test/real/readme.txt", "test/fake/readme.txt")
    refuses(Folder(str(tmp_path)), "test", "no image in split 'test'")
    refuses(Folder(str(tmp_path)), "val", "has the splits test, train, and none for 'val'")


def test_links_that_make_an_image_real_and_fake(tmp_path: Path) -> None:
    def linked(name: str, link: str, to: str) -> Folder:
        touch(tmp_path, f"{name}/real/deep/a.png", f"{name}/fake/b.png", f"{name}/blob.png")
        (tmp_path / name / link).symlink_to(to)
        return Folder(str(tmp_path / name))

    said = "labelled both real and fake: .* is the same; take one away"
    refuses(linked("folder", "fake/link", "../real"), "test", said)
    refuses(linked("class", "Fake_", "real/deep"), "test", "neither real nor fake")
    refuses(Folder(str(tmp_path / "class"), fake=["fake_"]), "test", said)
    refuses(linked("file", "real/c.png", "../fake/b.png"), "test", f"real/c.png is {said}")
    once = linked("blob", "fake/c.png", "../blob.png")
    assert rows(once.load("test"), "label") == [(1,), (1,), (0,)]
    refuses(linked("blob", "real/d.PNG", "../blob.png"), "test", said)
    notes = linked("notes", "fake/notes.txt", "../real/deep/a.png")
    assert rows(notes.load("test"), "label") == [(1,), (0,)]


def test_one_path_with_both_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "path,label\na,0\nb,1\nc,0\nc,1\nb,1\n"
    (tmp_path / "t.csv").write_text(text)
    for fake in (None, 1):
        source = Table(str(tmp_path / "t.csv"), label_of_fake=fake)
        refuses(source, "test", "1 image is labelled both real and fake, such as .*/c;")
    lines = [f"{i}.png,{i % 2}" for i in range(100)]
    (tmp_path / "t.csv").write_text("\n".join(["path,label", "x.png,0", *lines, "x.png,1"]))
    monkeypatch.setattr("dfl.data.sources.base.MOST_PATHS", 64)  # four fakes are looked at, the first and the last
    refuses(Table(str(tmp_path / "t.csv")), "test", "such as .*/x.png")


def test_links_between_folders_give_each_image_once(tmp_path: Path) -> None:
    """Two folders with two links each to the other double a walk at every level."""
    for word in ("real", "fake"):
        touch(tmp_path, f"set/{word}/b/1.png", f"set/{word}/c/2.png", f"not/{word}/3.png", f"not/{word}/deep/4.png")
        for here, there in (("b", "c"), ("c", "b"), ("b", "b"), ("b", "."), ("c", "..")):
            for i in range(2):
                (tmp_path / f"set/{word}/{here}/to_{there.replace('.', 'up')}{i}").symlink_to(f"../{there}")
        (tmp_path / f"set/{word}/a").symlink_to("c")  # comes first, but is not the folder's own name
        (tmp_path / f"set/{word}/out").symlink_to(tmp_path / f"not/{word}")
        (tmp_path / f"set/{word}/out2").symlink_to(tmp_path / f"not/{word}/deep")
    names = ("b/1.png", "c/2.png", "out/3.png", "out/deep/4.png")
    found = rows(Folder(f"{tmp_path}/set").load("train"), "path")
    assert found == [(f"{tmp_path}/set/{word}/{name}",) for word in ("fake", "real") for name in names]
    assert rows(Paths([f"{tmp_path}/set/real/a"]).load("test"), "path")[0] == (f"{tmp_path}/set/real/a/2.png",)


def test_links_above_the_classes(tmp_path: Path) -> None:
    touch(tmp_path, *(f"test/{name}/{c}/1.png" for name in ("adm", "sd") for c in ("0_real", "1_fake")))
    for name, other in (("adm", "sd"), ("sd", "adm")):
        for i in range(2):
            (tmp_path / f"test/{name}/again{i}").symlink_to(f"../{other}")
    found = class_folders(Cifake(str(tmp_path)), tmp_path / "test")
    assert len(found) == 4
    assert len({os.path.realpath(folder) for folder, _ in found}) == 4


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (5, 4)).save(picture, "PNG")
    for name in (b"real/bad\xff\xfe.png", b"real/\xe9t\xe9/a.png", b"fake/%C3.png", "fake/é%20.png".encode()):
        file = tmp_path / os.fsdecode(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture.getvalue())
    table = Folder(str(tmp_path)).load("train")
    names = [path.removeprefix(f"{tmp_path}/") for (path,) in rows(table, "path")]
    assert sorted(names) == ["fake/%C3.png", "fake/é%20.png", "real/%E9t%E9/a.png", "real/bad%FF%FE.png"]
    for (path,) in rows(table, "path"):
        assert load_image(path).shape == (4, 5, 3)
        assert measure(path)["error"] == ""
        assert stamp(path)[0] == len(picture.getvalue())
    assert Rows.of(table).table["path"].to_pylist() == table["path"].to_pylist()
    named = Paths([os.fsdecode(f"{tmp_path}/real/bad".encode() + b"\xff\xfe.png"), f"{tmp_path}/real/%E9t%E9"])
    assert [load_image(path).shape for (path,) in rows(named.load("test"), "path")] == [(4, 5, 3)] * 2


@pytest.mark.parametrize("where", ["s3://bucket/set", "https://example.org/set", "gs://b/x", "file:///data", "hdfs:/x"])
def test_addresses_are_told_from_folders(where: str) -> None:
    sources = (
        Folder(where),
        Packed(where),
        Table(f"{where}.csv"),
        ImdlBenco(f"{where}.json"),
        GenImage(where),
        Paths([where]),
    )
    for source in sources:
        refuses(source, "train", "is an address; data are read from this machine alone: mount the bucket")


def test_a_list_that_is_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "list")
    for source in (ImdlBenco, ForensicHub, Spai):
        refuses(source(f"{tmp_path}/list"), "train", "list")


def test_limit_draws_with_its_seed(tmp_path: Path) -> None:
    touch(tmp_path, *(f"train/{c}/{i:02d}.jpg" for c in ("real", "fake") for i in range(50)))
    first, again, other = (
        Folder(str(tmp_path), limit=20, limit_seed=s).load("train")["path"].to_pylist() for s in (0, 0, 1)
    )
    assert len(set(first)) == 20
    assert first == again != other
    assert len(Folder(str(tmp_path), limit={"val": 3}).load("train")) == 100
    with pytest.raises(UserError, match="'valid'"):
        Folder(str(tmp_path), limit={"valid": 3})
    for limit in (0, -4, {"train": 5, "val": 0}):
        with pytest.raises(UserError, match=r"limit is (0|-4): it must be at least 1"):
            Folder(str(tmp_path), limit=limit)


def test_folder_counts_what_it_did_not_take(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{c}/{i}.png" for c in ("real", "fake") for i in range(3)), "real/a.mov", "real/b.psd", "c.jpg")
    touch(tmp_path, "notes.txt", "labels.csv", ".hidden.jpg")
    source = Folder(str(tmp_path))
    for split in ("train", "val", "test"):
        assert len(source.load(split)) == 6
    assert str(source.left_out).startswith("3 files were left out: ")
    for name in ("real/a.mov", "real/b.psd", "c.jpg"):
        assert f"{tmp_path}/{name}" in str(source.left_out)
    touch(tmp_path, "train/real/a.png", "train/fake/a.png", "train/fake/b.HIF", "extra/d.png")
    source = Folder(str(tmp_path))
    assert len(source.load("train")) == 3
    assert f"3 folders ({tmp_path}/extra/, {tmp_path}/fake/, {tmp_path}/real/)" in str(source.left_out)


def test_an_empty_class_is_an_error_that_says_what_its_folder_holds(tmp_path: Path) -> None:
    touch(tmp_path, "train/real/a.png", "train/fake/a.webm", "train/fake/x/b.CR3", "test/real/a.png")
    with pytest.raises(UserError, match=r"train/fake holds no image; 2 files .* 1 .cr3 .*develop it.*1 .webm .*video"):
        Folder(str(tmp_path)).load("train")
    (tmp_path / "test/fake").mkdir()
    assert len(Folder(str(tmp_path)).load("test")) == 1, "a set to test on may have one class"
    touch(tmp_path, "train/1_fake/a.png")
    assert len(Folder(str(tmp_path)).load("train")) == 2, "another folder holds the class"


def test_two_folders_of_one_split_are_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "val/real/a.png", "Validation/real/b.png")
    refuses(Folder(str(tmp_path)), "val", "two folders of val, Validation and val")


def kaggle(root: Path, fake: str = "fake") -> None:
    touch(root, "real_vs_fake/real-vs-fake/{train,valid,test}/{real,fake}/{1,2}.jpg")
    for split in ("train", "valid", "test"):
        lines = [",original_path,id,label,label_str,path"]
        lines += [
            f"{i},x,{i},{int(c == 'real')},{c if c == 'real' else fake},{split}/{c}/{i}.jpg"
            for c in ("real", "fake")
            for i in (1, 2)
        ]
        (root / f"{split}.csv").write_text("\n".join(lines))


def test_kaggle_label_1_is_real_there_and_0_here(tmp_path: Path) -> None:
    kaggle(tmp_path)
    found = rows(Kaggle140k(str(tmp_path)).load("val"), "path", "label", "generator")
    base = f"{tmp_path}/real_vs_fake/real-vs-fake/valid"
    assert found == [
        (f"{base}/real/1.jpg", 0, ""),
        (f"{base}/real/2.jpg", 0, ""),
        (f"{base}/fake/1.jpg", 1, "stylegan"),
        (f"{base}/fake/2.jpg", 1, "stylegan"),
    ]
    for csv in tmp_path.glob("*.csv"):
        csv.unlink()
    assert sorted(rows(Kaggle140k(str(tmp_path)).load("val"), "path", "label", "generator")) == sorted(found)


def test_kaggle_table_and_folders_must_agree(tmp_path: Path) -> None:
    kaggle(tmp_path, fake="real")
    refuses(Kaggle140k(str(tmp_path)), "test", "do not belong together")


def test_table_reads_csv_and_parquet_with_aliases(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("img,target,subset,Method,subject\na.png,1,train,adm,7\nb.png,0,valid,,8\n")
    found = rows(Table(str(tmp_path / "t.csv")).load("train"), "path", "label", "generator", "identity")
    assert found == [(f"{tmp_path}/a.png", 1, "adm", "7")]
    pq.write_table(pa.table({"path": ["/x/a.png", "b.png"], "class": ["FAKE", "real"]}), tmp_path / "t.parquet")
    table = Table(str(tmp_path / "t.parquet"), root="/y")
    assert rows(table.load("test"), "path", "label") == [("/x/a.png", 1), ("/y/b.png", 0)]


def test_table_reads_back_every_column(tmp_path: Path) -> None:
    values = ["/x/a.mp4#frame=3", 1, "test", "polygon:1,1,2,1,2,2", "all", 2, "sd15", "diffusion", "inpainting"]
    values += ["male,asian", "v", 3, "i", "s", "c23", "c", "e", 12]
    full = dict(zip(ROW_SCHEMA.names, values, strict=True))
    table = to_table([full, {"path": "/x/b.png", "label": 0, "split": "test"}])
    pq.write_table(table, tmp_path / "t.parquet")
    assert Table(str(tmp_path / "t.parquet")).load("test").equals(table)


def test_table_label_of_fake(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,label\na,0\nb,1\nc,2\n")
    refuses(Table(str(tmp_path / "t.csv"), label_of_fake=0), "train", "one other value must be left")
    refuses(Table(str(tmp_path / "t.csv")), "train", "cannot tell real from fake by the labels 0, 1, 2")


def test_table_names_its_columns(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("where,label\na,0\n")
    with pytest.raises(
        UserError, match=r"no column for 'path': it has where, label; name it with columns: \{path: ...\}"
    ):
        Table(str(tmp_path / "t.csv")).load("train")
    assert len(Table(str(tmp_path / "t.csv"), columns={"path": "where"}).load("train")) == 1
    refuses(Table(str(tmp_path / "t.csv"), columns={"path": "wo"}), "train", "no column 'wo'")


def test_paths_keep_their_order(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "d/z.jpg", "d/e/a.JPEG", "d/x.txt")
    found = Paths([str(tmp_path / "b.png"), str(tmp_path / "d")]).load("test")
    assert [Path(p).name for p in found["path"].to_pylist()] == ["b.png", "a.JPEG", "z.jpg"]
    assert set(found["label"].to_pylist()) == {-1}
    refuses(Paths(["none.png"]), "test", "no file or folder 'none.png'")
    with pytest.raises(UserError, match=r"one of the paths is empty: .* this folder is \.$"):
        Paths(["a.png", ""])
    for name in ("y.png#frame=0", "z.png#xywh=0,0,1,1"):  # all of it is a name
        Image.new("RGB", (7, 5)).save(tmp_path / name, "PNG")
        (path,) = Paths([str(tmp_path / name)]).load("test")["path"].to_pylist()
        assert load_image(path).shape == (5, 7, 3)
    refuses(Paths(["none.png#frame=0"]), "test", "no file or folder 'none.png'")


@pytest.mark.parametrize("kind", ["csv", "parquet", "txt"])
def test_a_list_names_images(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "lists" / f"l.{kind.upper()}"
    touch(tmp_path, "lists/a b.png", "c.jpg")
    paths = ["a b.png", str(tmp_path / "c.jpg")]
    if kind == "parquet":
        pq.write_table(pa.table({"img": paths, "class": ["cat", "dog"]}), file)
    else:
        head = "filename,class\n" if kind == "csv" else "\n"
        file.write_text(head + "\n".join(path + ",cat" * (kind == "csv") for path in paths))
    found = Paths([str(file)]).load("test")
    assert rows(found, "path", "label") == [(f"{tmp_path}/lists/a b.png", -1), (f"{tmp_path}/c.jpg", -1)]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("n.txt", "Dear all,\nhello", r"n.txt is no list of images: none of its 2 lines names a file, .*Dear all"),
        ("n.txt", "", "n.txt is no list of images: it is empty"),
        ("n.txt", "caf\xe9", "cannot read the list .*n.txt"),
        ("n.jsonl", "{}", "n.jsonl is no image; a list of images is a .csv or .parquet with a column path"),
        ("n.yaml", "a: 1", "a data config goes with --data"),
        ("n.csv", "a,b\n1,2\n", "no column for 'path': it has a, b"),
        ("n.7z", "x", "no image in .*n.7z; 1 file was left out: 1 .7z .*; archive: unpack it"),
        ("n.MOV", "x", "1 .mov .*; video: extract frames, or name them: FILE#frame=0"),
    ],
)
def test_what_is_no_list_and_no_image_says_what_to_do(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=said) as error:
        Paths([str(tmp_path / name)]).load("test")
    assert isinstance(error.value, NothingDone) == ("left out" in said or "video" in said)


def test_named_videos_are_left_out_beside_images_and_their_frames_are_taken(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "v.mp4", "w.zip", "d/b.tif", "d/x.webm")
    source = Paths([str(tmp_path / name) for name in ("v.mp4", "a.png", "v.mp4#at=1/2", "d", "w.zip")])
    assert [Path(p).name for p in source.load("test")["path"].to_pylist()] == ["a.png", "2", "b.tif"]
    assert len(source.left_out) == 3

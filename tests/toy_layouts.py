"""Lay the toy set out as five public sets lie on disk: one config then trains and tests through all of them.

As a script: ``python tests/toy_layouts.py TOY FOLDER`` writes the trees and ``FOLDER/layouts.yaml``. The trees are
written here by hand, never by the code of the sources that read them.
"""

import csv
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from dfl.data.toy import make

Row = dict[str, str]
FACES = "FaceForensics++/{}/c23/frames/{}"


def rows_of(toy: Path, domain: str, split: str) -> list[Row]:
    with open(toy / "table.csv", newline="") as file:
        return [row for row in csv.DictReader(file) if (row["domain"], row["split"]) == (domain, split)]


def copy(toy: Path, row: Row, to: Path, column: str = "path") -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(toy / row[column], to)


def forensynths(toy: Path, root: Path, parts: dict[str, list[Row]]) -> None:
    """``{train,val}/progan/<class>/{0_real,1_fake}``."""
    for split in ("train", "val"):
        for row in parts[split]:
            kind = "1_fake" if row["label"] == "1" else "0_real"
            copy(toy, row, root / split / "progan" / "face" / kind / Path(row["path"]).name)


def genimage(toy: Path, root: Path, parts: dict[str, list[Row]]) -> None:
    """``<Generator>/imagenet_*/{train,val}/{ai,nature}``; its ``val`` is the test."""
    for split, folder in (("train", "train"), ("test", "val")):
        for row in parts[split]:
            kind = "ai" if row["label"] == "1" else "nature"
            copy(toy, row, root / "ADM" / "imagenet_ai_0508_adm" / folder / kind / Path(row["path"]).name)


def deepfakebench(toy: Path, root: Path, parts: dict[str, list[Row]]) -> None:
    """A JSON of videos by split, label and compression, frames and masks in twin folders."""
    listed: dict[str, Any] = {"FF-real": {}, "FF-DF": {}}
    for split in ("train", "val", "test"):
        for label in listed:
            listed[label][split] = {"c23": {}}
        for i, row in enumerate(parts[split]):
            fake = row["label"] == "1"
            top, label = (
                ("manipulated_sequences/Deepfakes", "FF-DF") if fake else ("original_sequences/youtube", "FF-real")
            )
            video = f"{split}_{row['identity']}"
            name = FACES.format(top, video) + f"/{i:03d}{Path(row['path']).suffix}"
            copy(toy, row, root / "datasets/rgb" / name)
            if row["mask"]:
                copy(toy, row, root / "datasets/rgb" / name.replace("frames", "masks"), "mask")
            videos = listed[label][split]["c23"]
            videos.setdefault(video, {"label": label, "frames": []})["frames"].append(f"./datasets/rgb/{name}")
    (root / "FF-DF.json").write_text(json.dumps({"FF-DF": listed}))


def sid_set(toy: Path, root: Path, parts: dict[str, list[Row]]) -> None:
    """Parquet shards with images and masks inside, three classes."""
    (root / "data").mkdir(parents=True)
    for split, name in (("train", "train"), ("val", "validation"), ("test", "test")):

        def held(row: Row, column: str) -> Any:
            path = row[column]
            return {"bytes": (toy / path).read_bytes(), "path": path} if path else None

        rows = parts[split]
        columns = {
            "img_id": [Path(r["path"]).stem for r in rows],
            "image": [held(r, "path") for r in rows],
            "mask": [held(r, "mask") if r["class_label"] == "2" else None for r in rows],
            "label": [int(r["class_label"]) for r in rows],
        }
        pq.write_table(pa.table(columns), root / "data" / f"{name}-00000-of-00001.parquet", row_group_size=64)


def imdl_benco(toy: Path, root: Path, rows: list[Row]) -> None:
    """``Tp``, ``Gt`` and ``Au``."""
    for row in rows:
        name = Path(row["path"]).name
        if row["class_label"] == "2":
            copy(toy, row, root / "Tp" / name)
            copy(toy, row, root / "Gt" / f"{Path(name).stem}_gt.png", "mask")
        elif row["label"] == "0":
            copy(toy, row, root / "Au" / name)


def spai(toy: Path, root: Path, parts: dict[str, list[Row]]) -> None:
    """A CSV beside nothing: it names the toy set's own files."""
    root.mkdir(parents=True)
    with open(root / "spai.csv", "w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["image", "class", "split"])
        for split, rows in parts.items():
            lines.writerows([str((toy / r["path"]).absolute()), r["label"], split] for r in rows)


def lay_out(toy: Path, root: Path) -> Path:
    """Write the trees and a data config that trains on three of them and tests on five; return the config.

    A third of the training people go to each of the three sets.
    """
    same = {split: rows_of(toy, "same", split) for split in ("train", "val", "test")}
    people = sorted({row["identity"] for row in same["train"]})
    thirds = [
        same | {"train": [row for row in same["train"] if people.index(row["identity"]) % 3 == i]} for i in range(3)
    ]
    forensynths(toy, root / "forensynths", thirds[0])
    sid_set(toy, root / "sid_set", thirds[1])
    deepfakebench(toy, root / "deepfakebench", thirds[2])
    genimage(toy, root / "genimage", {"train": [], "test": rows_of(toy, "unseen_generator", "test")})
    imdl_benco(toy, root / "imdl_benco", same["test"])
    spai(toy, root / "spai", {"test": rows_of(toy, "other_camera", "test")})

    def one(name: str, **arguments: Any) -> dict[str, Any]:
        return {
            "class_path": name,
            "init_args": {k: str(v) if isinstance(v, Path) else v for k, v in arguments.items()},
        }

    sid = one("SidSet", root=root / "sid_set")
    bench = one(
        "DeepfakeBench",
        json=root / "deepfakebench/FF-DF.json",
        root=root / "deepfakebench/datasets/rgb",
        masks=True,
    )
    held = {
        "train": [one("ForenSynths", root=root / "forensynths"), sid, bench],
        "val": {"forensynths": one("ForenSynths", root=root / "forensynths")},
        "test": {
            "sid_set": sid,
            "deepfakebench": bench,
            "genimage": one("GenImage", root=root / "genimage"),
            "imdl_benco": one("ImdlBenco", file=root / "imdl_benco"),
            "spai": one("Spai", file=root / "spai/spai.csv"),
        },
    }
    file = root / "layouts.yaml"
    file.write_text(yaml.safe_dump({"class_path": "DataModule", "init_args": held}, sort_keys=False))
    return file


if __name__ == "__main__":
    make(sys.argv[1])
    print(lay_out(Path(sys.argv[1]), Path(sys.argv[2])))

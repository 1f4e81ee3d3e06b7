"""The toy set: the same everywhere, whole or not there, and nothing but the pictures' content gives the label away."""

import csv
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dfl.data import Toy
from dfl.data.toy import DOMAINS, check_group, main, make
from dfl.data.toy.generators import CAMERAS, photograph
from dfl.data.toy.make import _is_left_out
from dfl.errors import UserError
from tests.data.sources.layouts import refuses

Rows = list[dict[str, str]]
GROUP = "shirt=plum,eyes=glasses"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rows]:
    root = tmp_path_factory.mktemp("toy") / "set"
    return root, rows_of(make(root, n=1000, size=96, workers=2, progress=False))


def test_another_seed_gives_other_pictures(unfair: tuple[Path, Path], tmp_path: Path) -> None:
    other = make(tmp_path / "other", n=80, size=32, seed=1, workers=1, progress=False).parent
    name = "images/same_train_00000.jpg"
    assert (other / name).read_bytes() != (unfair[0].parent / name).read_bytes()


@pytest.fixture(scope="module")
def unfair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The table of a plain set, and of one that is unfair to a group."""
    root = tmp_path_factory.mktemp("unfair")
    words: dict[str, int] = {"size": 32, "workers": 1}
    plain = make(root / "plain", n=160, **words, progress=False)
    return plain, make(root / "unfair", n=320, **words, progress=False, unfair_group="plum-glasses")


def rows_of(table: Path) -> Rows:
    with open(table) as file:
        return list(csv.DictReader(file))


def test_an_unfair_group_has_fewer_fakes_in_training_alone(unfair: tuple[Path, Path]) -> None:
    rows = rows_of(unfair[1])
    assert {(r["domain"], r["split"]) for r in rows} == {("same", s) for s in ("train", "val", "test")}
    count = Counter((r["split"], r["group"], r["label"]) for r in rows)
    groups = {r["group"] for r in rows}
    assert len(groups) == 8
    assert {count["test", g, y] for g in groups for y in "01"} == {10}, "125 of 4,000"
    assert {count["train", g, y] for g in groups for y in "01"} - {count["train", GROUP, "1"]} == {8}
    rare = Counter(r["generator"] for r in rows if (r["split"], r["group"]) == ("train", GROUP))
    assert rare == {"": 8, "zero_insertion": 1, "swap": 1, "nearest": 1, "inpaint": 1}
    assert sum(_is_left_out(number, "plum-glasses") for number in range(2048)) == 128 - 4, "one in 32, in 64 rounds"


def test_an_unfair_group_has_noisier_fakes_and_all_else_is_the_plain_set(unfair: tuple[Path, Path]) -> None:
    plain, other = (table.parent for table in unfair)
    shared = [r for r in rows_of(unfair[1]) if (plain / r["path"]).is_file()]
    hard = [r for r in shared if (r["split"], r["group"], r["label"]) == ("train", GROUP, "1")]
    assert len(shared) > 90
    assert [r["path"] for r in shared if (plain / r["path"]).read_bytes() != (other / r["path"]).read_bytes()] == [
        r["path"] for r in hard
    ]
    for row in hard:
        was, now = (np.asarray(Image.open(root / row["path"]), np.float32) / 255 for root in (plain, other))
        assert 0.02 < (now - was).std() < 0.07
        assert abs((now - was).mean()) < 0.02


def test_an_unfair_group_may_be_all_that_share_an_attribute() -> None:
    numbers = range(1, 2048, 2)  # the fakes of 64 rounds of the eight intersections, two each
    for unfair, groups in (("plum-glasses", 1), ("plum", 2), ("glasses", 4)):
        check_group(unfair)
        assert sum(_is_left_out(number, unfair) for number in numbers) == groups * (128 - 4), unfair


def test_an_unfair_set_says_what_does_not_fit(unfair: tuple[Path, Path], tmp_path: Path) -> None:
    here = str(unfair[1].parent)
    source = Toy(here, n=320, size=32, unfair_group="plum-glasses")
    source.prepare()
    assert source.load("test").num_rows == 160
    with pytest.raises(UserError, match="other settings .unfair_group plum-glasses, now None.; .* remove it"):
        Toy(here, n=320, size=32).prepare()
    with pytest.raises(UserError, match="no group 'plum-glases'; did you mean 'plum-glasses'"):
        main(["--root", str(tmp_path / "toy"), "--unfair_group", "plum-glases"])
    with pytest.raises(UserError, match="has the domain 'same' alone, not 'other_camera'"):
        Toy(here, "other_camera", unfair_group="plum-glasses")


def test_an_aligned_set_has_every_photo_real_and_forged_by_each_generator(tmp_path: Path) -> None:
    source = Toy(str(tmp_path / "a"), n=80, size=32, aligned=True)
    source.prepare()
    rows = rows_of(tmp_path / "a" / "table.csv")
    assert Counter((r["domain"], r["split"]) for r in rows)["same", "train"] == 40
    for domain, (names, _) in DOMAINS.items():
        own = [r for r in rows if r["domain"] == domain]
        for photo in {r["source"] for r in own}:
            together = [r for r in own if r["source"] == photo]
            assert [r["generator"] for r in together] == ["", *names]
            assert len({(r["identity"], r["caption"], r["quality"]) for r in together}) == 1
    pixels = {r["path"]: np.asarray(Image.open(tmp_path / "a" / r["path"]), np.float32).ravel() for r in rows}
    photos = [r for r in rows if r["label"] == "0"]
    for row in rows:
        alike = [np.corrcoef(pixels[row["path"]], pixels[photo["path"]])[0, 1] for photo in photos]
        assert photos[int(np.argmax(alike))]["source"] == row["source"], "a forgery is most like its own photo"
    assert set(source.load("train")["source"].to_pylist()) >= {"same-train-00000", "same-train-00007"}
    with pytest.raises(UserError, match="aligned or has an unfair_group"):
        make(tmp_path / "b", n=80, size=32, aligned=True, unfair_group="plum")


def test_every_column_is_filled_and_labels_agree(toy: tuple[Path, Rows]) -> None:
    root, rows = toy
    for row in rows:
        real = row["label"] == "0"
        assert bool(row["generator"]) == bool(row["family"]) == (not real)
        assert bool(row["mask"]) == (row["family"] == "edit")
        assert row["class_label"] == ("0" if real else "2" if row["family"] == "edit" else "1")
        assert all(row[name] for name in ("group", "identity", "caption", "explanation"))
        image = Image.open(root / row["path"])
        assert (image.format, image.size, image.mode) == ("JPEG", (96, 96), "RGB")
        if row["mask"]:
            mask = np.asarray(Image.open(root / row["mask"]))
            assert mask.shape == (96, 96)
            assert set(np.unique(mask)) == {0, 255}
            assert 0.02 < (mask > 0).mean() < 0.6


def test_groups_and_labels_are_independent_and_splits_share_nobody(toy: tuple[Path, Rows]) -> None:
    _, rows = toy
    same = [r for r in rows if (r["domain"], r["split"]) == ("same", "train")]
    assert Counter(r["label"] for r in same) == {"0": 250, "1": 250}
    counts = Counter((r["group"], r["label"]) for r in same)
    assert len(counts) == 16
    assert all(counts[g, "0"] == counts[g, "1"] for g, _ in counts)
    by_group = Counter((r["group"], r["generator"]) for r in same if r["generator"])
    assert len(by_group) == 32, "every generator meets every group"
    sides: dict[str, set[tuple[str, str]]] = {}
    for r in rows:
        sides.setdefault(r["identity"], set()).add((r["domain"], r["split"]))
    assert all(len(s) == 1 for s in sides.values())


def test_domains_are_what_they_are_called(toy: tuple[Path, Rows]) -> None:
    _, rows = toy
    generators = {d: {r["generator"] for r in rows if r["domain"] == d} - {""} for d in {r["domain"] for r in rows}}
    family = {r["generator"]: r["family"] for r in rows}
    trained = {r["generator"] for r in rows if r["split"] == "train"} - {""}
    assert generators["other_camera"] == trained
    assert not generators["unseen_generator"] & trained
    assert {family[g] for g in generators["unseen_generator"]} == {family[g] for g in trained}
    assert not {family[g] for g in generators["unseen_family"]} & {family[g] for g in trained}


def features(root: Path, rows: Rows) -> dict[str, np.ndarray]:
    colour, spectrum, meta = [], [], []
    for row in rows:
        path = root / row["path"]
        image = Image.open(path)
        pixels = np.asarray(image, np.float32)
        bins = [np.histogram(pixels[..., c], 16, (0, 256))[0] / pixels[..., c].size for c in range(3)]
        colour.append(np.concatenate([pixels.mean((0, 1)), pixels.std((0, 1)), *bins]))
        grey = pixels.mean(2)
        power = np.log(np.abs(np.fft.fftshift(np.fft.fft2(grey - grey.mean()))) ** 2 + 1e-3)
        y, x = np.indices(grey.shape) - grey.shape[0] // 2
        radius = np.hypot(x, y).astype(int).ravel()
        spectrum.append(np.bincount(radius, power.ravel()) / np.bincount(radius))
        tables = [sum(t) for t in image.quantization.values()]
        size = path.stat().st_size
        meta.append([size, size * 8 / grey.size, *tables, size / tables[0]])
    return {"colour": np.array(colour), "spectrum": np.array(spectrum), "metadata": np.array(meta, float)}


def test_shortcuts_do_not_solve_it(toy: tuple[Path, Rows]) -> None:
    root, rows = toy
    columns = features(root, rows)
    label = np.array([int(r["label"]) for r in rows])
    train = np.array([r["split"] == "train" for r in rows])
    same = np.array([r["domain"] == "same" and r["split"] != "train" for r in rows])
    unseen = np.array([r["domain"] == "unseen_generator" for r in rows])
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    forest = RandomForestClassifier(200, min_samples_leaf=5, random_state=0)
    auroc = {}
    for name, model in (("colour", linear), ("spectrum", linear), ("metadata", forest)):
        model.fit(columns[name][train], label[train])
        score = model.predict_proba(columns[name])[:, 1]
        auroc[name] = [roc_auc_score(label[part], score[part]) for part in (same, unseen)]
    assert auroc["colour"][0] < 0.65
    assert auroc["metadata"][0] < 0.65, "the size of the file is content; format, size and tables are equal"
    assert 0.5 < auroc["spectrum"][0] < 0.90
    assert auroc["spectrum"][1] < auroc["spectrum"][0]
    tables = columns["metadata"][:, 2:-1]  # format and size are the same for all: see above
    score = forest.fit(tables[train], label[train]).predict_proba(tables)[:, 1]
    assert 0.4 < roc_auc_score(label[same], score[same]) < 0.6, "at chance without the size of the file"


def test_noise_of_the_camera_grows_with_the_light() -> None:
    rng = np.random.default_rng(0)
    dark, bright = (photograph(np.full((64, 64, 3), v, np.float32), CAMERAS["other"], rng).std() for v in (0.02, 0.9))
    assert bright > 1.15 * dark


def test_source_gives_the_rows_of_its_domain(toy: tuple[Path, Rows]) -> None:
    root, rows = toy
    source = Toy(str(root), domain="unseen_family", n=1000, size=96)
    source.prepare()
    table = source.load("test")
    assert table["path"].to_pylist() == [str(root / r["path"]) for r in rows if r["domain"] == "unseen_family"]
    with pytest.raises(UserError, match="no domain 'unseen_familly'; did you mean 'unseen_family'"):
        Toy(domain="unseen_familly")
    refuses(Toy("nowhere"), "train", "no toy set .*dfl toy makes it.* at ")
    refuses(source, "train", "no image in split 'train'")
    shutil.rmtree(root.parent / "none", ignore_errors=True)

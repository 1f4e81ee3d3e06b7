"""Samples, batches and loaders: what comes when, what is known of it, and what happens to what cannot be read."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dfl.data import DataModule, Folder, ImageDataset, Table, Transform
from dfl.data.batch import collate
from dfl.data.sampler import EvalSampler, TrainSampler, balanced, shuffled
from dfl.errors import UserError

PARTS = {"train": 0.6, "val": 0.2, "test": 0.2}


def trainer(
    epoch: int = 0, done: int = 0, rank: int = 0, world: int = 1, finished: bool = False, limit: float = 1.0
) -> Any:
    """What a sampler asks of a trainer that has trained ``done`` batches of ``epoch``."""
    epochs = SimpleNamespace(current=SimpleNamespace(ready=epoch + 1, processed=epoch + finished))
    batches = SimpleNamespace(current=SimpleNamespace(processed=done))
    loop = SimpleNamespace(epoch_progress=epochs, epoch_loop=SimpleNamespace(batch_progress=batches))
    return SimpleNamespace(fit_loop=loop, global_rank=rank, world_size=world, limit_train_batches=limit)


def test_sampler_resumes_in_the_order_of_the_epoch() -> None:
    whole = list(TrainSampler(shuffled(103, 7), 103, 5, trainer(epoch=2)))
    assert len({row for row, _ in whole}) == 100
    assert {epoch for _, epoch in whole} == {2}
    assert list(TrainSampler(shuffled(103, 7), 103, 5, trainer(epoch=2, done=19))) == whole[95:]
    after = list(TrainSampler(shuffled(103, 7), 103, 5, trainer(epoch=3)))
    assert after != whole
    assert list(TrainSampler(shuffled(103, 7), 103, 5, trainer(epoch=2, done=20))) == after, "saved on the last batch"
    assert list(TrainSampler(shuffled(103, 7), 103, 5, trainer(epoch=2, done=20, finished=True))) == after, "after it"
    assert list(TrainSampler(shuffled(103, 7), 103, 5, trainer(epoch=2, done=4, limit=4))) == after, (
        "limit_train_batches"
    )


def test_ranks_share_a_set_that_fills_no_batch() -> None:
    short = [list(TrainSampler(shuffled(5, 0), 5, 4, trainer(rank=r, world=2))) for r in (0, 1)]
    assert len(short[0]) == len(short[1]) == 3
    assert {row for rows in short for row, _ in rows} == set(range(5))


def test_evaluation_sees_every_row_once_and_pads_with_marked_rows() -> None:
    for n, world in ((10, 1), (10, 4), (3, 4), (1, 3)):
        rows = [list(EvalSampler(n, rank, world)) for rank in range(world)]
        assert len({len(r) for r in rows}) == 1
        assert sorted(i for r in rows for i in r if i >= 0) == list(range(n))


def test_balanced_order_has_half_of_each_class() -> None:
    label = np.array([0] * 90 + [1] * 10)
    order = balanced(label, 0)(0)
    assert np.bincount(label[order]).tolist() == [50, 50]
    assert np.bincount(order, minlength=100)[90:].tolist() == [5] * 10
    assert len(np.unique(order[label[order] == 0])) == 50
    assert not np.array_equal(order, balanced(label, 0)(1))


def module(faces: Path, **words: Any) -> DataModule:
    return DataModule(Folder(str(faces), fractions=PARTS), size=32, num_workers=0, batch_size=4, **words)


def test_a_sample_has_every_key_of_a_batch(faces: Path) -> None:
    data = module(faces)
    data.setup("fit")
    batch = collate([data.sets["train"]["train"][i] for i in range(4)])
    assert batch["image"].dtype == torch.uint8
    assert batch["image"].shape == (4, 3, 32, 32)
    assert batch["mask"].shape == (4, 32, 32)
    assert batch["has_mask"].tolist() == [x == 0 for x in batch["label"].tolist()]
    assert batch["index"].tolist() == [0, 1, 2, 3]
    assert batch["identity"].tolist() == [-1] * 4
    assert batch["path"][0].startswith(str(faces))
    assert batch["caption"] == [""] * 4
    assert set(data.domains("val")) == {"same"}


def test_augmentation_depends_on_seed_epoch_and_row_alone(faces: Path) -> None:
    data = module(faces, transform=Transform(augment="light"))
    data.setup("fit")
    train = data.sets["train"]["train"]
    first = train[(3, 1)]["image"]
    train[(5, 2)]
    assert torch.equal(train[(3, 1)]["image"], first)
    assert not torch.equal(train[(3, 2)]["image"], first)
    val = data.sets["val"]["same"]
    assert torch.equal(val[0]["image"], val[-1]["image"])
    assert (val[0]["index"], val[-1]["index"]) == (0, -1)


def test_vocabulary_outlives_the_run(tmp_path: Path, faces: Path) -> None:
    paths = sorted(faces.rglob("*.png"))[28:32]  # two of each class
    lines = [
        f"{p},{int('fake' in str(p))},{s},{g}"
        for p, s, g in zip(paths, ("test", "train", "train", "val"), ("b", "c", "b", "a"), strict=True)
    ]
    (tmp_path / "t.csv").write_text("path,label,split,generator\n" + "\n".join(lines))
    fitted = DataModule(Table(str(tmp_path / "t.csv")), size=32)
    fitted.setup("fit")
    assert fitted.vocab["generator"] == {"b": 1, "c": 2, "a": 3}
    tested = DataModule(test={"x": Table(str(tmp_path / "t.csv"))}, size=32)
    tested.setup("test")
    tested.load_state_dict(fitted.state_dict())
    assert tested.sets["test"]["x"][0]["generator"] == 1


@pytest.fixture
def spoilt(faces: Path, tmp_path: Path) -> Path:
    """The faces with one image cut off."""
    root = tmp_path / "spoilt"
    for p in faces.rglob("*.png"):
        (root / p.parent.name).mkdir(parents=True, exist_ok=True)
        (root / p.parent.name / p.name).write_bytes(p.read_bytes())
    (root / "fake" / "07.png").write_bytes((root / "fake" / "07.png").read_bytes()[:500])
    return root


def dataset(root: Path, **words: Any) -> tuple[ImageDataset, int]:
    table = Folder(str(root)).load("train")
    view = Transform().eval(32)
    return ImageDataset(table, view, 32, {}, **words), table["path"].to_pylist().index(str(root / "fake" / "07.png"))


def test_unreadable_images_are_raised_skipped_or_replaced(spoilt: Path) -> None:
    data, row = dataset(spoilt)
    with pytest.raises(UserError, match="cannot read .*07.png"):
        data[row]
    data, row = dataset(spoilt, on_bad="skip")
    batch = collate([data[0], data[row], data[2]])
    assert batch["index"].tolist() == [0, 2]
    assert [path for path, _ in batch["bad"]] == [data.path(row)]
    alone = collate([data[row]])
    assert alone["index"].tolist() == [-1], "evaluation pads with a row that no metric counts"
    data, row = dataset(spoilt, on_bad="skip", training=True)
    with pytest.raises(UserError, match="no image of a training batch"):
        collate([data[row]])
    data, row = dataset(spoilt, on_bad="substitute", training=True)
    again = data[(row, 3)]
    assert again["label"] == 1
    assert again["path"] != data.path(row)
    assert again["path"] == data[(row, 3)]["path"]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_is_its_samples(spoilt: Path, workers: int) -> None:
    table = Folder(str(spoilt)).load("train")
    data = ImageDataset(table, Transform(augment="cnnf").train(32), 32, {}, training=True, on_bad="skip")
    keys = [(row, 2) for row in range(len(data))]
    loader = DataLoader(data, batch_size=16, sampler=keys, collate_fn=collate, num_workers=workers)  # type: ignore[arg-type]
    batches = list(loader)
    assert sum(len(batch["bad"]) for batch in batches) == 1
    found = torch.cat([batch["image"] for batch in batches])
    rows = torch.cat([batch["index"] for batch in batches]).tolist()
    assert rows == [row for row in range(len(data)) if not data[row]["bad"]]
    assert torch.equal(found, torch.stack([data[(row, 2)]["image"] for row in rows]))
    assert all(batch["image"].is_contiguous() for batch in batches)
    assert all(batch["mask"].shape == (len(batch["label"]), 32, 32) for batch in batches)


def test_too_many_unreadable_images_end_the_run(spoilt: Path) -> None:
    data = module(spoilt, on_bad="skip", max_bad=0.01)
    data.trainer = SimpleNamespace(training=True, testing=False, predicting=False, world_size=1)
    data.setup("fit")
    data.on_before_batch_transfer({"bad": [("a", "torn")]}, 0)
    with pytest.raises(UserError, match="2 of 36 images of train/train cannot be read, more than max_bad=0.01"):
        data.on_before_batch_transfer({"bad": [("b", "torn")]}, 0)


def test_training_images_are_not_validated_on(faces: Path) -> None:
    with pytest.raises(UserError, match=r"60 images of val/same are trained on too"):
        DataModule(Folder(str(faces)), size=32).setup("fit")
    DataModule(Folder(str(faces)), size=32, allow_overlap=True).setup("fit")


def test_names_and_gaps_are_errors(faces: Path) -> None:
    with pytest.raises(UserError, match="must not hold '.'"):
        DataModule(test={"a.b": Folder(str(faces))})
    with pytest.raises(UserError, match="nothing to train on"):
        DataModule(size=32).setup("fit")


def test_class_weights_level_the_classes(tmp_path: Path, faces: Path) -> None:
    lines = [f"{p},{int(i < 3)}" for i, p in enumerate(sorted(faces.rglob("*.png"))[:12])]
    (tmp_path / "t.csv").write_text("path,label\n" + "\n".join(lines))
    data = DataModule(Table(str(tmp_path / "t.csv")), size=32, balance="weights", allow_overlap=True)
    data.setup("fit")
    train = data.sets["train"]["train"]
    assert (train[0]["weight"], train[5]["weight"]) == pytest.approx((2.0, 12 / 18))


def test_order_follows_the_seed_of_the_run(faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "5")
    assert module(faces).seed == 5
    assert module(faces, seed=3).seed == 3
    monkeypatch.delenv("PL_GLOBAL_SEED")
    assert module(faces).seed == 0


def test_a_set_without_splits_is_not_tested_on_after_training(faces: Path) -> None:
    with pytest.raises(UserError, match="60 images of test/same are trained on too"):
        DataModule(Folder(str(faces)), size=32).setup("test")
    DataModule(test={"x": Folder(str(faces))}, size=32).setup("test")


@pytest.mark.parametrize("words", [{"batch_size": 0}, {"batch_size": -3}, {"eval_batch_size": 0}, {"num_workers": -1}])
def test_counts_that_are_none_are_one_line(words: dict[str, int]) -> None:
    with pytest.raises(UserError, match=r"data\.\w+ is -?\d: it must be at least [01]"):
        DataModule(**words)

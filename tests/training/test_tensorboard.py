"""What the callback writes comes back out of TensorBoard's own readers."""

import csv
from pathlib import Path

import pytest
from brightness import Brightness, data, trainer
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.metadata import (
    EXPERIMENT_TAG,
    SESSION_END_INFO_TAG,
    SESSION_START_INFO_TAG,
    parse_session_start_info_plugin_data,
)

from dfl.errors import UserError
from dfl.training.loggers import OwnVersion
from dfl.training.progress import Speed
from dfl.training.tensorboard import TensorBoardInspect

pytestmark = pytest.mark.filterwarnings("ignore:domain ", "ignore:validation AUROC")
LOOKS_AT_FIGURES = True


def fit(
    faces: Path, folder: Path, inspect: TensorBoardInspect, test: bool = False, other: Logger | None = None, **words
) -> EventAccumulator:
    logger = TensorBoardLogger(folder / "logs", "a", default_hp_metric=False)
    (folder / "data").mkdir()
    words["logger"] = [logger, other] if other else logger
    run, module, source = trainer(folder, inspect, **words), Brightness(), data(faces, folder / "data")
    run.run_config = {"model": {"class_path": "Brightness", "init_args": {"depth": 3, "on": True, "no": None}}}
    run.run_config |= {"name": "a", "data": {"init_args": {"batch_size": 4, "test": {"own": {"root": "x"}}}}}
    run.fit(module, source)
    if test:
        run.test(module, source, verbose=False)
    logger.experiment.close()
    events = EventAccumulator(logger.log_dir, size_guidance={"images": 0, "scalars": 0})
    return events.Reload()


@pytest.fixture(scope="module")
def drawn(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[EventAccumulator, Path]:
    """What a run with a test left in TensorBoard and in the folder of a CSV logger."""
    folder = tmp_path_factory.mktemp("drawn")
    other = CSVLogger(folder, "csv")
    events = fit(faces, folder, TensorBoardInspect(window=3), test=True, other=other, num_sanity_val_steps=2)
    return events, Path(other.log_dir)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what is logged beside the figures."""
    monkeypatch.setattr(TensorBoardInspect, "_draw", lambda *_: None)


def test_every_domain_is_drawn_at_every_validation_and_test(drawn: tuple[EventAccumulator, Path]) -> None:
    events, _ = drawn
    names = {"val": ("own", "odd"), "test": ("own", "odd", "lone")}
    tags = {
        f"{split}/{name}"
        for split, domains in names.items()
        for name in ("roc", "pr", *(f"{d}/{kind}" for d in domains for kind in ("scores", "most_wrong")))
    }
    assert set(events.Tags()["images"]) == tags
    curve = [event.step for event in events.Scalars("val/own/auroc")]
    assert len(curve) == 2
    assert all([e.step for e in events.Images(tag)] == curve for tag in tags if tag.startswith("val/"))


def test_csv_has_the_same_numbers_settings_and_figures(drawn: tuple[EventAccumulator, Path]) -> None:
    events, folder = drawn
    pictures = {f"figures/{tag}/{one.step}.png" for tag in events.Tags()["images"] for one in events.Images(tag)}
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")} == pictures
    with (folder / "metrics.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    for tag in ("val/own/auroc", "test/odd/eer", "train/images_per_second"):
        values = [(event.step, pytest.approx(event.value, rel=1e-6)) for event in events.Scalars(tag)]
        assert [(int(row["step"]), float(row[tag])) for row in rows if row[tag]] == values, tag
    assert "model.depth: 3" in (folder / "hparams.yaml").read_text()


def test_pictures_can_be_rarer(faces: Path, tmp_path: Path) -> None:
    events = fit(faces, tmp_path, TensorBoardInspect(k=0, every=2))
    assert len(events.Images("val/roc")) == 1
    assert "val/own/most_wrong" not in events.Tags()["images"]


@pytest.mark.usefixtures("undrawn")
def test_settings_are_a_session_whose_metrics_tensorboard_finds_itself(faces: Path, tmp_path: Path) -> None:
    events = fit(faces, tmp_path, TensorBoardInspect())
    content = events.SummaryMetadata(SESSION_START_INFO_TAG).plugin_data.content
    pairs = parse_session_start_info_plugin_data(content).hparams.items()
    hparams = {k: v.number_value or v.string_value for k, v in pairs}
    assert hparams == {"model": "Brightness", "model.depth": 3, "model.on": "True", "data.batch_size": 4}
    assert events.SummaryMetadata(SESSION_END_INFO_TAG).plugin_data.plugin_name == "hparams"
    with pytest.raises(KeyError):  # a list of metrics would count for all runs of the folder
        events.SummaryMetadata(EXPERIMENT_TAG)


def test_images_per_second_are_of_the_training_steps_alone() -> None:
    now = [0.0]
    speed = Speed(lambda: now[0])
    for at in (5.0, 6.0, 8.0):  # the first step waited for the loader
        now[0] = at
        speed.add(30)
    assert speed.take() == 60 / 3
    assert speed.take() is None
    now[0] = 9.0
    speed.add(10)
    assert speed.take() == 10
    speed.stop()
    now[0] = 100.0
    speed.add(10)
    assert speed.take() is None


@pytest.mark.usefixtures("undrawn")
def test_images_per_second_are_logged_by_window(faces: Path, tmp_path: Path) -> None:
    events = fit(faces, tmp_path, TensorBoardInspect(window=3))
    logged = events.Scalars("train/images_per_second")
    # 9 steps an epoch, from 0: the first starts the clock, then come 3, 3, and the rest at the end
    assert [event.step for event in logged] == [3, 6, 8, 12, 15, 17]
    assert all(event.value > 0 for event in logged)


def test_what_is_gone_is_named() -> None:
    with pytest.raises(UserError, match="no longer has projector"):
        TensorBoardInspect(projector=8)


def test_two_runs_that_start_at_once_have_folders_of_their_own(tmp_path: Path) -> None:
    first, second = (OwnVersion(tmp_path, "run") for _ in range(2))
    assert (first._fs.ls(tmp_path), first.version, second.version) == ([], 0, 1)
    assert (first.version, OwnVersion(tmp_path, "run").version) == (0, 2)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"version_0", "version_1", "version_2"}

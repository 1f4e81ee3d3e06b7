"""A checkpoint is data: what is taken from it, what never, and where the settings of one's own runs lie."""

import copy
import os
import shutil
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml
from huggingface_hub import constants as hub_constants

from dfl import detectors
from dfl.cli import arguments, order
from dfl.cli.checkpoints import data_module, read
from dfl.detectors import Classifier
from dfl.errors import UserError
from dfl.runs import settings
from dfl.runs.checkpoint import AtomicCheckpointIO, read_checkpoint

Content = dict[str, Any]
RUN = {
    "model": {"class_path": "dfl.detectors.Classifier", "init_args": {"backbone": "test_resnet", "weights": None}},
    "data": {"class_path": "dfl.data.DataModule", "init_args": {"batch_size": 8, "transform": {"resize": "squash"}}},
    "trainer": {"max_epochs": 3},
    "seed_everything": 0,
    "name": "a",
}


class Mine(Classifier):
    """A class of a user's own."""


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Content:
    """What a small checkpoint holds."""
    return saved(Classifier("test_resnet", pretrained=False, input_size=32), tmp_path_factory.mktemp("made") / "a.ckpt")


def saved(detector: Classifier, path: Path) -> Content:
    trainer = pl.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    trainer.strategy.connect(detector)
    trainer.save_checkpoint(path)
    return torch.load(path, weights_only=True)


def write(content: Content, change: Callable[[Content], Any] = lambda c: None, path: str = "x.ckpt") -> Path:
    """Write a changed copy."""
    changed = copy.deepcopy(content)
    change(changed)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    torch.save(changed, path)
    return Path(path)


def refused(path: Path, **words: Any) -> str:
    """Return the one printable line with which a file is refused."""
    with pytest.raises(UserError) as error:
        read(path, Path("."), **words)
    assert str(error.value).isprintable()
    return str(error.value)


def hyper(**values: Any) -> Callable[[Content], Any]:
    return lambda c: c["hyper_parameters"].update(values)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (hyper(optimizer='{"class_path": "evil.Opt"}'), "optimizer is"),
        (hyper(optimizer={"class_path": "évil.Opt"}), "optimizer is"),
        (hyper(scheduler="evil.make"), "scheduler is"),
        (hyper(backbone="hf-hub:someone/model"), "backbone is"),
        (hyper(backbone="http://127.0.0.1/x"), "backbone is"),
        (hyper(timm_args={"checkpoint_path": "evil.pth"}), "'checkpoint_path', which a file cannot give"),
        (hyper(timm_args={"pretrained_cfg": {"url": "http://127.0.0.1/x"}}), "'pretrained_cfg', which a file"),
        (hyper(timm_args={"pretrained_cfg_overlay": {"file": "evil.pth"}}), "'pretrained_cfg_overlay', which"),
        (hyper(timm_args={"num_classes": 10**8}), "num_classes that is"),
        (hyper(input_size=-5), "input_size is -5"),
        (hyper(input_size="32"), "an integer"),
        (hyper(input_size=10**400), "between"),
        (hyper(norm_eval=-(10**400)), "true or false"),
        (hyper(mean=[0.5, 0.5]), "a list of 3"),
        (hyper(criterion={"class_path": "os.system"}), "one of"),
        (hyper(stranger=1), "does not take"),
        # seen before memory is taken, and where the file names weights too
        (hyper(timm_args={"num_classes": 900_000}), "900000"),
        (hyper(weights="evil.pth", timm_args={"num_classes": 900_000}), "does not fit"),
        (lambda c: c["state_dict"].pop(first(c)), "the file does not"),
        (lambda c: c.update(hyper_parameters=[1]), "hyper-parameters are a list"),
        (lambda c: c.update(state_dict=None), "no state_dict"),
        (lambda c: c["dfl"].update(class_path=7), "the detector 7"),
        (lambda c: c["dfl"].update(class_path="os.system"), "'os.system', which is not imported"),
        (lambda c: c["dfl"].update(class_path="\x1b[31mx.Y"), "which is not imported"),
        (lambda c: c["dfl"].update(backbone={"name": "x", "sha256": 3, "keys": []}), "which frozen weights"),
        (lambda c: c["dfl"].update(backbone={"name": "x", "sha256": "0", "keys": "all"}), "which frozen weights"),
        (lambda c: c.update(dfl="text"), "does not say which detector"),
        (lambda c: c.update(epoch="seven"), "epoch is no count"),
        (lambda c: c.update(epoch=10**500), "epoch is no count"),
        (lambda c: c["dfl"].update(run=torch.zeros(3)), "not to be trusted: IndexError"),
        (lambda c: c["state_dict"].update({"evil\x1b[31m": torch.zeros(1)}), "it has 'evil\\x1b[31m'"),
        (lambda c: c["state_dict"].update(threshold=torch.tensor(float("inf"))), "'threshold' is no probability"),
        (lambda c: c["state_dict"].update(threshold=torch.tensor(-3.0)), "'threshold' is no probability"),
        (lambda c: c.update(DataModule={"vocab": {"video": {"a": -1}}}), "vocabulary"),
        (lambda c: c.update(DataModule={"vocab": {"video": {"a": 10**30}}}), "vocabulary"),
        (lambda c: c.update(DataModule={"vocab": "x"}), "vocabulary"),
        (lambda c: c.update(DataModule={"vocab": {"group": {"a": "b"}}}), "vocabulary"),
        (lambda c: c.update(DataModule={"vocab": {}, "transform": {"resize": "evil.make"}}), "resize is"),
        (lambda c: c.update(DataModule={"vocab": {}, "transform": {"crop_ratio": []}}), "crop_ratio is"),
    ],
)
def test_what_is_no_plain_value_is_one_line(content: Content, change: Callable[[Content], Any], says: str) -> None:
    assert says in refused(write(content, change))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"gone": 1}, "has no option 'gone'"),
        ({"train": {"class_path": "Toy", "init_args": {"sizes": 3}}}, "did you mean 'size'"),
    ],
)
def test_data_of_an_older_version_that_do_not_fit_are_one_line(arguments: Content, says: str) -> None:
    with pytest.raises(UserError, match=says):
        data_module({"class_path": "dfl.data.DataModule", "init_args": arguments})


def first(content: Content) -> str:
    return next(name for name, value in content["state_dict"].items() if value.ndim == 4)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (lambda v: torch.zeros(1).expand(10**6, 10**6), "no bytes"),
        (lambda v: torch.zeros(1).expand(v.shape[0], 3, 3, 10**9), "no bytes"),
        (lambda v: v.to("meta"), "no bytes"),
        (lambda v: v.to_sparse(), "no bytes"),
        (lambda v: "text", "no tensor"),
        (lambda v: v[:1], "does not fit"),
        (lambda v: torch.full_like(v, float("nan")), "holds NaN"),
        (lambda v: torch.full_like(v, float("nan")).to(torch.complex64), "no weights"),
        (lambda v: v.to(torch.float8_e4m3fn), "no weights"),
        (lambda v: torch.quantize_per_tensor(v, 0.1, 0, torch.qint8), "no bytes"),
        (lambda v: torch.nested.nested_tensor([v[0], v[1]]), "no bytes"),
        (lambda v: v.reshape(*[1] * 60, -1), "no weights"),
    ],
)
def test_tensors_are_what_the_network_has(content: Content, value: Callable[[Any], Any], says: str) -> None:
    name = first(content)
    path = write(content, lambda c: c["state_dict"].update({name: value(c["state_dict"][name])}))
    said = refused(path)
    assert says in said
    assert name in said


def test_attributes_that_hide_methods_are_left_behind(content: Content) -> None:
    def change(c: Content) -> None:
        weight = torch.nn.Parameter(c["state_dict"][first(c)])
        weight.__dict__.update(isnan=1, numel=1, detach=1)
        c["state_dict"] = OrderedDict(c["state_dict"] | {first(c): weight})
        c["state_dict"].__dict__.update(keys=1, _metadata=3)

    path = write(content, change)
    assert read(path, Path(".")).class_name == "Classifier"
    assert isinstance(detectors.load(path), Classifier)


def test_names_that_share_one_storage_are_not_looked_at_for_ever(content: Content) -> None:
    big = torch.zeros(100_000)
    path = write(content, lambda c: c["state_dict"].update({f"k{i}": big for i in range(1000)}))
    assert "claims (100000,), for which the file has no bytes" in refused(path)


@pytest.mark.parametrize("version", ["x", 7, None, "0.5.0"])
def test_evaluation_takes_numbers_of_names_and_no_list_of_unreadable_images(content: Content, version: Any) -> None:
    data = {"vocab": {"group": {"a": 0}}, "bad": {"test": {"a": {"x.png": "a lie"}}}, "transform": {}}
    path = write(content, lambda c: c.update({"DataModule": data, "pytorch-lightning_version": version}))
    taken = AtomicCheckpointIO(evaluates=True).load_checkpoint(path)
    assert taken["DataModule"] == {"vocab": data["vocab"]}
    assert taken["pytorch-lightning_version"] == pl.__version__
    assert AtomicCheckpointIO().load_checkpoint(path)["DataModule"] == data
    assert "DataModule" not in AtomicCheckpointIO(evaluates=True).load_checkpoint(
        write(content, lambda c: c.update(DataModule={}))
    )


def test_flipped_bytes_are_damage(content: Content) -> None:
    path = write(content)
    damaged = bytearray(path.read_bytes())
    at = damaged.find(content["state_dict"][first(content)].numpy().tobytes())
    damaged[at + 40] ^= 1
    path.write_bytes(damaged)
    assert "checksum" in refused(path)


def test_nothing_is_fetched_on_a_checkpoints_word(content: Content, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener on loopback, with everything that a file can hold set to its address."""
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
    met: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=lambda: met.append(server.accept()), daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x.pth"
        monkeypatch.setattr(hub_constants, "ENDPOINT", url)
        for change in (
            hyper(weights=url),
            hyper(backbone=url),
            hyper(timm_args={"pretrained_cfg": {"url": url}}),
            lambda c: c["dfl"].update(run={"config": {"data": {"class_path": url}, "model": url, "name": url}}),
            lambda c: c["dfl"].update(backbone={"name": url, "sha256": url, "keys": []}),
        ):
            path = write(content, change)
            for take in (lambda: read(path, Path(".")), lambda: detectors.load(path)):  # noqa: B023
                with suppress(UserError):
                    take()
        assert not met


def test_a_class_of_the_users_own_is_taken_if_the_user_names_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.ckpt"
    saved(Mine("test_resnet", pretrained=False, input_size=32), path)
    name = f"{Mine.__module__}.Mine"
    assert read(path, Path("."), name).class_path == name
    write(read_checkpoint(path), lambda c: c["dfl"].update(class_path="elsewhere.Mine"))
    assert "not imported" in refused(Path("x.ckpt"))
    assert read(Path("x.ckpt"), Path("."), name).class_path == name


def test_a_class_of_ours_is_found_wherever_its_module_was(content: Content) -> None:
    assert content["dfl"]["class_path"] == "dfl.detectors.Classifier"
    for old in ("dfl.detectors.baseline.Classifier", "dfl.detectors.zoo.simple.Classifier"):
        path = write(content, lambda c, old=old: c["dfl"].update(class_path=old))
        assert read(path, Path(".")).class_path == "dfl.detectors.Classifier"
        assert isinstance(detectors.load(path), Classifier)


def test_files_that_a_checkpoint_names_are_the_users_to_give(content: Content) -> None:
    path = write(content, hyper(weights="evil.pth"))
    found = read(path, Path("."))
    assert "weights" not in found.init_args
    assert "give --model.weights" in found.notes[0]
    left_out = {"name": "test_resnet", "sha256": "0" * 64, "keys": ["network.conv1"]}
    path = write(content, lambda c: (c["dfl"].update(backbone=left_out), hyper(weights="evil.pth")(c)))
    with pytest.raises(UserError, match=r"not those frozen weights: give --model\.weights$"):
        arguments.plan(["predict", "a.png", f"--ckpt_path={path}"])
    path = write(content, lambda c: c["dfl"].update(backbone=left_out))
    with pytest.raises(UserError, match=r"give --model\.weights, or --model\.pretrained true"):
        arguments.plan(["predict", "a.png", f"--ckpt_path={path}"])
    assert arguments.plan(["predict", "a.png", f"--ckpt_path={path}", "--model.weights=w.pth"]).trained
    Path("mine.yaml").write_text("model: {class_path: Classifier, init_args: {backbone: test_resnet}}\n")
    assert arguments.plan(["predict", "a.png", f"--ckpt_path={path}", "--config=mine.yaml"]).trained
    with pytest.raises(UserError, match="give weights"):
        detectors.load(path)


# runs


def arranged(*words: str) -> str:
    return " ".join(order.arrange(arguments.plan(list(words))))


def test_a_strangers_file_brings_no_data_no_trainer_and_no_name(content: Content) -> None:
    hostile = copy.deepcopy(RUN) | {"name": "../../out", "trainer": {"callbacks": ["evil.Callback"]}}
    hostile["last"] = {"filename": "../../out"}
    path = write(content, lambda c: c["dfl"].update(run={"config": hostile}))
    for verb in ("fit", "validate", "test"):
        with pytest.raises(
            UserError, match=r"not in a run of yours; no data are taken from it: give --data NAME\.yaml"
        ):
            arguments.plan([verb, f"--ckpt_path={path}"])
        words = arranged(verb, f"--ckpt_path={path}", "--data=data/folder.yaml")
        assert "evil" not in words
        assert "out" not in words
        assert ("--ckpt_path" in words) == (verb != "fit")
    plan = arguments.plan(["fit", f"--ckpt_path={path}", "--data=data/folder.yaml"])
    assert plan.name == "x"
    assert any(note.startswith("starting from the weights of x.ckpt") for note in plan.notes)


def test_settings_of_ones_own_run_are_read_beside_its_checkpoints(content: Content) -> None:
    write(content, path="checkpoints/a/best.ckpt")
    settings.write(Path("checkpoints/a"), RUN)
    assert yaml.safe_load(Path("checkpoints/a/config.yaml").read_text()) == RUN
    words = arranged("fit", "--name=a", "--ckpt_path=best")
    assert "max_epochs: 3" in words
    assert "--ckpt_path=checkpoints/a/best.ckpt" in words
    assert "batch_size: 8" in arranged("test", "--ckpt_path=best")
    assert "batch_size" not in arranged("test", "--ckpt_path=best", "--data=data/folder.yaml")


@pytest.mark.parametrize("how", ["downloaded", "edited", "replaced"])
def test_a_run_that_was_not_trained_here_is_read_when_its_config_is_named(
    content: Content, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(content, path="checkpoints/a/best.ckpt")
    settings.write(Path("checkpoints/a"), RUN)
    file = Path("checkpoints/a/config.yaml")
    if how == "downloaded":
        monkeypatch.setenv("XDG_STATE_HOME", "another")
    elif how == "edited":
        file.write_text(file.read_text().replace("batch_size: 8", "batch_size: 9"))
    else:
        file.write_text("data: {class_path: evil.Data}\n")
    with pytest.raises(UserError, match=r"not written here.* --config checkpoints/a/config\.yaml"):
        arguments.plan(["test", "--ckpt_path=best"])
    if how != "replaced":
        assert arguments.plan(["test", "--ckpt_path=best", f"--config={file}"]).gives("data")


def test_an_old_runs_settings_are_written_down_for_the_user_to_read(content: Content) -> None:
    write(content, lambda c: c["dfl"].update(run={"config": RUN}), "old/checkpoints/a/best.ckpt")
    plan = arguments.plan(["predict", "a.png", "--root=old", "--name=a", "--ckpt_path=best"])
    assert any("give --config old/checkpoints/a/config.yaml" in note for note in plan.notes)
    assert yaml.safe_load(Path("old/checkpoints/a/config.yaml").read_text()) == RUN
    with pytest.raises(UserError, match="no data are taken"):
        arguments.plan(["test", "--root=old", "--name=a", "--ckpt_path=best"])
    assert arguments.plan(
        ["test", "--root=old", "--name=a", "--ckpt_path=best", "--config=old/checkpoints/a/config.yaml"]
    ).trained


def test_what_an_old_checkpoint_claims_may_be_anything(content: Content) -> None:
    loop: list[Any] = []
    loop.append(loop)
    for claimed in ("text", [1], {"a": loop}, {1: 2}):
        shutil.rmtree("checkpoints", ignore_errors=True)
        path = write(
            content, lambda c, claimed=claimed: c["dfl"].update(run={"config": claimed}), "checkpoints/a/b.ckpt"
        )
        assert read(path, Path(".")).run == {}


def test_a_copy_outside_the_root_is_a_strangers(content: Content) -> None:
    write(content, path="checkpoints/a/best.ckpt")
    settings.write(Path("checkpoints/a"), RUN)
    shutil.copytree("checkpoints/a", "elsewhere/a")
    assert read(Path("elsewhere/a/best.ckpt"), Path(".")).run == {}
    os.symlink(Path("elsewhere/a").absolute(), "checkpoints/b")
    assert not read(Path("checkpoints/b/best.ckpt"), Path(".")).in_run

"""A config is data: whatever a YAML file holds is read, or is one line."""

import json
import os
from pathlib import Path

import pytest
import yaml

from dfl.benchmark.sweeps import read as read_sweep
from dfl.cli import arguments, configs, order
from dfl.errors import UserError
from dfl.tools.sources import open_sources

WEB = "".join(
    f"{name}: &{name} [{', '.join([f'*{below}'] * 9)}]\n" for below, name in zip("abcdefg", "bcdefgh", strict=True)
)
TEXTS = [
    ("[" * 50_000, "nested too deeply"),
    ("{a: " * 60 + "1" + "}" * 60, "nested more than 40 deep"),
    ("".join("  " * i + "a:\n" for i in range(500)), "nested too deeply"),
    ("a: &a [*a]\n", "or holds itself"),
    ("a: &a {b: {c: *a}}\n", "or holds itself"),
    (f"a: &a [1, 2]\n{WEB}", "more than 200,000 values"),
    ("a: 2020-02-31\n", "day is out of range"),
    ("a: !!int x\n", "invalid literal"),
    ("a: !!python/object/apply:os.system ['touch owned']\n", "line 1 is no YAML: could not determine a constructor"),
    ("a: *b\n", "line 1 is no YAML: found undefined alias"),
    ("? [a]\n: b\n", "found unhashable key"),
    ("<<: 5\n", "expected a mapping or list of mappings"),
    ("a: 1\n---\nb: 2\n", "line 2 is no YAML"),
    (
        "model: dct\ntrainer: {max_epochs: 1}\ntrainer: {max_steps: 1}\n",
        "line 3 is no YAML: the key 'trainer' is also in line 2",
    ),
    ("init_args:\n  train: a\n  'train': b\n", "line 3 is no YAML: the key 'train' is also in line 2: take one away"),
    ('a: ["\\0"]\n', "which is no text"),
    ('a: {"\\ud800": 1}\n', "which is no text"),
]


@pytest.mark.parametrize(("text", "says"), TEXTS, ids=[says for _, says in TEXTS])
def test_odd_yaml_is_one_line(text: str, says: str) -> None:
    Path("odd.yaml").write_text(text)
    for use in (
        configs.read,
        lambda name: arguments.plan(["fit", f"--config={name}"]),
        lambda name: arguments.plan(["fit", f"--data={name}"]),
        lambda name: open_sources([name]),
        read_sweep,
    ):
        with pytest.raises(UserError) as error:
            use("odd.yaml")
        assert says in str(error.value)
        assert str(error.value).startswith("odd.yaml")
    assert not Path("owned").exists()


def test_what_is_no_text_is_one_line() -> None:
    Path("latin.yaml").write_bytes("a: é".encode("latin-1"))
    os.mkfifo("pipe.yaml")
    Path("folder.yaml").mkdir()
    for name, says in (
        ("latin", "is no YAML text"),
        ("pipe", "is no file"),
        ("folder", "is no file"),
        ("no", "is no file"),
    ):
        with pytest.raises(UserError, match=says):
            configs.read(f"{name}.yaml")


def test_plain_values_are_read_as_they_are() -> None:
    text = "a: &a {b: [1, 2.5, null, true, é, 2020-01-01]}\nc: *a\n7: .inf\n"
    assert configs.plain(text, "x") == {"a": (found := configs.plain(text, "x")["c"]), "c": found, 7: float("inf")}
    text = "a: &a {x: 1, y: 2}\nb:\n  <<: &b\n    <<: *a\n    x: 3\nc: {<<: *b, x: 4}\n"  # merged
    assert configs.plain(text, "x")["c"] == {"x": 4, "y": 2}


def test_a_typed_data_config_leaves_nothing_of_the_sources_it_replaces(tmp_path: Path) -> None:
    data = {"class_path": "DataModule", "init_args": {"batch_size": 4, "train": {"class_path": "Folder"}, "val": None}}
    data["init_args"]["train"]["init_args"] = {"root": "elsewhere", "fractions": {"train": 0.5, "val": 0.5}}
    (tmp_path / "top.yaml").write_text(json.dumps({"data": data}))
    other = {
        "class_path": "DataModule",
        "init_args": {"train": {"class_path": "Table", "init_args": {"file": "t.csv"}}},
    }
    (tmp_path / "d.yaml").write_text(json.dumps(other))
    made = arguments.plan(["fit", "--config=top.yaml", "--data=d.yaml"])
    assert made.layers == [{"data": {"class_path": "DataModule", "init_args": {"batch_size": 4}}}]
    assert yaml.safe_load(order.arrange(made)[1].removeprefix("--config=")) == made.layers[0]
    assert arguments.plan(["fit", "--config=top.yaml", "--data.batch_size=3"]).layers == [{"data": data}]


def test_a_config_is_laid_over_those_it_includes() -> None:
    Path("low.yaml").write_text("trainer: {max_epochs: 3, max_steps: 7}\nname: low\n")
    Path("mid.yaml").write_text(
        "include: low.yaml\ntrainer: {max_epochs: 4}\nmodel: {class_path: VitScl, init_args: {rank: 3}}\n"
    )
    Path("top.yaml").write_text(
        "include: [mid.yaml, trainer/smoke.yaml]\ntrainer: {max_steps: 9}\n"
        "model: {class_path: Classifier, init_args: {input_size: 32}}\n"
    )
    made = arguments.plan(["fit", "--config=top.yaml", "--trainer.max_steps=11"])
    (layer,) = made.layers
    assert layer["model"] == {
        "class_path": "Classifier",
        "init_args": {"input_size": 32},
    }  # of another class nothing stays
    assert (layer["trainer"]["max_epochs"], layer["trainer"]["max_steps"]) == (1, 9)
    words = order.arrange(made)
    assert yaml.safe_load(words[1].removeprefix("--config=")) == layer
    assert words[-1] == "--trainer.max_steps=11"
    Path("low.yaml").write_text("include: top.yaml\n")
    with pytest.raises(UserError, match="includes itself"):
        arguments.plan(["fit", "--config=top.yaml"])
    Path("low.yaml").write_text("include: botom.yaml\n")
    with pytest.raises(UserError, match="no config 'botom.yaml'"):
        arguments.plan(["fit", "--config=top.yaml"])


def test_a_chain_of_includes_ends_and_a_web_of_them_is_read_once() -> None:
    Path("0.yaml").write_text("trainer: {max_epochs: 3}\n")
    for i in range(1, 60):
        Path(f"{i}.yaml").write_text(f"include: [{i - 1}.yaml, {i - 1}.yaml]\nname: n{i}\n")  # 2 ** i by name
    (layer,) = arguments.plan(["fit", "--config=30.yaml"]).layers
    assert layer == {"trainer": {"max_epochs": 3}, "name": "n30"}
    with pytest.raises(UserError, match=r"59\.yaml includes more than 40 configs"):
        arguments.plan(["fit", "--config=59.yaml"])
    made = arguments.plan(["fit", "--config=2.yaml", "--config=1.yaml"])
    assert [layer["name"] for layer in made.layers] == ["n2", "n1"]
    assert all("include" not in word and ".yaml" not in word for word in order.arrange(made))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("include: 5\n", "include names a config, or a list of configs, not 5"),
        ("include: [[a.yaml]]\n", r"include names a config, or a list of configs, not \[\['a"),
        ("name: [a]\n", "name must be a word"),
        ("name: 2020-01-01\n", "name must be a word"),
        ("root: {a: 1}\n", "root must be a word"),
        ("ckpt_path: [best]\n", "ckpt_path must be a word"),
        ("null: 1\n", "unknown key 'None'"),
    ],
)
def test_a_value_of_the_wrong_kind_is_one_line(text: str, says: str) -> None:
    Path("odd.yaml").write_text(text)
    with pytest.raises(UserError, match=says):
        arguments.plan(["fit", "--config=odd.yaml"])


@pytest.mark.parametrize(
    "data", ["5", "[1]", "{init_args: [1]}", "{init_args: {train: 5}}", "null", "{class_path: [1]}"]
)
def test_lists_where_mappings_belong_are_left_to_the_parser(data: str) -> None:
    Path("run.yaml").write_text(f"data: {data}\nmodel: {data}\n")
    Path("data.yaml").write_text("class_path: DataModule\ninit_args: {train: {class_path: Folder}}\n")
    made = arguments.plan(["fit", "--config=run.yaml", "--data=data.yaml"])
    assert order.arrange(made)[-1] == "--data=data.yaml"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("data: odd.yaml\n", "is a config of a run and no data config"),
        ("data: 5\n", "names no source"),
        ("init_args: {test: [1]}\n", "test takes sources by the name of their domain"),
        ("init_args: {train: 5}\n", "a source is written as class_path and init_args, not 5"),
    ],
)
def test_a_data_config_of_the_wrong_kind_is_one_line(text: str, says: str) -> None:
    Path("odd.yaml").write_text(text)
    with pytest.raises(UserError, match=says):
        open_sources(["odd.yaml"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("config: 5\n", "config takes a word or a list, not 5"),
        ("config: a\ndomains: [b]\n", r"domains takes a mapping, not \['b'\]"),
        ("config: a\ngenerators: {a: 1}\n", "generators takes a list"),
        ("config: a\nreals: 2\n", "reals takes a true or false, not 2"),
        ("config: a\nmetric: {a: 1}\n", "metric takes a word or a list"),
    ],
)
def test_a_sweep_of_the_wrong_kind_is_one_line(text: str, says: str) -> None:
    Path("odd.yaml").write_text(text)
    with pytest.raises(UserError, match=says):
        read_sweep("odd.yaml")


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("dfl.detectors.cam.detector.GradCam", "dfl.detectors.GradCam"),
        ("dfl.detectors.probes.linear.LinearProbe", "dfl.detectors.LinearProbe"),
        ("dfl.detectors.cam.Nothing", "dfl.detectors.cam.Nothing"),
        ("mine.detectors.cam.GradCam", "mine.detectors.cam.GradCam"),
    ],
)
def test_a_detector_is_found_by_the_file_that_it_lay_in(tmp_path: Path, before: str, now: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"model: {{class_path: {before}}}\n")
    for words in ([f"--config={file}"], [f"--model={before}"], [f"--model.class_path={before}"]):
        arranged = " ".join(order.arrange(arguments.plan(["fit", *words])))
        assert now in arranged
        assert now == before or before not in arranged

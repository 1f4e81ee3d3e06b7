"""Packaged benchmarks: every key, class, argument and config is known, and the protocols are the published ones."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dfl.benchmark import changes, means, spec
from dfl.benchmark.compare import DRAWS, MEASURED
from dfl.cli import configs
from dfl.data.chains import FAMILIES
from dfl.data.sources.written import built

FOLDER = Path(__file__).parents[2] / "configs" / "benchmark"
PRESETS = sorted(FOLDER.glob("*.yaml"))
#: Detectors that start at random unless a file of weights is named.
NEVER_PRETRAINED = {"Dct", "PatchForensics", "Resynthesis", "Sida", "SuperResolution"}
THIRTEEN = [
    "progan",
    "stylegan",
    "stylegan2",
    "biggan",
    "cyclegan",
    "stargan",
    "gaugan",
    "deepfake",
    "crn",
    "imle",
    "san",
    "seeingdark",
    "whichfaceisreal",
]
NINETEEN = [
    "progan",
    "cyclegan",
    "biggan",
    "stylegan",
    "gaugan",
    "stargan",
    "deepfake",
    "sitd",
    "san",
    "crn",
    "imle",
    "guided",
    "ldm_200",
    "ldm_200_cfg",
    "ldm_100",
    "glide_100_27",
    "glide_50_27",
    "glide_100_10",
    "dalle",
]

every_preset = pytest.mark.parametrize("file", PRESETS, ids=lambda file: file.stem)


def read(name: str | Path) -> dict[str, Any]:
    """Return a preset as plain values."""
    content: dict[str, Any] = configs.read(str(FOLDER / name))
    return content


def runs(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: one or {} for name, one in content["runs"].items()}


def sources(value: Any) -> Iterator[dict[str, Any]]:
    """Yield everything in a preset that is written as a source."""
    if isinstance(value, dict) and "class_path" in value:
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from sources(one)


def config_files(one: spec.Run) -> list[str]:
    """Return the configs of a run; a checkpoint in a preset is what `fit` leaves with the config of that name."""
    return list(one.configs) or [configs.find(f"{one.checkpoint}.yaml")]


def generators(domain: dict[str, Any]) -> list[str]:
    return list(domain["init_args"]["generators"])


@every_preset
def test_it_says_what_it_is_and_uses_known_keys(file: Path) -> None:
    assert configs.describe(f"benchmark/{file.name}")
    assert re.search(r"^# .*(Hours|minutes)", file.read_text(), re.M), "how long does it take?"
    found = spec.read(str(file))
    assert all(one.configs or one.checkpoint for one in found.runs)
    changes.asked(found)
    means.asked(found)


@every_preset
def test_every_source_is_a_class_that_takes_its_arguments(file: Path) -> None:
    found = list(sources(read(file)))
    assert found
    for source in found:
        built(source, file.name)


@every_preset
def test_every_run_has_a_config_of_a_detector(file: Path) -> None:
    for one in spec.read(str(file)).runs:
        layers = configs.layers(config_files(one))
        assert any("class_path" in layer.get("model", {}) for layer in layers), one.method


@pytest.mark.parametrize("name", sorted(path.stem for path in (FOLDER / "toy").glob("*.yaml") if path.stem != "data"))
def test_toy_detectors_need_no_download(name: str) -> None:
    (layer,) = configs.layers([str(FOLDER / "toy" / f"{name}.yaml")])
    model, data = layer["model"], layer["data"]["init_args"]
    own = model["init_args"]
    from_scratch = (
        own.get("pretrained") is False or own.get("clip", "") is None or model["class_path"] in NEVER_PRETRAINED
    )
    assert from_scratch
    assert "language" not in model["init_args"]
    plain = {"root": "data/toy64", "size": 64, "domain": "same"}
    assert data["train"]["init_args"] in (plain, plain | {"root": "data/toy64_aligned", "aligned": True})


@every_preset
def test_reference_numbers_say_whose_they_are(file: Path) -> None:
    content = read(file)
    for one in content.get("reference") or []:
        assert set(one) == {"method", "domain", "metric", "value", "source", "protocol"}
        assert 0 <= one["value"] <= 1
        assert one["domain"] in {*content["domains"], *content.get("means", {})}  # so our number can stand beside it
        assert one["metric"] in MEASURED
        assert one["metric"] != DRAWS or DRAWS in content["metrics"]
        assert "recalled" not in str(one)
        assert all(len(str(one[key])) > 3 for key in ("source", "protocol"))


def test_forensynths_runs_the_detectors_that_it_quotes() -> None:
    layers = {one.method: configs.layers(config_files(one)) for one in spec.read(str(FOLDER / "forensynths.yaml")).runs}
    (own,) = layers["ferretnet_b_4"]
    assert own["model"]["init_args"]["backbone"] == "ferretnet_s"
    run = runs(read("forensynths.yaml"))["ferretnet_b_4"]
    assert run["options"] == {"model.backbone": "ferretnet_b"}
    assert run["transform"] == own["data"]["init_args"]["transform"]
    quoted = {one["method"] for one in read("forensynths.yaml")["reference"]}
    assert quoted == {"CNNDetection", "FerretNet-B"}


def test_backbones_of_clip_are_flagged_with_generators_that_they_may_have_seen() -> None:
    for name, methods in (("univfd.yaml", {"univfd", "probe_clip_l14"}), ("genimage.yaml", {"probe_sdv4"})):
        found = spec.read(str(FOLDER / name))
        assert set(found.years) <= {*(g for domain in found.domains.values() for g in generators(domain))}
        assert all(one.data_until for one in found.runs)
        late = {one.method for one in found.runs if any(year <= one.data_until for year in found.years.values())}
        assert late == methods
    assert all(one.data_until for one in spec.read(str(FOLDER / "temporal.yaml")).runs)


@every_preset
def test_the_page_of_protocols_says_which_number_is_first(file: Path) -> None:
    page = (FOLDER.parents[1] / "docs" / "benchmark_protocols.md").read_text()
    assert "in no table of the benchmark" not in page.replace("three classes is not in the tables of the benchmark", "")
    section = page.partition(f"\n## {file.stem}\n")[2].partition("\n## ")[0]
    assert section, "every preset has a section"
    words = {"auroc": "AUROC", "ap": "AP", "mask_iou": "IoU", "mask_f1": "pixel F1", "acc_fake": "recall (acc. fake)"}
    said = section.partition("| first number | ")[2]
    if said:  # toy_full is toy once more
        assert said.startswith(words[read(file)["metrics"][0]])


def test_means_are_over_what_the_papers_average() -> None:
    assert read("forensynths.yaml")["means"] == {"common eight": THIRTEEN[:8], "all thirteen": THIRTEEN}
    assert read("univfd.yaml")["means"] == {"all nineteen": NINETEEN}
    for name, mean in (("genimage.yaml", "all eight"), ("imdl.yaml", "mean of five")):
        content = read(name)
        assert content["means"] == {mean: list(content["domains"])}


def test_forensynths_has_thirteen_sets_and_two_trainings() -> None:
    content = read("forensynths.yaml")
    assert [generators(domain) for domain in content["domains"].values()] == [[name] for name in THIRTEEN]
    four, every = (runs(content)[name] for name in ("cnnf_4", "cnnf_20"))
    assert four["train"]["init_args"]["classes"] == ["car", "cat", "chair", "horse"]
    (own,) = configs.layers([configs.find("cnnf.yaml")])
    data = own["data"]["init_args"]
    assert "classes" not in data["train"]["init_args"]
    assert every == {"config": "cnnf.yaml"}
    # with other training data a config's validation images are not taken over: they are its own, of four classes
    (name, degraded), (_, of_config) = (*four["val"].items(), *data["val"].items())
    assert name in data["val"]
    assert degraded == {**of_config, "init_args": {**of_config["init_args"], "source": four["train"]}}


def test_methods_that_have_a_config_are_run_with_it() -> None:
    files = {one.method: config_files(one) for one in spec.read(str(FOLDER / "univfd.yaml")).runs}
    assert (files["univfd"], files["cnnf"]) == ([configs.find("univfd.yaml")], [configs.find("cnnf.yaml")])
    assert "train" not in read("univfd.yaml")  # it would leave out the degraded validation images of both configs


def test_no_config_beside_the_presets_is_left_over() -> None:
    files = {name for preset in PRESETS for one in spec.read(str(preset)).runs for name in config_files(one)}
    unused = {str(path) for path in (FOLDER / "methods").glob("*.yaml")} - files
    assert not unused


def test_univfd_has_its_nineteen_sets() -> None:
    domains = read("univfd.yaml")["domains"]
    assert list(domains) == NINETEEN
    assert [generators(domain) for domain in domains.values()] == [
        ["seeingdark" if name == "sitd" else name] for name in NINETEEN
    ]


def test_genimage_trains_on_each_of_eight_generators() -> None:
    content = read("genimage.yaml")
    names = list(content["domains"])
    assert len(names) == 8
    alone = {name: one for name, one in runs(content).items() if name in names}
    assert list(alone) == names
    for name, one in alone.items():
        assert (generators(one["train"]), one["within"]) == ([name], [name])


def test_temporal_windows_grow_and_never_look_ahead() -> None:
    content = read("temporal.yaml")
    domains, years = content["domains"], content["years"]
    assert list(years) == list(domains)
    assert list(years.values()) == sorted(years.values())
    for at, one in enumerate(runs(content).values(), 1):
        trained = list(domains)[: 4 * at]
        assert one["within"] == trained
        assert one["train"] == [domains[name] for name in trained]


def test_imdl_is_of_the_five_sets_at_a_fixed_threshold() -> None:
    content = read("imdl.yaml")
    assert content["train"]["class_path"] == "CasiaV2"
    assert list(content["domains"]) == ["casia_v1", "columbia", "nist16", "coverage", "imd2020"]
    assert content["metrics"][0] == "mask_f1"


def test_toy_full_has_every_detector() -> None:
    every = {one.name for one in configs.methods() if not one.is_backbone} - {"Baseline", "FittedDetector"}
    every -= {"Ensemble"}  # its members are checkpoints
    layers = [configs.layers(config_files(one))[-1] for one in spec.read(str(FOLDER / "toy_full.yaml")).runs]
    assert {layer["model"]["class_path"] for layer in layers} == every


def test_toy_full_names_the_presets_that_share_a_class_and_are_no_rows() -> None:
    content, head = read("toy_full.yaml"), (FOLDER / "toy_full.yaml").read_text().partition("\nruns:")[0]
    assert {"dag_fdd", "daw_fdd", "content_agnostic"} <= set(content["runs"])
    assert all(name in head for name in ("UnivFD", "Effort"))


def test_toy_has_six_detectors_and_one_seed() -> None:
    content, full = read("toy.yaml"), read("toy_full.yaml")
    assert (len(content["runs"]), content["seeds"]) == (6, [0])
    assert set(content["robustness"]) == set(FAMILIES)
    assert set(content["runs"]) <= set(full["runs"])
    assert len(full["seeds"]) >= 3

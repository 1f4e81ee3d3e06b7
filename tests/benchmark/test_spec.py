"""SPEC.yaml: what follows from it, and one line for what makes no sense."""

import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from dfl.benchmark import checks, work
from dfl.benchmark.run import DataHashes
from dfl.benchmark.spec import KEYS, RUN_KEYS, TYPES, Variant, read
from dfl.errors import UserError

SAME = {"class_path": "Toy", "init_args": {"domain": "same"}}
SPEC: dict[str, Any] = {
    "runs": {"vit": {"config": "vit_scl.yaml", "seeds": [0, 2], "options": {"trainer.max_epochs": 3}}},
    "options": {"trainer.max_epochs": 1, "data.batch_size": 4},
    "train": SAME,
    "within": ["same"],
    "domains": {"same": SAME, "style.gan": SAME},
}

PUBLISHED = {"method": "A", "domain": "same", "metric": "ap", "value": 0.9, "source": "a paper"}


def written(folder: Path, **changes: Any) -> str:
    content = {key: value for key, value in {**SPEC, **changes}.items() if value is not None}
    (folder / "spec.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return str(folder / "spec.yaml")


def test_a_run_for_each_method_and_seed(tmp_path: Path) -> None:
    spec = read(written(tmp_path), root=str(tmp_path))
    assert [(one.method, one.seed, one.name) for one in spec.runs] == [
        ("vit", 0, "spec-vit-s0"),
        ("vit", 2, "spec-vit-s2"),
    ]
    one = spec.runs[0]
    assert one.options == ("--trainer.max_epochs=3", "--data.batch_size=4")  # those of the run beat those of all
    assert (one.train, one.within, one.trained_on) == (SAME, ("same",), ("same",))
    assert [spec.role(domain, one) for domain in spec.domains] == ["within", "cross"]
    assert spec.store == tmp_path / "lightning_logs" / "spec" / "predictions"


def test_a_run_may_have_data_of_its_own(tmp_path: Path) -> None:
    own = {
        "config": "vit_scl.yaml",
        "train": [SAME],
        "within": ["style.gan"],
        "init_from": "before",
        "data_until": 2021,
    }
    one = read(written(tmp_path, runs={"own": own})).runs[0]
    assert (one.train, one.within, one.data_until) == ([SAME], ("style_gan",), 2021)
    assert one.options[-1] == "--init_from=before"


def test_an_option_may_be_none(tmp_path: Path) -> None:
    """YAML's null, which the parser of flags knows by that name alone."""
    spec = read(written(tmp_path, options={"model.scheduler": None, "data.size": 64}), root=str(tmp_path))
    assert {"--model.scheduler=null", "--data.size=64"} <= set(spec.runs[0].options)


def test_the_mean_across_domains_may_be_of_some(tmp_path: Path) -> None:
    runs = {"a": {"config": "vit_scl.yaml", "cross": ["style.gan"]}, "b": {"config": "vit_scl.yaml"}}
    spec = read(written(tmp_path, runs=runs, domains={"same": SAME, "style.gan": SAME, "later": SAME}))
    a, b = spec.runs
    assert [spec.role(domain, a) for domain in spec.domains] == ["within", "cross", "other"]
    assert [spec.role(domain, b) for domain in spec.domains] == ["within", "cross", "cross"]


def test_variants_of_a_domain(tmp_path: Path) -> None:
    given = {
        "robustness": ["jpeg"],
        "robustness_domains": ["same"],
        "views": ["centre", "five"],
        "reals": {"coco": SAME},
    }
    spec = read(written(tmp_path, **given))
    names = [variant.name for variant in spec.variants("same")]
    assert names[:3] == ["stored", "alike", "jpeg_95"]
    assert names[-1] == "stored@five"
    assert [variant.name for variant in spec.variants("style_gan")] == ["stored", "alike", "stored@five"]
    assert spec.variants("coco") == [Variant(""), Variant("alike")]
    assert spec.role("coco", spec.runs[0]) == "reals"
    typed = read(str(tmp_path / "spec.yaml"), views="centre,tiles")
    assert [variant.name for variant in typed.variants("same")][-1] == "stored@tiles"
    with pytest.raises(UserError, match="views names 'six'"):
        read(str(tmp_path / "spec.yaml"), views="six")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"runs": None}, "needs runs and domains"),
        ({"domians": {}}, "unknown key 'domians'.*domains"),
        ({"alike": "no"}, "alike takes a true or false or a number, not 'no'"),
        ({"runs": {"a": {"config": "vit_scl.yaml", "checkpoint": "b"}}}, "needs one of .* has config and checkpoint"),
        ({"runs": {"a": {}}}, "needs one of .* it has none"),
        ({"runs": {"a": {"config": "vit_slc.yaml"}}}, "vit_scl"),
        ({"runs": {"a": {"config": "vit_scl.yaml", "seeds": [-1]}}}, "seeds are whole numbers"),
        ({"runs": {"a/b": {"config": "vit_scl.yaml"}, "a.b": {"config": "vit_scl.yaml"}}}, "'a/b' and 'a.b'"),
        ({"within": ["smae"]}, "within names 'smae'.*same"),
        ({"domains": {"same": SAME, "a.b": SAME, "a/b": SAME}}, "two domains are called 'a_b'"),
        ({"domains": {"same": "toy"}}, "class_path and init_args, not 'toy'"),
        ({"reals": {"same": SAME}}, "'same' is one of domains and one of reals"),
        ({"robustness": ["jpg"]}, "jpeg"),
        ({"views": ["six"]}, "views names 'six'"),
        ({"unit": "frame"}, "unit names 'frame'"),
        ({"runs": {"a": 5}}, "is written as keys with values, not 5"),
        ({"runs": {"A": {"config": "vit_scl.yaml"}, "a": {"config": "vit_scl.yaml"}}}, "'A' and 'a'"),
        ({"runs": {"a": {"checkpoint": "b", "seeds": [3]}}}, "seeds are of a config"),
        ({"domains": {"val": SAME}}, "no domain can be called 'val'"),
        ({"years": {"progan": "x"}}, "that of progan is a whole number, not 'x'"),
        ({"resamples": 10}, "at least 100"),
        ({"alike": 0}, "the shorter side of the images in pixels"),
        ({"reference": [{"method": "a", "domain": "same", "metric": "ap", "value": 1.0}]}, "lacks source"),
        ({"reference": [PUBLISHED | {"value": 98.5}]}, "reference A, ap is 98.5: metrics are shares from 0 to 1"),
        ({"reference": [PUBLISHED | {"domain": "smae"}]}, "names the domain 'smae'; did you mean 'same'"),
        ({"runs": {"a": {"predictions": ["a.csv", "a.csv"]}}}, "predictions names a.csv twice"),
    ],
)
def test_what_makes_no_sense_is_one_line(tmp_path: Path, changes: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        read(written(tmp_path, **changes))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"metrics": ["auorc"]}, "no metric 'auorc'; did you mean 'auroc'"),
        ({"reference": [PUBLISHED | {"metric": "auorc"}]}, "reference: no metric 'auorc'; did you mean 'auroc'"),
        ({"groups": ["gendre"]}, "groups: no domain has groups by 'gendre'; did you mean 'gender'"),
        ({"groups": ["gender"]}, None),
    ],
)
def test_what_sources_tell_is_checked_before_anything_is_trained(
    tmp_path: Path, changes: dict[str, Any], line: str | None
) -> None:
    groups = ("male,asian", "female,asian", "male,white", "female,white")
    lines = [f'{i}.png,{i % 2},0.{i},same,"{group}"' for i, group in enumerate(groups)]
    scores = "\n".join(["path,label,score,domain,group", *lines])
    (tmp_path / "a.csv").write_text(scores)
    for i in range(2):
        Image.new("RGB", (8, 8), (90 * i, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "rows.csv").write_text("path,label,split\n0.png,0,test\n1.png,1,test")
    rows = {"class_path": "Table", "init_args": {"file": str(tmp_path / "rows.csv")}}
    own = {"runs": {"a": {"predictions": str(tmp_path / "a.csv")}}, "train": None, "domains": {"same": rows}}
    spec = read(written(tmp_path, **own, **changes), root=str(tmp_path))
    with pytest.raises(UserError, match=line) if line else nullcontext():
        checks.prepare(spec, DataHashes())


@pytest.mark.parametrize("flag", ["--data.transform.resize=squash", "--data.views=five", "--data.init_args.size=64"])
def test_how_images_are_seen_is_no_option(tmp_path: Path, flag: str) -> None:
    spec = read(written(tmp_path), root=str(tmp_path))
    with pytest.raises(UserError, match=f"{flag.partition('=')[0]} is no option of a benchmark"):
        work.run(spec, [flag], 1, None, None, 0, ["benchmark"])
    spec = read(written(tmp_path, options={flag.partition("=")[0].removeprefix("--"): 1}), root=str(tmp_path))
    with pytest.raises(UserError, match="is no option of a benchmark"):
        work.run(spec, [], 1, None, "vit/0", 0, ["benchmark"])


def test_packaged_specs_are_found_by_name() -> None:
    assert read("toy").name == read("benchmark/toy.yaml").name == "toy"
    with pytest.raises(UserError, match="univfd"):
        read("univdf")


@pytest.mark.parametrize(("place", "keys"), [(0, KEYS), (1, RUN_KEYS)])
def test_the_docs_have_every_key_with_its_types(place: int, keys: dict[str, tuple[type, ...]]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "benchmark.md").read_text()
    table = page.split("| key | type | default | what |")[place + 1].partition("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", table, re.M)
    assert sorted(rows) == sorted((key, " or ".join(TYPES[one] for one in types)) for key, types in keys.items())

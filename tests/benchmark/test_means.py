"""Means over domains by name, as papers print them: of exactly their domains, in tables, page and references."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from test_compare import LABEL, N, area, scored
from test_spec import SAME, written

from dfl.benchmark import means, sections, tables
from dfl.benchmark.content import Settings, build
from dfl.benchmark.lookup import Lookup
from dfl.benchmark.spec import read
from dfl.errors import UserError
from dfl.metrics import balanced_draws_ap

ROLES = {"w": "within", "a": "cross", "b": "cross", "later": "other"}
NAMED = {"first two": ["w", "a"], "all": [*ROLES], "elsewhere": ["w", "nowhere"]}


def made(*entries: Any, **settings: Any) -> dict[str, Any]:
    content: dict[str, Any] = build(entries, Settings("x", resamples=200, means=NAMED, pictures=False, **settings))
    return content


def test_a_mean_is_of_exactly_its_domains_whatever_their_role() -> None:
    entries = [scored("m", domain, role, seed) for domain, role in ROLES.items() for seed in (0, 1)]
    content = made(*entries)
    own = {c["domain"]: c for c in content["cells"] if (c["role"], c["metric"]) == ("mean", "auroc")}
    assert list(own) == ["first two", "all"]  # of the third a domain was not measured
    of_seeds = [np.mean([area(one) for one in entries if one.domain in "wa" and one.seed == s]) for s in (0, 1)]
    assert own["first two"]["seeds"] == pytest.approx(of_seeds)
    assert own["first two"]["value"] == pytest.approx(np.mean(of_seeds))
    assert own["first two"]["low"] < own["first two"]["value"] < own["first two"]["high"]
    (row,) = (one for one in content["summaries"] if one["metric"] == "auroc")
    assert row["domains"] == 2  # the mean across is none of them


def test_tables_page_and_published_numbers_have_it() -> None:
    published = {"metric": "auroc", "value": 0.9, "source": "a paper", "protocol": "another"}
    reference = [{"method": "them", "domain": name, **published} for name in ("first two", "elsewhere")]
    content = made(*(scored("m", *one) for one in ROLES.items()), reference=reference)
    look = Lookup(content)
    assert look.domains("auroc") == ["w", "a", "b", "later"]
    value = f"{look.value('m', 'first two', 'stored', 'auroc'):.3f}"
    summary, cells = tables.tables(look)[:2]
    assert (summary.head[-2:], summary.rows[0][-2]) == (["first two", "all"], value)
    assert (cells.head[2:], cells.rows[0][-2].split()[0]) == ([*ROLES, "first two", "all"], value)
    page = sections.metric(look, "auroc")
    assert "first two (mean)" in page
    assert f">{value}<" in page
    first, second = sections.reference(look).split("<tr>")[2:]
    assert f">{value}<" in first
    assert "not measured" in second


def test_all_fake_has_means_too() -> None:
    maps = {name: pa.array(np.where(LABEL, value, np.nan)) for name, value in (("iou", 0.5), ("area", 0.2))}
    entries = [scored("m", "w", "within", **maps), scored("m", "a", "cross", **maps | {"area": pa.array(LABEL * 0.4)})]
    look = Lookup(made(*entries))
    wanted = np.mean([look.all_fake(domain, "stored", "mask_iou") for domain in "wa"])
    assert look.all_fake("first two", "stored", "mask_iou") == pytest.approx(wanted)


def test_ap_of_balanced_draws_is_measured_where_it_is_asked_for() -> None:
    label = np.arange(N) % 3 > 0  # twice as many fakes as reals
    entry = scored("m", "a", "cross", label=pa.array(label.astype(int)))
    score = entry.scored.column("score").to_numpy()
    wanted = float(balanced_draws_ap(torch.tensor(score), torch.tensor(label))[0])
    found = {c["metric"]: c["value"] for c in made(entry, metrics=["ap", "ap_draws"])["cells"]}
    assert found["ap_draws"] == pytest.approx(wanted)
    assert found["ap_draws"] != found["ap"]
    assert "ap_draws" not in {c["metric"] for c in made(entry)["cells"]}


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"all": ["same", "smae"]}, "means: all names 'smae'.*same"),
        ({"all": "same"}, "means: all takes a list of domains, not 'same'"),
        ({"all": []}, "takes a list"),
        ({"all": ["same", "same"]}, "names 'same' twice"),
        ({"same": ["same"]}, "means: same is the name of a domain"),
    ],
)
def test_a_mean_that_makes_no_sense_is_one_line(tmp_path: Path, asked: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        means.asked(read(written(tmp_path, means=asked)))


def test_names_of_domains_are_those_of_the_spec(tmp_path: Path) -> None:
    spec = read(written(tmp_path, domains={"same": SAME, "style.gan": SAME}, means={"both": ["same", "style.gan"]}))
    assert means.asked(spec) == {"both": ["same", "style_gan"]}

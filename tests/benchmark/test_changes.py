"""Recall before and after an edit, and of the fakes that a surrogate lets pass, against plain NumPy."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dfl.benchmark import changes
from dfl.benchmark.content import Settings, build
from dfl.benchmark.entries import Columns, Entry
from dfl.benchmark.spec import of_content
from dfl.errors import UserError

N = 80
LABEL = np.repeat([0, 1], N // 2)
Row = dict[str, Any]


def scored(method: str, domain: str, lift: float, threshold: float = 0.5, variant: str = "stored") -> Entry:
    """Scores of 40 photos and their edits; photos are the same in all domains, and score alike for one method."""
    noise = np.random.default_rng([*map(ord, method)]).normal(size=N)
    own = 0.3 * np.random.default_rng([*map(ord, method + domain)]).normal(size=N)
    score = 1 / (1 + np.exp(-(noise - 1 + LABEL * (1 + lift + own))))
    columns = {
        "path": pa.array([f"{domain if y else 'photos'}/{i % (N // 2):02d}.png" for i, y in enumerate(LABEL)]),
        "label": pa.array(LABEL),
        "score": pa.array(score),
        "source": pa.array([f"{i % (N // 2):02d}" for i in range(N)]),
    }
    columns |= dict.fromkeys(("video", "group", "generator"), pa.array([""] * N))
    facts = {"method": method, "domain": domain, "threshold": threshold, "data": domain}
    return Entry(method, 0, domain, variant, "cross", Columns(facts, columns))


def entries() -> list[Entry]:
    lifts = {"neutral": 1.5, "smiling": 0.5}
    return [scored(m, d, lift) for m in ("mine", "other") for d, lift in lifts.items()]


def found(settings: dict[str, Any], given: list[Entry]) -> tuple[dict[tuple[str, str], Row], Row]:
    content = build(given, Settings("test", resamples=400, pictures=False, **settings))
    return {(row["method"], row["domain"]): row for row in content["changes"]}, content


def called(entry: Entry, label: int = 1, kept: np.ndarray | None = None) -> float:
    fake = entry.scored.column("score").to_numpy() >= entry.threshold
    return float(fake[(label == LABEL) & (kept if kept is not None else True)].mean())


def test_a_change_is_of_the_same_photos_and_its_interval_is_paired() -> None:
    given = entries()
    rows, _ = found({"before": {"smiling": "neutral"}}, given)
    assert list(rows) == [("mine", "smiling"), ("other", "smiling")]
    neutral, smiling = given[:2]
    row = rows["mine", "smiling"]
    assert row["before"] == pytest.approx(called(neutral))
    assert row["after"] == pytest.approx(called(smiling))
    assert row["value"] == pytest.approx(called(smiling) - called(neutral))
    assert row["low"] < row["value"] < row["high"] < 0
    # the standard error of a paired difference, which is far below that of two sets of photos
    verdicts = [(e.scored.column("score").to_numpy() >= 0.5)[LABEL == 1].astype(float) for e in (smiling, neutral)]
    paired = (verdicts[0] - verdicts[1]).std() / np.sqrt(N / 2)
    assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * paired, rel=0.25)
    assert paired < 0.8 * np.sqrt(sum(v.var() for v in verdicts) / (N / 2))


def test_fakes_may_be_compared_with_the_photos_that_they_were_made_from() -> None:
    given = entries()
    row = found({"before": {"neutral": "reals"}}, given)[0]["mine", "neutral"]
    assert row["before"] == pytest.approx(called(given[0], 0))
    assert row["after"] == pytest.approx(called(given[0]))


def test_where_no_verdict_changes_the_interval_is_that_of_a_rate() -> None:
    given = [scored("mine", name, lift) for name, lift in (("neutral", 9.0), ("smiling", 9.5))]
    row = found({"before": {"smiling": "neutral"}}, given)[0]["mine", "smiling"]
    assert (row["before"], row["after"], row["value"]) == (1, 1, 0)
    assert (row["low"], row["high"]) == pytest.approx((-0.0881, 0.0881), abs=1e-4)  # 1 - .025 ** (1 / 40)


def test_a_surrogate_lets_some_pass_and_has_no_part_in_it() -> None:
    given = [
        *entries(),
        scored("mine", "smiling", 0.5, variant="alike"),
        scored("other", "smiling", 0.5, variant="alike"),
    ]
    rows, content = found({"before": {"smiling": "neutral"}, "surrogate": "other"}, given)
    judge, mine = given[3].scored.column("score").to_numpy(), given[1]
    kept = (judge < 0.5) & (LABEL == 1)
    row = rows["mine", "smiling_past_other"]
    assert row["after"] == pytest.approx(called(mine, kept=kept))
    assert row["before"] == pytest.approx(called(given[0]))
    assert ("other", "smiling_past_other") not in rows
    (domain,) = (one for one in content["domains"] if one["name"] == "smiling_past_other")
    assert (domain["real"], domain["fake"]) == (N // 2, kept.sum())
    assert domain["flags"] == [f"{kept.sum()} of 40 fakes of smiling, which other calls real"]
    assert {cell["variant"] for cell in content["cells"] if cell["domain"] == "smiling_past_other"} == {
        "stored",
        "alike",
    }
    means = {row["method"]: row["domains"] for row in content["summaries"] if row["metric"] == "auroc"}
    assert means == {"mine": 2, "other": 2} | {"mine": means["mine"], "other": means["other"]}
    assert content["domains"][2]["sha256"] != content["domains"][1]["sha256"]


def test_somebody_elses_scores_are_matched_by_path() -> None:
    given = entries()
    rows, _ = found({"before": {"smiling": "neutral"}, "surrogate": "other"}, given)
    own = given[1].scored
    order = pa.array(np.random.default_rng(0).permutation(N))
    shuffled = {name: own.column(name).take(order) for name in own.names}
    given[1] = Entry("mine", 0, "smiling", "stored", "cross", Columns(own.facts | {"data": None}, shuffled))
    again, _ = found({"before": {"smiling": "neutral"}, "surrogate": "other"}, given)
    assert again["mine", "smiling_past_other"]["after"] == rows["mine", "smiling_past_other"]["after"]


def test_a_surrogate_that_lets_nothing_pass_or_has_no_threshold() -> None:
    given = entries()
    given[3].scored.facts["threshold"] = -1.0
    for base in ("neutral", "reals"):  # there is no recall of no fakes, and reals are no fakes after an edit
        rows, content = found({"before": {"smiling": base}, "surrogate": "other"}, given)
        assert ("mine", "smiling_past_other") not in rows
        assert content["domains"][2]["flags"] == ["0 of 40 fakes of smiling, which other calls real"]
    given[3].scored.facts["threshold"] = None
    with pytest.raises(UserError, match=r"other/0 on smiling \(stored\) has no threshold"):
        found({"before": {"smiling": "neutral"}, "surrogate": "other"}, given)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"before": {"smilling": "neutral"}}, "before names 'smilling'; did you mean 'smiling'"),
        ({"before": {"smiling": "natural"}}, "before: smiling names 'natural'; did you mean 'neutral'"),
        ({"before": {"photos": "reals"}}, "before: photos names 'reals'"),
        ({"before": {"smiling": "neutral"}, "surrogate": "mein"}, "surrogate names 'mein'; did you mean 'mine'"),
        ({"surrogate": "mine"}, "which names none"),
    ],
)
def test_what_is_none_of_the_spec_is_an_error(more: Row, said: str) -> None:
    toy = {"class_path": "Toy"}
    content = {"runs": {"mine": {"predictions": "a.csv"}}, "domains": {"neutral": toy, "smiling": toy}}
    spec = of_content(content | {"reals": {"photos": toy}} | more, Path("spec.yaml"), None, ".", "test")
    with pytest.raises(UserError, match=said):
        changes.asked(spec)

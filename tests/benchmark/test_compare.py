"""Means within and across domains, differences, seeds, and what several domains share, against plain NumPy."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from dfl.benchmark.compare import Comparison
from dfl.benchmark.content import Settings, build
from dfl.benchmark.details import Pooled, groups, temperature, wrong
from dfl.benchmark.entries import Columns, Entry, Images
from dfl.metrics import calibration

N = 60
LABEL = np.arange(N) % 2


def scored(method: str, domain: str, role: str, seed: int = 0, variant: str = "stored", **columns: Any) -> Entry:
    """Scores of a method that differ by all of its arguments; the images of a domain are the same for all."""
    rng = np.random.default_rng([seed, *map(ord, method + domain + variant)])
    score = 1 / (1 + np.exp(-rng.normal(1.2 * LABEL - 0.6, 1.0)))
    names = {name: pa.array([""] * N) for name in ("video", "group", "generator", "source")}
    plain = {
        "path": pa.array([f"{domain}/{i}.png" for i in range(N)]),
        "label": pa.array(LABEL),
        "score": pa.array(score),
    }
    facts = {"method": method, "domain": domain, "threshold": 0.5}
    return Entry(method, seed, domain, variant, role, Columns(facts, {**plain, **names, **columns}))


def area(entry: Entry) -> float:
    return float(roc_auc_score(LABEL, entry.scored.column("score").to_numpy()))


def compared(*entries: Entry) -> Comparison:
    comparison = Comparison(200)
    for domain in dict.fromkeys(one.domain for one in entries):
        comparison.add(domain, "stored", Images([one for one in entries if one.domain == domain]))
    comparison.finish()
    return comparison


def test_means_are_of_domains_and_of_seeds() -> None:
    roles = {"w": "within", "a": "cross", "b": "cross", "later": "other"}
    entries = [scored("m", domain, role, seed) for domain, role in roles.items() for seed in (0, 1, 2)]
    comparison = compared(*entries)
    areas = {d: [area(one) for one in entries if one.domain == d] for d in roles}
    (row,) = (one for one in comparison.summaries() if one["metric"] == "auroc")
    assert row["within"] == pytest.approx(np.mean(areas["w"]))
    assert row["cross"] == pytest.approx(np.mean([np.mean(areas["a"]), np.mean(areas["b"])]))
    assert row["minimum"] == pytest.approx(min(np.mean(areas["a"]), np.mean(areas["b"])))
    assert row["gap"] == pytest.approx(row["within"] - row["cross"])
    assert row["spread"] == pytest.approx(np.std(np.mean([areas["a"], areas["b"]], 0), ddof=1))
    assert row["low"] < row["cross"] < row["high"]
    (cell,) = (one for one in comparison.cells if (one["domain"], one["metric"]) == ("later", "auroc"))
    assert cell["seeds"] == pytest.approx(areas["later"])
    assert cell["spread"] == pytest.approx(np.std(areas["later"], ddof=1))


def test_log_odds_rank_where_probabilities_round_to_one() -> None:
    logit = np.where(LABEL == 1, 70.0, 40.0) + np.random.default_rng(0).normal(0, 9, N)
    own = scored("m", "x", "cross", score=pa.array(np.ones(N)), logit=pa.array(logit))
    values = {one["metric"]: one for one in compared(own, scored("n", "x", "cross")).cells if one["method"] == "m"}
    assert values["auroc"]["value"] == pytest.approx(roc_auc_score(LABEL, logit))
    assert values["auroc"]["low"] > 0.8
    assert values["tpr_at_1fpr"]["value"] > 0.5
    assert (values["acc_real"]["value"], values["acc_fake"]["value"]) == (0, 1)  # the verdict is of probabilities


def test_groups_are_ranked_by_log_odds_where_probabilities_round_to_one() -> None:
    group = np.arange(N) // 2 % 2
    logit = np.where((LABEL == 1) == (group == 0), 70.0, 40.0) + np.random.default_rng(0).normal(0, 9, N)
    columns = {"group": pa.array([("a", "b")[one] for one in group]), "score": pa.array(np.ones(N, np.float32))}
    (row,) = groups(Images([one := scored("m", "x", "cross", logit=pa.array(logit), **columns)]), one, ())
    areas = [roc_auc_score(LABEL[group == one], logit[group == one]) for one in (0, 1)]
    assert row["gap_auroc"] == pytest.approx(areas[0] - areas[1])
    assert row["gap_auroc"] > 0.9
    (row,) = groups(Images([one := scored("m", "x", "cross", **columns)]), one, ())  # whose log-odds are not known
    assert row["gap_auroc"] == 0


def test_methods_with_other_domains_are_not_compared_by_their_means() -> None:
    both = [scored(m, d, "cross") for m in ("a", "b") for d in ("x", "y")]
    assert [one["domain"] for one in compared(*both).differences] == ["x", "y", ""]
    less = [one for one in both if (one.method, one.domain) != ("b", "y")]
    assert [one["domain"] for one in compared(*less).differences] == ["x"]


def test_a_difference_is_that_of_the_areas() -> None:
    entries = [scored(m, d, "cross") for m in ("a", "b") for d in ("x", "y")]
    by_domain = {one["domain"]: one for one in compared(*entries).differences}
    own = {(one.method, one.domain): area(one) for one in entries}
    for domain in ("x", "y"):
        assert by_domain[domain]["value"] == pytest.approx(own["a", domain] - own["b", domain])
    assert by_domain[""]["value"] == pytest.approx(np.mean([by_domain["x"]["value"], by_domain["y"]["value"]]))
    assert all(one["p_holm"] >= one["p"] for one in by_domain.values())


def test_reals_alone_have_their_rate_of_false_alarms() -> None:
    entry = scored("m", "coco", "reals", label=pa.array(np.zeros(N, int)))
    cells = {one["metric"]: one["value"] for one in compared(entry).cells}
    score = entry.scored.column("score").to_numpy()
    assert cells == pytest.approx({"fpr": (score >= 0.5).mean(), "acc_real": (score < 0.5).mean()})


def test_a_real_that_domains_share_counts_once() -> None:
    paths = [f"real/{i}.png" if y == 0 else f"fake/{i}.png" for i, y in enumerate(LABEL)]
    other = [f"real/{i}.png" if y == 0 else f"other/{i}.png" for i, y in enumerate(LABEL)]
    pooled = Pooled()
    for domain, path in (("x", paths), ("y", other)):
        pooled.add(Images([scored("m", domain, "cross", path=pa.array(path))]))
    _, _, label = pooled.of("m")
    assert (int((label == 0).sum()), int((label == 1).sum())) == (N // 2, N)


def test_a_temperature_is_of_the_log_odds_where_scores_round_to_one() -> None:
    log_odds = np.random.default_rng(0).normal(80 * LABEL - 40, 60).astype(np.float32)
    entry = scored("m", "x", "val", logit=pa.array(log_odds), score=pa.array(1 / (1 + np.exp(-log_odds))))
    pooled = Pooled()
    pooled.add(Images([entry]))
    found = temperature(pooled, "m")
    assert found == pytest.approx(calibration.temperature(log_odds, LABEL))
    assert found > 2 * calibration.temperature(calibration.logit(entry.scored.column("score").to_numpy()), LABEL)


def test_robustness_is_of_the_degraded_domains() -> None:
    entries = [scored("m", d, "cross", variant=v) for d in ("x", "y") for v in ("stored", "alike", "jpeg_50")]
    entries.append(scored("m", "z", "cross"))  # which is not degraded
    content = build(entries, Settings("made up", resamples=200))
    (row,) = content["robustness"]
    own = {(one.domain, one.variant): one for one in entries}
    assert row["value"] == pytest.approx(np.mean([area(own[d, "jpeg_50"]) for d in ("x", "y")]))
    assert row["stored"] == pytest.approx(np.mean([area(own[d, "stored"]) for d in ("x", "y")]))
    assert content["robustness_area"] == {"jpeg": {"m": pytest.approx((row["value"] + row["stored"]) / 2)}}
    verdicts = [[own[d, v].scored.column("score").to_numpy() >= 0.5 for v in ("stored", "jpeg_50")] for d in ("x", "y")]
    assert row["flips"] == pytest.approx(np.mean([(a != b).mean() for a, b in verdicts]))
    means = {(one["domain"]): one for one in content["shifts"]}
    moved = [own["x", v].scored.column("score").to_numpy()[LABEL == 1].mean() for v in ("stored", "alike")]
    assert means["x"]["fake"] == pytest.approx(moved[1] - moved[0])
    assert math.isnan(content["calibration"]["stored"]["m"]["temperature"])  # without validation


def test_the_mean_over_one_domain_has_the_interval_of_that_domain() -> None:
    comparison = compared(scored("m", "w", "within"), scored("m", "x", "cross"))
    cells = {(one["domain"], one["metric"]): one for one in comparison.cells}
    for one in comparison.summaries():
        if not math.isnan(one["cross"]):
            cell = cells["x", one["metric"]]
            assert (one["cross"], one["low"], one["high"]) == (cell["value"], cell["low"], cell["high"]), one["metric"]


def test_re_encoded_alike_the_tests_are_those_of_these_images_alone() -> None:
    """And what is found as stored does not change by it, Holm's correction included."""
    domains, methods = ("w", "x", "y", "z"), ("a", "b", "c")
    settings = Settings("made up", resamples=200)

    def entries(variant: str, shown: str) -> list[Entry]:
        """Scores of one variant under the name of another."""
        given = [
            (m, d, scored(m, d, "within" if d == "w" else "cross", variant=variant)) for m in methods for d in domains
        ]
        return [Entry(m, 0, d, shown, one.role, one.scored) for m, d, one in given]

    val = [scored(m, "val", "val") for m in methods]
    both = build([*entries("stored", "stored"), *entries("alike", "alike"), *val], settings)
    alone = {v: build([*entries(v, "stored"), *val], settings) for v in ("stored", "alike")}
    for variant, one in alone.items():
        own = [{**row, "variant": "stored"} for row in both["differences"] if row["variant"] == variant]
        assert own == one["differences"]
        assert len(own) == 3 * 5
        assert both["ranks"][variant] == one["ranks"]["stored"]
        assert both["calibration"][variant] == one["calibration"]["stored"]
        tested = [row["tested"][variant] for row in both["thresholds"]]
        assert tested == [row["tested"]["stored"] for row in one["thresholds"]]
    row = next(row for row in both["thresholds"] if row["tested"]["alike"])
    scores = [
        scored(row["method"], d, "cross", variant="alike").scored.column("score").to_numpy()[LABEL == 0]
        for d in domains
    ]
    assert row["tested"]["alike"] == pytest.approx((np.concatenate(scores) >= row["threshold"]).mean())
    assert row["tested"]["alike"] != row["tested"]["stored"]


def test_degradations_are_in_order_of_their_strength() -> None:
    found = ("blur_10", "blur_20", "blur_30", "blur_5", "jpeg_30", "jpeg_95", "alike", "stored", "stored@five")
    content = build([scored("m", "x", "cross", variant=v) for v in found], Settings("made up", resamples=100))
    wanted = ["jpeg_95", "jpeg_30", "blur_5", "blur_10", "blur_20", "blur_30"]
    assert content["variants"] == ["stored", "alike", *wanted, "stored@five"]
    assert [row["variant"] for row in content["robustness"]] == wanted
    assert [*content["robustness_area"]] == ["jpeg", "blur"]


def test_the_most_wrong_images_are_wrong_and_of_both_classes_in_turn() -> None:
    score = np.where(LABEL == 1, np.linspace(0.3, 0.9, N), np.linspace(0.05, 0.55, N))
    one = scored("m", "x", "cross", score=pa.array(score))
    one.scored.facts["threshold"] = 0.52
    rows = wrong(Images([one]), one)
    assert [row["label"] for row in rows] == [1, 0, 1, 0, 1, 1]  # two reals alone are above the threshold
    assert [row["path"] for row in rows[:3]] == ["x/1.png", f"x/{N - 2}.png", "x/3.png"]
    one.scored.facts["threshold"] = None
    assert [row["label"] for row in wrong(Images([one]), one)] == [1, 0, 1, 0, 1, 0, 1]


def test_every_method_has_a_temperature_and_thresholds_of_its_own() -> None:
    tested = [scored(m, "x", "cross") for m in ("a", "b")]
    content = build([*tested, *(scored(m, "val", "val") for m in ("a", "b"))], Settings("made up", resamples=200))
    own = content["calibration"]["stored"]
    assert own["a"]["temperature"] != own["b"]["temperature"]
    assert all(0 < one["temperature"] < 100 for one in own.values())
    reals = {(one["method"], one["fpr"]): one["reals"] for one in content["thresholds"]}
    assert reals == {(m, fpr): N // 2 for m in ("a", "b") for fpr in (0.05, 0.01, 0.001)}

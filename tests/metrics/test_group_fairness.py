"""Fairness measures against the authors' numbers and hand-made cases."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from dfl.metrics import GroupFairness, attributes, auroc, eer
from dfl.metrics.fairness import TOGETHER, WHOLE, compare, confusion, flat, verdict_gaps

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "fairness_metrics.npz")
PARTS = {"inter": WHOLE, "gender": "gender", "race": "race"}
QUIET = pytest.mark.filterwarnings("ignore:.*left out of", "ignore:.*fewer than two groups")


def golden(name: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict[str, dict[str, list[int]]], int]:
    logit, label, group = (torch.from_numpy(GOLDEN[f"{name}/{k}"]) for k in ("logit", "label", "group"))
    names = {str(n): i for i, n in enumerate(GOLDEN[f"{name}/group_names"])}
    return logit.sigmoid(), label, group, attributes(names), len(names)


@QUIET
@pytest.mark.parametrize("name", ["full8", "degenerate8", "six"])
def test_equals_the_authors_code(name):
    score, label, group, groups, _ = golden(name)
    assert set(groups) == set(PARTS.values())
    for theirs, ours in PARTS.items():
        result = GroupFairness(groups[ours], score, label, group, threshold=0.5).compute()
        expected = {"F_FPR": "F_FPR_sum", "F_EO": "F_EO_sum"}  # raw; the others are x 100
        for measure, key in expected.items():
            assert float(result[measure]) == pytest.approx(float(GOLDEN[f"{name}/{theirs}/{key}"]), abs=1e-9)
        expected = {"F_OAE": "F_OAE", "F_DP": "F_DP", "F_MEO": "F_MEO", "gap_fpr": "gap_FPR", "gap_auroc": "gap_AUC"}
        for measure, key in expected.items():
            assert 100 * float(result[measure]) == pytest.approx(
                float(GOLDEN[f"{name}/{theirs}/{key}_x100"]), abs=1e-9
            ), measure
            if measure != "gap_auroc":
                assert result[measure] == result[f"{measure}_val"]


@QUIET
@pytest.mark.parametrize("name", ["full8", "degenerate8", "six"])
def test_rates_of_every_group_equal_the_authors(name):
    score, label, group, groups, n = golden(name)
    table = dict(zip(GOLDEN[f"{name}/table_rows"].tolist(), GOLDEN[f"{name}/table"], strict=True))
    column = GOLDEN["metric_columns"].tolist()
    seen = 0
    for own in groups.values():
        metric = GroupFairness(own, score, label, group)
        rates = metric.rates()
        for one in [*own, TOGETHER]:
            theirs = dict(zip(column, table["group_1" if one == TOGETHER else one], strict=True))
            assert math.isnan(theirs["FPR"]) == (one in metric.left_out)
            if one in metric.left_out:
                continue
            seen += 1
            keys = {"auroc": "auc", "fpr": "FPR", "tpr": "TPR", "acc": "acc", "positive": "positive_rate"}
            for mine, key in keys.items():
                assert rates[one][mine] == pytest.approx(theirs[key], abs=1e-9)
            # theirs is read off a thinned curve at its point nearest to the crossing; ours is the crossing
            rows = torch.isin(group, torch.tensor(own.get(one, list(range(n)))))
            assert rates[one]["eer"] == float(eer(score[rows], label[rows]))
    assert seen >= 12


def test_left_out_groups_are_named_with_the_reason_and_stay_in_the_whole():
    score, label, group, groups, _ = golden("degenerate8")
    metric = GroupFairness(groups[WHOLE], score, label, group, name="intersection")
    assert metric.left_out == {"male,black": "no images", "nonmale,black": "no fake images"}
    with pytest.warns(UserWarning, match=r"intersection: left out .*male,black \(no images\), nonmale,black \(no fake"):
        metric.compute()
    assert metric.rates()[TOGETHER]["real"] == int((label == 0).sum())
    assert metric.rates()["nonmale,black"]["fpr"] >= 0
    assert math.isnan(metric.rates()["nonmale,black"]["tpr"])


def test_by_hand():
    # a: FPR 1/2, TPR 1; b: FPR 0, TPR 1/2; all: FPR 1/4, TPR 3/4
    score = torch.tensor([0.9, 0.1, 0.8, 0.7, 0.2, 0.3, 0.6, 0.4, 0.99])
    label = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1, 0])
    group = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, -1])  # the last image is nobody's
    metric = GroupFairness({"a": [0], "b": [1]}, score, label, group, threshold=0.35)
    result = {k: float(v) for k, v in metric.compute().items()}
    expected = {"F_FPR": 0.5, "F_EO": 1.0, "F_OAE": 0.0, "F_DP": 0.5, "F_MEO": 0.5, "gap_fpr": 0.5, "gap_tpr": 0.5}
    assert {k: result[k] for k in expected} == expected
    expected = {"F_FPR_val": 0.5, "F_EO_val": 0.5, "F_OAE_val": 0.25, "F_MEO_val": 0.5, "gap_tpr_val": 0.0}
    assert {k: result[k] for k in expected} == expected
    assert result["gap_auroc"] == 1.0 - 0.5
    assert metric.rates()[TOGETHER]["real"] == 4


def test_verdict_at_the_threshold_is_fake():
    counts = confusion(torch.tensor([0.5, 0.25]), torch.tensor([1, 0]), torch.tensor([1, 1]), 3, 0.5)
    assert counts.tolist() == [[[0, 0], [0, 0]], [[1, 0], [0, 1]], [[0, 0], [0, 0]]]


def test_images_of_other_groups_are_not_counted():
    score, label, group, groups, _ = golden("full8")
    own = group < 4
    part = {name: ids for name, ids in groups[WHOLE].items() if ids[0] < 4}
    alone, among = (GroupFairness(part, score[at], label[at], group[at], 0.4) for at in (own, torch.ones(len(own)) > 0))
    assert alone.compute() == among.compute()
    assert alone.rates() == among.rates()


def test_undefined_is_nan_with_a_warning():
    two = {"a": [0], "b": [1]}
    lone = GroupFairness(two, torch.tensor([0.2, 0.9]), torch.tensor([0, 1]), torch.tensor([0, 0]))
    with pytest.warns(UserWarning, match="fewer than two groups"):
        assert all(math.isnan(v) for v in lone.compute().values())
    score = torch.tensor([0.2, 0.9, math.nan, 0.9])
    spoilt = GroupFairness(two, score, torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1]), threshold=0.5)
    with pytest.warns(UserWarning, match="1 scores are NaN"):
        assert all(math.isnan(v) for v in spoilt.compute().values())
    assert math.isnan(spoilt.rates()["b"]["fpr"])  # and not 0, as a count would say


def test_without_a_validation_threshold_only_its_measures_are_nan():
    score, label, group, groups, _ = golden("full8")
    result = GroupFairness(groups["gender"], score, label, group).compute()
    unknown = {k for k, v in result.items() if math.isnan(v)}
    assert unknown == {f"{k}_val" for k in ("F_FPR", "F_OAE", "F_DP", "F_MEO", "F_EO", "gap_fpr", "gap_tpr")}


def test_wrong_input_is_refused():
    one = torch.zeros(1)
    with pytest.raises(ValueError, match="id 0 is in the groups 'male' and 'asian'"):
        GroupFairness({"male": [0, 1], "asian": [0]}, one, one.long(), one.long())
    with pytest.raises(ValueError, match="not under num_groups=1"):
        confusion(one, one.long(), one.long() + 1, 1, 0.5)
    with pytest.raises(ValueError, match="1 labels but 2 groups"):
        GroupFairness({"a": [0]}, one, one.long(), torch.zeros(2).long())
    with pytest.raises(ValueError, match="labels must be 0"):
        GroupFairness({"a": [0]}, one, one.long() - 1, one.long())
    with pytest.raises(TypeError, match="float32"):
        GroupFairness({"a": [0]}, one.bfloat16(), one.long(), one.long())


def test_names_split_into_attributes_by_plain_rules():
    def split(*names: str) -> dict[str, dict[str, list[int]]]:
        return attributes({name: i for i, name in enumerate(names)})

    found = split("male,asian", "male,white", "nonmale,asian", "nonmale,white")
    assert found["gender"] == {"male": [0, 1], "nonmale": [2, 3]}
    assert found["race"] == {"asian": [0, 2], "white": [1, 3]}
    assert found[WHOLE] == {"male,asian": [0], "male,white": [1], "nonmale,asian": [2], "nonmale,white": [3]}
    assert list(split("red-bare", "red-glasses", "blue-bare", "blue-glasses")) == ["attribute1", "attribute2", WHOLE]
    assert split("sex=f,age=old", "sex=f,age=young", "sex=m,age=old")["age"] == {"old": [0, 2], "young": [1]}
    # one word with a hyphen, words that tell every name apart, single words: no attributes
    for names in (("east-asian", "white"), ("east-asian", "south-african"), ("a", "b", "c")):
        assert list(split(*names)) == ["group"]
    assert split("male", "male,asian", "nonmale,asian", "nonmale,white")["race"] == {"asian": [1, 2], "white": [3]}


def test_measures_of_many_thresholds_at_once_equal_one_by_one():
    score, label, group, _, n = golden("full8")
    many = torch.stack([confusion(score, label, group, n, t) for t in (0.2, 0.5, 0.8)])
    together = verdict_gaps(many, many.sum(1))
    for i, one in enumerate(many):
        assert all(torch.equal(together[k][i], v) for k, v in verdict_gaps(one, one.sum(0)).items())


def test_compare_takes_only_groups_that_are_there():
    score, label, group, _, _ = golden("six")
    rows = {"score": score, "label": label, "group": torch.where(group < 3, group + 4, -1)}
    made = compare(rows, {"x": 0, "a": 4, "b": 5, "c": 6}, 0.4)
    assert list(made) == ["group"]
    assert list(made["group"].groups) == ["a", "b", "c"]
    assert flat(made)["fairness/group/gap_auroc"] == pytest.approx(
        np.ptp([float(auroc(score[group == g], label[group == g])) for g in range(3)])
    )
    assert compare({**rows, "group": torch.full_like(group, -1)}, {}) == {}


def test_groups_are_ranked_by_log_odds_where_scores_round_to_one():
    logit = torch.tensor([20.0, 30.0, 40.0, 50.0, 50.0, 40.0, 30.0, 20.0])
    label, group = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1]), torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    rows = {"score": logit.sigmoid(), "label": label, "group": group}
    assert set(rows["score"].tolist()) == {1.0}
    assert flat(compare(rows, {"a": 0, "b": 1}, 0.4))["fairness/group/gap_auroc"] == 0  # all tie
    made = compare({**rows, "logit": logit}, {"a": 0, "b": 1}, 0.4)
    table = made["group"].rates()
    assert [(table[one]["auroc"], table[one]["eer"]) for one in ("a", "b")] == [(1, 0), (0, 1)]
    measures = flat(made)
    assert (measures["fairness/group/gap_auroc"], measures["fairness/group/gap_eer"]) == (1, 1)
    assert (table["a"]["fpr_val"], measures["fairness/group/gap_fpr_val"]) == (1, 0)  # the verdict is of the scores

"""What a score means: by hand, on data whose answer is known, and from numbers that a stranger wrote."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from scipy import special

from dfl.errors import UserError
from dfl.metrics import choose_threshold
from dfl.metrics.verdicts import BALANCED, COVERAGES, Verdicts, rule_of


def validation(n: int, heat: float = 2.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores, float32, that are right once their log-odds are divided by ``heat``, and labels."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(size=n) * 2
    return special.expit(odds * heat).astype(np.float32), (rng.random(n) < special.expit(odds)).astype(int)


def fitted(n: int = 1_000) -> Verdicts:
    score, label = validation(n)
    threshold = choose_threshold(torch.from_numpy(score), torch.from_numpy(label))
    found = Verdicts.fitted(score, label, float(threshold))
    assert found is not None
    return found


def test_a_rule_keeps_its_word_on_the_validation_it_was_fitted_to() -> None:
    found, (score, label) = fitted(), validation(1_000)
    assert found.temperature == pytest.approx(2, rel=0.2)
    for fpr in (None, 0.01, 0.05, 0.2):
        for coverage in COVERAGES:
            rule = found.rule(fpr, coverage)
            words = np.array([one.verdict for one in rule.verdicts(score)])
            assert (words != "unsure").mean() >= coverage
            assert (words != "unsure").mean() < coverage + 0.01
            if coverage == 1 and fpr is not None:
                assert (words[label == 0] == "fake").mean() <= fpr
    wrong = (words == "fake") != (label == 1)
    assert found.risks[found.rates.index(0.2)][-1] == pytest.approx(wrong.mean())


def test_probabilities_are_those_of_temperature_and_offset_and_keep_the_order() -> None:
    rule, (score, _) = fitted().rule(), validation(1_000)
    expected = special.expit(special.logit(score.astype(float)) / rule.temperature + rule.offset)
    inside = (score > 1e-6) & (score < 1 - 1e-6)
    found = np.array([one.probability for one in rule.verdicts(score)])
    assert found[inside] == pytest.approx(expected[inside])
    assert rule(float(score[0])).probability == pytest.approx(expected[0])
    assert (np.diff(found[np.argsort(score)]) >= 0).all()


def test_scores_that_are_all_too_high_are_calibrated_too() -> None:
    score, label = validation(20_000)
    high = special.expit(special.logit(score.astype(float)) + 3)
    found = Verdicts.fitted(high, label, 0.5)
    assert found is not None
    assert (found.temperature, found.offset) == (pytest.approx(2, rel=0.05), pytest.approx(-1.5, abs=0.1))
    probability = np.array([one.probability for one in found.rule().verdicts(high)])
    assert probability.mean() == pytest.approx(label.mean(), abs=1e-3)


def test_a_score_at_the_threshold_is_fake_and_one_below_is_real() -> None:
    rule = fitted().rule(0.05)
    assert rule(rule.threshold).verdict == "fake"
    assert rule(float(np.nextafter(np.float32(rule.threshold), np.float32(0)))).verdict == "real"
    assert fitted().rule(0.05, 0.9)(rule.threshold).verdict == "unsure"


def test_by_hand() -> None:
    real, fake = [0.1, 0.2, 0.3, 0.4, 0.9], [0.35, 0.6, 0.7, 0.8, 0.95]
    label = [0] * 5 + [1] * 5
    found = Verdicts.fitted(real + fake, label, 0.5)
    assert found is not None
    assert found.rates == [BALANCED, 0.2]  # one of five reals is a fifth, and they show nothing smaller
    assert (found.reals, found.fakes, found.fprs) == (5, 5, [0.2, 0.2])
    assert found.thresholds[1] == pytest.approx(0.71, abs=0.01)  # between the log-odds of the reals of 0.4 and 0.9
    assert found.risks[0][-1] == 0.2  # 0.9 and 0.35 are wrong
    # of ten images half are at least as far from 0.5 as 0.2 and 0.8; of 0.1, 0.9, 0.95, 0.2 and 0.8 one is wrong
    assert found.risks[0][0] == pytest.approx(0.2, abs=0.04)
    assert "20 % of 5 real validation images" in found.rule(0.2).meaning


def test_scores_that_round_to_one_are_told_apart_by_their_log_odds() -> None:
    odds = np.array([-3.0, 0.0, 20.0, 30.0, 40.0, 18.0, 25.0, 35.0, 50.0, 60.0])
    score, label = special.expit(odds.astype(np.float32)), np.array([0] * 5 + [1] * 5)
    assert (score == 1).sum() == 8
    found = Verdicts.fitted(score, label, 1.0, odds)
    assert found is not None
    assert (found.fprs, found.odds[1], found.thresholds) == ([0.6, 0.2], 35.0, [1.0, 1.0])
    rule = found.rule(0.2)
    assert [one.verdict for one in rule.verdicts(score, odds)] == ["real"] * 4 + ["fake", "real", "real"] + ["fake"] * 3
    assert rule(1.0, 36.0).verdict == "fake"
    assert found.rule()(1.0, 17.0).verdict == "fake"  # of equal scores all


def test_what_validation_cannot_know_is_refused() -> None:
    found = fitted(100)
    with pytest.raises(UserError, match=r"--fpr 0.001 needs at least 1,000 real .* had \d\d: take one"):
        found.rule(0.001)
    with pytest.raises(UserError, match=r"--fpr 0.3 is none of .*: 0.05, 0.1, 0.2$"):
        found.rule(0.3)
    with pytest.raises(UserError, match=r"--coverage 0.85 is none of .*0.8, 0.9"):
        found.rule(coverage=0.85)
    for odd in (0.0, 1.0, -1.0, math.nan):
        with pytest.raises(UserError, match="--fpr .* must be a share"):
            found.rule(odd)


def test_one_class_or_no_number_is_no_validation() -> None:
    assert Verdicts.fitted([0.1, 0.2], [0, 0], 0.5) is None
    assert Verdicts.fitted([0.1, math.nan], [0, 1], 0.5) is None
    assert Verdicts.fitted([0.1, 0.2], [0, 1], math.nan) is None
    rule = rule_of(None, math.nan)
    assert rule.threshold == 0.5
    assert math.isnan(rule(0.7).probability)
    assert rule(0.7).verdict == "fake"
    for words in ({"fpr": 0.05}, {"coverage": 0.9}):
        with pytest.raises(UserError, match="brings no such numbers"):
            rule_of(None, 0.5, **words)


def test_numbers_come_back_from_json_and_foreign_ones_are_refused() -> None:
    found = fitted(200)
    again = json.loads(json.dumps(found.plain()))
    assert Verdicts(**again) == found
    del again["offset"]  # as in a checkpoint from before it
    assert Verdicts(**again) == dataclasses.replace(found, offset=0.0)
    for change in (
        {"thresholds": [2.0] * len(found.rates)},
        {"bands": []},
        {"temperature": 0.0},
        {"reals": 0},
        {"offset": math.inf},
    ):
        with pytest.raises(ValueError, match="not those of a validation"):
            Verdicts(**(again | change))

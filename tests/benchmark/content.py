"""The content of a made-up benchmark, every section filled: scores are drawn, and what is said of them is measured."""

import math
from itertools import combinations
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

NAMES = ("vit_scl", "vit_lora", "linear_probe", "xception", "patch_forensics", "dct")
PLACES = ("progan", "stylegan", "stylegan2", "ldm", "glide_100_27", "dalle", "faceswap", "repaint-p2-9k")
FAMILIES = {"jpeg": (95, 75, 50, 30), "webp": (90, 60, 30), "blur": (1, 2, 3)}
METRICS = ("auroc", "ap", "eer", "bacc_val", "acc_real", "acc_fake", "tpr_at_1fpr", "fpr", "bacc_oracle", "mask_iou")
BINS = np.linspace(0, 1, 21)

Scores = tuple[np.ndarray, np.ndarray]


def content(methods: int = 3, domains: int = 3, images: int = 60, seed: int = 0) -> dict[str, Any]:
    """Return the content of a benchmark; the first domain is within, and one more has real images alone.

    Args:
        methods: How many; names go on as ``name_2`` and so on.
        domains: How many with both classes.
        images: Of each class of a domain.
        seed: Of the scores.
    """
    rng = np.random.default_rng(seed)
    names, places = _names(NAMES, methods), _names(PLACES, domains)
    gain = {name: 1.9 - 0.22 * (i % 6) for i, name in enumerate(names)}
    ease = {place: 1.3 if i == 0 else rng.uniform(0.1, 1.0) for i, place in enumerate(places)}
    scores = {
        (m, d, v): _scores(rng, gain[m] * ease[d] * (1 if v == "stored" else 0.8), images)
        for m in names
        for d in places
        for v in ("stored", "alike")
    }
    cells = [cell for key, own in scores.items() for cell in _cells(*key, own)]
    cells += [_cell(m, "coco", v, "fpr", rng.uniform(0, 0.2)) for m in names for v in ("stored", "alike")]
    area = {(c["method"], c["domain"], c["variant"]): c["value"] for c in cells if c["metric"] == "auroc"}
    return {
        "name": "made up",
        "created": "2026-01-01T00:00:00+00:00",
        "version": "0.0",
        "command": "dfl benchmark made_up.yaml",
        "spec": {"name": "made up", "metrics": ["auroc", "ap"], "within": places[:1], "alike": True},
        "spec_sha256": "0" * 64,
        "methods": [_method(name, i) for i, name in enumerate(names)],
        "domains": [_domain(place, i, images) for i, place in enumerate(places)]
        + [{**_domain("coco", 1, images), "role": "reals", "fake": 0, "generators": {}, "leak": {}}],
        "variants": ["stored", "alike", *(f"{f}_{s}" for f, strengths in FAMILIES.items() for s in strengths)],
        "metrics": list(METRICS),
        "cells": cells,
        "all_fake": [
            {"domain": d, "variant": v, "metric": "mask_iou_all_fake", "value": 0.25}
            for d in places
            for v in ("stored", "alike")
        ],
        "summaries": [_summary(m, v, places, area) for m in names for v in ("stored", "alike")],
        "differences": [
            one for v in ("stored", "alike") for one in _differences(names, ["", *places], places, area, v)
        ],
        "ranks": {v: _ranks(names, places, area, v) for v in ("stored", "alike")},
        "curves": {d: {m: _curves(scores[m, d, "stored"]) for m in names} for d in places},
        "histograms": {d: {m: _histogram(scores, m, d) for m in names} for d in places},
        "shifts": [_shift(scores, m, d) for m in names for d in places],
        "robustness": [_robustness(m, i, f, s) for i, m in enumerate(names) for f, ss in FAMILIES.items() for s in ss],
        "robustness_area": {f: {m: 0.9 - 0.05 * (i % 6) for i, m in enumerate(names)} for f in FAMILIES},
        "generators": [
            {"method": m, "domain": d, "variant": "stored", "generator": d, "year": 2017 + i, "n": images}
            | {"auroc": area[m, d, "stored"]}
            | {"flag": "the backbone may have seen such images" if i > 4 else ""}
            for m in names
            for i, d in enumerate(places)
        ],
        "calibration": {
            v: {m: _calibration(scores[m, places[0], v], i) for i, m in enumerate(names)} for v in ("stored", "alike")
        },
        "thresholds": [
            {"method": m, "fpr": rate, "threshold": 0.9 if rate > 0.001 else math.nan, "low": 0.0, "high": 2.5 * rate}
            | {"resolved": rate > 0.001, "reals": images, "tested": {"stored": 0.9 * rate, "alike": 3 * rate}}
            for m in names
            for rate in (0.05, 0.001)
        ],
        "changes": [
            {"method": m, "domain": places[-1], "compared": places[0], "variant": v, "before": 0.9, "after": 0.4}
            | {"value": -0.5, "low": -0.6, "high": -0.35}
            for m in names
            for v in ("stored", "alike")
        ],
        "fairness": [
            {"method": m, "domain": d, "variant": v, "attribute": "gender"}
            | {"F_FPR": 0.1, "F_EO": 0.2 + (v == "alike"), "gap_auroc": math.nan}
            for v in ("stored", "alike")
            for m in names
            for d in places[:1]
        ],
        "reference": [
            {"method": "CNNDetection", "domain": places[0], "metric": "ap", "value": 1.0}
            | {"source": "Wang et al. 2020, table 2", "protocol": "ProGAN, 20 classes"}
        ],
        "wrong": {
            d: {m: [{"path": f"nowhere/{d}/{k}.png", "score": 0.1 * k, "label": 1} for k in range(3)] for m in names}
            for d in places
        },
    }


def _names(known: tuple[str, ...], n: int) -> list[str]:
    return [known[i % len(known)] + (f"_{i // len(known) + 1}" if i >= len(known) else "") for i in range(n)]


def _scores(rng: np.random.Generator, distance: float, n: int) -> Scores:
    """Return scores in (0, 1) and labels, of fakes that lie so far from the real images."""
    label = np.arange(2 * n) % 2
    return 1 / (1 + np.exp(-2 * (rng.normal(size=2 * n) + distance * (2 * label - 1)))), label


def _cell(method: str, domain: str, variant: str, metric: str, value: float) -> dict[str, Any]:
    role = "reals" if domain == "coco" else "within" if domain == PLACES[0] else "cross"
    ends = {"low": max(0.0, value - 0.03), "high": min(1.0, value + 0.03), "spread": 0.01, "seeds": [0, 1], "note": ""}
    names = {"method": method, "domain": domain, "role": role, "variant": variant, "metric": metric}
    return names | {"value": float(value)} | ends


def _cells(method: str, domain: str, variant: str, scores: Scores) -> list[dict[str, Any]]:
    score, label = scores
    real, fake = float((score[label == 0] < 0.5).mean()), float((score[label == 1] >= 0.5).mean())
    fpr, tpr, _ = roc_curve(label, score)
    values = {
        "auroc": roc_auc_score(label, score),
        "ap": average_precision_score(label, score),
        "eer": float(fpr[np.abs(fpr - (1 - tpr)).argmin()]),
        "bacc_val": (real + fake) / 2,
        "acc_real": real,
        "acc_fake": fake,
        "tpr_at_1fpr": float(tpr[fpr <= 0.01].max()),
        "fpr": 1 - real,
        "bacc_oracle": float(((1 - fpr + tpr) / 2).max()),
        "mask_iou": math.nan if method != NAMES[0] else 0.4,
    }
    return [_cell(method, domain, variant, metric, value) for metric, value in values.items()]


def _method(name: str, i: int) -> dict[str, Any]:
    cost = {
        "parameters": 86_000_000 // (i + 1),
        "macs": 17_600_000_000 // (i + 1),
        "images_per_s": 31.4,
        "memory_mb": 512.0,
    }
    return {
        **{"name": name, "detector": "Classifier", "seeds": [0, 1], "trained_on": ["progan"], **cost, "size": 224},
        **{"transform": {"resize": "shorter", "crop": "centre"}, "threshold": [0.5, 0.6]},
        **{"weights": [f"{i:02d}ab" * 8] * 2, "external": i == 2},
    }


def _domain(name: str, i: int, n: int) -> dict[str, Any]:
    leak = {"value": 0.99 if i == 1 else 0.52, "low": 0.97 if i == 1 else 0.47, "high": 1.0 if i == 1 else 0.57}
    return {
        **{"name": name, "role": "cross" if i else "within", "real": n, "fake": n, "units": 2 * n},
        **{"generators": {name: n}, "sha256": f"{i:02d}cd" * 16, "unreadable": 0, "leak": {"metadata": leak}},
        "flags": ["reals shared with progan"] if i == 2 else [],
    }


def _summary(method: str, variant: str, places: list[str], area: dict[tuple[str, str, str], float]) -> dict[str, Any]:
    cross = {d: area[method, d, variant] for d in places[1:]}
    mean, worst = sum(cross.values()) / len(cross), min(cross, key=cross.__getitem__)
    within = area[method, places[0], variant]
    return {
        **{"method": method, "variant": variant, "metric": "auroc", "within": within, "cross": mean},
        **{"domains": len(cross), "low": mean - 0.02, "high": mean + 0.02, "minimum": cross[worst], "worst": worst},
        **{"gap": within - mean, "spread": 0.008},
    }


def _differences(
    names: list[str], domains: list[str], places: list[str], area: dict[tuple[str, str, str], float], variant: str
) -> list[dict[str, Any]]:
    found = []
    for domain in domains:
        over = [domain] if domain else places[1:]
        for a, b in combinations(names, 2):
            value = float(np.mean([area[a, d, variant] - area[b, d, variant] for d in over]))
            p = math.exp(-abs(value) * 60)
            found.append({"domain": domain, "variant": variant, "a": a, "b": b, "value": value})
            found[-1] |= {"low": value - 0.03, "high": value + 0.03}
            found[-1] |= {"p": p, "p_holm": min(1.0, p * len(names))}
    return found


def _ranks(
    names: list[str], places: list[str], area: dict[tuple[str, str, str], float], variant: str
) -> dict[str, Any]:
    ranks = np.mean(
        [np.argsort(np.argsort([-area[m, d, variant] for m in names])) + 1 for d in places[1:]], axis=0
    ).tolist()
    k, n = len(names), len(places) - 1
    return {
        "average": dict(zip(names, ranks, strict=True)),
        "domains": n,
        "friedman": {"statistic": 12.3, "p": 0.015},
        "nemenyi": {a: dict.fromkeys(names, 0.05) for a in names},
        "critical": 2.85 * math.sqrt(k * (k + 1) / (6 * n)) / 2,
    }


def _curves(scores: Scores) -> dict[str, list[float]]:
    score, label = scores
    fpr, tpr, _ = roc_curve(label, score)
    precision, recall, _ = precision_recall_curve(label, score)
    thin = slice(None, None, max(1, len(precision) // 200))
    curves = {"fpr": fpr, "tpr": tpr, "recall": recall[::-1][thin], "precision": precision[::-1][thin]}
    return {name: values.tolist() for name, values in curves.items()}


def _histogram(scores: dict[tuple[str, str, str], Scores], method: str, domain: str) -> dict[str, Any]:
    counts = {}
    for variant in ("stored", "alike"):
        score, label = scores[method, domain, variant]
        counts[variant] = {
            word: np.histogram(score[label == k], BINS)[0].tolist() for k, word in enumerate(("real", "fake"))
        }
    return {"edges": BINS.tolist(), **counts["stored"], "threshold": 0.5, "alike": counts["alike"]}


def _shift(scores: dict[tuple[str, str, str], Scores], method: str, domain: str) -> dict[str, Any]:
    (stored, label), (alike, _) = (scores[method, domain, variant] for variant in ("stored", "alike"))
    parts = {word: float((alike - stored)[label == k].mean()) for k, word in enumerate(("real", "fake"))}
    return {"method": method, "domain": domain, **parts}


def _robustness(method: str, i: int, family: str, strength: float) -> dict[str, Any]:
    value = 0.9 - 0.02 * (i % 6) - 0.06 * FAMILIES[family].index(strength)
    return {
        **{"method": method, "family": family, "strength": strength, "variant": f"{family}_{strength}"},
        **{"value": value, "low": value - 0.02, "high": value + 0.02, "flips": 0.04},
    }


def _calibration(scores: Scores, i: int) -> dict[str, Any]:
    score, label = scores
    bins = np.minimum((score * 10).astype(int), 9)
    count = np.bincount(bins, minlength=10)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(bins, part, 10) / count for part in (score, label)]
    order = np.argsort(-np.abs(score - 0.5))
    wrong = ((score >= 0.5) != label)[order]
    risk = wrong.cumsum() / np.arange(1, len(wrong) + 1)
    return {
        **{"temperature": 1.0 + 0.3 * i, "ece": 0.05 + 0.02 * i, "ece_scaled": 0.02, "aurc": float(risk.mean())},
        "reliability": {"score": means[0].tolist(), "share": means[1].tolist(), "count": count.tolist()},
        "coverage": (np.arange(1, len(wrong) + 1) / len(wrong)).tolist(),
        "risk": risk.tolist(),
    }

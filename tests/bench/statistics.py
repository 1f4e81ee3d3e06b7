"""Do intervals hold the truth as often as they say, and what do ten million rows of predictions cost?

Coverage is counted over simulated experiments whose truth is known: scores of both classes are normal. Cost is the
seconds and the peak memory of a process of its own: of all resampled metrics and their intervals, and of a whole
``dfl report`` of one domain, from its file of predictions to the page. That alone, of other sizes too:

    python -m tests.bench.statistics one 10_000_000
"""

import math
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from scipy import integrate, special, stats

from dfl.benchmark import store
from dfl.benchmark.report import report
from dfl.benchmark.statistics import Resamples, difference
from dfl.metrics import auroc_interval
from dfl.metrics.delong import delong
from dfl.metrics.intervals import interval

SIMULATIONS, RESAMPLES = 1_000, 1_000
GOAL_S, GOAL_MB = 120, 2_000
#: How far the classes are apart for two detectors, and what their scores share within a unit and between detectors.
APART, UNIT, IMAGE = np.array([1.5, 1.2]), 0.5, 0.3
#: By name: units and images a unit in each class, whether classes share units, packs.
SETTINGS = {
    "images": (400, 1, False, 16_384),
    "videos of 4 frames": (100, 4, False, 16_384),
    "fakes of the reals": (400, 1, True, 16_384),
    "images in 250 packs": (1_000, 1, False, 250),
}
#: By name: domains, detectors, images of a domain, images a unit.
COSTS = {
    "25 domains x 20 detectors x 20,000 images": (25, 20, 20_000, 1),
    "the same with 2 detectors": (25, 2, 20_000, 1),
    "1 domain x 5 detectors x 2,000,000 images": (1, 5, 2_000_000, 1),
    "1 domain x 1 detector x 10,000,000 images": (1, 1, 10_000_000, 1),
    "the same in videos of 20 frames": (1, 1, 10_000_000, 20),
}

#: Rows of a whole report of one domain in all, and by name detectors, variants, and the images of a video.
ROWS = 2_000_000
REPORTS = {
    "images": (1, ("stored",), 1),
    "videos of 20 frames": (1, ("stored",), 20),
    "5 detectors, re-encoded alike too": (5, ("stored", "alike"), 1),
}


def experiment(rng: np.random.Generator, units: int, size: int, paired: bool) -> tuple[np.ndarray, ...]:
    """Return scores of two detectors (2, n), normal with deviation 1 in each class, label and unit (n,)."""
    label = np.repeat([0, 1], units * size)
    unit = np.arange(2 * units).repeat(size) % (units if paired else 2 * units)
    score = math.sqrt(UNIT) * rng.normal(size=(2, 2 * units))[:, unit] + math.sqrt(IMAGE) * rng.normal(size=len(label))
    return score + math.sqrt(1 - UNIT - IMAGE) * rng.normal(size=score.shape) + APART[:, None] * label, label, unit


def truth() -> dict[str, float]:
    """Return what infinitely many images would give, as many fakes as reals."""
    normal, apart, middle = stats.norm, APART[0], APART[0] / 2
    area = normal.cdf(APART / math.sqrt(2))
    precision = integrate.quad(
        lambda t: normal.pdf(t - apart) * normal.sf(t - apart) / (normal.sf(t - apart) + normal.sf(t)), -8, 10
    )
    rate = float(normal.sf(middle))
    return {
        "auroc": float(area[0]),
        "ap": precision[0],
        "eer": rate,
        "tpr_at_1fpr": float(normal.sf(normal.isf(0.01) - apart)),
        "bacc_val": 1 - rate,
        "acc_real": 1 - rate,
        "acc_fake": 1 - rate,
        "fpr": rate,
        "a - b": float(area[0] - area[1]),
        "DeLong": float(area[0]),
        "DeLong a - b": float(area[0] - area[1]),
    }


def coverage(units: int, size: int, paired: bool, packs: int, simulations: int = SIMULATIONS) -> dict[str, float]:
    """Return how often the interval of each value holds its truth."""
    rng, true = np.random.default_rng(0), truth()
    held = dict.fromkeys(true, 0)
    for i in range(simulations):
        score, label, unit = experiment(rng, units, size, paired)
        drawn = Resamples(label, unit.astype(str), RESAMPLES, seed=i, most_units=packs)
        first, second = drawn.metrics(score[0], APART[0] / 2), drawn.metrics(score[1])
        areas = delong(score, label, unit)
        ends = {name: interval(math.inf, values, units) for name, values in first.items()}
        ends["a - b"] = difference(float(areas.area[0] - areas.area[1]), first["auroc"] - second["auroc"])
        ends["DeLong a - b"] = areas.difference(0, 1)
        alone = auroc_interval(torch.from_numpy(score[0]), torch.from_numpy(label), torch.from_numpy(unit))
        ends["DeLong"] = dict(zip(("low", "high"), alone, strict=True))
        for name, value in true.items():
            held[name] += ends[name]["low"] <= value <= ends[name]["high"]
    return {name: count / simulations for name, count in held.items()}


def compute(domains: int, detectors: int, n: int, size: int) -> tuple[float, float, float]:
    """Return seconds, seconds of the processor and peak megabytes of all metrics and intervals."""
    rng, spent, worked = np.random.default_rng(0), 0.0, 0.0
    label = (np.arange(n) % 2).astype(np.int8)
    for domain in range(domains):
        unit = pc.binary_join_element_wise(f"domain{domain}/images", pa.array(np.arange(n) // size).cast("str"), "/")
        began, cpu = time.perf_counter(), time.process_time()
        drawn = Resamples(label, unit, RESAMPLES, seed=0)
        del unit
        for _ in range(detectors):
            spent, worked = spent + time.perf_counter() - began, worked + time.process_time() - cpu
            score = rng.normal(size=n).astype(np.float32) + label
            began, cpu = time.perf_counter(), time.process_time()
            for values in drawn.metrics(score, 0.5).values():
                interval(0.5, values)
        spent, worked = spent + time.perf_counter() - began, worked + time.process_time() - cpu
    return spent, worked, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write_domain(folder: Path, rows: int, detectors: int, variants: tuple[str, ...], size: int) -> None:
    """Write so many predictions in all, of images of 8 generators and 8 groups of people.

    Args:
        folder: Holds a file for each detector and variant.
        rows: In all of them.
        detectors: How many.
        variants: Their names.
        size: Images of a video; 1 for none.
    """
    n = rows // (detectors * len(variants))
    rng, row = np.random.default_rng(0), np.arange(n)
    unit, label = row // size, row // size % 2
    words = {
        "folder": (label, ["data/set/images/real", "data/set/images/fake"]),
        "generator": (np.where(label, unit // 2 % 8 + 1, 0), ["", *(f"generator{i}" for i in range(8))]),
        "group": (
            unit // 2 % 8,
            [f"{a},{b}" for a in ("male", "female") for b in ("asian", "black", "white", "other")],
        ),
        "source": (0 * row, [""]),
        "video": (0 * row, [""]),
    }
    text = {
        k: pa.DictionaryArray.from_arrays(c.astype(np.int32), pa.array(w)).cast("str") for k, (c, w) in words.items()
    }
    if size > 1:
        text["video"] = pc.binary_join_element_wise("clip", pa.array(unit).cast("str"), "")
    image = pc.binary_join_element_wise(pc.utf8_lpad(pa.array(row).cast("str"), 8, "0"), "png", ".")
    path = pc.binary_join_element_wise(text.pop("folder"), image, "/")
    for detector in range(detectors):
        for variant in variants:
            logit = (2 * rng.normal(size=n) + 2 * label - 1).astype(np.float32)
            columns = {"path": path, "label": label, "score": special.expit(logit), "logit": logit, **text}
            facts = {"method": f"m{detector}", "domain": "one", "variant": variant, "threshold": 0.5}
            store.write(folder / f"m{detector}_{variant}.parquet", pa.table(columns), facts)


def whole_report(folder: str) -> tuple[float, float, float]:
    """Return seconds, seconds of the processor and peak megabytes of a report on a folder of predictions."""
    began, cpu = time.perf_counter(), time.process_time()
    report([folder], output=f"{folder}/report", resamples=RESAMPLES)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return time.perf_counter() - began, time.process_time() - cpu, peak


def one_domain(rows: int) -> dict[str, tuple[float, float, float]]:
    """Print what a report of one domain costs, with so many rows in all; return it."""
    results = {}
    for what, made in REPORTS.items():
        name = f"report on 1 domain, {rows:,} rows, {what}"
        with tempfile.TemporaryDirectory() as folder:
            for work, *given in ((write_domain, Path(folder), rows, *made), (whole_report, folder)):
                with multiprocessing.get_context("spawn").Pool(1) as pool:  # memory of its own
                    results[name] = pool.apply(work, given)
        _say(name, *results[name])
    return results


def _say(name: str, seconds: float, work: float, peak: float) -> None:
    print(
        f"statistics: {name}, {RESAMPLES:,} resamples: {seconds:.0f} s (goal {GOAL_S}; {work:.0f} s of the "
        f"processor), peak {peak:,.0f} MB with imports (goal {GOAL_MB:,})",
        flush=True,
    )


def main() -> dict[str, Any]:
    """Print coverage and cost; return them."""
    results: dict[str, Any] = {}
    for name, setting in SETTINGS.items():
        results[name] = coverage(*setting)
        told = ", ".join(f"{measure} {100 * share:.1f}" for measure, share in results[name].items())
        print(f"coverage of 95 % intervals, {SIMULATIONS:,} simulations, {name} (goal 93 to 97 %): {told}", flush=True)
    for name, cost in COSTS.items():
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            results[name] = pool.apply(compute, cost)
        _say(name, *results[name])
    return results | one_domain(ROWS)


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        one_domain(int(sys.argv[2]) if len(sys.argv) > 2 else ROWS)
    else:
        main()

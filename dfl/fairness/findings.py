"""The numbers of an audit in sentences: what they say, and no more."""

from collections.abc import Iterator, Mapping
from typing import Any

from dfl.metrics.fairness import TOGETHER

#: A group with fewer images of a class has no firm rate.
FEW = 30
#: Of which images a rate is, and what happens to them.
PHRASES = {"fpr": ("real images", "called fake"), "tpr": ("fake images", "found")}
MOST = 12

#: Severity (error, warning, note) and sentence.
Finding = tuple[str, str]


def findings(content: Mapping[str, Any], alarms: float) -> Iterator[Finding]:
    """Yield the findings of an audit.

    Args:
        content: Of `examine`, but for the findings.
        alarms: Corrected p under which a difference is more than chance explains.
    """
    for reason, count in content["left_out"].items():
        yield "note", f"{count:,} images have {reason} and are left out"
    if content["repeated"]:
        yield "warning", f"{content['repeated']:,} paths stand in more than one row; copies make intervals too narrow"
    by_attribute = [
        (domain, one, attribute, by)
        for domain, one in content["domains"].items()
        for attribute, by in one["attributes"].items()
    ]
    for domain, one in content["domains"].items():
        yield from _quality(domain, one)
        for attribute, by in one["attributes"].items():
            yield from _groups(f"{domain}, {attribute}", by)
    tests = [(f"{domain}, {attribute}", test) for domain, _, attribute, by in by_attribute for test in by["tests"]]
    significant = sorted((pair for pair in tests if pair[1]["p_corrected"] < alarms), key=lambda t: t[1]["p_corrected"])
    for where, test in significant[:MOST]:
        images, verdict = PHRASES[test["rate"]]
        yield (
            "warning",
            f"{where}: {100 * test['value']:.1f} % of the {test['n']:,} {images} of {test['group']!r} are {verdict}, "
            f"{100 * test['others']:.1f} % of the {test['n_others']:,} of the others: more than chance explains "
            f"(corrected p = {test['p_corrected']:.2g}). It says nothing of the cause",
        )
    if len(significant) > MOST:
        yield "warning", f"{len(significant) - MOST} more such differences are in audit.json"
    if not significant and content["comparisons"]:
        yield (
            "note",
            f"no group differs from the others by more than chance explains, at {content['comparisons']} comparisons "
            "and a 5 % chance of any false alarm. That is not proof of fairness",
        )
    for domain, one, attribute, by in by_attribute:
        if least := by["least_difference"]:
            yield (
                "note",
                f"{domain}, {attribute}: the smallest group, {least['group']!r}, has {least['units']:,} real "
                f"{'units' if one['by_video'] else 'images'}; a difference in FPR under about "
                f"{100 * least['difference']:.0f} points could well stay unseen there",
            )
    yield (
        "note",
        "groups are compared as they are in these images: age, pose, light, camera or generator may differ between "
        "them, and group labels may be guesses of another model",
    )


def _quality(domain: str, one: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield where the detector is no detector here, so that equal rates mean little."""
    area = one["auroc"]
    together = next(iter(one["attributes"].values()))["groups"][TOGETHER]
    fpr, tpr = together["fpr"]["value"], together["tpr"]["value"]
    if area < 0.4:
        yield "error", f"{domain}: AUROC is {area:.3f}, under 0.4: the scores are upside down; look for inverted labels"
    elif area < 0.55:
        yield "warning", f"{domain}: AUROC is {area:.3f}, hardly better than chance; equal rates mean nothing here"
    if (fpr, tpr) in ((0.0, 0.0), (1.0, 1.0)):
        word = "fake" if fpr else "real"
        yield "warning", f"{domain}: every image is called {word} at this threshold, so no verdict differs by group"
    if one["by_video"]:
        yield "note", f"{domain}: frames of a video count as one unit in intervals and tests"


def _groups(where: str, by: Mapping[str, Any]) -> Iterator[Finding]:
    for name, why in by["left_out"].items():
        yield "warning", f"{where}: {name!r} has {why} and is left out of the differences"
    compared = {name: one for name, one in by["groups"].items() if name not in {*by["left_out"], TOGETHER}}
    few = [
        f"{name!r} ({one['real']:,} real, {one['fake']:,} fake)"
        for name, one in compared.items()
        if min(one["real"], one["fake"]) < FEW
    ]
    if few:
        yield "warning", f"{where}: too few images for firm rates of {', '.join(few)}"
    shares = [one["fake"] / (one["real"] + one["fake"]) for one in compared.values()]
    if shares and max(shares) - min(shares) > 0.1:
        yield (
            "note",
            f"{where}: {100 * min(shares):.0f} to {100 * max(shares):.0f} % of a group's images are fake; F_DP and "
            "F_OAE would differ from 0 for that alone",
        )

"""Do groups of people get the same verdicts? Rates by group, and how far they lie apart.

The measures are those of PG-FDD (Lin et al., CVPR 2024) as its authors' code computes them: fractions here, while the
papers' tables are x 100. They come from confusion counts by group, which are integers and add up over batches and
processes exactly. With FPR the share of real images that are called fake, TPR the share of fakes that are found, PR
the share of images that are called fake, ``g`` a group and no index all groups together:

* ``F_FPR`` = sum_g |FPR_g - FPR|; ``F_EO`` = sum_g (|FPR_g - FPR| + |TPR_g - TPR|)
* ``F_OAE`` = max_g accuracy - min_g accuracy; ``F_DP`` = max_g PR - min_g PR
* ``F_MEO`` = the larger of ``gap_fpr`` = max_g FPR - min_g FPR and ``gap_tpr``
* ``gap_auroc``, ``gap_eer``: max - min of the rank measures inside each group, which need no threshold

0 means alike. A sum grows with the number of groups and a largest difference with how small they are, so neither can be
compared between sets with other groups.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics.utilities import rank_zero_warn

from dfl.metrics import binary

#: Measures that depend on the threshold, and those that do not.
VERDICTS = ("F_FPR", "F_OAE", "F_DP", "F_MEO", "F_EO", "gap_fpr", "gap_tpr")
RANKS = ("gap_auroc", "gap_eer")
#: What the parts of a group's name are called where all of them are among these words; others are numbered.
ATTRIBUTES = {
    "gender": {"male", "female", "nonmale", "man", "woman"},
    "race": {"asian", "white", "black", "indian", "others", "other"},
    "skin_tone": {"light", "medium", "dark"},
}
WHOLE = "intersection"
#: What all groups together are called among the rates.
TOGETHER = "all together"

Groups = dict[str, list[int]]


def attributes(names: Mapping[str, int]) -> dict[str, Groups]:
    """Split the names of intersections into attributes.

    A comma separates the parts of a name: ``male,asian``. Where no name has a comma, a hyphen does, if all names have
    equally many parts: ``red-glasses``. A part may name its attribute: ``gender=male,race=asian``; else the attribute
    is ``gender``, ``race`` or ``skin_tone`` where all its values are such words (`ATTRIBUTES`), and ``attribute1``,
    ``attribute2`` by its place where not. A name with fewer parts than others belongs to no group of the attributes
    that it lacks. An attribute with one value, or that tells every name from every other, says nothing new and is left
    out.

    Args:
        names: id by name.

    Returns:
        ids by group, for every attribute, and last for the names as they are: ``intersection`` where there are
        attributes, ``group`` where there are none.
    """
    split: dict[str, Groups] = {}
    for place, column in enumerate(_columns(list(names))):
        values: Groups = {}
        for name, value in column.items():
            values.setdefault(value, []).append(names[name])
        if 1 < len(values) < len(names):
            split[_attribute(place, list(values))] = {
                value.partition("=")[2] or value: values[value] for value in values
            }
    own = {name: [number] for name, number in names.items()}
    return split | {WHOLE if split else "group": own}


def _columns(names: Sequence[str]) -> list[dict[str, str]]:
    """Return the first, second, ... part of each name that has one."""
    mark = "," if any("," in name for name in names) else "-"
    parts = {name: [part.strip() for part in name.split(mark)] for name in names}
    if mark == "-" and len({len(p) for p in parts.values()}) > 1:  # "east-asian" beside "white" is one word
        return []
    most = max(map(len, parts.values()), default=0)
    return [{name: p[i] for name, p in parts.items() if i < len(p)} for i in range(most)] if most > 1 else []


def _attribute(place: int, values: Sequence[str]) -> str:
    stated = {value.partition("=")[0] for value in values if "=" in value}
    if len(stated) == 1 and all("=" in value for value in values):
        return stated.pop()
    matching = (name for name, words in ATTRIBUTES.items() if {value.lower() for value in values} <= words)
    return next(matching, f"attribute{place + 1}")


def confusion(score: Tensor, label: Tensor, group: Tensor, num_groups: int, threshold: float) -> Tensor:
    """Count verdicts by group.

    Args:
        score: (N,) float32 or float64; the verdict is fake iff score >= threshold.
        label: (N,) 0 real, 1 fake.
        group: (N,) integers under ``num_groups``; rows with a group < 0 are left out.
        num_groups: G.
        threshold: of the verdict.

    Returns:
        (G, 2, 2) int64 on the CPU: ``[group, label, verdict]``. A group that is not there has zeros.

    Raises:
        TypeError: for a score of lower precision.
        ValueError: for other labels, for columns of different lengths, for a group >= ``num_groups``.
    """
    score, label = binary.checked(score, label)
    group = group.detach().flatten().cpu()
    if group.shape != label.shape:
        raise ValueError(f"{len(label)} labels but {len(group)} groups")
    if len(group) and int(group.max()) >= num_groups:
        raise ValueError(f"group {int(group.max())} is not under num_groups={num_groups}")
    cell = 4 * group[group >= 0].long()
    cell += (2 * label + (score.double() >= threshold))[group >= 0]
    return torch.bincount(cell, minlength=4 * num_groups).reshape(num_groups, 2, 2)


def rates(counts: Tensor) -> dict[str, Tensor]:
    """Return what counts (..., 2, 2) say: ``fpr``, ``tpr``, ``acc``, ``positive`` (...) float64, NaN for 0 of 0."""
    c = counts.double()
    both = c.sum((-1, -2))
    return {
        "fpr": c[..., 0, 1] / c[..., 0, :].sum(-1),
        "tpr": c[..., 1, 1] / c[..., 1, :].sum(-1),
        "acc": (c[..., 0, 0] + c[..., 1, 1]) / both,
        "positive": c[..., 1].sum(-1) / both,
    }


def verdict_gaps(counts: Tensor, whole: Tensor) -> dict[str, Tensor]:
    """Return the measures `VERDICTS`.

    Args:
        counts: (..., G, 2, 2) of the groups that are compared; leading dimensions may be thresholds or resamples.
        whole: (..., 2, 2) of all images together.

    Returns:
        (...) float64 by measure; NaN for fewer than two groups, or where a group lacks a class.
    """
    own, all_ = rates(counts), rates(whole)
    if counts.shape[-3] < 2:
        return {name: torch.full(counts.shape[:-3], math.nan, dtype=torch.float64) for name in VERDICTS}
    gap = {name: own[name].amax(-1) - own[name].amin(-1) for name in own}
    far = {name: (own[name] - all_[name][..., None]).abs().sum(-1) for name in ("fpr", "tpr")}
    return {
        "F_FPR": far["fpr"],
        "F_OAE": gap["acc"],
        "F_DP": gap["positive"],
        "F_MEO": torch.maximum(gap["fpr"], gap["tpr"]),
        "F_EO": far["fpr"] + far["tpr"],
        "gap_fpr": gap["fpr"],
        "gap_tpr": gap["tpr"],
    }


class GroupFairness:
    """How far the verdicts on groups lie apart, for one set of groups that share no image.

    Make one for gender, one for race, one for their intersections: `attributes` gives the groups of each. The rows are
    those of all ranks, as `Detection` gathers them.

    A group without real or without fake images has no FPR or no TPR. It is left out of the differences, as in the
    authors' code, and ``left_out`` says why; its images stay among all images.

    Args:
        groups: Ids by group, for example ``{"male": [0, 1, 2, 3], "nonmale": [4, 5, 6, 7]}``. Images of other ids are
            not counted at all.
        score: (N,) float32 or float64 in [0, 1], the probability of fake.
        label: (N,) 0 real, 1 fake.
        group: (N,) integers, -1 for unknown.
        threshold: The threshold that was chosen on validation data; NaN for none.
        name: What is compared, for warnings.
        rank: (N,) float32 or float64, what images are ranked by, such as log-odds; by default the score.

    Raises:
        TypeError: for a score of lower precision.
        ValueError: for an id that is in two groups, for other labels, for columns of different lengths.
    """

    def __init__(
        self,
        groups: Mapping[str, Sequence[int]],
        score: Tensor,
        label: Tensor,
        group: Tensor,
        threshold: float = math.nan,
        name: str = "",
        rank: Tensor | None = None,
    ) -> None:
        owner: dict[int, str] = {}
        for one, ids in groups.items():
            for number in ids:
                if owner.setdefault(number, one) != one:
                    raise ValueError(
                        f"id {number} is in the groups {owner[number]!r} and {one!r}; compare groups that share no "
                        "image: one GroupFairness for each attribute"
                    )
        self.groups = {one: list(dict.fromkeys(ids)) for one, ids in groups.items()}
        self.threshold, self.name = float(threshold), name
        score, label = binary.checked(score, label)
        self._rank = score if rank is None else binary.checked(rank, label)[0]
        group = group.detach().flatten().cpu()
        if group.shape != label.shape:
            raise ValueError(f"{len(label)} labels but {len(group)} groups")
        named = _among(group, list(owner))
        self._rows = score, label, torch.where(named, group, -1)
        number = 1 + max(owner, default=-1)
        counts = torch.stack([confusion(*self._rows, number, at) for at in (0.5, self.threshold)])
        #: Counts (2, groups, 2, 2) of the named groups, at 0.5 and at the threshold.
        self.counts = torch.stack([counts[:, ids].sum(1) for ids in self.groups.values()], 1)
        self._table = self._by_group()

    @property
    def left_out(self) -> dict[str, str]:
        """The groups that are not compared, with the reason."""
        reasons = {}
        for one in self.groups:
            real, fake = self._table[one]["real"], self._table[one]["fake"]
            if not real or not fake:
                reasons[one] = "no images" if not real + fake else "no real images" if not real else "no fake images"
        return reasons

    def rates(self) -> dict[str, dict[str, float]]:
        """Return the numbers of each group, and of all together as `TOGETHER`.

        ``real``, ``fake`` (how many images), ``auroc``, ``eer``, and at 0.5 and (``_val``) at the threshold ``fpr``,
        ``tpr``, ``acc``, ``positive``; NaN where undefined.
        """
        return self._table

    def compute(self) -> dict[str, Tensor]:
        """Return the measures as 0-dimensional float64 tensors, fractions, 0 for alike.

        `VERDICTS` at 0.5, the same with ``_val`` at the threshold, and `RANKS`. With fewer than two groups that have
        both classes, or with a NaN score, they are NaN and a warning says why.
        """
        compared = [place for place, one in enumerate(self.groups) if one not in self.left_out]
        at_half, at_threshold = (verdict_gaps(counts[compared], counts.sum(0)) for counts in self.counts)
        if math.isnan(self.threshold):
            at_threshold = {name: binary.NAN.clone() for name in VERDICTS}
        result = at_half | {f"{name}_val": value for name, value in at_threshold.items()}
        for name in ("auroc", "eer"):
            values = [self._table[one][name] for one in self.groups if one not in self.left_out]
            gap = max(values) - min(values) if len(values) > 1 else math.nan
            result[f"gap_{name}"] = torch.tensor(gap, dtype=torch.float64)
        return {name: binary.NAN.clone() for name in result} if self._undefined() else result

    def _by_group(self) -> dict[str, dict[str, float]]:
        score, label, group = self._rows
        table: dict[str, dict[str, float]] = {}
        every = [number for ids in self.groups.values() for number in ids]
        for place, (one, ids) in enumerate([*self.groups.items(), (TOGETHER, every)]):
            own = self.counts[:, place] if one in self.groups else self.counts.sum(1)
            rows = _among(group, ids)
            real, fake = own[0].sum(-1).tolist()
            has_nan = bool(score[rows].isnan().any())  # a NaN is under every threshold, so it would count as real
            numbers: dict[str, float] = {"real": real, "fake": fake}
            for part, end in ((own[0], ""), (own[1], "_val")):
                unknown = has_nan or (end == "_val" and math.isnan(self.threshold))
                numbers |= {k + end: math.nan if unknown else float(v) for k, v in rates(part).items()}
            numbers["auroc"] = float(binary.auroc(self._rank[rows], label[rows]))
            numbers["eer"] = float(binary.eer(self._rank[rows], label[rows]))
            table[one] = numbers
        return table

    def _undefined(self) -> bool:
        """Warn which groups are left out and why measures are NaN; return whether all of them are."""
        where = f"{self.name}: " if self.name else ""
        lost = [f"{one} ({why})" for one, why in self.left_out.items()]
        unusable = int(self._rows[0].isnan().sum())
        if lost:
            rank_zero_warn(f"{where}left out of the fairness measures: {', '.join(lost)}")
        if unusable:
            rank_zero_warn(f"{where}{unusable} scores are NaN; all fairness measures are NaN")
        elif len(self.groups) - len(lost) < 2:
            rank_zero_warn(f"{where}fewer than two groups have real and fake images; all fairness measures are NaN")
        else:
            return False
        return True


def _among(group: Tensor, ids: Sequence[int]) -> Tensor:
    """Return which rows are of some groups, bool (N,)."""
    return torch.isin(group, torch.tensor(ids, dtype=group.dtype))


def compare(
    rows: Mapping[str, Tensor], names: Mapping[str, int], threshold: float = math.nan, name: str = ""
) -> dict[str, GroupFairness]:
    """Compare the groups among rows, by every attribute and by intersection.

    Args:
        rows: ``score``, ``label``, ``group`` (N,) of all ranks, as `Detection.rows()` gives them; and ``logit``, the
            log-odds, where they are known: images are ranked by them, as float32 scores tie at 1.
        names: Id by name; ids without one are called by their number. Those that no row has are not compared.
        threshold: Chosen on validation data; NaN for none.
        name: Of the domain, for warnings.

    Returns:
        `GroupFairness` by attribute; none where no row has a group.
    """
    name_of = {number: one for one, number in names.items()}
    present = {name_of.get(number, str(number)): number for number in rows["group"].unique().tolist() if number >= 0}
    start = f"domain {name!r}, " if name else ""
    score, label, group = rows["score"], rows["label"], rows["group"]
    return {
        attribute: GroupFairness(groups, score, label, group, threshold, f"{start}{attribute}", rows.get("logit"))
        for attribute, groups in (attributes(present) if present else {}).items()
    }


def flat(compared: Mapping[str, GroupFairness]) -> dict[str, float]:
    """Return the measures of `compare` as ``fairness/<attribute>/<measure>``."""
    return {
        f"fairness/{attribute}/{name}": float(value)
        for attribute, one in compared.items()
        for name, value in one.compute().items()
    }

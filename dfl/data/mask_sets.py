"""How the masks of a set are to be read, where neither set nor user says it: looked at together, never file by file.

The same 0/1 may be a mask, a region's number, or the soft edge of a mask that reaches 255. A file alone does not tell;
the set mostly does. Where it does not, a guess could be wrong without a sign of it, so it is an error that shows
what is stored and names the rules (``dfl/data/masks.py``) to choose from.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dfl.data.decoding import DecodeError
from dfl.data.locators import locate, read_bytes, split
from dfl.data.masks import says
from dfl.data.planes import read_planes
from dfl.data.sources.base import put
from dfl.errors import UserError

#: Masks of a set that are looked at before it is used: runs of neighbours (shards are read in order) at even spacing.
RUNS, RUN = 8, 8
MOST = RUNS * RUN
#: A mask with more different values is soft, or a photo; one with fewer may hold numbers of regions or classes.
FEW = 8
#: So many masks that are all empty or full are no accident.
ENOUGH = 4
LOSSY = ("JPEG", "WEBP", "AVIF")


def stored_values(mask: str) -> str:
    """Return what a mask's file holds, in words that ``rule_of`` reads and people too.

    Args:
        mask: Its locator; of a box (``xywh``), the whole mask is looked at.

    Returns:
        What white is (255, 65535), or ``lossy``, or ``alpha`` where some pixels are transparent and the colours do not
        say the same; then the different values of the largest channel, or ``LOWEST .. HIGHEST`` where there are many.

    Raises:
        DecodeError: If it cannot be read.
    """
    file, inside = split(mask)
    whole = locate(file, **{k: v for k, v in inside.items() if k != "xywh"})
    planes, white, kind = read_planes(read_bytes(whole))
    colour = planes[..., :3].max(axis=2)
    stored = np.flatnonzero(np.bincount(colour.ravel(), minlength=1))
    values = " ".join(map(str, stored)) if len(stored) <= FEW else f"{stored[0]} .. {stored[-1]}"
    if planes.shape[2] == 4 and _differs(planes[..., 3], colour, white):
        return f"alpha {values}"
    lossy = kind in LOSSY or "frame" in inside or "at" in inside
    return f"{'lossy' if lossy else white} {values}"


def _differs(alpha: np.ndarray, colour: np.ndarray, white: int) -> bool:
    """Whether alpha holds something that the colours do not."""
    return alpha.min() != alpha.max() and bool(((alpha > white // 2) != (colour > white // 2)).any())


def rule_of(stored: Sequence[str]) -> str:
    """Return the rule for a set of masks: '' for stored values up to 255, or ``max>0`` for masks of 0 and 1.

    Args:
        stored: What ``stored_values`` says of masks of fakes.

    Raises:
        UserError: If they can be read in more than one way.
    """
    parsed = [_Stored(text) for text in stored]
    there = [one for one in parsed if one.top]
    if see_through := sum(one.kind == "alpha" for one in parsed):
        raise UserError(
            f"{see_through} of {len(parsed)} have transparent pixels, and their colours say something else; name the "
            "rule: a<128 (what is transparent is manipulated), a>127 (what is opaque), or max>127 (the colours alone)"
        )
    high = [one for one in there if one.top > 127]
    ones = [one for one in there if one.values == {1} and one.kind != "lossy"]
    values = set().union(*(one.values for one in there))
    few = all(one.values for one in there)
    shown = ", ".join(map(str, sorted({0} | values))) if few else " and ".join(sorted(set(stored))[:3])
    if there and len(ones) < len(there):
        soft = any(not one.values and one.kind != "lossy" for one in high)
        faint = [one for one in there if one not in high and one.kind != "lossy" and (one in ones or not soft)]
        levels = few and len(there) >= ENOUGH and (min(values) < 128 or max(one.top for one in there) < 250)
        if not high or faint or levels:
            raise UserError(
                f"they hold {shown}: numbers of regions or classes, or grey levels? Name the rule: max>0 (whatever is "
                f"not 0 is manipulated), max={max(values, default=2)} (that value alone), "
                "or max (grey levels, 255 = manipulated)"
            )
    rule = "max>0" if there and len(ones) == len(there) else ""
    empty = sum(not one.top for one in parsed)
    full = sum(one.bottom > 127 or (rule != "" and one.bottom > 0) for one in parsed)
    if len(parsed) >= ENOUGH and empty + full == len(parsed):
        what = "empty" if not full else "full" if not empty else f"either empty ({empty}) or full ({full})"
        raise UserError(
            f"all {len(parsed)} are {what}; if that is right, name the rule: {rule or 'max'}, or all where fakes are "
            "made as a whole; if what is dark is manipulated, max<128; else take the masks out"
        )
    return rule


class _Stored:
    """A text of ``stored_values``, parsed.

    Attributes:
        kind: ``lossy``, ``alpha``, or white.
        values: The different values but 0; none where there are many.
        bottom: The smallest value, where white is 255; ``top`` the largest.
    """

    def __init__(self, text: str) -> None:
        self.kind, *words = text.split()
        numbers = [int(word) for word in words if word != ".."]
        scale = 255 / int(self.kind) if self.kind.isdigit() else 1.0
        self.values = frozenset(numbers) - {0} if ".." not in words else frozenset()
        self.bottom, self.top = numbers[0] * scale, numbers[-1] * scale


def sample(rows: np.ndarray) -> np.ndarray:
    """Return ``RUNS`` runs of ``RUN`` rows at even spacing, or all where there are not more."""
    starts = np.linspace(0, max(0, len(rows) - RUN), RUNS).astype(int)
    return rows[np.unique((starts[:, None] + np.arange(RUN)).clip(0, len(rows) - 1))]


def rows_without_rule(table: pa.Table) -> np.ndarray:
    """Return which rows have a mask file and no rule that says how its values are meant, int64 (n,)."""
    mask, rule = table["mask"], table["mask_rule"]
    if not len(table) or not pc.any(pc.not_equal(mask, "")).as_py():
        return np.zeros(0, np.int64)
    names = rule.combine_chunks().dictionary_encode()
    has_rule = np.array([says(name) for name in names.dictionary.to_pylist()])[names.indices.to_numpy()]
    file = pc.and_not(pc.not_equal(mask, ""), pc.starts_with(mask, "polygon:"))
    return np.flatnonzero(np.asarray(file) & ~has_rule)


def with_mask_rules(table: pa.Table, where: str) -> pa.Table:
    """Return a table of rows whose masks all have their rule; ``where`` names the set.

    Raises:
        UserError: If the masks can be read in more than one way.
    """
    rows = rows_without_rule(table)
    if not len(rows):
        return table
    fakes = rows[table["label"].to_numpy()[rows] == 1]
    chosen = fakes if len(fakes) else rows
    rule = of_masks((table["mask"][int(row)].as_py() for row in sample(chosen)), where)
    if not rule:
        return table
    old = table["mask_rule"]
    here = np.zeros(len(table), bool)
    here[rows] = True
    new = pc.if_else(pa.array(here), pc.replace_substring_regex(old, r"^(.+)$|^$", rule + r",\1"), old)
    new = pc.utf8_rtrim(new, ",")
    return put(table, "mask_rule", new)


def of_masks(masks: Iterable[str], where: str) -> str:
    """Return the rule for masks by their locators; those that cannot be read are left out here, and counted later.

    Raises:
        UserError: As ``rule_of``, with the set's name before it.
    """
    stored = []
    for mask in dict.fromkeys(masks):
        try:
            stored.append(stored_values(mask))
        except DecodeError:
            continue
    try:
        return rule_of(stored)
    except UserError as error:
        raise UserError(f"masks of {where}: {error} (mask_rule, as an argument of Table or a column)") from None

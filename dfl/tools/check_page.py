"""The page of ``dfl data check``: findings first, then the evidence, with pictures."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from dfl.data.decoding import DecodeError
from dfl.data.locators import load_image
from dfl.data.masks import load_mask
from dfl.evaluation import html, plots
from dfl.tools.leak import bits_per_pixel
from dfl.tools.problems import CLASSES

#: Values of a column that are drawn, names that are listed, and pictures of a kind.
MOST_BARS, MOST_NAMES, MOST_PICTURES = 12, 50, 7
TINT = np.array([230, 57, 70], np.float32)
LEAK = (
    "<h2>Does the label leak through the files?</h2><p class=soft>AUROC of a random forest that sees no pixel, "
    "mean of 5 folds, with its 95 % interval. 0.5 is chance. Bits per pixel depend on the picture too, so they are "
    "reported apart.</p>"
)


def page(table: pa.Table, findings: Mapping[str, Any]) -> str:
    """Return the whole page.

    Args:
        table: The scanned rows.
        findings: As ``examine`` returns them.
    """
    places = [[name, *(f"{n:,}" for n in counts.values())] for name, counts in findings["places"].items()]
    problems = "".join(f'<li class="{p.severity}">{html.text(p.text)}</li>' for p in findings["problems"])
    return html.document(
        f"Check of {', '.join(table['set'].unique().to_pylist())}",
        [
            f"<p class=soft>{findings['images']:,} images</p>",
            f"<h2>Findings</h2><ul class=findings>{problems}</ul>",
            "<h2>Images</h2>",
            html.table(["set and split", *CLASSES.values()], places),
            *_samples(table),
            *_leak(table, findings["leak"]),
            *_counts(findings["counts"]),
            *_copies(findings["copies"]),
            *_masks(table, findings["masks"]),
            _names("Images that cannot be read", findings["unreadable"]),
        ],
    )


def _samples(table: pa.Table) -> Iterable[str]:
    """Draw a few images of each set and class."""
    rng = np.random.default_rng(0)
    label, sets = table["label"].to_numpy(), np.array(table["set"].to_pylist())
    for name in table["set"].unique().to_pylist():
        for value, word in CLASSES.items():
            rows = np.flatnonzero((sets == name) & (label == value))
            if len(rows):
                yield f"<h3>{html.text(name)}: {word}</h3>{_pictures(table, rows, rng)}"


def _pictures(table: pa.Table, rows: np.ndarray, rng: np.random.Generator, masks: bool = False) -> str:
    """Draw a few of these rows, with a tint over what their masks cover if asked for."""
    figures = ""
    for row in table.take(np.sort(rng.choice(rows, min(MOST_PICTURES, len(rows)), replace=False))).to_pylist():
        path = row["path"]
        caption = f"<b>{html.text(row['generator'] or row['size'])}</b>{html.text(path.rpartition('/')[2])}"
        picture = _picture(path, row["bits"], row["mask"] if masks else "", row["mask_rule"])
        figures += f'<figure title="{html.text(path)}">{picture}<figcaption>{caption}</figcaption></figure>'
    return f"<div class=pictures>{figures}</div>"


def _picture(path: str, bits: int = -1, mask: str = "", rule: str = "") -> str:
    """Return a thumbnail, its masked part in red; a word where it cannot be read."""
    try:
        pixels = load_image(path, bits=bits)
        area = load_mask(mask, rule, (pixels.shape[1], pixels.shape[0])) if mask else None
    except DecodeError:
        return "<p class=soft>cannot be read</p>"
    if area is not None:
        pixels = np.where(area[..., None] > 127, (0.5 * pixels + 0.5 * TINT).astype(np.uint8), pixels)
    return html.image(html.thumbnail(pixels), "jpeg", path.rpartition("/")[2])


def _leak(table: pa.Table, leak: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    yield LEAK
    cells = (
        [name, *("one class, undefined" if score.undefined else score for score in clues.values())]
        for name, clues in leak.items()
    )
    yield html.table(["set", *leak["all"]], list(cells))
    bits, label = bits_per_pixel(table), table["label"].to_numpy()
    drawn = plots.histograms({"": (bits[label == 0], bits[label == 1])}, "bits per pixel")
    yield html.figures({"Histogram of bits per pixel": drawn})


def _counts(counts: Mapping[str, Mapping[str, Mapping[str, int]]]) -> Iterable[str]:
    yield "<h2>What the images are</h2>"
    for column, values in counts.items():
        if column in ("set", "split"):
            continue
        shown = {(name or "none"): (one["real"], one["fake"]) for name, one in list(values.items())[:MOST_BARS]}
        more = len(values) - len(shown)
        rest = f"<p class=soft>and {more:,} more values, in check.json</p>" if more else ""
        yield f"<h3>{html.text(column)}</h3>{html.bars(shown)}{rest}"


def _copies(copies: Mapping[str, Any]) -> Iterable[str]:
    places = copies["places"]
    for kind, title in (
        ("exact", "The same file"),
        ("near", f"Near copies: perceptual hashes differ in at most {copies['distance']} of 64 bits"),
    ):
        among = copies[kind]
        if not any(map(any, among)):
            continue
        yield f"<h2>{title}</h2><p class=soft>Images of the line that have a copy in the column.</p>"
        yield html.table(["", *places], [[p, *(f"{n:,}" for n in line)] for p, line in zip(places, among, strict=True)])
        figures = ""
        for pair in copies["pairs"][kind][:MOST_PICTURES]:
            caption = "<br>".join(
                f"{html.text(place)}: {html.text(path.rpartition('/')[2])}"
                for place, path in zip(pair["places"], pair["paths"], strict=True)
            )
            figures += f"<figure>{''.join(map(_picture, pair['paths']))}<figcaption>{caption}</figcaption></figure>"
        yield f'<div class="pictures pairs">{figures}</div><p class=soft>All of them are in copies.csv.</p>'


def _masks(table: pa.Table, masks: Mapping[str, Any]) -> Iterable[str]:
    share = table["mask_share"].to_numpy()
    partial = np.flatnonzero((share > 0) & (share < 1))
    if len(partial):
        pictures = _pictures(table, partial, np.random.default_rng(0), masks=True)
        yield f"<h2>Masks</h2><p class=soft>Red is manipulated.</p>{pictures}"
    for name in ("empty on fakes", "full", "not empty on real images"):
        yield _names(f"Masks that are {name}", masks[name])
    yield _names("Masks that cannot be used", masks["unusable"])


def _names(title: str, names: list[str] | Mapping[str, str]) -> str:
    """List names, with the reason of each if there is one."""
    lines = [f"{name}: {reason}" for name, reason in names.items()] if isinstance(names, Mapping) else names
    return html.names(f"{title}: {len(lines):,}", lines, MOST_NAMES, "check.json")

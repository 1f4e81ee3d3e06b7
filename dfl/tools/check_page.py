"""The page of ``dfl data check``: findings first, then what they rest on, with pictures."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from dfl.data.decoding import DecodeError
from dfl.data.locators import load_image
from dfl.data.masks import load_mask
from dfl.evaluation import html, plots
from dfl.tools.leak import bits_per_pixel

#: Values of a column that are drawn, names that are listed, and pictures of a kind.
MOST_BARS, MOST_NAMES, MOST_PICTURES = 12, 50, 7
TINT = np.array([230, 57, 70], np.float32)
TITLES = {
    "empty on fakes": "Masks that are empty, on fakes",
    "full": "Masks that are full",
    "not empty on real images": "Masks that are not empty, on real images",
}


def page(table: pa.Table, found: Mapping[str, Any]) -> str:
    """Return the whole page.

    Args:
        table: The scanned rows.
        found: What ``examine`` found.
    """
    sets = ", ".join(table["set"].unique().to_pylist())
    return html.document(
        f"Check of {sets}",
        [
            f"<p class=soft>{found['images']:,} images</p>",
            _said(found["problems"]),
            "<h2>Images</h2>",
            html.table(
                ["set and split", "real", "fake", "unlabelled"],
                [[name, *(f"{n:,}" for n in one.values())] for name, one in found["places"].items()],
            ),
            *_samples(table),
            *_leak(table, found["leak"]),
            *_counts(found["counts"]),
            *_copies(found["copies"]),
            *_masks(table, found["masks"]),
            _names("Images that cannot be read", [f"{p}: {r}" for p, r in found["unreadable"].items()]),
        ],
    )


def _said(problems: Iterable[Any]) -> str:
    lines = "".join(f'<li class="{p.severity}">{html.text(p.text)}</li>' for p in problems)
    return f"<h2>Findings</h2><ul class=findings>{lines}</ul>"


def _samples(table: pa.Table) -> Iterable[str]:
    """Draw a few images of each set and class."""
    rng = np.random.default_rng(0)
    label, sets = table["label"].to_numpy(), np.array(table["set"].to_pylist())
    for name in table["set"].unique().to_pylist():
        for value, word in ((0, "real"), (1, "fake"), (-1, "unlabelled")):
            rows = np.flatnonzero((sets == name) & (label == value))
            if len(rows):
                drawn = np.sort(rng.choice(rows, min(MOST_PICTURES, len(rows)), replace=False))
                figures = "".join(_figure(table, int(row)) for row in drawn)
                yield f"<h3>{html.text(name)}: {word}</h3><div class=pictures>{figures}</div>"


def _figure(table: pa.Table, row: int, mask: bool = False) -> str:
    path, generator, size = (table[name][row].as_py() for name in ("path", "generator", "size"))
    said = f"<b>{html.text(generator or size)}</b>{html.text(path.rpartition('/')[2])}"
    bits, file, rule = (table[name][row].as_py() for name in ("bits", "mask", "mask_rule"))
    picture = _picture(path, file if mask else "", rule, bits)
    return f'<figure title="{html.text(path)}">{picture}<figcaption>{said}</figcaption></figure>'


def _picture(path: str, mask: str = "", rule: str = "", bits: int = -1) -> str:
    """Return a thumbnail, with what the mask covers in red; a word where it cannot be read."""
    try:
        pixels = load_image(path, bits=bits)
        area = load_mask(mask, rule, (pixels.shape[1], pixels.shape[0])) if mask else None
    except DecodeError:
        return "<p class=soft>cannot be read</p>"
    if area is not None:
        inside = area > 127
        pixels = pixels.copy()
        pixels[inside] = (0.5 * pixels[inside] + 0.5 * TINT).astype(np.uint8)
    return html.image(html.thumbnail(pixels), "jpeg", path.rpartition("/")[2])


def _leak(table: pa.Table, leak: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    yield (
        "<h2>Does the label leak through the files?</h2><p class=soft>AUROC of a random forest that sees no pixel, "
        "mean of 5 folds, with its 95 % interval. 0.5 is chance. Bits per pixel depend on the picture too, so they are "
        "reported apart.</p>"
    )
    head = ["set", *next(iter(leak.values()))]
    lines = [
        [
            name,
            *(
                "one class, undefined" if s.undefined else f"{s.auroc:.3f} ({s.low:.3f} to {s.high:.3f})"
                for s in one.values()
            ),
        ]
        for name, one in leak.items()
    ]
    yield html.table(head, lines)
    bpp, label = bits_per_pixel(table), table["label"].to_numpy()
    drawn = plots.histograms({"": (bpp[label == 0], bpp[label == 1])}, "bits per pixel")
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
        among = np.array(copies[kind])
        if not among.any():
            continue
        yield f"<h2>{title}</h2><p class=soft>Images of the line that have a copy in the column.</p>"
        yield html.table(["", *places], [[p, *(f"{n:,}" for n in line)] for p, line in zip(places, among, strict=True)])
        shown = ""
        for pair in copies["pairs"][kind][:MOST_PICTURES]:
            both = "".join(_picture(path) for path in pair["paths"])
            said = "<br>".join(
                f"{html.text(place)}: {html.text(path.rpartition('/')[2])}"
                for place, path in zip(pair["places"], pair["paths"], strict=True)
            )
            shown += f"<figure>{both}<figcaption>{said}</figcaption></figure>"
        yield f'<div class="pictures pairs">{shown}</div><p class=soft>All of them are in copies.csv.</p>'


def _masks(table: pa.Table, masks: Mapping[str, Any]) -> Iterable[str]:
    share = table["mask_share"].to_numpy()
    with_mask = np.flatnonzero((share > 0) & (share < 1))
    if len(with_mask):
        drawn = np.sort(np.random.default_rng(0).choice(with_mask, min(MOST_PICTURES, len(with_mask)), replace=False))
        figures = "".join(_figure(table, int(row), mask=True) for row in drawn)
        yield f"<h2>Masks</h2><p class=soft>Red is manipulated.</p><div class=pictures>{figures}</div>"
    for name, title in TITLES.items():
        yield _names(title, masks[name])
    yield _names("Masks that cannot be used", [f"{p}: {r}" for p, r in masks["unusable"].items()])


def _names(title: str, names: list[str]) -> str:
    if not names:
        return ""
    items = "".join(f"<li>{html.text(name)}</li>" for name in names[:MOST_NAMES])
    more = f"<li>and {len(names) - MOST_NAMES:,} more, in check.json</li>" if len(names) > MOST_NAMES else ""
    return f"<details><summary>{html.text(title)}: {len(names):,}</summary><ul>{items}{more}</ul></details>"

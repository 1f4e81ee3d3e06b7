"""One style of self-contained HTML page: words, tables, bars and pictures in one file that can be mailed.

A leaf: the report of a test, the check of a data set and the audit of groups write such a page.
"""

import base64
import html
import io
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

#: Side of the pictures, in pixels.
THUMBNAIL = 144
#: Okabe and Ito's blue and vermilion, which colour-blind readers can tell apart.
REAL, FAKE = "#0072B2", "#D55E00"
#: Of lines that are neither: his blue, vermilion, green, purple, orange, light blue.
COLOURS = (REAL, FAKE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
#: Outline of a cell without a value.
EMPTY = ' stroke="currentColor" stroke-opacity=".25"'

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1e; --soft: #6b6b70; --line: #dcdce0; --page: #fff; --card: #f5f5f7 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececf0; --soft: #a0a0a8; --line: #3a3a3f; --page: #17171a; --card: #222226 } }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 0 auto;
  max-width: 1180px; padding: 32px 24px 64px }
h1 { font-size: 24px; margin: 0 } h2 { font-size: 18px; margin: 40px 0 12px } h3 { font-size: 15px; margin: 24px 0 8px }
p { margin: 4px 0 } .soft { color: var(--soft) }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; width: 100% }
th, td { padding: 6px 10px; text-align: right; border-bottom: 1px solid var(--line) }
th:first-child, td:first-child { text-align: left; padding-left: 0 }
th { font-size: 13px; font-weight: 600; color: var(--soft) } th[title] { cursor: help }
tr.mean td { font-weight: 600; border-top: 2px solid var(--line); border-bottom: 0 }
td small { color: var(--soft); font-weight: 400; margin-left: 4px }
.figures { display: flex; flex-wrap: wrap; gap: 16px; align-items: flex-start; margin: 12px 0 }
.figures img, .figures svg { max-width: 100%; border-radius: 8px; border: 1px solid var(--line) }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, 144px); gap: 14px }
.pairs { grid-template-columns: repeat(auto-fill, 302px) }
.pairs figure { display: flex; flex-wrap: wrap; gap: 4px 14px }
.pairs figcaption { width: 100% }
.fours { grid-template-columns: repeat(auto-fill, minmax(min(100%, 480px), 1fr)) }
.fours figure { display: flex; flex-wrap: wrap; gap: 4px } .fours figure img { width: calc(25% - 3px) }
.fours figcaption { width: 100% }
figure { margin: 0 } figure img { width: 144px; display: block; border-radius: 6px }
figcaption { font-size: 12px; line-height: 1.35; overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
figcaption b { display: block; font-variant-numeric: tabular-nums }
details { margin-top: 12px } summary { cursor: pointer }
pre, li { font-size: 12px; overflow-wrap: anywhere } ul { margin: 4px 0; padding-left: 20px }
pre { background: var(--card); padding: 16px; border-radius: 8px; white-space: pre-wrap }
.said { font-size: 14px } .said li { font-size: 14px; margin: 4px 0 }
.error::marker { content: "✗  "; color: #c0392b } .warning::marker { content: "!  "; color: #b9770e }
.note::marker { content: "·  " } .fine::marker { content: "✓  "; color: #1e8449 }
.bars td { border: 0; padding: 2px 10px } .bars td.bar { width: 100%; text-align: left }
.bars i { display: block; height: 8px; min-width: 1px; border-radius: 2px }
tr.answer td { white-space: normal; text-align: left; vertical-align: top }
tr.answer td:first-child { width: 154px } tr.answer img { width: 144px; border-radius: 6px }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft) }
"""


def text(value: Any) -> str:
    """Return a value as text that HTML shows as it is."""
    return html.escape(str(value))


def image(content: bytes, kind: str, name: str) -> str:
    """Return a picture with its bytes in the page."""
    return f'<img alt="{text(name)}" src="data:image/{kind};base64,{base64.b64encode(content).decode()}">'


def thumbnail(pixels: np.ndarray) -> bytes:
    """Return a small JPEG of uint8 (H, W, 3)."""
    small = Image.fromarray(pixels)
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    small.save(file, "jpeg", quality=92, subsampling=0)
    return file.getvalue()


def document(title: str, parts: Sequence[str]) -> str:
    """Return the whole page."""
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE}</style>\n<h1>{text(title)}</h1>"
        + "\n".join(part for part in parts if part)
        + "</html>\n"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a table of values; what is already HTML cannot be passed."""
    lines = "".join("<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f"<div class=wide><table><tr>{''.join(f'<th>{text(h)}</th>' for h in head)}</tr>\n{lines}</table></div>"


def bars(counts: Mapping[str, tuple[int, int]]) -> str:
    """Return a bar for real and one for fake by name, each as a share of its class."""
    whole = [max(1, sum(pair[i] for pair in counts.values())) for i in (0, 1)]
    lines = ""
    for name, pair in counts.items():
        both = "".join(
            f'<i style="width:{100 * n / of:.2f}%;background:{colour}"></i>'
            for n, of, colour in zip(pair, whole, (REAL, FAKE), strict=True)
        )
        lines += f"<tr><td>{text(name)}</td><td>{pair[0]:,}</td><td>{pair[1]:,}</td><td class=bar>{both}</td></tr>\n"
    key = f'<span style="color:{REAL}">real</span>', f'<span style="color:{FAKE}">fake</span>'
    head = f"<tr><th></th><th>{key[0]}</th><th>{key[1]}</th><th style='text-align:left'>share of the class</th></tr>"
    return f"<div class=wide><table class=bars>{head}\n{lines}</table></div>"


def histogram(real: np.ndarray, fake: np.ndarray, label: str, bins: int = 48) -> str:
    """Return two histograms over each other as SVG, each as shares of its class.

    Args:
        real: Values of the real images, float (n,); not finite ones are left out.
        fake: Values of the fake images, float (m,).
        label: What the values are, with their unit.
        bins: Of equal width from the least value to the 99.5th percentile; what is above falls into the last.
    """
    values = [v[np.isfinite(v)] for v in (real, fake)]
    both = np.concatenate(values)
    if not len(both):
        return ""
    low, high = float(both.min()), float(np.percentile(both, 99.5))
    if high <= low:
        low, high = low - 0.5, low + 0.5
    width, height, floor = 520, 180, 150
    edges = np.linspace(low, high, bins + 1)
    shares = [np.histogram(v.clip(low, high), edges)[0] / max(1, len(v)) for v in values]
    top = max(s.max() for s in shares) or 1.0
    drawn = ""
    for share, colour in zip(shares, (REAL, FAKE), strict=True):
        x = np.repeat(np.linspace(20, width - 20, bins + 1), 2)[1:-1]
        y = np.repeat(floor - 130 * share / top, 2)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        drawn += (
            f'<polygon points="20,{floor} {points} {width - 20},{floor}" fill="{colour}" fill-opacity=".22" '
            f'stroke="{colour}" stroke-width="1.2"/>'
        )
    names = "".join(
        f'<text x="{width - 20}" y="{16 + 14 * i}" text-anchor="end" style="fill:{c}">{n} ({len(v):,})</text>'
        for i, (n, v, c) in enumerate((("real", values[0], REAL), ("fake", values[1], FAKE)))
    )
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="{text(label)}">{drawn}'
        f'<text x="20" y="168">{low:.3g}</text><text x="{width - 20}" y="168" text-anchor="end">{high:.3g}</text>'
        f'<text x="{width / 2}" y="168" text-anchor="middle">{text(label)}</text>{names}</svg>'
    )


def intervals(rows: Mapping[str, tuple[float, float, float]], label: str, line: float) -> str:
    """Return a dot with its interval for each name, one under the other, as SVG.

    Args:
        rows: Name -> (value, low, high) in [0, 1]; one with a NaN value has no dot and says so. The axis goes from the
            tenth below to the tenth above all of them.
        label: What the values are.
        line: Where a dashed line is drawn, such as the value of all together; none for NaN.
    """
    left, width, step = 150, 520, 20
    floor = 24 + step * len(rows)
    known = [v for row in rows.values() for v in row if np.isfinite(v)] or [0.0, 1.0]
    first = np.floor(10 * min(known) + 1e-9) / 10
    last = max(first + 0.1, np.ceil(10 * max(known) - 1e-9) / 10)

    def at(value: float) -> float:
        return left + (width - left - 20) * float((value - first) / (last - first))

    drawn = ""
    for i, (name, (value, low, top)) in enumerate(rows.items()):
        y = 28 + step * i
        drawn += f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{text(name)}</text>'
        if not np.isfinite(value):
            drawn += f'<text x="{left + 4}" y="{y + 4}">undefined</text>'
            continue
        drawn += (
            f'<line x1="{at(low):.1f}" x2="{at(top):.1f}" y1="{y}" y2="{y}" stroke="{REAL}" stroke-width="2" '
            f'stroke-opacity=".55"/><circle cx="{at(value):.1f}" cy="{y}" r="4" fill="{REAL}"/>'
        )
    if np.isfinite(line):
        drawn += (
            f'<line x1="{at(line):.1f}" x2="{at(line):.1f}" y1="16" y2="{floor}" stroke="currentColor" '
            'stroke-dasharray="3 3" stroke-opacity=".6"/>'
        )
    ticks = "".join(
        f'<text x="{at(v):.1f}" y="{floor + 14}" text-anchor="middle">{v:.3g}</text>'
        for v in np.linspace(first, last, 5)
    )
    return (
        f'<svg viewBox="0 0 {width} {floor + 20}" width="{width}" role="img" aria-label="{text(label)}">'
        f'<text x="{left}" y="11">{text(label)}</text>{drawn}{ticks}</svg>'
    )


def lines(x: np.ndarray, ys: Mapping[str, np.ndarray], label: str, marks: Mapping[str, float] | None = None) -> str:
    """Return curves over one axis as SVG.

    Args:
        x: Rising values, float (n,).
        ys: Name of a curve -> its values, float (n,), at least 0; it is broken where they are not finite.
        label: What ``x`` is.
        marks: Name -> place on the x axis of a dashed line.
    """
    width, height, left, right, floor, roof = 520, 240, 44, 500, 204, 30
    finite = [y[np.isfinite(y)] for y in ys.values()]
    top = max((float(y.max()) for y in finite if len(y)), default=0.0) or 1.0
    low, high = float(x[0]), float(x[-1])

    def across(value: float) -> float:
        return left + (right - left) * (value - low) / (high - low or 1.0)

    drawn = names = ""
    for i, (name, y) in enumerate(ys.items()):
        colour, path, pen = COLOURS[i % len(COLOURS)], "", "M"
        for a, b in zip(x, y, strict=True):
            if np.isfinite(b):
                path, pen = f"{path}{pen}{across(a):.1f},{floor - (floor - roof) * b / top:.1f}", "L"
            else:
                pen = "M"
        drawn += f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
        names += f'<text x="{left + 90 * i}" y="14" style="fill:{colour}">{text(name)}</text>'
    for name, place in (marks or {}).items():
        drawn += (
            f'<line x1="{across(place):.1f}" x2="{across(place):.1f}" y1="{roof}" y2="{floor}" stroke="currentColor" '
            f'stroke-dasharray="3 3" stroke-opacity=".6"/>'
            f'<text x="{across(place) + 3:.1f}" y="{roof + 10}">{text(name)}</text>'
        )
    ticks = "".join(
        f'<text x="{across(v):.1f}" y="{floor + 14}" text-anchor="middle">{v:.3g}</text>'
        for v in np.linspace(low, high, 5)
    ) + "".join(
        f'<text x="{left - 6}" y="{floor - (floor - roof) * i / 4 + 4:.1f}" text-anchor="end">{top * i / 4:.2g}</text>'
        f'<line x1="{left}" x2="{right}" y1="{floor - (floor - roof) * i / 4:.1f}" '
        f'y2="{floor - (floor - roof) * i / 4:.1f}" stroke="currentColor" stroke-opacity=".15"/>'
        for i in range(5)
    )
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="{text(label)}">{ticks}{drawn}'
        f'{names}<text x="{(left + right) / 2}" y="{height - 4}" text-anchor="middle">{text(label)}</text></svg>'
    )


def heat_map(
    values: Mapping[str, Sequence[float]],
    columns: Sequence[str],
    groups: Sequence[Sequence[str]],
    label: str,
    framed: Collection[tuple[str, str]] = (),
) -> str:
    """Return a matrix as SVG, each cell with its number and a colour from light (low) to dark (high).

    Args:
        values: Name of a row -> one value for each column; cells of NaN are left without a colour.
        columns: Names above the columns.
        groups: Names of the rows, from above, with a gap between two groups.
        label: What the values are. Colours go from the tenth below to the tenth above all of them.
        framed: (row, column) of the cells with a frame.
    """
    wide, high, gap, turn = 76, 40, 12, max((len(c) for c in columns), default=0) * 6.4 > 72
    left = 24 + 6.6 * max((len(name) for name in values), default=0)
    roof = 44 + (4.2 * max(len(c) for c in columns) if turn else 14)
    known = [v for row in values.values() for v in row if np.isfinite(v)] or [0.0, 1.0]
    first = np.floor(10 * min(known) + 1e-9) / 10
    last = max(first + 0.1, np.ceil(10 * max(known) - 1e-9) / 10)
    drawn, y = "", roof
    for i, name in enumerate(columns):
        x = left + wide * (i + 0.5)
        place = f'x="{x:.1f}" y="{roof - 8}" text-anchor="middle"'
        if turn:
            place = f'transform="translate({x - 8:.1f},{roof - 8}) rotate(-35)"'
        drawn += f"<text {place}>{text(name)}</text>"
    frames = ""
    for group in groups:
        for name in group:
            drawn += f'<text x="{left - 10:.1f}" y="{y + high / 2 + 4:.1f}" text-anchor="end">{text(name)}</text>'
            for i, value in enumerate(values[name]):
                x = left + wide * i
                known_value = bool(np.isfinite(value))
                paint, ink = _shade((value - first) / (last - first)) if known_value else ("none", "currentColor")
                drawn += (
                    f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide - 2}" height="{high - 2}" rx="3" fill="{paint}"'
                    f"{'' if known_value else EMPTY}/>"
                    f'<text x="{x + wide / 2 - 1:.1f}" y="{y + high / 2 + 4:.1f}" text-anchor="middle" '
                    f'style="fill:{ink};font-size:13px">{f"{value:.3f}" if known_value else "n/a"}</text>'
                )
                if (name, columns[i]) in framed:
                    frames += (
                        f'<rect x="{x + 1:.1f}" y="{y + 1:.1f}" width="{wide - 4}" height="{high - 4}" rx="3" '
                        f'fill="none" stroke="{FAKE}" stroke-width="2.5"/>'
                    )
            y += high
        y += gap
    bar, right = 160, left + wide * len(columns)
    steps = "".join(
        f'<rect x="{left + bar * i / 32:.1f}" y="{y + 8:.1f}" width="{bar / 32 + 0.5}" height="10" '
        f'fill="{_shade(i / 31)[0]}"/>'
        for i in range(32)
    )
    key = (
        f'{steps}<text x="{left}" y="{y + 32:.1f}">{first:.3g}</text>'
        f'<text x="{left + bar}" y="{y + 32:.1f}" text-anchor="end">{last:.3g}</text>'
        f'<text x="{left + bar + 12}" y="{y + 17:.1f}">{text(label)}</text>'
    )
    width, height = max(right, left + bar + 12 + 7 * len(label)) + 16, y + 40
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img" aria-label="{text(label)}">'
        f'<text x="{left:.1f}" y="16">tested on</text>'
        f'<text x="{left - 10:.1f}" y="{roof - 8}" text-anchor="end">trained on</text>{drawn}{frames}{key}</svg>'
    )


def alone(drawing: str) -> str:
    """Return a drawing of a page as an SVG file of its own, on white."""
    head, _, rest = drawing.partition(">")
    return (
        f'{head} xmlns="http://www.w3.org/2000/svg" color="#6b6b70"><style>text{{font:11px system-ui,Helvetica,Arial,'
        f'sans-serif;fill:#6b6b70}}</style><rect width="100%" height="100%" fill="#fff"/>{rest}\n'
    )


def _shade(share: float) -> tuple[str, str]:
    """Return the colour of a share in [0, 1], from light to dark blue, and one that can be read on it."""
    stops = np.array([(237, 244, 250), (107, 174, 214), (8, 48, 107)], float)
    at = float(np.clip(share, 0, 1)) * (len(stops) - 1)
    low = min(int(at), len(stops) - 2)
    red, green, blue = np.rint(stops[low] + (at - low) * (stops[low + 1] - stops[low])).astype(int)
    return f"#{red:02x}{green:02x}{blue:02x}", "#fff" if share > 0.62 else "#1c1c1e"

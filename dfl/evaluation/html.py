"""One style of self-contained HTML page: words, tables, bars and pictures in one file that can be mailed.

The report of a test, the audit of groups, the matrix, the benchmark and the check of a data set write such a page. A
rule in its head (Content-Security-Policy) forbids it to fetch anything, and to run any script but the one that sorts
tables; without that script they are plain tables.
"""

import base64
import hashlib
import html
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from dfl.evaluation import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Side of the pictures, in pixels.
THUMBNAIL = 144

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1e; --soft: #6b6b70; --line: #dcdce0; --page: #fff; --card: #f5f5f7 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececf0; --soft: #a0a0a8; --line: #3a3a3f; --page: #17171a; --card: #222226 } }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 0 auto;
  max-width: 1180px; padding: 32px 24px 64px }
h1 { font-size: 24px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere }
h2 { font-size: 18px; margin: 40px 0 12px } h3 { font-size: 15px; margin: 24px 0 8px; overflow-wrap: anywhere }
p { margin: 4px 0; overflow-wrap: anywhere } .soft { color: var(--soft) }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin: 16px 0 8px }
.cards div { background: var(--card); border-radius: 10px; padding: 12px 18px; min-width: 150px; flex: 0 1 auto }
.cards b { display: block; font-size: 26px; line-height: 1.2; font-variant-numeric: tabular-nums }
.cards span { font-size: 13px; color: var(--soft); overflow-wrap: anywhere }
.wide { overflow-x: auto } .wide + .wide { margin-top: 20px }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums;
  white-space: nowrap; width: 100% }
th, td { padding: 6px 10px; text-align: right; border-bottom: 1px solid var(--line) }
th:first-child, td:first-child { text-align: left; padding-left: 0; position: sticky; left: 0; background: var(--page) }
th { font-size: 13px; font-weight: 600; color: var(--soft) } th[title] { cursor: help }
tfoot { display: table-row-group } /* or print repeats it on each page */
tfoot tr:first-child td { border-top: 2px solid var(--line) } tr.mean td { font-weight: 600; border-bottom: 0 }
.over th { text-align: center; border-bottom: 0; padding-bottom: 0 }
th button { all: unset; cursor: pointer } th button:focus-visible { outline: 2px solid; outline-offset: 2px }
th[aria-sort] { color: var(--ink) } th[aria-sort=descending] button::after { content: " ▾" }
th[aria-sort=ascending] button::after { content: " ▴" }
td small { color: var(--soft); font-weight: 400; margin-left: 4px }
td.two small { display: block; margin: 0; font-size: 11px } td.first, th.first { border-left: 1px solid var(--line) }
.figures { display: flex; flex-wrap: wrap; gap: 16px; align-items: flex-start; margin: 12px 0 }
.figures img, .columns img { max-width: 100%; height: auto; border-radius: 8px; border: 1px solid var(--line) }
@media (prefers-color-scheme: dark) { @media screen {
  .figures img, .columns img { filter: invert(.92) hue-rotate(180deg); border-color: #ccc } } }
.columns { columns: 350px; column-gap: 14px; margin: 12px 0 } .columns img { display: block; margin-bottom: 14px }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, 144px); gap: 14px }
.pairs { grid-template-columns: repeat(auto-fill, 302px) }
.pairs figure { display: flex; flex-wrap: wrap; gap: 4px 14px }
.fours { grid-template-columns: repeat(auto-fill, minmax(min(100%, 480px), 1fr)) }
.fours figure { display: flex; flex-wrap: wrap; gap: 4px } .fours figure img { width: calc(25% - 3px) }
.pairs figcaption, .fours figcaption { width: 100% }
figure { margin: 0 } figure img { width: 144px; display: block; border-radius: 6px }
figcaption { font-size: 12px; line-height: 1.35; overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
figcaption b { display: block; font-variant-numeric: tabular-nums }
details { margin-top: 12px } summary { cursor: pointer }
details.part { border-top: 1px solid var(--line); margin: 0; padding: 12px 0 }
details.part > summary h2 { display: inline; margin: 0 } details.part[open] > summary { margin-bottom: 8px }
pre, li { font-size: 12px; overflow-wrap: anywhere } ul { margin: 4px 0; padding-left: 20px }
pre { background: var(--card); padding: 16px; border-radius: 8px; white-space: pre-wrap }
.findings li { font-size: 14px; margin: 4px 0 }
.error::marker { content: "✗  "; color: #c0392b } .warning::marker { content: "!  "; color: #b9770e }
.note::marker { content: "·  " } .fine::marker { content: "✓  "; color: #1e8449 }
.bars td { border: 0; padding: 2px 10px } .bars td.bar { width: 100%; text-align: left }
.bars i { display: block; height: 8px; min-width: 1px; border-radius: 2px }
tr.generated td { white-space: normal; text-align: left; vertical-align: top }
tr.generated td:first-child { width: 154px } tr.generated img { width: 144px; border-radius: 6px }
@media (max-width: 600px) {
  .scroll { overflow-x: auto; flex-wrap: nowrap } .scroll img { max-width: none }
  body { padding: 20px 14px 40px } .cards b { font-size: 21px }
  .cards div { min-width: 0; flex: 1 1 40%; padding: 8px 12px }
  tr.generated td:first-child { width: 96px; position: static } tr.generated img { width: 88px } }
@media print {
  :root { color-scheme: light; --ink: #000; --soft: #444; --line: #bbb; --page: #fff; --card: #f2f2f2 }
  details::details-content { content-visibility: visible } /* paper opens nothing */
  body { padding: 0; max-width: none; font-size: 11px } h2 { margin-top: 20px }
  h2, h2 + p, summary { break-after: avoid }
  .wide { overflow: visible } th, td { padding: 2px 4px; font-size: 9px }
  th { white-space: normal; overflow-wrap: anywhere } td.two small { white-space: normal; font-size: 7px }
  .minor { display: none } td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 80px }
  th button::after { content: none !important } tr, figure, img { break-inside: avoid }
  .figures img { max-height: 45vh } .columns { columns: 2 } }
"""

#: Makes the lowest names of a head buttons that sort the body: first from the largest number, or from A to Z, then the
#: other way round. What is undefined stays below. The number or word of a cell is what stands before its note.
SCRIPT = """
for (const table of document.querySelectorAll("table.sort")) for (const [at, th] of
  [...table.tHead.rows[table.tHead.rows.length - 1].cells].entries()) {
  const button = document.createElement("button"), body = table.tBodies[0];
  const word = row => (row.cells[at].firstChild?.nodeValue ?? "").trim();
  const number = text => /^(< )?[-+]?[.\\d]/.test(text) ? parseFloat(text.replace(/^< |,/g, "")) : NaN;
  button.type = "button"; button.append(...th.childNodes); th.append(button);
  button.onclick = () => {
    const rows = [...body.rows].map(row => [row, word(row), number(word(row))]);
    const known = rows.filter(row => row[1] && row[1] != "n/a"), was = th.ariaSort;
    const numbers = known.every(row => !isNaN(row[2]));
    const up = was ? was == "descending" : !numbers, sign = up ? 1 : -1;
    const gone = row => !known.includes(row);
    rows.sort((a, b) => gone(a) - gone(b) || (gone(a) ? 0 : sign * (numbers ? a[2] - b[2] : a[1].localeCompare(b[1]))));
    for (const other of th.parentNode.cells) other.removeAttribute("aria-sort");
    th.setAttribute("aria-sort", up ? "ascending" : "descending"); body.append(...rows.map(row => row[0]));
  };
}
"""
#: Nothing is fetched; pictures are in the page; the script above is known by its hash.
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src "
    f"'sha256-{base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()}'"
)


def text(value: Any) -> str:
    """Return a value as text that HTML shows as it is."""
    return html.escape(str(value))


def image(content: bytes, kind: str, name: str, width: int | None = None) -> str:
    """Return a picture with its bytes in the page, as wide as it is, or of a width in CSS pixels."""
    data = base64.b64encode(content).decode()
    size = "" if width is None else f' width="{width}"'
    return f'<img alt="{text(name)}"{size} src="data:image/{kind};base64,{data}">'


def figure(drawn: "Figure", name: str) -> str:
    """Return a figure as a picture of its own size, 96 CSS pixels an inch."""
    return image(plots.to_png(drawn), "png", name, round(96 * drawn.get_figwidth()))


def figures(drawn: Mapping[str, "Figure"], kind: Literal["figures", "columns", "figures scroll"] = "figures") -> str:
    """Return figures, side by side where there is room or in columns that they fill from above; nothing of none.

    ``scroll`` is for wide ones: a phone shows them at full size in a box that scrolls.

    Args:
        drawn: The figure by its name, for those who cannot see it.
        kind: The class of the element.
    """
    shown = "".join(figure(one, name) for name, one in drawn.items())
    return f'<div class="{kind}">{shown}</div>' if shown else ""


def thumbnail(pixels: np.ndarray) -> bytes:
    """Return a small JPEG of uint8 (H, W, 3)."""
    small = Image.fromarray(pixels)
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    small.save(file, "jpeg", quality=92, subsampling=0)
    return file.getvalue()


def document(title: str, parts: Sequence[str]) -> str:
    """Return the whole page."""
    script = f"<script>{SCRIPT}</script>" if any("<table class=sort>" in part for part in parts) else ""
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE}</style>\n<h1>{text(title)}</h1>"
        + "\n".join(part for part in parts if part)
        + f"{script}</html>\n"
    )


def folded(title: str, content: str) -> str:
    """Return a part of the page that opens under its title; nothing of no content."""
    return f"<details class=part><summary><h2>{text(title)}</h2></summary>{content}</details>" if content else ""


class Cell(NamedTuple):
    """A cell of a table: its text, a small note beside it, what shows under the pointer, and classes of style."""

    text: str
    note: str = ""
    title: str = ""
    kind: str = ""

    def html(self, tag: str) -> str:
        """Return it as an element."""
        note = f"<small>{text(self.note)}</small>" if self.note else ""
        attributes = {"class": self.kind.strip(), "title": self.title}
        words = "".join(f' {name}="{text(value)}"' for name, value in attributes.items() if value)
        return f"<{tag}{words}>{text(self.text)}{note}</{tag}>"


def table(
    head: Sequence[str | Cell],
    rows: Sequence[Sequence[Any]],
    mean: bool = False,
    over: Sequence[tuple[str, int]] = (),
    foot: Sequence[Sequence[Any]] = (),
) -> str:
    """Return a table of texts, numbers and cells that can be sorted; what is already HTML cannot be passed.

    Args:
        head: Names of the columns.
        rows: As long as the head each.
        mean: Whether the last row is the mean of the others, and stays below them.
        over: Names above those of the columns, each with the number of its columns.
        foot: Rows that stay below the others.
    """

    def line(cells: Sequence[Any], tag: str) -> str:
        return "".join((cell if isinstance(cell, Cell) else Cell(str(cell))).html(tag) for cell in cells)

    def lines(of: Sequence[Sequence[Any]], kind: str = "") -> str:
        return "".join(f"<tr{kind}>{line(row, 'td')}</tr>\n" for row in of)

    rows, last = (rows[:-1], lines(rows[-1:], " class=mean")) if mean else (rows, "")
    above = "".join(f"<th colspan={n}>{text(name)}</th>" for name, n in over)
    above = f"<tr class=over>{above}</tr>" if over else ""
    below = f"<tfoot>{last}{lines(foot)}</tfoot>" if last or foot else ""
    return (
        f"<div class=wide><table class=sort><thead>{above}<tr>{line(head, 'th')}</tr></thead>\n"
        f"<tbody>{lines(rows)}</tbody>{below}</table></div>"
    )


def names(title: str, items: Sequence[str], most: int, rest: str) -> str:
    """Return a folded list of names: the first ``most`` of them, and that the ``rest`` is in another file."""
    if not items:
        return ""
    lines = "".join(f"<li>{text(item)}</li>" for item in items[:most])
    more = f"<li>and {len(items) - most:,} more, in {text(rest)}</li>" if len(items) > most else ""
    return f"<details><summary>{text(title)}</summary><ul>{lines}{more}</ul></details>"


def bars(counts: Mapping[str, tuple[int, int]]) -> str:
    """Return a bar for real and one for fake by name, each as a share of its class."""
    whole = [max(1, sum(pair[i] for pair in counts.values())) for i in (0, 1)]
    colours = (plots.REAL, plots.FAKE)
    lines = ""
    for name, pair in counts.items():
        both = "".join(
            f'<i style="width:{100 * n / of:.2f}%;background:{colour}"></i>'
            for n, of, colour in zip(pair, whole, colours, strict=True)
        )
        lines += f"<tr><td>{text(name)}</td><td>{pair[0]:,}</td><td>{pair[1]:,}</td><td class=bar>{both}</td></tr>\n"
    real, fake = (f'<th style="color:{c}">{w}</th>' for c, w in zip(colours, ("real", "fake"), strict=True))
    head = f"<tr><th></th>{real}{fake}<th style='text-align:left'>share of the class</th></tr>"
    return f"<div class=wide><table class=bars>{head}\n{lines}</table></div>"

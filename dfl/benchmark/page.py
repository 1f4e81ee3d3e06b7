"""The page of a benchmark: one file, from its content alone, that begins with what was found, in words.

Order: leaks of labels through the files, which method generalises best, how sure that is; then the tables, each as
stored and re-encoded alike; then, folded, all that explains them and what is needed to repeat it.
"""

import base64
import math
from collections.abc import Mapping
from typing import Any

from dfl.benchmark import figures, sections, tables
from dfl.benchmark import spectra as spectrum
from dfl.benchmark.lookup import ALIKE, STORED, Lookup, defined, interval, is_defined, number, p_value, signed
from dfl.data.decoding import DecodeError
from dfl.data.locators import load_image
from dfl.errors import UserError
from dfl.evaluation import html
from dfl.evaluation.results import to_json
from dfl.metrics.names import about

text = html.text
#: File facts separate a domain where the interval of their AUROC begins above this.
LEAK = 0.6
#: The most pictures on the page, and those of a domain.
MOST_PICTURES, DOMAIN_PICTURES = 48, 6
NOTES = {
    "frames": "A frame: the domain was part of the training of the method.",
    "spectra": "Type-II DCT of the image in grey, log of its power, mean over images (Frank et al. 2020). Upsampling "
    "leaves a grid of points and bumps in the mean over directions. Axes are in cycles per pixel.",
    "scores": "Filled: as stored. Dashed: re-encoded alike. If the two differ, part of the score is the file's "
    "compression. The vertical line is the threshold of validation.",
    "ranks": "Methods under one bar do not differ: their average ranks lie less than the critical difference of "
    "Nemenyi's test apart.",
    "robustness": "Mean over the degraded domains; both classes are degraded alike.",
    "forest": "In the second colour: p below 0.05 after Holm's correction for the number of pairs.",
    "calibration": "Points on the diagonal are calibrated; dashed, and the second ECE: re-encoded alike; grey bars are "
    "the share of images. Risk over coverage: share of wrong verdicts if only the surest images get one.",
    "changes": "With the 95 % interval of the change, paired where both are of the same photos. Compared with reals: "
    "before, the share of the real images; after, that of the fakes made of them.",
    "reference": "From papers, under their own protocols; they are in no mean and no rank.",
    "shifts": "Mean score re-encoded alike, minus as stored, of each class. Classes that move towards each other "
    "were told apart by their files.",
    "cost": "Images per second and memory are of the machine that ran it.",
}


def page(content: Mapping[str, Any], spectra: Mapping[str, spectrum.Spectrum] | None = None) -> str:
    """Return the whole page.

    Args:
        content: Of `dfl.benchmark.compare`; what is absent in it is left out.
        spectra: Mean spectra by generator, of `dfl.benchmark.spectra.spectra`.
    """
    look = Lookup(content)
    facts = [
        content.get("created", "").replace("T", " ").replace("+00:00", " UTC"),
        f"dfl {content.get('version', '')}",
    ]
    facts += [f"{len(look.methods)} methods", f"{len(look.domains())} test domains"]
    label, changes = about(look.metric).label, tables.changes(look)
    return html.document(
        f"Benchmark: {content.get('name', '')}",
        [
            f"<p class=soft>{' · '.join(text(fact) for fact in facts if fact)}</p>",
            f"<p class=soft>{text(look.seen)}</p>" if look.seen else "",
            headline(look),
            _noted("frames", html.figures(figures.heat(look), "figures scroll")),
            _shown("Differences to the best method", "forest", html.figures(figures.forest(look), "columns")),
            _shown("Within and across domains", "", "".join(sections.summary(look, name) for name in look.first)),
            _shown(f"{label} on each domain", "", sections.metric(look, look.metric, intervals=True)),
            _shown(changes.title, "changes", sections.plain(changes)),
            _shown("Robustness", "robustness", _robustness(look)),
            _shown("Ranks", "ranks", _ranks(look)),
            *_folded(look, spectra or {}),
        ],
    )


def _folded(look: Lookup, spectra: Mapping[str, spectrum.Spectrum]) -> list[str]:
    """Return the parts that open under their titles."""
    rates = {name: one for both in figures.rates(look).values() for name, one in both.items()}
    drawn = {
        part: html.figures(own, "columns")
        for part, own in (
            ("rates", rates),
            ("scores", figures.scores(look)),
            ("calibration", figures.calibration(look)),
            ("spectra", spectrum.figures(spectra)),
        )
    }
    parts = {
        "Other metrics": ("", sections.metrics(look, masks=False)),
        "Shift of scores by re-encoding": ("shifts", sections.shifts(look)),
        "Localization": ("", html.figures(figures.maps(look), "figures scroll") + sections.metrics(look, masks=True)),
        "ROC and precision-recall": ("", _most(look, "curves", figures.MOST_LINES, drawn["rates"])),
        "Score distributions": ("scores", _most(look, "histograms", figures.MOST_PANELS, drawn["scores"])),
        "By generator": ("", sections.generators(look)),
        "All differences of AUROC": ("", sections.plain(tables.differences(look))),
        "Views": ("", sections.plain(tables.views(look))),
        "Calibration": ("calibration", drawn["calibration"] + sections.plain(tables.calibration(look))),
        "Thresholds for a wanted false positive rate": ("", sections.plain(tables.thresholds(look))),
        "Fairness between groups": ("", sections.fairness(look)),
        "Mean spectra": ("spectra", drawn["spectra"] + _uncounted(spectra)),
        "Most wrong images": ("", wrong(look)),
        "Published numbers": ("reference", sections.reference(look)),
        "Cost": ("cost", sections.cost(look)),
        "Methods": ("", sections.methods(look)),
        "Test domains": ("", sections.domains(look)),
        "How to reproduce": ("", _reproduce(look)),
    }
    return [html.folded(title, _noted(note, part)) for title, (note, part) in parts.items()]


def headline(look: Lookup) -> str:
    """Return what was found: sentences, then cards of the best method."""
    if not look.methods:
        return ""
    items = "".join(f'<li class="{kind}">{text(words)}</li>' for kind, words in findings(look))
    said = f"<ul class=findings>{items}</ul>"
    if look.mixed:
        return said
    best = look.methods[0]
    within, cross, minimum, gap = (look.summary(best, what) for what in ("within", "cross", "minimum", "gap"))
    worst = look.summary_row(best, STORED).get("worst") or ""
    label = about(look.metric).label
    cards = {
        f"{label} of {best}, cross-domain mean": cross,
        f"worst: {worst}": minimum,
        "within its training distribution": within,
        "generalization gap": gap,
    }
    shown = "".join(
        f"<div><b>{number(value)}</b><span>{text(what)}</span></div>"
        for what, value in cards.items()
        if not math.isnan(value)
    )
    return said + (f"<div class=cards>{shown}</div>" if shown else "")


def findings(look: Lookup) -> list[tuple[str, str]]:
    """Return what is to be said first, each as severity (``error``, ``warning``, ``note``, ``fine``) and a sentence."""
    found: list[tuple[str, str]] = []
    for one in look.rows("domains"):
        leak = (one.get("leak") or {}).get("metadata", {})
        if defined(leak.get("low")) > LEAK:
            words = f"{one['name']}: metadata alone, without a pixel, reach AUROC {number(leak['value'])} "
            words += f"({interval(leak)}). Numbers on it as stored may measure files, not fakes."
            found.append(("error", words))
    if not look.methods:
        return found
    if look.mixed:
        words = "The methods' means are over different domains, such as all that each was not trained on, so none is "
        return [*found, ("note", f"{words}called best: compare them on one domain.")]
    best, label = look.methods[0], about(look.metric).label
    one = look.summary_row(best, STORED)
    if math.isnan(look.summary(best, "cross")):
        return [*found, ("note", "No method has a mean over domains other than its own, so none is called best.")]
    words = f"{best} generalises best" if len(look.methods) > 1 else best
    words += f": {label} {number(one['cross'])} ({interval(one)}), mean over {one['domains']} "
    words += f"domain{'s' * (one['domains'] != 1)}{_not_trained_on(look, best)}; "
    words += f"worst on {one['worst']}, {number(one['minimum'])}."
    found.append(("note", words))
    found += _sure(look) + _alike(look)
    return found


def _not_trained_on(look: Lookup, method: str) -> str:
    """Return that a method was not trained on its cross domains; of somebody's file nobody says that."""
    one = next(one for one in look.rows("methods") if one["name"] == method)
    known = one.get("trained_on") or not one.get("external")
    return " that it was not trained on" if known else " (what it was trained on is not known)"


def _sure(look: Lookup) -> list[tuple[str, str]]:
    """Return whether the difference of the best to the second method is more than noise."""
    if len(look.methods) < 2:
        return []
    best, second = look.methods[:2]
    one = look.difference(best, second)
    if not one or not is_defined(one.get("p_holm")):
        return [("warning", f"Whether it is better than {second}, the second, was not tested.")]
    kind = "fine" if defined(one["p_holm"]) < figures.LEVEL else "warning"
    return [(kind, f"Its AUROC differs from that of {second}, the second, {_apart(one)}.")]


def _apart(one: Mapping[str, Any]) -> str:
    """Return whether a difference is more than noise, in words."""
    p, more = p_value(one["p_holm"]), "more" if defined(one["p_holm"]) < figures.LEVEL else "no more"
    words = f"{signed(one['value'])} ({interval(one)}), p {p if p[0] == '<' else '= ' + p} after Holm"
    return f"by {more} than noise: {words}"


def _alike(look: Lookup) -> list[tuple[str, str]]:
    """Return what is left of the best method where both classes are re-encoded alike."""
    best, label = look.methods[0], about(look.metric).label
    means = {m: value for m in look.methods if not math.isnan(value := look.summary(m, "cross", ALIKE))}
    if best not in means:
        return []
    first = (min if look.best(look.metric) == "min" else max)(means, key=means.__getitem__)
    words = f"Re-encoded alike, its mean {label} is {number(means[best])}"
    if first == best:
        return [("note", f"{words}, still the best.")]
    words += f", and {first} is best, with {number(means[first])}"
    one = look.difference(first, best, ALIKE)
    return [("warning", words + (f"; AUROC differs {_apart(one)}." if is_defined(one.get("p_holm")) else "."))]


def wrong(look: Lookup) -> str:
    """Return the most wrong images of each domain as pictures, classes in turn: of the best method with any, and of the
    best whose maps are there, if that is another one.
    """
    parts, domains = [], look.named("wrong")
    each = max(1, min(DOMAIN_PICTURES, MOST_PICTURES // max(1, len(domains))))
    for domain, methods in domains.items():
        found = [m for m in look.methods if methods.get(m)]
        mapped = [m for m in found if any(one.get("map") for one in methods[m])]
        for method in dict.fromkeys([*found[:1], *mapped[:1]]):
            shown = "".join(map(_picture, methods[method][:each]))
            kind = "pictures pairs" if method in mapped else "pictures"  # image and map
            parts.append(f'<h3>{text(domain)}: {text(method)}</h3><div class="{kind}">{shown}</div>')
    return "".join(parts)


def _picture(one: Mapping[str, Any]) -> str:
    path, word = str(one["path"]), ("real", "fake")[int(one["label"])]
    name = path.replace("\\", "/").rpartition("/")[2]
    try:
        picture = html.image(html.thumbnail(load_image(path)), "jpeg", name)
    except (DecodeError, UserError, OSError):
        picture = "<p class=soft>not here</p>"
    if one.get("map"):
        picture += html.image(base64.b64decode(one["map"]), "png", f"map of {name}", html.THUMBNAIL)
    caption = f"<figcaption><b>{word}, {number(one['score'])}</b>{text(name)}</figcaption>"
    return f'<figure title="{text(path)}">{picture}{caption}</figure>'


def _robustness(look: Lookup) -> str:
    drawn, areas = html.figures(figures.robustness(look), "columns"), tables.areas(look)
    shown = (html.folded(one.title, sections.plain(one)) for one in tables.degraded(look))
    return drawn + (f"<h3>{text(areas.title)}</h3>{sections.plain(areas)}" if areas.rows else "") + "".join(shown)


def _ranks(look: Lookup) -> str:
    drawn = html.figures(figures.ranks(look), "figures scroll")
    found = {table.title: sections.plain(table) for v in look.variants if (table := tables.ranks(look, v)).rows}
    return drawn + "".join(html.folded(title, part) for title, part in found.items())


def _most(look: Lookup, part: str, methods: int, drawn: str) -> str:
    """Return figures, and say before them where domains or methods are left out, for want of room."""
    words = []
    if len(look.named(part)) > figures.MOST_DOMAINS:
        words.append(f"the {figures.MOST_DOMAINS} domains on which the methods' mean AUROC is lowest")
    if len(look.methods) > methods:
        words.append(f"the {methods} best methods")
    said = f"<p class=soft>Shown are {' and '.join(words)}; all are in benchmark.json.</p>"
    return said + drawn if words and drawn else drawn


def _uncounted(spectra: Mapping[str, spectrum.Spectrum]) -> str:
    """Return how many images a spectrum was to be of and is not."""
    missing, small = (sum(getattr(one, what) for one in spectra.values()) for what in ("missing", "small"))
    words = [f"{missing:,} images were not there"] * bool(missing) + [f"{small:,} were too small"] * bool(small)
    return f"<p class=soft>{' and '.join(words)}; they are left out.</p>" if words else ""


def _reproduce(look: Lookup) -> str:
    """Return the command, the spec and the hashes of all that went in."""
    command = look.content.get("command")
    shown = f"<pre>{text(command)}</pre>" if command else ""
    spec = f"<h3>Spec</h3><pre>{text(to_json(look.content['spec']))}</pre>" if look.content.get("spec") else ""
    digests = sections.hashes(look)
    return shown + spec + (f"<h3>Hashes</h3>{digests}" if digests else "")


def _noted(note: str, part: str) -> str:
    return f"<p class=soft>{text(NOTES[note])}</p>{part}" if part and note else part


def _shown(title: str, note: str, part: str) -> str:
    return f"<h2>{text(title)}</h2>{_noted(note, part)}" if part else ""

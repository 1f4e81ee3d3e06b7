"""The report of a test: a table in the terminal, two files of numbers, and one page that needs nothing else.

``report.html`` holds its figures and pictures in itself, so it can be mailed or put away with the run. It begins with
the best and the worst domain and their figures, then come the tables, then, folded, what explains them: groups of
people, the images that the detector got most wrong, maps and texts.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from dfl.evaluation import figures, html, matrices, results
from dfl.evaluation.examples import Examples, MapExample, TextExample, pixels, without_padding
from dfl.metrics import GroupFairness, auroc_interval
from dfl.metrics.classes import PER_CLASS
from dfl.metrics.names import FAIRNESS, about
from dfl.runs.files import claimed, write

text = html.text
#: The longest lists of file names on the page; results.json has them whole.
MOST_NAMES = 20


class Report(pl.Callback):
    """Write ``results.csv``, ``results.json`` and ``report.html`` after a test, and print the table.

    They go to the log folder of the run. A trial run (``fast_dev_run``) only prints.

    Args:
        pictures: How many of the most wrong images the page shows, per domain and class; 0 for none.
    """

    def __init__(self, pictures: int = 8) -> None:
        self.pictures = pictures
        self._claims = ExitStack()

    def on_test_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Claim the folder.

        Raises:
            UserError: If another test is writing into it, or it cannot be written.
        """
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        if trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False):
            self._claims.enter_context(claimed(folder, inside=True))

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Let the folder go."""
        self._claims.close()

    def on_test_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write and print, in one process."""
        folder = Path(trainer.log_dir or trainer.default_root_dir)  # asks the other processes: before they leave
        if not trainer.is_global_zero:
            return
        metrics = pl_module.metrics["test"]
        rows = {domain: metrics.rows(domain) for domain in metrics}
        table = results.table(pl_module.results["test"], rows)
        results.print_table(table)
        if getattr(trainer, "fast_dev_run", False):
            return
        sets = getattr(getattr(trainer, "datamodule", None), "sets", {}).get("test", {})
        run, images = results.run_info(trainer, pl_module), image_notes(sets, rows)
        numbers = {str(row["domain"]): {k: v for k, v in row.items() if k != "domain"} for row in table}
        groups = group_rates(metrics.groups)
        content = {"results": numbers, "intervals": intervals(rows), "groups": groups, "images": images, "run": run}
        write(folder / "results.csv", results.to_csv(table))
        write(folder / "results.json", results.to_json(content))
        examples = Examples.of(trainer, pl_module, "test")
        parts = [
            *(headline(table), at_a_glance(rows, run), results_tables(table), classes(pl_module)),
            html.folded("Fairness between groups", fairness(table, groups)),
            html.folded("Precision and recall", html.figures({"Precision-recall curves": figures.pr(rows)})),
            html.folded("Texts", texts(pl_module, examples, self.pictures)),
            html.folded("Most wrong images", wrong_images(examples, self.pictures)),
            html.folded("Maps", maps(examples, self.pictures)),
            html.folded("Images", notes(images)),
        ]
        write(folder / "report.html", page(run, parts))
        self._claims.close()
        of_groups = ", rates by groups of people" if groups else ""
        print(f"report: {folder / 'report.html'} (curves{of_groups}, the most wrong images)")


def image_notes(sets: Mapping[str, Any], rows: Mapping[str, figures.Rows]) -> dict[str, dict[str, Any]]:
    """Return per domain how many images there are and were scored, which were unreadable, and which came twice."""
    return {
        domain: {
            "listed": len(data),
            "scored": len(rows[domain]["index"]) if domain in rows else 0,
            "unreadable": dict(getattr(data, "bad", {})),
            "duplicates": list(getattr(data, "duplicates", [])),
        }
        for domain, data in sets.items()
    }


def intervals(rows: Mapping[str, figures.Rows]) -> dict[str, tuple[float, float]]:
    """Return the ends of the 95 % interval of each domain's AUROC."""
    return {domain: auroc_interval(one["logit"], one["label"], one["video"]) for domain, one in rows.items()}


def group_rates(groups: Mapping[str, Mapping[str, GroupFairness]]) -> dict[str, dict[str, Any]]:
    """Return domain -> attribute -> ``rates`` by group and the groups ``left_out`` with the reason."""
    return {
        domain: {name: {"rates": one.rates(), "left_out": one.left_out} for name, one in by.items()}
        for domain, by in groups.items()
        if by
    }


def page(run: Mapping[str, Any], parts: Sequence[str]) -> str:
    """Return the whole page: what was run, then the parts, then how to repeat it."""
    name = (run["config"] or {}).get("name")
    facts = [run["date"].replace("T", " ").replace("+00:00", " UTC"), run["device"]]
    if run["checkpoint"]:
        facts.append(run["checkpoint"])
    if run["git"]:
        facts.append(f"commit {run['git']['commit'][:10]}{' with changes' if run['git']['dirty'] else ''}")
    head = f"<p class=soft>{' · '.join(text(fact) for fact in facts)}</p>"
    foot = html.folded("Run: configuration, versions and data", f"<pre>{text(results.to_json(run))}</pre>")
    return html.document(f"Test of {run['detector']}" + (f": {name}" if name else ""), [head, *parts, foot])


def headline(table: Sequence[results.Row]) -> str:
    """Return the best and the worst domain by AUROC, their mean, and how many images there were."""
    domains = [row for row in table if row["n_real"] is not None]
    area = {row["domain"]: row["auroc"] for row in domains if not math.isnan(row.get("auroc", math.nan))}
    real, fake = (sum(row[name] for row in domains) for name in ("n_real", "n_fake"))
    of = f" in {len(domains)} test domains" if len(domains) > 1 else ""
    cards = [(f"{real + fake:,}", f"images{of}: {real:,} real, {fake:,} fake")]
    if len(area) == 1:
        cards.insert(0, (number(*area.values()), f"AUROC on {next(iter(area))}"))
    elif area:
        best, worst = max(area, key=area.__getitem__), min(area, key=area.__getitem__)
        mean = math.fsum(area.values()) / len(area)
        cards[:0] = [
            (number(area[best]), f"best AUROC: {best}"),
            (number(area[worst]), f"worst AUROC: {worst}"),
            (number(mean), f"mean AUROC of {len(area)} domains"),
        ]
    return f"<div class=cards>{''.join(f'<div><b>{v}</b><span>{text(what)}</span></div>' for v, what in cards)}</div>"


def at_a_glance(rows: Mapping[str, figures.Rows], run: Mapping[str, Any]) -> str:
    """Return the figures of AUROC by domain, ROC and scores."""
    threshold = run["threshold"]
    verdict = (
        "No threshold was chosen on validation data, so what depends on it is undefined."
        if math.isnan(threshold)
        else f"Threshold chosen on validation data: {threshold:.4f}."
    )
    drawn = {"AUROC by domain": figures.areas(rows), "ROC curves": figures.roc(rows)}
    drawn |= {
        f"Histogram of the scores: {domain}": figures.scores({domain: own}, threshold) for domain, own in rows.items()
    }
    return f"{html.figures(drawn, 'columns')}<p class=soft>{verdict}</p>"


def results_tables(rows: Sequence[results.Row]) -> str:
    """Return the table of detection, and those of localization and of classes and texts where there are any."""
    names = results.metric_names(rows)
    starts = {
        "Localization": ("mask_", "forced_mask_"),
        "Classes and texts": ("class_", "family_", "level_", "text_", "official_"),
    }
    parts = {title: [name for name in names if name.startswith(start)] for title, start in starts.items()}
    parts = {"Results": [name for name in names if not any(name in part for part in parts.values())]} | parts
    return "".join(f"<h2>{title}</h2>{_table(rows, part)}" for title, part in parts.items() if part)


def _table(rows: Sequence[results.Row], names: Sequence[str]) -> str:
    """Return some metrics of a table; a mean says of how many domains it is. Print leaves out minor metrics."""
    kinds = {name: "minor" if about(name).minor else "" for name in names}
    head = [html.Cell(about(name).label, title=about(name).help, kind=kinds[name]) for name in names]
    lines = []
    for row in rows:
        cells = [html.Cell(row["domain"], f"of {row['n']:.0f}" if "n" in row else "")]
        cells += [html.Cell("" if row[label] is None else f"{row[label]:,}") for label in ("n_real", "n_fake")]
        for name in names:
            value = row.get(name)
            if value is not None and math.isnan(value):
                cells.append(html.Cell("n/a", title="undefined on these images", kind=f"soft {kinds[name]}"))
            else:
                note = f"of {row[f'n_{name}']:.0f}" if f"n_{name}" in row else ""
                cells.append(html.Cell("" if value is None else number(value), note, kind=kinds[name]))
        lines.append(cells)
    return html.table(["domain", "real", "fake", *head], lines, mean=rows[-1]["domain"] == "mean")


def classes(module: Any) -> str:
    """Return how well each class is told from the others, by domain, with the confusion of classes."""
    parts = []
    for what, measured in module.metrics["test"].classes().items():
        lines = []
        for domain, metric in measured.items():
            values, images = {k: float(v) for k, v in metric.compute().items()}, metric.confusion().sum(1).tolist()
            for name, count in zip(metric.names, images, strict=True):
                lines.append([domain, name, f"{count:,}", *(number(values[f"{m}_{name}"]) for m in PER_CLASS)])
        names = next(iter(measured.values())).names
        drawn = matrices.confusion({domain: metric.confusion().numpy() for domain, metric in measured.items()}, names)
        head = ["domain", what, "images", "precision", "recall", "F1", "AUROC against the rest"]
        title = "classes" if what == "class" else f"classes: {what}"
        figure = html.figures({f"Confusion of {title}": drawn})
        parts.append(f"<h2>{title.capitalize()}</h2>{html.table(head, lines)}{figure}")
    return "".join(parts)


def fairness(table: Sequence[results.Row], groups: Mapping[str, Mapping[str, Any]]) -> str:
    """Return how far groups lie apart, and the rates of each group; nothing where no image has a group."""
    lines = results.fairness_rows(table)
    if not lines:
        return ""
    cells = []
    for domain, attribute, values in lines:
        for end, at in (("", "0.5"), ("_val", "validation")):
            if not math.isnan(values.get(f"F_FPR{end}", math.nan)) or not end:
                own = [values.get(name + end, values.get(name, math.nan)) for name in FAIRNESS]
                cells.append([domain, attribute, at, *map(number, own)])
    meanings = "; ".join(f"{one.label}: {one.meaning}" for one in FAIRNESS.values())
    parts = [
        f"<p class=soft>Fractions, 0 for alike. {text(meanings)}. A difference here is not yet more than chance: "
        "<code>dfl audit</code> has intervals and tests.</p>",
        html.table(["domain", "groups by", "threshold", *(one.label for one in FAIRNESS.values())], cells),
    ]
    for domain, by in groups.items():
        for attribute, one in by.items():
            parts.append(f"<h3>{text(domain)}: rates by {text(attribute)}</h3>{_rates(one)}")
    return "".join(parts)


def _rates(one: Mapping[str, Any]) -> str:
    """Return the table of one attribute of `group_rates`."""
    rates = {"fpr": "FPR", "tpr": "TPR", "acc": "accuracy", "positive": "called fake"}
    columns = rates | {f"{name}_val": f"{label}@val" for name, label in rates.items()}
    if all(math.isnan(own["fpr_val"]) for own in one["rates"].values()):
        columns = rates
    columns |= {"auroc": "AUROC", "eer": "EER"}
    lines = []
    for group, own in one["rates"].items():
        counts = [f"{own[name]:,}" for name in ("real", "fake")]
        lines.append([group, *counts, *(number(own[name]) for name in columns), one["left_out"].get(group, "")])
    return html.table(["group", "real", "fake", *columns.values(), "left out of the differences"], lines)


def number(value: float) -> str:
    """Return a measure with four decimals, or n/a where it is undefined."""
    return "n/a" if math.isnan(value) else f"{value:.4f}"


def wrong_images(examples: Examples, k: int) -> str:
    """Return the k most wrong real and fake images of each domain, as the network saw them."""
    parts = []
    for domain in examples.metrics:
        for label, title in ((0, "real, with the highest scores"), (1, "fake, with the lowest scores")):
            shown = ""
            for item, score in examples.most_wrong(domain, k, label):
                path = str(item.get("path", ""))
                picture = html.image(html.thumbnail(pixels(item["image"])), "jpeg", Path(path).name)
                caption = f"<figcaption><b>{score:.4f}</b>{text(Path(path).name)}</figcaption>"
                shown += f'<figure title="{text(path)}">{picture}{caption}</figure>'
            if shown:
                parts.append(f"<h3>{text(domain)}: {title}</h3><div class=pictures>{shown}</div>")
    intro = "<p class=soft>Scores farthest from the label, as the network saw them.</p>"
    return "".join([intro, *parts]) if parts else ""


def maps(examples: Examples, k: int) -> str:
    """Return the k best and the k worst maps of each domain."""
    parts = []
    for domain in examples.metrics:
        if shown := "".join(map(_map, examples.maps(domain, k) if k else [])):
            head = f"<h3>{text(domain)}: from the best to the worst map</h3>"
            parts.append(f"{head}<div class='pictures fours'>{shown}</div>")
    intro = "Image, mask, map, and map over image, of the fakes with the best and with the worst IoU."
    return f"<p class=soft>{intro}</p>{''.join(parts)}" if parts else ""


def _map(one: MapExample) -> str:
    name = Path(one.path).name
    pictures = "".join(
        html.image(html.thumbnail(picture), "jpeg", f"{what} of {name}") for what, picture in one.pictures().items()
    )
    caption = f"<b>IoU {one.iou:.4f} · score {one.score:.4f}</b>{text(name)}"
    return f'<figure title="{text(one.path)}">{pictures}<figcaption>{caption}</figcaption></figure>'


def texts(module: Any, examples: Examples, k: int) -> str:
    """Return what the detector writes of some images of each domain, beside the explanation that was wanted."""
    parts = []
    for domain in examples.metrics:
        if lines := "".join(_text(module.class_names, one) for one in (examples.texts(domain, k) if k else [])):
            parts.append(f"<h3>{text(domain)}</h3><div class=wide><table>{lines}</table></div>")
    intro = "Images of each class, evenly spread: what the detector writes, and the explanation that was wanted."
    return f"<p class=soft>{intro}</p>{''.join(parts)}" if parts else ""


def _text(class_names: Sequence[str], one: TextExample) -> str:
    """Return a line of a table: picture, text of the detector, wanted explanation."""
    item, out = one.item, one.outputs
    written = f"<p>{text(out['text'][0])}</p>"
    if "class_logit" in out:
        prob = out["class_logit"][0].float().softmax(0).tolist()
        best = max(range(len(prob)), key=prob.__getitem__)
        is_class = int(item["class_label"])
        true = class_names[is_class] if is_class >= 0 else "of unknown class"
        written = f"<p><b>{text(class_names[best])} ({prob[best]:.2f})</b>, is {text(true)}</p>{written}"
    shown = html.thumbnail(pixels(without_padding(item["image"], item.get("extent"))))
    picture = html.image(shown, "jpeg", Path(str(item["path"])).name)
    wanted = f"<p class=soft>wanted: {text(item['explanation'])}</p>"
    return f'<tr class=generated><td title="{text(item["path"])}">{picture}</td><td>{written}{wanted}</td></tr>\n'


def notes(images: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what is odd about the images, or nothing."""
    parts = []
    for domain, note in images.items():
        if note["scored"] != note["listed"]:
            parts.append(f"<p>{text(domain)}: {note['scored']:,} of {note['listed']:,} images were scored.</p>")
        bad = [f"{path}: {reason}" for path, reason in note["unreadable"].items()]
        for items, what in ((bad, "could not be read"), (note["duplicates"], "are listed more than once")):
            parts.append(html.names(f"{domain}: {len(items):,} images {what}", items, MOST_NAMES, "results.json"))
    return "".join(parts)

"""The report of a test: a table in the terminal, two files of numbers, and one page that needs nothing else.

``report.html`` holds its figures and pictures in itself, so it can be mailed or put away with the run. It shows what
a mean hides: each domain by itself, its curves and scores, and the images that the detector got most wrong, as the
network saw them.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from dfl.distributed import is_sharded
from dfl.evaluation import figures, results
from dfl.evaluation.html import document, image, text, thumbnail
from dfl.evaluation.html import table as html_table
from dfl.metrics import GroupFairness
from dfl.metrics.classes import MEASURES
from dfl.runs.files import claimed, write

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
        self._held = ExitStack()

    def on_test_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Hold the folder.

        Raises:
            UserError: If another test is writing into it, or it cannot be written.
        """
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        if trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False):
            self._held.enter_context(claimed(folder, inside=True))

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Let the folder go."""
        self._held.close()

    def on_test_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write and print, in one process."""
        folder = Path(trainer.log_dir or trainer.default_root_dir)  # asks the other processes: before they leave
        if not trainer.is_global_zero:
            return
        metrics = pl_module.metrics["test"]
        rows = {domain: metric.rows() for domain, metric in metrics.items()}
        table = results.table(pl_module.results["test"], rows)
        results.print_table(table)
        results.print_fairness(table)
        compared = {domain: pl_module.compare_groups(domain) for domain in metrics}
        if getattr(trainer, "fast_dev_run", False):
            return
        sets = getattr(getattr(trainer, "datamodule", None), "sets", {}).get("test", {})
        run, images = results.run_info(trainer, pl_module), image_notes(sets, rows)
        write(folder / "results.csv", results.to_csv(table))
        numbers = {str(row["domain"]): {k: v for k, v in row.items() if k != "domain"} for row in table}
        content = {"results": numbers, "groups": group_rates(compared), "images": images, "run": run}
        write(folder / "results.json", results.to_json(content))
        parts = [_table(table), _classes(pl_module), _fairness(table, content["groups"])]
        parts += [_figures(rows, run["threshold"]), *self._answers(trainer, pl_module, sets)]
        parts += [*self._wrong(rows, sets), *self._maps(trainer, pl_module, rows, sets), _notes(images)]
        write(folder / "report.html", page(run, parts))
        self._held.close()

    def _wrong(self, rows: Mapping[str, figures.Rows], sets: Mapping[str, Any]) -> list[str]:
        """Return the pictures of each domain; none of loaders that came without a data module."""
        shown = [d for d in rows if d in sets and self.pictures > 0]
        head = ["<h2>Most wrong images</h2><p class=soft>Scores farthest from the label, as the network saw them.</p>"]
        return (head if shown else []) + [pictures(d, sets[d], rows[d], self.pictures) for d in shown]

    def _maps(
        self, trainer: pl.Trainer, module: Any, rows: Mapping[str, figures.Rows], sets: Mapping[str, Any]
    ) -> list[str]:
        """Return the best and worst maps of each domain, of detectors that give maps and images with masks."""
        parts = []
        for domain, metric in getattr(module, "maps", {}).get("test", {}).items():
            if domain in sets and self.pictures > 0:
                with trainer.precision_plugin.forward_context():
                    examples = figures.map_examples(module, sets[domain], metric.rows(), rows[domain], self.pictures)
                parts.append(map_pictures(domain, examples))
        said = "Image, mask, map, and map over image, of the fakes with the best and with the worst IoU."
        return [f"<h2>Maps</h2><p class=soft>{said}</p>", *parts] if any(parts) else []

    def _answers(self, trainer: pl.Trainer, module: Any, sets: Mapping[str, Any]) -> list[str]:
        """Return what the detector writes of some images of each domain, beside what was wanted."""
        parts = []
        for domain, metric in getattr(module, "texts", {}).get("test", {}).items():
            index = metric.rows()["index"].tolist() if domain in sets and self.pictures > 0 else []
            if index and not is_sharded(module):
                shown = of_each(index, sets[domain].rows.class_label[index].tolist(), self.pictures)
                with trainer.precision_plugin.forward_context():
                    lines = "".join(answer(module, sets[domain][i]) for i in shown)
                parts.append(f"<h3>{text(domain)}</h3><div class=wide><table>{lines}</table></div>")
        return [f"<h2>Texts</h2><p class=soft>{_SAID}</p>", *parts] if parts else []


_SAID = "Images of each class, evenly spread: what the detector writes, and the explanation that was wanted."


def of_each(index: Sequence[int], kind: Sequence[int], k: int) -> list[int]:
    """Return about k of some indices, equally many of each kind, evenly spread; at least one of each."""
    groups = [[i for i, own in zip(index, kind, strict=True) if own == one] for one in sorted(set(kind))]
    share = max(1, k // max(1, len(groups)))
    return sorted({group[(2 * j + 1) * len(group) // (2 * share)] for group in groups for j in range(share)})


def answer(module: Any, item: Mapping[str, Any]) -> str:
    """Return a line of a table for one sample of a data set: picture, text of the detector, wanted explanation."""
    out, name = figures.ask(module, item), Path(str(item["path"])).name
    said = f"<p>{text(out['text'][0])}</p>"
    if "class_logit" in out:
        prob = out["class_logit"][0].float().softmax(0).tolist()
        best = max(range(len(prob)), key=prob.__getitem__)
        is_class = int(item["class_label"])
        true = module.class_names[is_class] if is_class >= 0 else "of unknown class"
        said = f"<p><b>{text(module.class_names[best])} ({prob[best]:.2f})</b>, is {text(true)}</p>{said}"
    picture = image(_small(figures.without_padding(item["image"], item.get("extent"))), "jpeg", name)
    wanted = f"<p class=soft>wanted: {text(item['explanation'])}</p>"
    return f'<tr class=answer><td title="{text(item["path"])}">{picture}</td><td>{said}{wanted}</td></tr>\n'


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


def group_rates(compared: Mapping[str, Mapping[str, GroupFairness]]) -> dict[str, dict[str, Any]]:
    """Return domain -> attribute -> ``rates`` by group and the groups ``left_out`` with the reason."""
    return {
        domain: {name: {"rates": one.rates(), "left_out": one.left_out} for name, one in by.items()}
        for domain, by in compared.items()
        if by
    }


def page(run: Mapping[str, Any], parts: Sequence[str]) -> str:
    """Return the whole page: what was run, then the parts, then how to repeat it."""
    name = (run["config"] or {}).get("name") or run["detector"]
    threshold = run["threshold"]
    facts = [run["detector"], run["date"].replace("T", " ").replace("+00:00", " UTC"), run["device"]]
    if run["checkpoint"]:
        facts.append(run["checkpoint"])
    if run["git"]:
        facts.append(f"commit {run['git']['commit'][:10]}{' with changes' if run['git']['dirty'] else ''}")
    verdict = (
        "No threshold was chosen on validation data, so what depends on it is undefined."
        if math.isnan(threshold)
        else f"Threshold chosen on validation data: {threshold:.4f}."
    )
    head = f"<p class=soft>{' · '.join(text(fact) for fact in facts)}</p><p class=soft>{verdict}</p>\n"
    foot = (
        "<h2>Run</h2><details><summary>Configuration, versions and data</summary>"
        f"<pre>{text(results.to_json(run))}</pre></details>"
    )
    return document(f"{name}: test", [head, *parts, foot])


def _table(rows: Sequence[results.Row]) -> str:
    """Return the table of detection, and one of localization where there are maps: one of both is too wide to read."""
    names = results.metric_names(rows)
    of_maps = [name for name in names if name.startswith(("mask_", "forced_mask_"))]
    of_images = _columns("Results", rows, [name for name in names if name not in of_maps])
    return of_images + (_columns("Localization", rows, of_maps) if of_maps else "")


def _columns(title: str, rows: Sequence[results.Row], names: Sequence[str]) -> str:
    """Return some metrics of a table under a title."""
    known = [results.METRICS.get(name, (name, "")) for name in names]
    head = "".join(
        f'<th title="{text(help)}">{text(label)}</th>' if help else f"<th>{text(label)}</th>" for label, help in known
    )
    lines = "".join(_line(row, names) for row in rows)
    start = f"<h2>{title}</h2><div class=wide><table><tr><th>domain</th><th>real</th><th>fake</th>"
    return f"{start}{head}</tr>\n{lines}</table></div>"


def _line(row: results.Row, names: Sequence[str]) -> str:
    """Return one line of the table; a mean says where it leaves domains out."""
    counts = "".join(f"<td>{'' if row[n] is None else f'{row[n]:,}'}</td>" for n in ("n_real", "n_fake"))
    cells = []
    for name in names:
        value = row.get(name)
        if value is None:
            cells.append("<td></td>")
        elif math.isnan(value):
            cells.append('<td class=soft title="undefined on these images">n/a</td>')
        else:
            of = f"<small>of {row[f'n_{name}']:.0f}</small>" if f"n_{name}" in row else ""
            cells.append(f"<td>{value:.4f}{of}</td>")
    mean = row["n_real"] is None
    of = f"<small>of {row['n']:.0f}</small>" if mean and "n" in row else ""
    start = "<tr class=mean>" if mean else "<tr>"
    return f"{start}<td>{text(row['domain'])}{of}</td>{counts}{''.join(cells)}</tr>\n"


def _classes(module: Any) -> str:
    """Return how well each class is told from the others, by domain, with the confusion of classes."""
    told = {d: one for d, one in getattr(module, "classes", {}).get("test", {}).items() if len(one.rows()["index"])}
    if not told:
        return ""
    names, lines, drawn = module.class_names, [], ""
    for domain, metric in told.items():
        values, images = {k: float(v) for k, v in metric.compute().items()}, metric.confusion().sum(1).tolist()
        for name, count in zip(names, images, strict=True):
            lines.append([domain, name, f"{count:,}", *(number(values[f"{m}_{name}"]) for m in MEASURES)])
    if figures.MATPLOTLIB:
        figure = figures.confusion({domain: metric.confusion() for domain, metric in told.items()}, names)
        drawn = f"<div class=figures>{image(figures.to_png(figure), 'png', 'Confusion of classes')}</div>"
    head = ["domain", "class", "images", "precision", "recall", "F1", "AUROC against the rest"]
    return f"<h2>Classes</h2>{html_table(head, lines)}{drawn}"


def _fairness(table: Sequence[results.Row], groups: Mapping[str, Mapping[str, Any]]) -> str:
    """Return how far groups lie apart, and the rates of each group; nothing where no image has a group."""
    lines = results.fairness_rows(table)
    if not lines:
        return ""
    cells = []
    for domain, attribute, values in lines:
        for end, at in (("", "0.5"), ("_val", "validation")):
            if not math.isnan(values.get(f"F_FPR{end}", math.nan)) or not end:
                own = [values.get(name + end, values.get(name, math.nan)) for name in results.FAIRNESS]
                cells.append([domain, attribute, at, *map(number, own)])
    said = "; ".join(f"{label}: {help}" for label, help in results.FAIRNESS.values())
    parts = [
        f"<h2>Fairness between groups</h2><p class=soft>Fractions, 0 for alike. {text(said)}. A difference here is not "
        "yet more than chance: <code>dfl audit</code> has intervals and tests.</p>",
        html_table(["domain", "groups by", "threshold", *(label for label, _ in results.FAIRNESS.values())], cells),
    ]
    for domain, by in groups.items():
        for attribute, one in by.items():
            parts.append(f"<h3>{text(domain)}: rates by {text(attribute)}</h3>{rates_table(one)}")
    return "".join(parts)


def rates_table(one: Mapping[str, Any]) -> str:
    """Return the table of one attribute of `group_rates`."""
    columns = ["fpr", "tpr", "acc", "positive", "fpr_val", "tpr_val", "acc_val", "positive_val", "auroc", "eer"]
    if all(math.isnan(own["fpr_val"]) for own in one["rates"].values()):
        columns = [name for name in columns if not name.endswith("_val")]
    named = {"fpr": "FPR", "tpr": "TPR", "acc": "accuracy", "positive": "called fake", "auroc": "AUROC", "eer": "EER"}
    head = [named[n.removesuffix("_val")] + ("@val" if n.endswith("_val") else "") for n in columns]
    lines = [
        [
            group,
            f"{own['real']:,}",
            f"{own['fake']:,}",
            *(number(own[n]) for n in columns),
            one["left_out"].get(group, ""),
        ]
        for group, own in one["rates"].items()
    ]
    return html_table(["group", "real", "fake", *head, "left out of the differences"], lines)


def number(value: float) -> str:
    """Return a measure with four decimals, or n/a where it is undefined."""
    return "n/a" if math.isnan(value) else f"{value:.4f}"


def _figures(rows: Mapping[str, figures.Rows], threshold: float) -> str:
    """Return the curves and histograms, or what to install to have them."""
    if not figures.MATPLOTLIB:
        return f"<h2>Curves and scores</h2><p>Left out: {text(figures.MISSING)}</p>"
    drawn = {
        "ROC curves": figures.roc(rows),
        "Precision-recall curves": figures.pr(rows),
        "Histograms of the scores": figures.histogram(rows, threshold),
    }
    shown = "".join(image(figures.to_png(figure), "png", name) for name, figure in drawn.items())
    return f"<h2>Curves and scores</h2><div class=figures>{shown}</div>"


def pictures(domain: str, dataset: Any, rows: figures.Rows, k: int) -> str:
    """Return the k most wrong real and fake images of a domain, read again through their data set.

    Args:
        domain: its name.
        dataset: `dataset[i]` is a batch row with `image` uint8 (3, H, W) and `path`.
        rows: `Detection.rows()` of the domain.
        k: how many of each class.
    """
    parts = []
    for label, title in ((0, "real, with the highest scores"), (1, "fake, with the lowest scores")):
        shown = ""
        for place in figures.most_wrong(rows, k, label).tolist():
            item = dataset[int(rows["index"][place])]
            path, score = str(item.get("path", "")), float(rows["score"][place])
            shown += (
                f'<figure title="{text(path)}">{image(_small(item["image"]), "jpeg", Path(path).name)}'
                f"<figcaption><b>{score:.4f}</b>{text(Path(path).name)}</figcaption></figure>"
            )
        if shown:
            parts.append(f"<h3>{text(domain)}: {title}</h3><div class=pictures>{shown}</div>")
    return "".join(parts)


def map_pictures(domain: str, examples: Sequence[figures.Example]) -> str:
    """Return the examples of a domain, each as four pictures with its IoU and score, or nothing of none."""
    shown = ""
    for one in examples:
        name = Path(one.path).name
        pictures = "".join(image(_small(p), "jpeg", f"{what} of {name}") for what, p in figures.panels(one).items())
        caption = f"<b>IoU {one.iou:.4f} · score {one.score:.4f}</b>{text(name)}"
        shown += f'<figure title="{text(one.path)}">{pictures}<figcaption>{caption}</figcaption></figure>'
    head = f"<h3>{text(domain)}: from the best to the worst map</h3>"
    return f"{head}<div class='pictures fours'>{shown}</div>" if shown else ""


def _small(pixels: Tensor) -> bytes:
    """Return a thumbnail of uint8 (3, H, W)."""
    return thumbnail(pixels.permute(1, 2, 0).contiguous().cpu().numpy())


def _notes(images: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what is odd about the images, or nothing."""
    parts = []
    for domain, note in images.items():
        if note["scored"] != note["listed"]:
            parts.append(f"<p>{text(domain)}: {note['scored']:,} of {note['listed']:,} images were scored.</p>")
        bad = [f"{path}: {reason}" for path, reason in note["unreadable"].items()]
        for names, what in ((bad, "could not be read"), (note["duplicates"], "are listed more than once")):
            if names:
                more = (
                    f"<li>and {len(names) - MOST_NAMES:,} more, in results.json</li>" if len(names) > MOST_NAMES else ""
                )
                items = "".join(f"<li>{text(name)}</li>" for name in names[:MOST_NAMES])
                head = f"{text(domain)}: {len(names):,} images {what}"
                parts.append(f"<details><summary>{head}</summary><ul>{items}{more}</ul></details>")
    return f"<h2>Images</h2>{''.join(parts)}" if parts else ""

"""A name is text wherever it is shown: no colour, no emoji, no command of the terminal, no line of its own."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dfl.__main__ import one_line
from dfl.benchmark import report
from dfl.evaluation import figures, matrices, plots, results
from dfl.tools.check import check

LOOKS_AT_FIGURES = True
ODD = ["[red]x", "[/]", "[link=http://x]y[/link]", ":smile:", "[bold", "a\\[b]"]


def test_tables_print_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"domain": name, "n_real": 1, "n_fake": 1, "auroc": 0.5} for name in ODD]
    results.print_table(rows)
    rows = [{"method": name, "domain": name, "variant": "stored", "metric": "auroc", "value": 0.5} for name in ODD]
    domains = [{"name": name, "role": "cross", "flags": []} for name in ODD]
    methods = [{"name": name} for name in ODD]
    report.show({"methods": methods, "domains": domains, "variants": ["stored"], "metrics": ["auroc"], "cells": rows})
    said = capsys.readouterr().out
    assert all(said.count(name) >= 3 for name in ODD)


def test_the_check_prints_odd_names_and_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("real", "fake"):
        (tmp_path / "[red]set[bold]" / kind).mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(tmp_path / "[red]set[bold]" / kind / "<b>[red]x.png")
    (tmp_path / "[red]set[bold]" / "real" / "\x1b[2J\n[red].png").write_bytes(b"no image")
    check([str(tmp_path / "[red]set[bold]")], str(tmp_path / "out"), workers=1, progress=False)
    said = capsys.readouterr().out
    assert "[red]set[bold]" in said
    assert "\x1b" not in said
    assert r"\x1b[2J\n[red].png" in said
    page = (tmp_path / "out" / "check.html").read_text()
    assert "<b>[red]x" not in page
    assert "&lt;b&gt;[red]x.png" in page


def test_one_line_has_no_control_character() -> None:
    assert one_line("no file 'a\x1b[31m\nb\x07'; \u202e") == r"no file 'a\x1b[31m b\x07'; \u202e"


@pytest.mark.parametrize("name", ["$x$", r"$\\frac$ and $", "_hidden", "a$b"])
def test_figures_draw_names_as_they_are(name: str) -> None:
    score = torch.tensor([0.1, 0.9])
    rows = {"score": score, "logit": score.logit(), "label": torch.tensor([0, 1])}
    figure = figures.roc({name: rows})
    assert len(figure.legends[0].get_texts()) == 1
    for drawn in (figure, figures.scores({name: rows}), matrices.confusion({name: np.eye(2)}, [name, "b"])):
        assert plots.to_png(drawn)
    plots.to_png(plots.image_grid([np.zeros((8, 8, 3), np.uint8)], [name]))

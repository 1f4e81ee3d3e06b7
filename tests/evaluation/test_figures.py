"""Figures draw what the rows say, and survive domains that are empty or of one class."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dfl.evaluation import examples, figures, matrices, plots


def rows(score: list[float], label: list[int]) -> dict[str, torch.Tensor]:
    index = torch.arange(len(score))
    return {
        "score": torch.tensor(score),
        "logit": torch.tensor(score).double().logit(),
        "label": torch.tensor(label, dtype=torch.long),
        "index": index,
        "video": index - 10**6,
    }


LOOKS_AT_FIGURES = True
GOOD = rows([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
DOMAINS = {"good": GOOD, "one": rows([0.2, 0.3], [0, 0]), "none": rows([], []), "nan": rows([math.nan, 0.5], [0, 1])}


def test_curves_are_those_of_the_scores() -> None:
    axes = figures.roc({"good": GOOD}).axes[0]
    assert axes.lines[0].get_xydata().tolist() == [[0, 0], [0, 0.5], [0.5, 0.5], [0.5, 1], [1, 1]]
    assert axes.lines[0].get_label() == "good  0.750"


@pytest.mark.parametrize("draw", [figures.roc, figures.pr, figures.scores, figures.areas])
def test_degenerate_domains_are_drawn_and_named(draw) -> None:
    figure = draw(DOMAINS)
    assert plots.to_png(figure).startswith(b"\x89PNG")
    words = [text.get_text() for text in figure.findobj(match=lambda artist: hasattr(artist, "get_text"))]
    assert all(any(word.startswith(domain) for word in words) for domain in DOMAINS)


def test_most_wrong_comes_first_and_nan_is_worst() -> None:
    assert examples.most_wrong(GOOD, 2).tolist() == [2, 1]
    assert examples.most_wrong(GOOD, 9, label=0).tolist() == [1, 0]
    assert examples.most_wrong(DOMAINS["nan"], 1).tolist() == [0]
    assert examples.most_wrong(DOMAINS["one"], 3, label=1).tolist() == []


def test_grid_shows_each_image_under_its_score() -> None:
    items = [
        {"image": torch.full((3, 5, 5), 10 * i, dtype=torch.uint8), "path": f"d/{i}.png", "label": i // 2}
        for i in range(4)
    ]
    module = SimpleNamespace(metrics={"val": SimpleNamespace(rows=lambda domain: GOOD)})
    shown = examples.Examples(module, "val", {"good": items}).most_wrong("good", 2)
    assert [(int(item["image"][0, 0, 0]), score) for item, score in shown] == [
        (20, pytest.approx(0.35)),
        (10, pytest.approx(0.4)),
    ]
    grid = figures.wrong_grid(shown)
    assert [axes.get_title() for axes in grid.axes][:3] == ["fake  0.350\n2.png", "real  0.400\n1.png", ""]
    assert (plots.to_array(grid) == 20).all(axis=-1).any()


def test_lines_break_where_they_are_undefined_and_dots_say_so() -> None:
    axes = plots.lines(np.arange(4.0), {"a": np.array([0, 1, math.nan, 1])}, "x", {}).axes[0]
    assert np.isnan(axes.lines[0].get_ydata()).tolist() == [False, False, True, False]
    axes = plots.intervals({"a": (0.2, 0.1, 0.3), "b": (math.nan,) * 3}, "FPR", 0.25).axes[0]
    assert [list(line.get_xdata()) for line in axes.lines[:2]] == [[0.1, 0.3], [0.2]]
    assert [text.get_text() for text in axes.texts] == ["undefined"]


def test_a_heat_map_colours_what_is_known() -> None:
    values = {"<r>": [0.42, math.nan], "s": [0.91, 0.5]}
    axes, bar = matrices.heat_map({"": values}, ["x", "y"], [["<r>"], ["s"]], "IoU", {("s", "x")}).axes
    assert [text.get_text() for text in axes.texts] == ["0.420", "n/a", "0.910", "0.500"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["<r>", "s"]
    (frame,) = axes.patches
    assert frame.get_x() < 0 < frame.get_x() + frame.get_width()
    assert frame.get_y() < axes.get_yticks()[1] < frame.get_y() + frame.get_height()
    assert bar.get_xlim() == pytest.approx((0.4, 1.0))  # the scale's ends

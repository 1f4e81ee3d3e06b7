"""Figures draw what the rows say, and survive domains that are empty or of one class."""

import math

import pytest
import torch

from dfl.errors import UserError
from dfl.evaluation import figures


def rows(score: list[float], label: list[int]) -> dict[str, torch.Tensor]:
    index = torch.arange(len(score))
    return {"score": torch.tensor(score), "label": torch.tensor(label, dtype=torch.long), "index": index}


LOOKS_AT_FIGURES = True
GOOD = rows([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
DOMAINS = {"good": GOOD, "one": rows([0.2, 0.3], [0, 0]), "none": rows([], []), "nan": rows([math.nan, 0.5], [0, 1])}


def test_curves_are_those_of_the_scores() -> None:
    axes = figures.roc({"good": GOOD}).axes[0]
    assert axes.lines[0].get_xydata().tolist() == [[0, 0], [0, 0.5], [0.5, 0.5], [0.5, 1], [1, 1]]
    assert axes.lines[0].get_label() == "good  0.750"


@pytest.mark.parametrize("draw", [figures.roc, figures.pr, figures.histogram])
def test_degenerate_domains_are_drawn_and_named(draw) -> None:
    figure = draw(DOMAINS)
    assert figures.to_png(figure).startswith(b"\x89PNG")
    words = [text.get_text() for text in figure.findobj(match=lambda artist: hasattr(artist, "get_text"))]
    assert all(any(word.startswith(domain) for word in words) for domain in DOMAINS)


def test_most_wrong_comes_first_and_nan_is_worst() -> None:
    assert figures.most_wrong(GOOD, 2).tolist() == [2, 1]
    assert figures.most_wrong(GOOD, 9, label=0).tolist() == [1, 0]
    assert figures.most_wrong(DOMAINS["nan"], 1).tolist() == [0]
    assert figures.most_wrong(DOMAINS["one"], 3, label=1).tolist() == []


def test_grid_shows_each_image_under_its_score() -> None:
    items = [{"image": torch.full((3, 5, 5), 10 * i, dtype=torch.uint8), "path": f"d/{i}.png"} for i in range(4)]
    images, titles = figures.wrong_images(items, GOOD, 2)
    assert [int(image[0, 0, 0]) for image in images] == [20, 10]
    assert titles == ["fake  0.350\n2.png", "real  0.400\n1.png"]
    grid = figures.image_grid(images, titles, columns=2)
    assert [axes.get_title() for axes in grid.axes] == titles
    assert (figures.to_array(grid) == 20).all(axis=-1).any()


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "MATPLOTLIB", False)
    with pytest.raises(UserError, match=r"pip install 'dfl\[report\]'"):
        figures.roc({"good": GOOD})

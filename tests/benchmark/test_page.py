"""The page says what the content says, in order, leaves out what is absent, and needs nothing but itself."""

import base64
import copy
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from content import content
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dfl.benchmark import figures, page, sections, spectra, tensorboard
from dfl.benchmark.lookup import Lookup
from dfl.evaluation import html, plots

HOSTILE = "</td><script>alert(1)</script>&amp;$x$"


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return content()


@pytest.fixture(scope="module")
def whole(made: dict[str, Any]) -> str:
    return page.page(made)


def titles(text: str) -> list[str]:
    return re.findall(r"<h2>([^<]*)</h2>", text)


def test_every_part_is_there_in_order(whole: str) -> None:
    assert titles(whole) == [
        *("Differences to the best method", "Within and across domains", "AUROC on each domain"),
        *("Share called fake at the validation threshold, before and after", "Robustness"),
        *("AUROC under degradations", "Verdicts that change under degradations", "Ranks"),
        *(f"Average rank by AUROC, {v}, and p of each pair (Nemenyi)" for v in ("as stored", "re-encoded alike")),
        *("Other metrics", "Shift of scores by re-encoding", "Localization", "ROC and precision-recall"),
        *("Score distributions", "By generator", "All differences of AUROC", "Calibration"),
        *("Thresholds for a wanted false positive rate", "Fairness between groups", "Most wrong images"),
        *("Published numbers", "Cost", "Methods", "Test domains", "How to reproduce"),
    ]


def test_what_is_absent_leaves_no_hole(made: dict[str, Any]) -> None:
    bare = {k: made[k] for k in ("name", "methods", "domains", "variants", "metrics", "cells", "summaries")}
    assert titles(page.page(bare)) == [
        *("Within and across domains", "AUROC on each domain", "Other metrics", "Localization"),
        *("Cost", "Methods", "Test domains", "How to reproduce"),
    ]
    text = page.page({"name": "nothing"})
    assert titles(text) == []
    assert "<table" not in text


def test_headline_names_the_leak_the_best_and_whether_it_is_sure(made: dict[str, Any]) -> None:
    look = Lookup(made)
    leak, best, sure, alike = page.findings(look)
    assert leak[0] == "error"
    assert leak[1].startswith("stylegan: metadata alone, without a pixel, reach AUROC 0.990")
    means = {s["method"]: s["cross"] for s in made["summaries"] if s["variant"] == "stored"}
    order = sorted(means, key=means.__getitem__, reverse=True)
    assert look.methods == order
    one = look.summary_row(order[0], "stored")
    assert f"{order[0]} generalises best: AUROC {one['cross']:.3f}" in best[1]
    assert f"worst on {one['worst']}, {one['minimum']:.3f}" in best[1]
    assert sure[0] == "warning"
    assert f"that of {order[1]}, the second, by no more than noise" in sure[1]
    assert alike == (
        "note",
        f"Re-encoded alike, its mean AUROC is {look.summary(order[0], 'cross', 'alike'):.3f}, still the best.",
    )


def test_a_difference_is_sure_after_holm_whichever_way_round_it_is_stored(made: dict[str, Any]) -> None:
    changed = copy.deepcopy(made)
    best, second = Lookup(made).methods[:2]
    changed["differences"] = [
        {"domain": "", "variant": v, "a": second, "b": best, "value": -x, "low": -x - 0.1, "high": 0.1 - x}
        | {"p": 0.001, "p_holm": 0.01 if v == "stored" else 0.3}
        for v, x in (("stored", 0.2), ("alike", -0.1))
    ]
    for one in changed["summaries"]:  # re-encoded alike the second is best
        if (one["variant"], one["method"]) == ("alike", second):
            one["cross"] = 0.99
    kind, words = page.findings(Lookup(changed))[2]
    assert kind == "fine"
    assert "by more than noise: +0.200 (0.100 to 0.300), p = 0.010" in words
    kind, words = page.findings(Lookup(changed))[3]
    assert kind == "warning"
    wanted = (
        f"and {second} is best, with 0.990; AUROC differs by no more than noise: +0.100 (-0.000 to 0.200), p = 0.300"
    )
    assert wanted.replace("-0.000", "0.000") in words.replace("-0.000", "0.000")


def test_of_one_file_alone_nothing_is_said_of_its_training_or_of_being_best(made: dict[str, Any]) -> None:
    changed = copy.deepcopy(made)
    best = Lookup(made).methods[0]
    changed["methods"] = [one | {"external": True, "trained_on": []} for one in made["methods"] if one["name"] == best]
    changed["cells"] = [one for one in made["cells"] if one["method"] == best]
    words = page.findings(Lookup(changed))[1][1]
    assert words.startswith(f"{best}: AUROC ")
    assert "mean over 2 domains (what it was trained on is not known); worst on" in words


def test_methods_are_ordered_by_the_shown_metric_and_undefined_ones_are_last(made: dict[str, Any]) -> None:
    changed = copy.deepcopy(made)
    changed["metrics"] = ["eer", *(name for name in changed["metrics"] if name != "eer")]
    cross = dict(zip([m["name"] for m in made["methods"]], (0.3, 0.1, math.nan), strict=True))
    changed["summaries"] = [{"method": m, "variant": "stored", "metric": "eer", "cross": v} for m, v in cross.items()]
    first, second, third = cross
    assert Lookup(changed).methods == [second, first, third]


def test_both_tables_stand_beside_each_other_with_what_metadata_alone_give(whole: str, made: dict[str, Any]) -> None:
    table = whole.split("<h2>AUROC on each domain</h2>")[1].split("</table>")[0]
    assert re.findall(r"<th colspan=2>([^<]*)", table) == ["progan (within)", "stylegan", "stylegan2"]
    look = Lookup(made)
    row = re.findall(r"<tr>(.*)</tr>", table)[1]
    wanted = [look.value(look.methods[0], d, v, "auroc") for d in look.domains("auroc") for v in ("stored", "alike")]
    assert re.findall(r">(\d\.\d{3})<small>", row) == [f"{value:.3f}" for value in wanted]
    assert re.findall(r">(\d\.\d{3})<small>", table.split("<tfoot>")[1]) == ["0.520", "0.990", "0.520"]


def test_real_images_alone_have_a_false_positive_rate_and_nothing_else(whole: str) -> None:
    tables = dict(re.findall(r"<summary>([^<]*)</summary>.*?<thead>(.*?)</thead>", whole, re.DOTALL))
    assert "coco (reals)" in tables["FPR"]
    assert "coco" not in tables["AP"]


def test_unresolved_rates_and_generators_that_may_be_known_are_shown_as_such(made: dict[str, Any], whole: str) -> None:
    part = whole.split("<h2>Thresholds for a wanted false positive rate</h2>")[1].split("</details>")[0]
    assert part.count("<td>60</td><td>not resolved</td><td></td>") == 3
    assert part.count("<td>0.900</td><td>0.000</td><td>0.125</td><td>0.045</td><td>0.150</td>") == 3
    assert "†" not in whole
    changed = copy.deepcopy(made)
    changed["generators"][0]["flag"] = "the backbone may have seen such images"
    (cell,) = (
        c for c in changed["cells"] if [*c.values()][:5] == ["vit_scl", "progan", "within", "stored", "tpr_at_1fpr"]
    )
    cell["note"] = "60 reals cannot show a rate of 1 %"
    text = page.page(changed)
    assert text.count("<small>†</small>") == 2
    assert text.count("<p class=soft>† progan: 60 reals cannot show a rate of 1 %</p>") == 1


def test_generators_and_groups_are_shown_twice_too(made: dict[str, Any]) -> None:
    changed, first = copy.deepcopy(made), made["generators"][0]
    changed["generators"].append({**first, "variant": "alike", "auroc": 0.123})
    text = page.page(changed)
    assert text.count("<small>alike 0.123</small>") == 1
    part = text.split("<h2>Fairness between groups</h2>")[1].split("</table>")[0]
    ways = re.findall(r"<td>(as stored|re-encoded alike)</td><td>[^<]*</td><td>([^<]*)</td>", part)
    assert ways == [("as stored", "0.200"), ("re-encoded alike", "1.200")] * 3


def test_tests_ranks_and_calibration_are_shown_twice_too(made: dict[str, Any], whole: str) -> None:
    both = ["as stored", "re-encoded alike"]
    for title, rows in (
        ("All differences of AUROC", 3),
        ("Calibration", 3),
        ("Share called fake at the validation threshold, before and after", 3),
    ):
        table = whole.split(f"<h2>{title}</h2>")[1].split("<table")[1].split("</table>")[0]
        assert re.findall(r"<td>(as stored|re-encoded alike)</td>", table) == both * rows, title
    ranks = re.findall(r"<h2>(Average rank[^<]*)</h2>", whole)
    assert ranks == [f"Average rank by AUROC, {way}, and p of each pair (Nemenyi)" for way in both]
    look = Lookup(made)
    names = [*figures.forest(look), *figures.ranks(look), *list(figures.calibration(look))[1:]]
    parts = ("Differences to the best method", "Critical difference of ranks", "Risk over coverage")
    assert names == [name + way for name in parts for way in ("", ", re-encoded alike")]


def test_metrics_of_maps_have_what_all_fake_pixels_give(made: dict[str, Any], whole: str) -> None:
    table = whole.split("<summary>IoU</summary>")[1].split("</table>")[0]
    assert re.findall(r"<td[^>]*>([^<]*)</td>", table.split("<tfoot>")[1]) == ["all fake", *["0.250"] * 6]
    (drawn,) = figures.heat(Lookup(made), "mask_iou").values()
    assert drawn.axes[0].get_yticklabels()[-1].get_text() == "all fake"
    for axes in drawn.axes[:2]:
        assert [patch.get_x() < 0 for patch in axes.patches] == [True] * 3  # all know the first domain


def test_robustness_says_what_its_axis_is(made: dict[str, Any]) -> None:
    drawn = figures.robustness(Lookup(made))
    axes = {name.removeprefix("Robustness: "): figure.axes[0].get_xlabel() for name, figure in drawn.items()}
    assert axes == {"jpeg": "quality", "webp": "quality", "blur": "sigma, tenths of a pixel"}


def test_methods_whose_means_are_over_different_domains_are_not_ordered(made: dict[str, Any]) -> None:
    changed = copy.deepcopy(made)
    for cell in changed["cells"]:
        cell["role"] = "within" if (cell["method"], cell["domain"]) == ("vit_lora", "stylegan") else cell["role"]
    for one in changed["summaries"]:
        one["cross"] = {"vit_scl": 0.1, "vit_lora": 0.5, "linear_probe": 0.9}[one["method"]]
    look = Lookup(changed)
    assert look.methods == [one["name"] for one in made["methods"]]
    assert page.findings(look)[-1][1].endswith("so none is called best: compare them on one domain.")
    assert "Differences to the best method" not in titles(page.page(changed))


def test_one_seed_has_no_spread(made: dict[str, Any]) -> None:
    changed = copy.deepcopy(made)
    for one in (*changed["cells"], *changed["summaries"]):
        one |= {"spread": math.nan} | ({"seeds": one["seeds"][:1]} if "seeds" in one else {})
    for one, said in ((made, True), (changed, False)):
        look = Lookup(one)
        assert ("spread over" in sections.summary(look)) is said
        assert ("spread over" in sections.metric(look, "auroc")) is said


def test_the_crop_rule_is_in_the_header(whole: str) -> None:
    assert "<p class=soft>Images: resize shorter, crop centre, 224 pixels, centre view.</p>" in whole.split("<h2>")[0]


def test_published_numbers_are_apart(whole: str, made: dict[str, Any]) -> None:
    assert whole.count("CNNDetection") == 1
    part = whole.split("<h2>Published numbers</h2>")[1].split("</table>")[0]
    look = Lookup(made)
    ours = max(look.value(m, "progan", "stored", "ap") for m in look.methods)
    assert f"<td>1.000</td><td>{ours:.3f}<small>" in part


def test_hostile_names_and_odd_numbers_are_text() -> None:
    made = content(2, 2)
    text = page.page(renamed(made, {"vit_scl": HOSTILE, "stylegan": f"{HOSTILE}2"}))
    assert HOSTILE not in text
    assert "&lt;script&gt;" in text
    assert text.count("<script>") == 1


def renamed(value: Any, names: dict[str, str]) -> Any:
    """Return a content with other names, and None for NaN, as JSON has it."""
    if isinstance(value, dict):
        return {names.get(k, k): renamed(v, names) for k, v in value.items()}
    if isinstance(value, list):
        return [renamed(one, names) for one in value]
    return (
        None
        if isinstance(value, float) and math.isnan(value)
        else names.get(value, value)
        if isinstance(value, str)
        else value
    )


def test_page_holds_all_that_it_shows(whole: str) -> None:
    assert "://" not in whole
    assert not re.findall(r'(?:src|href)=(?!"data:image/)', whole)


def test_pictures_are_those_that_are_there(made: dict[str, Any], tmp_path: Path) -> None:
    changed = copy.deepcopy(made)
    best = Lookup(made).methods[0]
    file = tmp_path / "a<b.png"
    Image.new("RGB", (32, 32), "teal").save(file)
    changed["wrong"] = {
        "progan": {best: [{"path": str(file), "score": 0.2, "label": 1}, *made["wrong"]["progan"][best]]}
    }
    text = page.page(changed).split("<h2>Most wrong images</h2>")[1].split("</details>")[0]
    assert text.count("data:image/jpeg") == 1
    assert "data:image/png" not in text
    assert text.count("not here") == 3
    assert "<b>fake, 0.200</b>a&lt;b.png" in text


def test_wrong_images_stand_beside_their_maps(made: dict[str, Any]) -> None:
    """Of the best method, and of the best that gives maps."""
    changed, (best, *_, last) = copy.deepcopy(made), Lookup(made).methods
    one = {"path": "gone.png", "score": 0.2, "label": 1}
    changed["wrong"] = {"progan": {best: [one], last: [{**one, "map": "iVBORw0="}]}}
    text = page.page(changed).split("<h2>Most wrong images</h2>")[1].split("</details>")[0]
    assert re.findall(r"<h3>(.*?)</h3><div class=\"(.*?)\">", text) == [
        (f"progan: {best}", "pictures"),
        (f"progan: {last}", "pictures pairs"),
    ]
    assert text.count('alt="map of gone.png" width="144" src="data:image/png;base64,iVBORw0="') == 1


def test_methods_that_do_not_differ_are_the_longest_runs() -> None:
    assert figures.alike_groups([1.0, 1.5, 2.2, 4.0, 4.1], 1.0) == [(0, 1), (1, 2), (3, 4)]
    assert figures.alike_groups([1.0, 1.5, 1.9], 1.0) == [(0, 2)]
    assert figures.alike_groups([1.0, 1.5], math.nan) == []


def test_tensorboard_has_every_figure_once(
    made: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "to_array", lambda _: np.zeros((4, 4, 3), np.uint8))
    flat = spectra.Spectrum(np.zeros((8, 8)), np.zeros(8), 1, 0, 0)
    tensorboard.log(made, tmp_path, {"real": flat})
    events = EventAccumulator(str(tmp_path)).Reload()
    tags = events.Tags()["images"]
    assert len(tags) == 1 + 1 + 2 + 3 + 3 + 2 + 3 + 6 + 2
    assert all(len(events.Images(tag)) == 1 for tag in tags)


def test_a_spectrum_shows_the_grid_of_upsampling_and_counts_what_is_missing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    paths: dict[str, list[str]] = {"real": [], "upsampled": [str(tmp_path / "gone.png")]}
    for i in range(6):
        plane = rng.normal(128, 20, (64, 64, 1)).clip(0, 255)
        small = plane[::2, ::2].repeat(2, 0).repeat(2, 1)
        for name, one in (("real", plane), ("upsampled", small)):
            paths[name].append(str(tmp_path / f"{name}_{i}.png"))
            Image.fromarray(one.repeat(3, 2).astype(np.uint8)).save(paths[name][-1])
    found = spectra.spectra(paths, images=5)
    assert list(found) == ["real", "upsampled"]
    assert (found["real"].images, found["real"].missing) == (5, 0)
    assert (found["upsampled"].images, found["upsampled"].missing) == (4, 1)
    plane = found["real"].plane
    assert plane.shape == (64, 64)
    # doubled pixels: cos^2 in each direction, so the highest frequencies are all but gone
    low, high = np.s_[8:16, 8:16], np.s_[56:, 56:]
    assert abs(found["upsampled"].plane[low].mean() - plane[low].mean() - math.log10(4)) < 0.3
    assert found["upsampled"].plane[high].mean() < plane[high].mean() - 2
    assert len(spectra.figures(found)) == 3
    assert spectra.spectra({"real": ["nowhere.png"]}) == {}


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_in_a_browser_on_a_phone(whole: str, tmp_path: Path) -> None:
    file, pixel = tmp_path / "report.html", html.thumbnail(np.zeros((1, 1, 3), np.uint8))
    shown = base64.b64encode(pixel).decode()  # for figures, which are not drawn here; their width is in the page
    file.write_text(whole.replace('src="data:image/png;base64,"', f'src="data:image/jpeg;base64,{shown}"'))
    with Browser(file, tmp_path / "profile") as browser:
        assert browser.value("innerWidth") == 390
        assert browser.value("document.documentElement.scrollWidth") <= 390
        seen = "document.querySelector('details table').checkVisibility()"
        assert not browser.value(seen)
        browser.send("Emulation.setEmulatedMedia", media="print")
        assert browser.value(seen)  # on paper nothing could be opened
        browser.send("Emulation.setEmulatedMedia", media="")
        browser.value("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert browser.value("document.documentElement.scrollWidth") <= 390
        column = "[...document.querySelectorAll('table')[0].tBodies[0].rows].map(row => row.cells[1].textContent)"
        before = browser.value(column)
        while not browser.value("document.activeElement.textContent == 'within'"):
            browser.press("Tab")
        browser.press("Enter", "\r")
        assert browser.value("document.activeElement.parentNode.ariaSort") == "descending"
        assert browser.value(column) == sorted(before, reverse=True)
        browser.press("Enter", "\r")
        assert browser.value("document.activeElement.parentNode.ariaSort") == "ascending"
        assert browser.value(column) == sorted(before)
        assert browser.problems() == []
        assert browser.requests() == [file.as_uri()]

"""The tree of Guarnera et al.: sizes, probabilities of paths, masked losses, levels, families from the data."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from PIL import Image
from torch import nn

from dfl.cli import configs
from dfl.data import DataModule, Table, Transform
from dfl.detectors import Hierarchical, load
from dfl.errors import UserError
from dfl.runs.plain import Misfit
from dfl.training import KeyedRandomness

TREE = {"gan": ["pro", "style"], "diffusion": ["glide", "dalle"], "edit": ["swap"]}
SMALL: dict[str, Any] = {"backbone": "test_resnet", "pretrained": False, "input_size": 32}
#: Ids that another data set gives to the same names, and to two that the tree does not have.
IDS = {"generator": {"glide": 1, "new": 2, "pro": 3, "style": 4, "swap": 5, "other": 6}, "family": {"gan": 0, "new": 1}}


class Fixed(nn.Module):
    """Stands for a network: the same scores for every image."""

    def __init__(self, scores: torch.Tensor) -> None:
        super().__init__()
        self.scores = nn.Parameter(scores)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.scores


def made(**words: Any) -> Hierarchical:
    return Hierarchical(**SMALL | {"families": TREE} | words)


def answering(logit: list[float], **words: Any) -> tuple[Hierarchical, Any]:
    """Return a detector whose four networks say what is given, and random things of families and generators."""
    detector, n = made(**words), len(logit)
    detector.networks = nn.ModuleList([Fixed(torch.tensor(logit)[:, None])])
    detector.networks.extend(Fixed(torch.randn(n, size)) for size in (3, 2, 2))
    return detector, detector(torch.zeros(n, 3, 32, 32))


def batch(detector: Hierarchical, monkeypatch: pytest.MonkeyPatch, **columns: list[int]) -> dict[str, Any]:
    monkeypatch.setattr("dfl.detectors.hierarchical.detector.ids", lambda trainer, column: IDS[column])
    values = {name: torch.tensor(column) for name, column in columns.items()}
    n = len(values["label"])
    whole = {"image": torch.zeros(n, 3, 32, 32), "index": torch.arange(n), "weight": torch.ones(n), **values}
    return detector.on_after_batch_transfer(whole, 0)


def test_four_resnet34_have_the_parameters_of_the_papers_questions() -> None:
    """85,146,896 = 4 x 21,284,672 and heads of 1 + 2 + 9 + 4 outputs on 512 features."""
    args = yaml.safe_load(Path(configs.find("hierarchical.yaml")).read_text())["model"]["init_args"]
    sizes = [len(names) for names in args["families"].values()]
    assert sizes == [9, 4]
    with torch.device("meta"):
        detector = Hierarchical(args["families"], backbone=args["backbone"], pretrained=False)
    assert [size for _, size in detector.questions] == [1, 2, 9, 4]
    assert sum(p.numel() for p in detector.parameters()) == 85_146_896 == 4 * 21_284_672 + 513 * 16


@pytest.mark.parametrize("networks", ["separate", "shared", "flat"])
def test_probabilities_of_leaves_are_those_of_their_families_and_of_fake(networks: Any) -> None:
    detector = made(networks=networks)
    out = detector(torch.rand(3, 3, 32, 32))
    leaf, family, fake = out["class_logit"].exp(), out["family_logit"].exp(), out["logit"].sigmoid()
    torch.testing.assert_close(leaf.sum(1), torch.ones(3))
    torch.testing.assert_close(leaf[:, 0], 1 - fake)
    torch.testing.assert_close(family[:, 0], 1 - fake)
    by_family = torch.stack([part.sum(1) for part in leaf[:, 1:].split([2, 2, 1], 1)], 1)
    torch.testing.assert_close(by_family, family[:, 1:])
    assert detector.class_names == ("real", "pro", "style", "glide", "dalle", "swap")


def test_a_leaf_has_the_product_of_the_probabilities_on_its_path() -> None:
    detector, out = answering([1.0, -0.5])
    p1, p2 = out["logit"].sigmoid(), detector.networks[1].scores.softmax(1)
    p3 = detector.networks[2].scores.softmax(1)
    torch.testing.assert_close(out["class_logit"][:, 2].exp(), p1 * p2[:, 0] * p3[:, 1])
    torch.testing.assert_close(out["class_logit"][:, 5].exp(), p1 * p2[:, 2])  # edit has one generator


def test_hard_routing_follows_the_likeliest_answer_of_each_level() -> None:
    detector, out = answering([2.0, -2.0, 0.1, 3.0], routing="hard")
    family, found = detector.networks[1].scores.argmax(1), out["class_logit"].argmax(1)
    for i in range(4):
        place = int(family[i])
        inner = [0, 0, 0] if place == 2 else detector.networks[2 + place].scores[i].tolist()
        best = 1 + 2 * place + (int(np.argmax(inner)) if place < 2 else 0)
        assert found[i] == (best if out["logit"][i] > 0 else 0)
        assert out["class_logit"][i, best].exp().item() == pytest.approx(out["logit"][i].sigmoid().item())
    assert out["class_logit"].isfinite().all()
    torch.testing.assert_close(out["class_logit"].exp().sum(1), torch.ones(4))


def test_hard_and_soft_routing_may_differ() -> None:
    """The likeliest family may hold no likely generator."""
    found = {}
    for routing in ("soft", "hard"):
        detector, _ = answering([9.0], routing=routing)
        for network, scores in zip(detector.networks[1:], ([0.5, 0.4, -9], [0.0, 0.0], [5.0, 0.0]), strict=True):
            network.scores.data = torch.tensor([scores])
        out = detector(torch.zeros(1, 3, 32, 32))
        found[routing] = detector.class_names[out["class_logit"].argmax()]
    assert found == {"soft": "glide", "hard": "pro"}


def test_places_follow_names_whatever_their_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {"label": [0, 1, 1, 1, 1, 1, -1], "generator": [0, 1, 4, 2, 2, -1, 3], "family": [-1, 1, -1, 0, 1, -1, 0]}
    found = batch(made(), monkeypatch, **columns)
    #             real glide style new-of-gan new-of-new nothing unlabelled
    assert found["leaf"].tolist() == [0, 3, 2, -1, -1, -1, -1]
    assert found["branch"].tolist() == [0, 2, 1, 1, -1, -1, -1]


def test_each_level_learns_from_its_own_images_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = made()
    columns = {"label": [0, 1, 1, 1, 1], "generator": [0, 1, 3, 2, -1], "family": [-1, -1, -1, 0, -1]}
    found = batch(detector, monkeypatch, **columns)
    detector.networks = nn.ModuleList(Fixed(torch.randn(5, size)) for size in (1, 3, 2, 2))
    losses = detector.loss(detector(found["image"]), found)
    losses["loss"].backward()
    used = [network.scores.grad.abs().sum(1) > 0 for network in detector.networks]
    assert [one.tolist() for one in used] == [
        [True] * 5,
        [False, True, True, True, False],  # those of a known family
        [False, False, True, False, False],  # gan: pro; the new GAN has no place
        [False, True, False, False, False],  # diffusion: glide
    ]
    torch.testing.assert_close(losses["loss"], losses["level_1"] + losses["level_2"] + losses["level_3"])
    scores = [network.scores for network in detector.networks]
    wanted = nn.functional.cross_entropy(scores[1][1:4], torch.tensor([1, 0, 0]))
    torch.testing.assert_close(losses["level_2"], wanted)
    third = nn.functional.cross_entropy(scores[2][2], torch.tensor(0)) + nn.functional.cross_entropy(
        scores[3][1], torch.tensor(0)
    )
    torch.testing.assert_close(losses["level_3"], third)
    each = detector.image_loss(detector(found["image"]), found)
    torch.testing.assert_close(each.mean(), losses["level_1"] + losses["level_2"] * 3 / 5 + third / 5)


def test_flat_is_cross_entropy_over_the_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = made(networks="flat")
    found = batch(detector, monkeypatch, label=[0, 1, 1], generator=[0, 5, 2], family=[-1, -1, 0])
    out = detector(found["image"])
    wanted = nn.functional.cross_entropy(out["flat_logit"][:2], torch.tensor([0, 5]))
    torch.testing.assert_close(detector.loss(out, found)["loss"], wanted)  # the new GAN is no leaf


def test_levels_one_by_one_leave_the_others_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = made(levels=(2,)).train()
    assert [network.training for network in detector.networks] == [False, True, False, False]
    found = batch(detector, monkeypatch, label=[0, 1], generator=[0, 3], family=[-1, 0])
    found["image"] = torch.rand(2, 3, 32, 32)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in detector.parameters() if p.requires_grad], 0.1)
    losses = detector.loss(detector(found["image"]), found)
    assert set(losses) == {"loss", "level_2"}
    losses["loss"].backward()
    optimizer.step()
    changed = {
        name.split(".")[1]
        for name, value in detector.state_dict().items()
        if name != "threshold" and not value.equal(before[name])
    }
    assert changed == {"1"}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ({"families": {"gan": []}}, "'gan' has no generator"),
        ({"families": {"gan": ["a"], "edit": ["a"]}}, "generator 'a' is there twice"),
        ({"families": {"gan": ["real"]}}, "generator 'real' is there twice, or is what real images are called"),
        ({"levels": (2,), "networks": "shared"}, "one network for all levels"),
        ({"levels": (4,)}, "some of 1, 2 and 3"),
        ({"networks": "flat", "routing": "hard"}, "no path to route"),
    ],
)
def test_contradictions_are_one_line(words: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        made(**words)


def test_a_file_gives_names_and_nothing_else() -> None:
    kind = Hierarchical.kinds["families"]
    assert kind.from_file(TREE) == TREE
    for wrong in ([], {}, {1: ["a"]}, {"a": "b"}, {"a": [1]}, {"a": ["\n"]}, {f"f{i}": ["g"] for i in range(65)}):
        with pytest.raises(Misfit):
            kind.from_file(wrong)


# families from the data

SHADE = {"": 255, "pro": 200, "style": 150, "glide": 100, "new": 60}
ROWS = [("", ""), ("", ""), ("gan", "pro"), ("gan", "style"), ("diffusion", "glide")]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """30 flat images for training, 10 for validation, and a test with a new generator of a known family."""
    lines, rng = ["path,label,split,family,generator"], np.random.default_rng(0)
    for split, rounds in (("train", 6), ("val", 2), ("test", 2)):
        rows = ROWS + [("gan", "new")] * (split == "test")
        for i, (family, generator) in enumerate(rows * rounds):
            name = f"{split}{i}.png"
            noise = rng.integers(0, SHADE[generator] + 1, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / name)
            lines.append(f"{name},{int(bool(generator))},{split},{family},{generator}")
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "table.csv"


def fitted(detector: Hierarchical, table: Path, **words: Any) -> pl.Trainer:
    run = pl.Trainer(
        **{"max_epochs": 1} | words,
        default_root_dir=table.parent,
        callbacks=[KeyedRandomness()],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )
    run.fit(detector, data(table))
    return run


def data(table: Path) -> DataModule:
    return DataModule(
        Table(str(table)), batch_size=10, num_workers=0, transform=Transform(resize="none", augment="none")
    )


def test_families_of_the_data_are_kept_and_new_generators_count_where_they_belong(table: Path) -> None:
    detector = Hierarchical(**SMALL)
    assert len(detector.networks) == 1
    run = fitted(detector, table)
    found = {"diffusion": ["glide"], "gan": ["pro", "style"]}
    assert detector.hparams["families"] == found
    assert detector.class_names == ("real", "glide", "pro", "style")
    assert [size for _, size in detector.questions] == [1, 2, 2]
    run.save_checkpoint(table.parent / "a.ckpt")
    again = load(table.parent / "a.ckpt")
    assert isinstance(again, Hierarchical)
    assert again.hparams["families"] == found
    run.test(again, data(table), verbose=False)
    results = next(iter(again.results["test"].values()))
    metrics = next(iter(again.metrics["test"].values()))
    assert set(again.metrics["test"].classes()) == {"class", "family"}
    assert len(metrics["logit"].gathered()[0]) == 12
    assert Counter(metrics["class"].rows()["class_label"].tolist()) == {0: 4, 1: 2, 2: 2, 3: 2}
    assert Counter(metrics["family"].rows()["class_label"].tolist()) == {0: 4, 1: 2, 2: 6}
    assert results["class_unknown"] == pytest.approx(2 / 8)
    # the levels' accuracies, from the networks themselves
    sets = data(table)
    sets.trainer = run
    whole = [again.on_after_batch_transfer(one, 0) for one in run.test_dataloaders[0]]
    with torch.no_grad():
        outs = [again(one["image"]) for one in whole]
    cat = {key: torch.cat([one[key] for one in whole]) for key in ("label", "leaf", "branch")}
    second = torch.cat([out["given_fake"] for out in outs]).argmax(1) == cat["branch"] - 1
    assert results["level_2_acc"] == pytest.approx(second[cat["branch"] > 0].double().mean().item())
    third = torch.cat([out["given_family"] for out in outs])
    gan = cat["leaf"] > 1
    right = third[gan][:, 1:].argmax(1) == cat["leaf"][gan] - 2
    assert results["level_3_acc_gan"] == pytest.approx(right.double().mean().item())
    assert results["level_3_acc_diffusion"] == 1  # there is one
    assert results["level_3_acc"] == pytest.approx((right.double().sum().item() + 2) / 6)


def test_real_images_alone_measure_no_class(table: Path) -> None:
    detector = Hierarchical(**SMALL | {"families": {"edit": ["swap"], "other": ["x"]}})
    fitted(detector, table, max_steps=1).test(detector, data(table), verbose=False)
    (results, mean) = detector.results["test"].values()
    assert np.isnan([value for name, value in results.items() if name.startswith(("class_acc", "family_acc"))]).all()
    assert results["class_unknown"] == 1
    assert results["level_1_acc"] == results["acc"]
    assert np.isnan(mean.get("class_acc", np.nan))


def test_data_without_names_or_with_two_families_of_one_are_errors(table: Path) -> None:
    text = table.read_text()
    table.write_text(text.replace("gan,pro", ",").replace("gan,style", ",").replace("diffusion,glide", ","))
    with pytest.raises(UserError, match="no training fake has both a family and a generator"):
        fitted(Hierarchical(**SMALL), table, max_steps=1)
    table.write_text(text.replace("gan,pro", "edit,style"))
    with pytest.raises(UserError, match="generator 'style' is there twice"):
        fitted(Hierarchical(**SMALL), table, max_steps=1)


def test_fakes_outside_of_the_tree_are_said(table: Path) -> None:
    with pytest.warns(UserWarning, match=r"6 of 18 training fakes are of no generator .*\(glide\)"):
        fitted(Hierarchical(**SMALL | {"families": {"gan": ["pro", "style"]}}), table, max_steps=1)

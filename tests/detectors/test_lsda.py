"""LSDA: numbers of the published losses and transformations, groups, and who runs and learns when."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_contract import trainer
from torch import Tensor

from dfl.data import DataModule, Table, Transform
from dfl.detectors import Classifier, Lsda
from dfl.detectors.lsda import latents
from dfl.detectors.lsda.latents import distillation, identity
from dfl.errors import UserError
from dfl.networks import create_backbone

GOLDEN = {k: torch.from_numpy(v) for k, v in np.load(Path(__file__).parents[1] / "golden" / "lsda.npz").items()}
SMALL: dict[str, Any] = {
    **{"backbone": "test_resnet", "pretrained": False, "real": "test_resnet", "input_size": 64, "dim": 32},
    "methods": 2,
}
KINDS = ("", "one", "two")


def close(got: Tensor, name: str) -> None:
    torch.testing.assert_close(got, GOLDEN[name], rtol=1e-5, atol=1e-5)


def test_transformations_equal_the_golden_ones() -> None:
    z, (a, b, c, sigma, d) = GOLDEN["z"], GOLDEN["lams"].tolist()
    close(latents.hardest(z), "hard")
    close(latents.interpolate(z, a), "interp")
    close(latents.extrapolate(z, b), "extrap")
    close(latents.noise(z, c, sigma, GOLDEN["eps"]), "noise")
    close(latents.difference(z, d, 0, 1), "diff")


def test_losses_equal_the_golden_ones() -> None:
    close(
        distillation(GOLDEN["student"].view(2, 5, 16, 4, 4), GOLDEN["teacher_real"], GOLDEN["teacher_fake"]), "distill"
    )
    latent = GOLDEN["c"]  # real, Deepfakes, Face2Face, FaceSwap, NeuralTextures
    close(identity(latent, near=[2, 4], far=[1, 3]), "loss_real")


def test_rotation_turns_a_map_about_its_centre() -> None:
    z = torch.rand(3, 2, 5, 5)
    torch.testing.assert_close(latents.rotate(z, 0.0), z)
    quarter = latents.rotate(z, torch.pi / 2)
    torch.testing.assert_close(quarter, z.rot90(1, (2, 3)), rtol=0, atol=1e-5)
    torch.testing.assert_close(latents.rotate(quarter, -torch.pi / 2), z, rtol=0, atol=1e-5)


def test_a_pool_of_channels_is_one_of_single_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    z = torch.rand(4, 3, 2, 2)
    monkeypatch.setattr(random, "choice", lambda kinds: kinds[1])  # away from the mean
    monkeypatch.setattr(random, "random", lambda: 0.5)
    torch.testing.assert_close(latents.within(z, "channel"), z + 0.5 * (z - z.mean((0, 1))))
    torch.testing.assert_close(latents.within(z, "latent"), z + 0.5 * (z - z.mean(0)))


def test_a_latent_is_mixed_with_another_domain_of_its_group() -> None:
    z = torch.arange(6.0).view(2, 3, 1, 1, 1)  # a domain's number, plus 3 in the second group
    for seed in range(20):
        random.seed(seed)
        mixed = latents.across(z)
        torch.testing.assert_close(
            mixed[1] - mixed[0], torch.full_like(mixed[0], 3.0)
        )  # the other is of the same group
        assert mixed[0].sum() == pytest.approx(3), "each is the other of one"
        assert not torch.equal(mixed, z)
    assert torch.equal(latents.across(z[:, :1]), z[:, :1])


def test_parameters_are_those_of_the_published_networks() -> None:
    with torch.device("meta"):
        arcface, detector = create_backbone("iresnet100", False), Lsda(pretrained=False)
    assert count(arcface) == 65_156_160
    assert count(detector.real) == 65_156_160 - (25_088 * 512 + 512) - 2 * 512 - 2 * 512, "less its head"
    assert [count(detector.student), *map(count, detector.teachers)] == [17_548_616 + 1792 * 512 + 512] * 5
    assert count(detector.head) == 512 * 512 + 512 + 512 * 2 + 2


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_a_file_of_arcface_gives_its_maps(tmp_path: Path) -> None:
    network = create_backbone("iresnet100", False, layers=(1, 1, 1, 1)).eval()  # one block of each kind
    torch.save(network.state_dict(), tmp_path / "arcface.pth")
    maps = create_backbone("iresnet100", False, str(tmp_path / "arcface.pth"), num_classes=0, layers=(1, 1, 1, 1))
    faces = torch.rand(2, 3, 112, 112)
    assert torch.equal(network.forward_features(faces), maps.eval().forward_features(faces))
    assert network(faces).shape == (2, 512)
    assert maps.forward_features(torch.rand(1, 3, 64, 64)).shape == (1, 512, 4, 4)


def test_a_teacher_with_a_file_is_frozen(tmp_path: Path) -> None:
    torch.save(create_backbone("test_resnet", False, num_classes=0).state_dict(), tmp_path / "real.pth")
    detector = Lsda(**SMALL | {"dim": 96, "real_weights": str(tmp_path / "real.pth")}).train()
    assert not any(p.requires_grad for p in detector.real.parameters())
    assert not any(module.training for module in detector.real.network.modules())
    assert all(p.requires_grad for p in (*detector.student.parameters(), *detector.teachers.parameters()))
    assert detector._named_weights() == [], "the student's checkpoint needs no file of its teacher"
    with pytest.raises(UserError, match="no weights file"):
        Lsda(**SMALL | {"real_weights": "none/arcface.pth"})


def test_no_teacher_runs_in_evaluation() -> None:
    detector, ran = Lsda(**SMALL), []
    for module in (detector.real, detector.fuse, detector.head_domain, *detector.teachers):
        module.register_forward_hook(lambda *_: ran.append(1))
    out = detector.eval()(torch.rand(2, 3, 64, 64))
    assert "latent" not in out
    detector.image_loss(out, {"label": torch.tensor([0, 1])})
    assert not ran
    batch = group(torch.tensor([0, 1, 2, 0, 1, 2]))
    detector.train()
    detector.loss(detector(batch["image"]), batch)
    assert len(ran) == 2 + 3  # each teacher once, for all groups


def group(kinds: Tensor) -> dict[str, Any]:
    rng = torch.Generator().manual_seed(0)
    image = torch.rand(len(kinds), 3, 64, 64, generator=rng)
    return {"image": image, "label": (kinds > 0).long(), "generator": kinds, "weight": torch.ones(len(kinds))}


def test_each_image_goes_to_its_teacher_in_whatever_order_a_group_comes() -> None:
    torch.manual_seed(0)
    detector, batch = Lsda(**SMALL), group(torch.tensor([0, 1, 2, 0, 1, 2]))
    mixed = {k: v[torch.tensor([2, 0, 1, 4, 5, 3])] for k, v in batch.items()}
    losses = []
    for one in (batch, mixed):
        random.seed(3)
        torch.manual_seed(3)
        losses.append(detector.loss(detector.train()(one["image"]), one))
    for name, value in losses[0].items():
        torch.testing.assert_close(losses[1][name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("detach", "learns"), [(True, False), (False, True)])
def test_distillation_moves_the_teachers_where_it_may(detach: bool, learns: bool) -> None:
    detector, batch = Lsda(**SMALL, detach=detach).train(), group(torch.tensor([0, 1, 2, 0, 1, 2]))
    detector.loss(detector(batch["image"]), batch)["distillation"].backward()
    taught = [any(p.grad is not None for p in t.parameters()) for t in (detector.real, *detector.teachers)]
    assert taught == [learns] * 3
    assert all(p.grad is not None for p in (*detector.fuse.parameters(), *detector.student.parameters()))


def test_a_classifier_gives_the_student_and_every_teacher_their_start() -> None:
    first, detector = Classifier("test_resnet", pretrained=False, input_size=64), Lsda(**SMALL)
    state = detector.stage_weights(first.state_dict())
    detector.load_state_dict(state, strict=False)
    for encoder in (detector.student, *detector.teachers):
        own = encoder.network.state_dict()
        assert all(torch.equal(v, first.network.state_dict()[k]) for k, v in own.items())
    assert detector.stage_weights(detector.state_dict()).keys() == detector.state_dict().keys()


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Ten originals with a forgery of two kinds each; the last lacks one."""
    rng, lines = np.random.default_rng(0), ["path,label,split,generator,source"]
    for i in range(29):
        pixels = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) // (1 + i % 3)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        lines += [f"{i}.png,{int(i % 3 > 0)},{'val' if i < 6 else 'train'},{KINDS[i % 3]},{i // 3}"]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    return tmp_path / "table.csv"


def data(table: Path, **words: Any) -> DataModule:
    groups = {"balance": "generators", "originals": True, "generators_per_batch": 2, "batch_size": 6}
    words = {"num_workers": 0, "transform": Transform(resize="none", augment="none"), **groups, **words}
    return DataModule(Table(str(table)), **words)


@pytest.mark.filterwarnings("ignore:.*leaves out 2 images")
def test_trains_on_groups_of_the_data_with_the_fifth_loss(table: Path, tmp_path: Path) -> None:
    detector = Lsda(**SMALL, pool="channel", detach=False, near=["two"], far=["one"])
    trainer(tmp_path, max_epochs=1).fit(detector, data(table))
    assert set(detector.losses) == {"loss", "binary", "domain", "distillation", "identity"}
    assert all(value.isfinite() for value in detector.losses.values())
    assert 0 <= detector.results["val"]["same"]["auroc"] <= 1


@pytest.mark.filterwarnings("ignore:.*leaves out")
@pytest.mark.parametrize(
    ("model", "words", "said"),
    [
        ({}, {"balance": "none", "originals": False}, "is originals, each with its forgery by every one of 2"),
        ({}, {"batch_size": 4, "balance": "pairs", "originals": True}, "4 images are no multiple of 3"),
        ({"methods": 3}, {}, "are of 2 generators, and model.methods is 3"),
        ({"near": ["twoo"]}, {}, "have no generator 'twoo'; did you mean 'two'"),
    ],
)
def test_what_is_no_group_is_named(model: Any, words: Any, said: str, table: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        trainer(tmp_path, max_epochs=1).fit(Lsda(**SMALL | model), data(table, **words))

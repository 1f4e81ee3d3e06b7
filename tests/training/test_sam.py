"""SAM: the official code's trajectories, exact resume, and what it refuses."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import ModelCheckpoint
from test_contract import PARTS, trainer
from torch import nn, optim

from dfl.data import DataModule, Folder
from dfl.detectors import Classifier
from dfl.errors import UserError
from dfl.training import SAM, KeyedRandomness

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "sam.npz")


def sgd(params: Any, lr: float = 0.1) -> optim.SGD:
    return optim.SGD(params, lr=lr, momentum=0.9, weight_decay=5e-3)


@pytest.mark.parametrize("case", ["rho0.05", "rho0.5", "rho0.05_adaptive"])
def test_equals_the_official_trajectory(case: str) -> None:
    a, b, w = (torch.tensor(GOLDEN[f"quad/{k}"]) for k in ("A", "b", "w0"))
    w.requires_grad_()
    sam = SAM([w], sgd, float(case[3:].removesuffix("_adaptive")), adaptive="adaptive" in case)
    for step in range(6):
        before = w.detach().clone()
        np.testing.assert_allclose(before, GOLDEN[f"quad/{case}/w"][step], rtol=0, atol=1e-9)
        (0.5 * w @ a @ w + b @ w).backward()
        sam.first_step()
        np.testing.assert_allclose(w.detach() - before, GOLDEN[f"quad/{case}/e_w"][step], rtol=0, atol=1e-9)
        (0.5 * w @ a @ w + b @ w).backward()
        np.testing.assert_allclose(w.grad, GOLDEN[f"quad/{case}/grad_at_perturbed"][step], rtol=0, atol=1e-9)
        sam.second_step()
        sam.zero_grad()
    np.testing.assert_allclose(w.detach(), GOLDEN[f"quad/{case}/w"][6], rtol=0, atol=1e-9)


def network() -> tuple[nn.Sequential, SAM, optim.lr_scheduler.LRScheduler]:
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)).double()
    net.load_state_dict({k.removeprefix("net/init/"): torch.tensor(GOLDEN[k]) for k in GOLDEN if "init" in k})
    sam = SAM(net.parameters(), lambda p: sgd(p, lr=0.05))
    sam.prepare(net)
    return net, sam, optim.lr_scheduler.StepLR(sam, 2, 0.9)


def one_step(net: nn.Module, sam: SAM, step: int) -> list[float]:
    x, y = torch.tensor(GOLDEN["net/X"][step]), torch.tensor(GOLDEN["net/Y"][step])
    losses = []

    def closure() -> torch.Tensor:
        sam.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        losses.append(loss.item())
        return loss

    sam.step(closure)
    return losses


def test_equals_the_official_network_with_batch_norm_and_schedule() -> None:
    net, sam, schedule = network()
    for step in range(4):
        losses = one_step(net, sam, step)
        schedule.step()
        told = [*losses, sam.param_groups[0]["lr"]]
        np.testing.assert_allclose(told, GOLDEN["net/loss1_loss2_lrafter"][step], rtol=0, atol=1e-9)
        for name, value in net.state_dict().items():
            np.testing.assert_allclose(value, GOLDEN[f"net/step{step + 1}/{name}"], rtol=0, atol=1e-9, err_msg=name)


def test_goes_on_from_its_state() -> None:
    """Momentum lives in the base optimizer; the published SAM leaves it out of its state."""
    whole, sam, schedule = network()
    for step in range(2):
        one_step(whole, sam, step)
        schedule.step()
    net, again, fresh = network()
    net.load_state_dict(whole.state_dict())
    again.load_state_dict(sam.state_dict())
    fresh.load_state_dict(schedule.state_dict())
    for step in (2, 3):
        one_step(net, again, step)
        fresh.step()
    np.testing.assert_allclose(net[0].weight.detach(), GOLDEN["net/step4/0.weight"], rtol=0, atol=1e-9)
    assert again.param_groups[0]["lr"] == GOLDEN["net/loss1_loss2_lrafter"][3, 2]


def test_an_error_in_the_second_pass_leaves_weights_and_statistics_as_they_were() -> None:
    net, sam, _ = network()
    before = {k: v.clone() for k, v in net.named_parameters()}

    def closure() -> None:
        if sam._before:
            raise RuntimeError("cut off")
        net(torch.tensor(GOLDEN["net/X"][0])).sum().backward()

    with pytest.raises(RuntimeError, match="cut off"):
        sam.step(closure)
    assert all(torch.equal(v, before[k]) for k, v in net.named_parameters())
    assert net[1].momentum == 0.1


def test_refuses_a_step_without_two_gradients() -> None:
    with pytest.raises(UserError, match="bf16-mixed"):
        SAM([torch.zeros(1, requires_grad=True)], sgd).step()
    with pytest.raises(UserError, match="rho"):
        SAM([torch.zeros(1, requires_grad=True)], sgd, rho=-1)


def fit(folder: Path, faces: Path, ckpt: str | None = None, callbacks: Any = (), **words: Any) -> Classifier:
    pl.seed_everything(0)
    detector = Classifier(
        "test_resnet",
        pretrained=False,
        input_size=32,
        optimizer=lambda p: SAM(p, lambda q: sgd(q, lr=0.01)),
        scheduler=lambda o: optim.lr_scheduler.StepLR(o, 1, 0.5),
    )
    words |= {"callbacks": [KeyedRandomness(), *callbacks], "enable_checkpointing": bool(callbacks)}
    data = DataModule(Folder(str(faces), fractions=PARTS), batch_size=6, num_workers=0)
    trainer(folder, **words).fit(detector, datamodule=data, ckpt_path=ckpt, weights_only=True)
    return detector


def test_a_resumed_run_is_exact_with_bf16_and_clipping(tmp_path: Path, faces: Path) -> None:
    words = {"precision": "bf16-mixed", "gradient_clip_val": 0.5}
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    whole = fit(tmp_path, faces, callbacks=[keep], **words)
    assert whole.trainer.global_step == 12
    for step in (2, 6, 9):
        state = fit(tmp_path, faces, str(tmp_path / f"step={step}.ckpt"), **words).state_dict()
        assert [k for k, v in whole.state_dict().items() if not torch.equal(v, state[k])] == []


def test_both_passes_run_and_statistics_learn_once(tmp_path: Path, faces: Path) -> None:
    detector = fit(tmp_path, faces, max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    counted = {int(v) for k, v in detector.state_dict().items() if k.endswith("num_batches_tracked")}
    assert counted == {2}
    assert {m.momentum for m in detector.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}


def test_accumulation_is_refused(tmp_path: Path, faces: Path) -> None:
    with pytest.raises(UserError, match="accumulate_grad_batches to 1"):
        fit(tmp_path, faces, accumulate_grad_batches=2)

"""UCF and PG-FDD: whole models against the published codes, what their score depends on, weights, pairs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from forking import on_two_ranks
from named_weights import entry, fill
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from dfl.data import DataModule, Folder
from dfl.detectors import FairDisentangle, Ucf
from dfl.detectors.disentangle.parts import Disentangling, pairs
from dfl.errors import UserError

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL: dict[str, Any] = {"backbone": "test_resnet", "pretrained": False, "input_size": 64, "dim": 32}
#: Terms by their published names.
OURS = {
    "common": "common",
    "specific": "specific",
    "reconstruction": "reconstruction",
    "contrastive": "contrastive",
    "fairness": "demographic",
    "fusion": "fairness",
    "overall": "loss",
}


class Golden:
    """The arrays of one file."""

    def __init__(self, name: str) -> None:
        self.arrays = np.load(GOLDEN / f"{name}.npz")

    def __getitem__(self, name: str) -> Tensor:
        return torch.tensor(self.arrays[name])


def batch_of(golden: Golden) -> dict[str, Any]:
    label = golden["label"]
    group = golden["intersec_label"] if "intersec_label" in golden.arrays else torch.full_like(label, -1)
    image = golden["image_uint8"].float() / 255
    return {"image": image, "label": label, "generator": golden["label_spe"], "group": group}


def draw(detector: Disentangling, golden: Golden, at: str = "", chance: float = 1.0) -> None:
    """Let the detector shuffle as the published code did."""
    drawn = {k: golden[f"{at}{k}"] for k in ("perm_real", "perm_fake", "perm_specific")}
    if f"{at}common_perm" in golden.arrays:
        drawn["common"] = golden[f"{at}common_perm"]
    detector.draw = lambda method: drawn | {"chance": torch.tensor(chance)}  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def pg_fdd() -> FairDisentangle:
    detector = FairDisentangle(pretrained=False, score="official_logit1").eval()
    fill(detector)
    counts = [2475, 25443, 1468, 4163, 8013, 31281, 1111, 2185]
    detector.group_counts.copy_(torch.tensor(counts))
    return detector


def test_pg_fdd_equals_the_published_code(pg_fdd: FairDisentangle) -> None:
    """Outputs, reconstructions, each loss, and how much gradient each loss sends where."""
    golden = Golden("pgfdd_full")
    batch = batch_of(golden)
    draw(pg_fdd, golden)
    out = pg_fdd.encode(batch["image"])
    names = {"cls": "common_logits", "cls_spe": "specific_logits", "cls_fair": "group_logits", "cls_fused": "logits"}
    names |= {"feat": "common", "feat_spe": "specific", "feat_fair": "demographic", "feat_fused": "feature"}
    for theirs, own in names.items():
        torch.testing.assert_close(out[own], golden[f"out/{theirs}"], atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        forgery = torch.cat([out["specific_map"], out["common_map"]], 1)
        made = pg_fdd.reconstruct(forgery, out["content"])[..., ::4, ::4].chunk(4)
    kinds = ("self_real", "self_fake", "cross_realforgery_fakecontent", "cross_fakeforgery_realcontent")
    for image, kind in zip(made, kinds, strict=True):
        torch.testing.assert_close(image, golden[f"recon_stride4/{kind}"], atol=1e-4, rtol=0)
    losses = pg_fdd.loss(out, batch)
    for theirs, own in OURS.items():
        torch.testing.assert_close(losses[own], golden[f"loss/{theirs}"], atol=1e-4, rtol=1e-5)
    rows, columns = (golden.arrays[f"grad_norm_{k}"].tolist() for k in ("rows", "cols"))
    for row, name in enumerate(rows):
        pg_fdd.zero_grad()
        losses[OURS[name]].backward(retain_graph=True)
        for column, part in enumerate(columns):
            if part != "block_fused":  # the published model has it and never uses it
                grads = [p.grad for p in getattr(pg_fdd, part).parameters() if p.grad is not None]
                norm = float(torch.nn.utils.get_total_norm(grads)) if grads else 0.0
                assert norm == pytest.approx(golden.arrays["grad_norm"][row, column], rel=2e-3, abs=1e-4), (name, part)
    pg_fdd.zero_grad()


def test_one_encoder_gives_the_score_of_three(pg_fdd: FairDisentangle) -> None:
    golden = Golden("pgfdd_full")
    image = batch_of(golden)["image"]
    with torch.no_grad():
        fast, whole = pg_fdd(image), pg_fdd.encode(image)
    torch.testing.assert_close(fast["logits"], whole["logits"], atol=1e-5, rtol=0)
    torch.testing.assert_close(fast["logits"], golden["inference/cls_fused"], atol=1e-4, rtol=1e-4)
    assert torch.equal(fast["logit"], fast["logits"][:, 1])  # what the published test saves
    torch.testing.assert_close(fast["logits"].softmax(1)[:, 1], golden["inference/prob_fused"], atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def ucf() -> Ucf:
    detector = Ucf(pretrained=False).eval()
    fill(detector)
    return detector


@pytest.mark.parametrize("at", ["shuffled", "unshuffled"])
def test_ucf_equals_the_published_code(ucf: Ucf, at: str) -> None:
    golden, detector = Golden("ucf_full"), ucf
    batch = batch_of(golden)
    chance = float(golden.arrays[f"{at}/u"])
    assert (chance < 0.7) == (at == "shuffled")
    draw(detector, golden, f"{at}/", chance)
    with torch.no_grad():
        out = detector.encode(batch["image"])
        mixed = golden[f"{at}/common_perm"]
        for theirs, own in (("cls", "common_logits"), ("feat", "common")):
            torch.testing.assert_close(out[own][mixed], golden[f"{at}/out/{theirs}"], atol=1e-4, rtol=1e-4)
        for theirs, own in (("cls_spe", "specific_logits"), ("feat_spe", "specific")):
            torch.testing.assert_close(out[own], golden[f"{at}/out/{theirs}"], atol=1e-4, rtol=1e-4)
        losses = detector.loss(out | {"logits": out["common_logits"]}, batch)
        for name in ("common", "specific", "reconstruction", "contrastive", "overall"):
            torch.testing.assert_close(losses[OURS[name]], golden[f"{at}/loss/{name}"], atol=1e-4, rtol=1e-5)
        fast = detector(batch["image"])
    torch.testing.assert_close(fast["logits"], golden["inference/cls"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(fast["feature"], golden["inference/feat"], atol=1e-4, rtol=1e-4)


def test_sizes_are_the_published_ones_less_what_they_never_use() -> None:
    with torch.device("meta"):
        fair, ucf = FairDisentangle(pretrained=False), Ucf(pretrained=False)
    classifier, block = 4_098, 262_912
    assert sum(p.numel() for p in fair.parameters()) == 69_494_227 - 3 * classifier - block
    assert sum(p.numel() for p in ucf.parameters()) == 46_838_430 - 2 * classifier


def some(n: int = 6) -> dict[str, Any]:
    label = torch.arange(n) % 2
    image = torch.randn(n, 3, 64, 64, generator=torch.Generator().manual_seed(0)) / 2 + 0.5  # normalised: N(0, 1)
    return {"image": image, "label": label, "generator": label, "group": torch.arange(n) % 3}


@pytest.mark.parametrize("fusion", ["adain_official", "adain_block"])
def test_only_the_mended_fusion_sees_demographics(fusion: Any) -> None:
    detector = FairDisentangle(**SMALL, fusion=fusion).eval()
    fill(detector)
    image = some()["image"]
    with torch.no_grad():
        before = detector(image)["logit"]
        torch.testing.assert_close(before, detector.encode(image)["logit"], atol=1e-5, rtol=1e-5)
        for p in detector.block_fair.parameters():
            p.mul_(-2).add_(0.1)
        moved = (detector.encode(image)["logit"] - before).abs().max()
    assert (moved > 1e-3) == (fusion == "adain_block")


def test_the_published_decoder_hardly_sees_the_content_encoder() -> None:
    found = {}
    for content in ("adain_dc", "c"):
        torch.manual_seed(0)
        detector = FairDisentangle(**SMALL, decoder_content=content)
        batch = some()
        detector.loss(detector(batch["image"]), batch)["reconstruction"].backward()
        found[content] = float(torch.nn.utils.get_total_norm([p.grad for p in detector.encoder_c.parameters()]))
    assert found["adain_dc"] < 0.1 * found["c"]


def test_without_branches_their_networks_are_not_there() -> None:
    detector = FairDisentangle(**SMALL, forgery_specific=False, demographic=False, decoder_content="c", cvar="exact")
    parts = {name.split(".")[0] for name, _ in detector.named_parameters()}
    assert parts == {"encoder_f", "encoder_c", "con_gan", "block_sha", "head_sha", "head_fused"}
    batch = some() | {"group": torch.full((6,), -1)}
    losses = detector.loss(detector(batch["image"]), batch)
    assert set(losses) == {"loss", "common", "reconstruction", "contrastive", "fairness"}
    losses["loss"].backward()
    assert all(p.grad is not None for p in detector.parameters())


def test_without_group_labels_every_parameter_still_gets_a_gradient() -> None:
    """DDP waits for all of them."""
    detector = FairDisentangle(**SMALL)
    batch = some() | {"group": torch.full((6,), -1)}
    losses = detector.loss(detector(batch["image"]), batch)
    losses["loss"].backward()
    assert losses["demographic"] == 0
    assert [n for n, p in detector.named_parameters() if p.grad is None] == []


# pairs


def test_pairs_sort_stably_and_keep_every_row() -> None:
    rows, both = pairs(torch.tensor([1, 0, 1, 0, 0, 1]))
    assert rows.tolist() == [1, 3, 4, 0, 2, 5]
    assert both


@pytest.mark.parametrize("label", [[1, 0, 0, 0], [0, 1, 1], [1, 1, 0, 1, 1, 1, 0]])
def test_an_uneven_batch_repeats_the_rarer_class(label: list[int]) -> None:
    rows, both = pairs(torch.tensor(label))
    found, p = torch.tensor(label)[rows], len(rows) // 2
    assert both
    assert found.tolist() == [0] * p + [1] * p
    assert p == (len(label) + 1) // 2


@pytest.mark.parametrize("label", [[1, 1, 1, 1], [0, 0, 0], [1]])
def test_a_batch_of_one_class_is_no_pair_but_has_finite_losses(label: list[int]) -> None:
    rows, both = pairs(torch.tensor(label))
    assert not both
    assert rows.max() < len(label)
    detector = Ucf(**SMALL).train()
    detector.encoder_f.eval()  # one image has no batch statistics at 2 x 2 pixels
    batch = some(len(label)) | {"label": torch.tensor(label), "generator": torch.tensor(label)}
    losses = detector.loss(detector(batch["image"]), batch)
    losses["loss"].backward()
    assert losses["contrastive"] == 0
    assert all(p.grad.isfinite().all() for p in detector.parameters())


def test_a_fake_of_an_unknown_method_teaches_no_method() -> None:
    detector, batch = Ucf(**SMALL).eval(), some(8)
    batch["generator"] = torch.tensor([0, 1, 0, -1, 0, 2, 0, -1])
    out = detector.encode(batch["image"])
    out["specific_logits"] = logits = out["specific_logits"].detach().requires_grad_()
    drawn: list[Tensor] = []
    usual = detector.draw
    detector.draw = lambda method: drawn.append(method) or usual(method)  # type: ignore[method-assign, func-returns-value]
    loss = detector.paired_losses(out, batch)["specific"]
    known = [0, 1, 2, 4, 5, 6]
    want = torch.nn.functional.cross_entropy(logits[known], torch.tensor([0, 1, 0, 0, 2, 0]))
    torch.testing.assert_close(loss, want)
    (slope,) = torch.autograd.grad(loss, logits)
    assert (slope.abs().amax(1) > 0).tolist() == [row in known for row in range(8)]
    for _ in range(5):  # rows are [reals..., fakes...], the two unknown ones at 5 and 7
        mixed = usual(drawn[0])["perm_specific"].tolist()
        assert mixed[4:] == [4, 5, 6, 7]
        assert sorted(mixed[:4]) == [0, 1, 2, 3]
    batch["generator"] = torch.tensor([0, -1] * 4)
    assert detector.paired_losses(out, batch)["specific"].isfinite()


def test_says_of_how_many_fakes_no_method_is_known(faces: Path) -> None:
    with pytest.warns(UserWarning, match=r"18 of 18 training fakes have no method \(column generator\)"):
        fit(faces, Ucf(**SMALL))


def test_shuffles_are_drawn_from_torch() -> None:
    detector, batch = Ucf(**SMALL), some(8)
    out = detector(batch["image"])
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(detector.loss(out, batch)["contrastive"].item())
    assert found[0] == found[1] != found[2]


# weights


def published(names: dict[str, torch.Size], extra: tuple[str, ...]) -> dict[str, Tensor]:
    """A published checkpoint: official names, and the parts that it never uses; under DDP's prefix."""
    state = {name: entry(name, shape) for name, shape in names.items() if "tracked" not in name}
    state |= {name: torch.tensor(7) for name in names if "tracked" in name}
    for encoder in extra:
        state |= {f"{encoder}.last_linear.weight": torch.zeros(2, 2048), f"{encoder}.last_linear.bias": torch.zeros(2)}
    return {f"module.{k}": v for k, v in state.items()}


def test_published_weights_load_by_name(tmp_path: Path) -> None:
    with torch.device("meta"):
        names = {k: v.shape for k, v in Ucf(pretrained=False).state_dict().items() if k != "threshold"}
    assert {"encoder_f.conv1.weight", "con_gan.dconv_up3.0.weight", "head_spe.mlp.2.bias"} < set(names)
    assert names["encoder_c.adjust_channel.0.weight"] == (512, 2048, 1, 1)
    assert names["block_sha.conv2d.4.weight"] == (256, 256, 1, 1)
    state = published(names, ("encoder_f", "encoder_c"))
    torch.save(state, tmp_path / "ucf_best.pth")
    detector = Ucf(weights=str(tmp_path / "ucf_best.pth"))
    assert all(torch.equal(v, state[f"module.{k}"]) for k, v in detector.state_dict().items() if k != "threshold")
    del state["module.head_sha.mlp.0.bias"]
    state["module.strange.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "torn.pth")
    with pytest.raises(UserError, match=r"1 missing \(head_sha.mlp.0.bias\); 1 unknown \(strange.weight\)"):
        Ucf(weights=str(tmp_path / "torn.pth"))


def test_imagenet_weights_fill_every_encoder(tmp_path: Path) -> None:
    source = Ucf(pretrained=False).encoder_f.state_dict()
    flat = {k: v[:, :, 0, 0] if "pointwise" in k else v for k, v in source.items() if "adjust" not in k}
    torch.save(flat | {"fc.weight": torch.zeros(1000, 2048)}, tmp_path / "xception-b5690688.pth")
    detector = Ucf(weights=str(tmp_path / "xception-b5690688.pth"))
    for encoder in (detector.encoder_f, detector.encoder_c):
        assert torch.equal(
            encoder.state_dict()["block5.rep.1.pointwise.weight"], source["block5.rep.1.pointwise.weight"]
        )
    with pytest.raises(UserError, match="no weights file"):
        Ucf(weights=str(tmp_path / "none.pth"))


# with data


def fit(faces: Path, detector: Disentangling, table: Any = None) -> None:
    data = DataModule(
        Folder(str(faces), fractions={"train": 0.6, "val": 0.2, "test": 0.2}), batch_size=4, num_workers=0
    )
    trainer = pl.Trainer(
        max_steps=1, limit_val_batches=0, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    if table is not None:
        load = data.train_sources[0].load
        data.train_sources[0].load = lambda split, **words: table(load(split))  # type: ignore[method-assign]
    trainer.fit(detector, datamodule=data)


def grouped(table: Any) -> Any:
    """Give three images in four a group: 12 of a, 9 of b, 6 of c in 36."""
    names = (["a"] * 4 + ["b"] * 3 + ["c"] * 2 + [""] * 3) * (len(table) // 12)
    return table.set_column(table.column_names.index("group"), "group", [names])


def test_says_once_that_the_data_have_no_groups(faces: Path) -> None:
    with pytest.warns(UserWarning, match=r"no groups: .* \(DAG-FDD\); the demographic branch learns nothing"):
        fit(faces, FairDisentangle(**SMALL))


def test_counts_groups_of_the_training_data_for_the_margins(faces: Path) -> None:
    detector = FairDisentangle(**SMALL, num_groups=4)
    fit(faces, detector, grouped)
    assert detector.group_counts.tolist() == [12, 9, 6, 0]
    with pytest.raises(UserError, match="3 groups, and model.num_groups is 2"):
        fit(faces, FairDisentangle(**SMALL, num_groups=2), grouped)


def test_an_input_size_that_the_decoder_cannot_make_is_refused() -> None:
    with pytest.raises(UserError, match="multiple of 32"):
        Ucf(**SMALL | {"input_size": 100})


# ranks


def _rank(rank: int, path: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    torch.manual_seed(0)
    whole = FairDisentangle(**SMALL)

    class Step(torch.nn.Module):
        """What Lightning hands to DDP."""

        def __init__(self) -> None:
            super().__init__()
            self.whole = whole

        def forward(self, batch: dict[str, Any]) -> Tensor:
            return whole.loss(whole(batch["image"]), batch)["loss"]

    ddp, sam = DistributedDataParallel(Step()), whole.configure_optimizers()
    torch.manual_seed(rank)
    for size in (6, 4) if rank == 0 else (4, 7):  # uneven, and on the first step one rank lacks a group
        batch = some(size) | {"group": torch.arange(size) % (2 + rank)}

        def closure(batch: Any = batch) -> None:
            sam.zero_grad()
            ddp(batch).backward()

        sam.step(closure)
    weights = torch.cat([p.detach().flatten() for p in whole.parameters()])
    other = weights.clone()
    dist.broadcast(other, 0)
    assert torch.equal(weights, other)
    assert weights.isfinite().all()
    dist.destroy_process_group()


def test_two_ranks_with_sam_stay_together_and_no_parameter_is_unused(tmp_path: Path) -> None:
    on_two_ranks(_rank, str(tmp_path / "store"))

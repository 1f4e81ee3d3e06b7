"""Networks that are cut among ranks: as under DDP, resumed to the bit, files of a single device; what is refused."""

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from detectors.test_sida import LORA, MODELS, SAM, build
from forking import on_two_ranks
from pytorch_lightning.plugins import MixedPrecision
from pytorch_lightning.strategies import FSDPStrategy, ModelParallelStrategy
from test_contract import trainer
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from two_shards import build as again
from two_shards import data, work

from dfl import detectors
from dfl.data.toy import make
from dfl.detectors import Sida
from dfl.detectors.sida.masks import Sam
from dfl.errors import UserError
from dfl.training.sharded import FullyShardStrategy, layers


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Toy pictures, and a LLaVA of two layers whose frozen base is bfloat16 with a frozen SAM, both by folder."""
    root = tmp_path_factory.mktemp("cut")
    make(root / "toy", 96, 64, 0)
    config = copy.deepcopy(MODELS["llava"])
    config["text_config"]["num_hidden_layers"] = config["vision_config"]["num_hidden_layers"] = 2
    detector = Sida(language_config=config, mask=None, mask_config=SAM, longest_answer=16)
    detector.language.save_pretrained(root / "language")
    detector.conversation.tokenizer.save_pretrained(root / "language")
    assert isinstance(detector.masks, Sam)
    detector.masks.sam.save_pretrained(root / "sam")
    words = {"language": str(root / "language"), "mask": str(root / "sam"), "dtype": "bfloat16", "lora": LORA}
    return {"toy": str(root / "toy"), "sida": words | {"text_weight": 1.0, "longest_answer": 16, "checkpointing": True}}


def test_two_ranks_hold_halves_and_do_what_ddp_does(tmp_path: Path, models: dict[str, Any]) -> None:
    on_two_ranks(work, tmp_path, models)
    ranks = [json.loads((tmp_path / f"cut{rank}.json").read_text()) for rank in (0, 1)]
    for rank in ranks:
        assert rank["slices"][0] == rank["slices"][1]  # resumed
    assert json.dumps(ranks[0]["test"]) == json.dumps(ranks[1]["test"])
    detector = again(models)
    whole = sum(p.numel() for p in detector.parameters())
    assert sum(rank["held"] for rank in ranks) == whole
    assert max(rank["held"] for rank in ranks) < 0.52 * whole

    ddp, cut = (torch.load(tmp_path / how / "step=2.ckpt", weights_only=True) for how in ("ddp", "cut"))
    assert list(ddp["state_dict"]) == list(cut["state_dict"])
    moved = 2 * 1e-4  # two steps of AdamW; where a gradient is near 0, rounding decides a part of them
    for key, value in ddp["state_dict"].items():
        torch.testing.assert_close(cut["state_dict"][key], value, rtol=1e-5, atol=0.02 * moved, equal_nan=True)
    assert cut["dfl"]["class_path"] == ddp["dfl"]["class_path"]
    assert cut["dfl"].get("backbone") == ddp["dfl"].get("backbone")  # left out, and by the same hash
    of, to = (file["optimizer_states"][0]["state"] for file in (ddp, cut))
    assert {n: {k: v.shape for k, v in s.items()} for n, s in of.items()} == {
        n: {k: v.shape for k, v in s.items()} for n, s in to.items()
    }

    file = tmp_path / "cut/step=2.ckpt"
    detectors.load(file, **{base: models["sida"][base] for base in ("language", "mask")})
    one = trainer(tmp_path)
    one.test(detector, data(models), ckpt_path=file, verbose=False, weights_only=True)
    for domain, values in detector.results["test"].items():
        assert values == pytest.approx(ranks[0]["test"][domain], rel=1e-5, abs=1e-5, nan_ok=True)
    # and goes on without the strategy
    one = trainer(tmp_path, max_epochs=1, limit_train_batches=5, limit_val_batches=1)
    one.fit(again(models), data(models, val=None), ckpt_path=file, weights_only=True)


def test_whole_weights_are_sharded_when_they_are_loaded() -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        network: Any = fully_shard(nn.Linear(4, 3), mesh=init_device_mesh("cpu", (1,)))
        strategy = FullyShardStrategy()
        strategy._lightning_module = network
        strategy.load_model_state_dict({"state_dict": {"weight": torch.ones(3, 4)}}, strict=False)
        assert torch.equal(network.weight.full_tensor(), torch.ones(3, 4))
    finally:
        dist.destroy_process_group()


def test_layers_are_the_outermost_repeated_ones() -> None:
    detector = build("llava", mask=None, mask_config=SAM)
    names = {id(m): n for n, m in detector.named_modules()}
    sam = [f"masks.sam.{n}" for n in ("vision_encoder.layers.0", "vision_encoder.layers.1")]
    decoder = [f"masks.sam.mask_decoder.transformer.layers.{i}" for i in (0, 1)]
    hyper = [f"masks.sam.mask_decoder.output_hypernetworks_mlps.{i}" for i in range(4)]
    # LLaVA's lists have one layer here; SAM's list of embeddings has no parts, and its values are read, not called
    assert {names[id(m)] for m in layers(detector)} == {*sam, *decoder, *hyper}
    size = sum(p.numel() for p in detector.get_submodule(sam[0]).parameters())
    assert {names[id(m)] for m in layers(detector, size)} >= set(sam)
    assert not set(layers(detector, 10 * size))


class Mixed(nn.Module):
    automatic_optimization = True

    def __init__(self, **numbers: nn.Parameter) -> None:
        super().__init__()
        for name, value in numbers.items():
            self.register_parameter(name, value)


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"a": torch.zeros(2), "b": torch.zeros(2, dtype=torch.bfloat16)}, "Mixed has bfloat16 and float32"),
        ({"a": torch.zeros(2), "scale": torch.zeros(())}, "cannot cut the single number scale of Mixed"),
    ],
)
def test_what_cannot_be_cut_is_one_line(numbers: dict[str, torch.Tensor], said: str) -> None:
    strategy = FullyShardStrategy()
    strategy.accelerator = SimpleNamespace(setup=lambda trainer: None)  # type: ignore[assignment]
    network = Mixed(**{n: nn.Parameter(v) for n, v in numbers.items()})
    strategy._lightning_module = network  # type: ignore[assignment]
    run: Any = SimpleNamespace(state=SimpleNamespace(fn="fit"))
    with pytest.raises(UserError, match=said):
        strategy.setup(run)
    network.automatic_optimization = False
    with pytest.raises(UserError, match="Mixed steps its optimizer by itself"):
        strategy.setup(run)
    strategy._precision_plugin = MixedPrecision("16-mixed", "cpu")
    with pytest.raises(UserError, match=r"does not scale losses: take trainer\.precision=bf16-mixed or 32-true"):
        strategy.setup(run)


def test_strategies_with_checkpoints_of_their_own_are_refused(tmp_path: Path, models: dict[str, Any]) -> None:
    detector = build(mask=None, mask_config=SAM, cache=str(tmp_path))
    for strategy in (FSDPStrategy(), ModelParallelStrategy()):
        detector.trainer = SimpleNamespace(strategy=strategy)  # type: ignore[assignment]
        with pytest.raises(UserError, match=r"(FSDP|ModelParallel)Strategy has .*--config trainer/fsdp\.yaml"):
            detector.setup("fit")
    detector.trainer = SimpleNamespace(strategy=FullyShardStrategy())  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"model\.cache does not go with FullyShardStrategy"):
        detector.setup("fit")
    detector.hparams.update(cache=None, four_bit=True)
    with pytest.raises(UserError, match=r"model\.four_bit does not go with FullyShardStrategy"):
        detector.setup("fit")

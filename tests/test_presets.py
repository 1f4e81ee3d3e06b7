"""Configs are what they say: batches, steps, what of an image is seen, and how the best is chosen."""

import inspect
from typing import Any

import keep_configs
import pytest
import torch

import dfl.detectors
from dfl.cli import arguments, configs
from dfl.detectors.fitted import FittedDetector

CONFIGS = configs.ROOTS[0]
OPTIMIZED = [
    str(file.relative_to(CONFIGS))
    for file in sorted(CONFIGS.rglob("*.yaml"))
    if "\n    optimizer: {" in file.read_text()
]


def merged(*files: str) -> dict[str, Any]:
    """Return the settings of configs that are named one after the other."""

    def under(old: Any, new: Any) -> Any:
        if not (isinstance(old, dict) and isinstance(new, dict)):
            return new
        return old | {key: under(old.get(key), value) for key, value in new.items()}

    whole: dict[str, Any] = {}
    for layer in arguments.plan(["fit", "--init_from=null", *(f"--config={file}" for file in files)]).layers:
        whole = under(whole, layer)
    return whole


@pytest.mark.parametrize(
    ("name", "batch", "steps", "warmup"), [("sida_7b", 20, 10_000, 100), ("sida_7b_stage2", 20, 500, 100)]
)
def test_sida_has_the_steps_of_the_official_code(name: str, batch: int, steps: int, warmup: int) -> None:
    told = merged(f"{name}.yaml")
    data, run = told["data"]["init_args"], told["trainer"]
    assert data["batch_size"] * run["accumulate_grad_batches"] == batch
    assert data["epoch_batches"] * run["max_epochs"] == steps * run["accumulate_grad_batches"]
    assert "limit_train_batches" not in run
    assert told["model"]["init_args"]["scheduler"]["init_args"]["warmup"] * steps == warmup


def test_sida_small_has_batches_of_four() -> None:
    data = merged("sida_small.yaml")["data"]["init_args"]
    assert (data["batch_size"], data.get("balance", "none")) == (4, "none")


@pytest.mark.parametrize("name", ["sida_7b", "sida_7b_stage2", "sida_small"])
def test_sida_sees_whole_images(name: str) -> None:
    transform = merged(f"{name}.yaml")["data"]["init_args"]["transform"]
    assert transform == {"resize": "pad", "augment": "none", "soft_masks": True}


def test_stage_two_is_of_the_described_images() -> None:
    one, two = (merged(f"{name}.yaml")["data"]["init_args"] for name in ("sida_7b", "sida_7b_stage2"))
    assert two["train"]["init_args"]["root"] == "data/text_label_images"
    assert two | {"train": one["train"], "epoch_batches": 10_000} == one


@pytest.mark.parametrize(
    ("name", "epochs"), [("ucf", 6), ("xception", 11), ("efficientnet_b4", 11), ("resnet34", 11), ("resnet50", 11)]
)
def test_deepfakebench_runs_one_epoch_more_than_its_config_says(name: str, epochs: int) -> None:
    assert merged(f"{name}.yaml")["trainer"]["max_epochs"] == epochs


@pytest.mark.parametrize(
    ("name", "batch", "epochs", "size"),
    [("gramnet", 14, 10, 512), ("gramnet_aigc", 64, 10_000, 224), ("meso4", 75, 10, 256), ("npr", 32, 50, 224)],
)
def test_networks_of_papers_have_their_batches_and_sizes(name: str, batch: int, epochs: int, size: int) -> None:
    told = merged(f"{name}.yaml")
    assert told["data"]["init_args"]["batch_size"] == batch
    assert told["trainer"]["max_epochs"] == epochs
    assert told["model"]["init_args"]["input_size"] == size


def test_mesoinception4_is_meso4_with_another_network() -> None:
    one, two = merged("meso4.yaml"), merged("mesoinception4.yaml")
    assert two["model"]["init_args"].pop("backbone") == "mesoinception4"
    assert one["model"]["init_args"].pop("backbone") == "meso4"
    assert one == two


def test_npr_learns_slower_after_the_epochs_that_its_code_counts() -> None:
    epochs = [epoch for epoch in range(50) if epoch % 10 == 0 and epoch]  # its condition, asked at the end of each
    scheduler = merged("npr.yaml")["model"]["init_args"]["scheduler"]["init_args"]
    assert scheduler == {"milestones": [epoch + 1 for epoch in epochs], "gamma": 0.9}


@pytest.mark.parametrize("name", [name for name in keep_configs.names() if not name.startswith("benchmark")])
def test_what_is_fitted_in_one_pass_sees_images_without_augmentation(name: str) -> None:
    told = merged(name)
    if issubclass(getattr(dfl.detectors, told["model"]["class_path"]), FittedDetector):
        data = configs.init_args_of(told["data"]) if isinstance(told["data"], str) else told["data"]["init_args"]
        assert data["transform"]["augment"] == "none"


@pytest.mark.parametrize("name", OPTIMIZED)
def test_what_a_config_does_not_say_of_its_optimizer_is_what_torch_has(name: str) -> None:
    """A detector's own default of the same class would fill it in otherwise: with a decay that the paper has not."""
    model = merged(name)["model"]
    told = model["init_args"]["optimizer"]
    parts = getattr(dfl.detectors, model["class_path"]).__mro__
    default = next(d.default for c in parts if (d := inspect.signature(c.__init__).parameters.get("optimizer")))
    made = default([torch.nn.Parameter(torch.zeros(1))])
    if type(made).__name__ == told["class_path"]:
        torchs = type(made)([torch.nn.Parameter(torch.zeros(1))], lr=1.0).defaults
        filled_in = {key for key, value in made.defaults.items() if value != torchs[key]} - {"lr", "fused"}
        assert filled_in <= told["init_args"].keys()

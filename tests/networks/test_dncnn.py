"""DnCNN: the forward pass of the published layout, files that are not it, and detectors that keep it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_contract import trainer
from torch import Tensor, nn

from dfl import detectors
from dfl.detectors import Dct, DctNetwork, Fusion
from dfl.errors import UserError
from dfl.networks.dncnn import CHANNELS, LAYERS, DnCnn

IMAGES = torch.randint(0, 256, (2, 3, 24, 20), generator=torch.Generator().manual_seed(0)).double()


def published() -> nn.Sequential:
    """The authors' layout at random: convolutions have even numbers, ReLUs lie between."""
    torch.manual_seed(0)
    widths = [3, *[CHANNELS] * (LAYERS - 1), 3]
    layers: list[nn.Module] = []
    for i in range(LAYERS):
        layers += [nn.Conv2d(widths[i], widths[i + 1], 3, padding=1), nn.ReLU()]
        nn.init.kaiming_normal_(layers[-2].weight)  # type: ignore[arg-type]
    layers[-2].weight.data *= 0.05  # type: ignore[operator, union-attr]
    return nn.Sequential(*layers[:-1])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("dncnn") / "dncnn_color_blind.pth"
    torch.save({f"model.{key}": value for key, value in published().state_dict().items()}, path)
    return str(path)


def test_it_takes_away_what_the_published_network_takes_for_noise(file: str) -> None:
    image = IMAGES.float() / 255
    with torch.no_grad():
        expected = (255 * (image - published()(image))).clamp(0, 255)
    found = DnCnn(file)(IMAGES)
    assert found.dtype == torch.float64
    assert torch.equal(found, found.round())
    assert (found - IMAGES).abs().max() > 5
    assert (found - expected).abs().max() < 0.51
    assert sum(p.numel() for p in DnCnn(file).parameters()) == 668_227


def without(name: str) -> Any:
    return lambda state: {k: v for k, v in state.items() if k != name}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (without("model.4.bias"), "holds 20 weights and 19 biases among 39 tensors"),
        (lambda state: state | {"model.3.running_mean": torch.zeros(64)}, "among 41 tensors"),
        (lambda state: state | {"model.0.weight": torch.zeros(64, 1, 3, 3)}, r"of another shape.*0\.weight"),
    ],
)
def test_files_of_something_else_are_one_line(change: Any, line: str, file: str, tmp_path: Path) -> None:
    state: dict[str, Tensor] = torch.load(file, weights_only=True)
    torch.save(change(state), tmp_path / "other.pth")
    with pytest.raises(UserError, match=rf"other\.pth.*{line}"):
        DnCnn(str(tmp_path / "other.pth"))


def test_without_a_file_or_without_a_use_for_it_is_one_line(file: str) -> None:
    with pytest.raises(UserError, match=r"denoiser is None.*noise=median or nlm"):
        Dct(16, noise="dncnn")
    with pytest.raises(UserError, match="file of noise=dncnn, and noise is median"):
        DctNetwork(input_size=16, noise="median", denoiser=file)
    with pytest.raises(UserError, match="no spectrum has that"):
        Fusion(backbone="test_resnet", pretrained=False, input_size=32, spectra=({"size": 8},), denoiser=file)


@pytest.mark.parametrize("kind", ["Dct", "DctNetwork", "Fusion"])
def test_a_checkpoint_holds_the_denoiser(kind: str, file: str, tmp_path: Path) -> None:
    fused = {"backbone": "test_resnet", "pretrained": False, "spectra": ({"size": 16, "noise": "dncnn"},)}
    words = fused if kind == "Fusion" else {"noise": "dncnn"}
    detector = getattr(detectors, kind)(input_size=32, denoiser=file, **words).eval()
    run = trainer(tmp_path)
    run.strategy.connect(detector)
    run.save_checkpoint(tmp_path / "a.ckpt")
    again = detectors.load(tmp_path / "a.ckpt")
    assert again.hparams["denoiser"] is None
    image = IMAGES[..., :20].float()[:, :, :20].repeat(1, 1, 2, 2)[..., :32, :32] / 255
    assert torch.equal(again(image)["logit"], detector(image)["logit"])

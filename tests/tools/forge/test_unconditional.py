"""Diffusion models of whole images as makers: folders of diffusers, latents, and the closed form of toy portraits."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dfl.data.decoding import read_image
from dfl.errors import UserError
from dfl.tools.forge import Scene, forge
from dfl.tools.forge.models import toy_denoiser
from dfl.tools.forge.models.repaint import Ddim, Ddpm, repaint
from dfl.tools.forge.models.toy_denoiser import ToyDenoiser, portraits
from dfl.tools.forge.models.unconditional import LatentRepaint, Repaint, Unconditional
from dfl.tools.forge.models.vae import Vae
from dfl.tools.forge.scenes import batched
from tests.unconditional import changed, ddpm, ldm

pytest.importorskip("diffusers")
QUICK = {"steps": 5, "jump": 2, "resample": 2}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders by name, each built once."""
    root = tmp_path_factory.mktemp("models")
    build = {
        "ddpm": lambda path: ddpm(path),
        "flat": lambda path: ddpm(path, flat=True),
        "learnt_variance": lambda path: ddpm(path, out=6),
        "kl": lambda path: ldm(path, vq=False),
        "vq": lambda path: ldm(path, vq=True),
    }

    def folder(name: str) -> Path:
        path = root / name
        return path if path.is_dir() else build[name](path)

    return folder


def scenes(size: int, n: int = 3) -> list[Scene]:
    rng = np.random.default_rng(0)
    made = []
    for i in range(n):
        image = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        region = np.zeros((size, size), bool)
        region[3 + i : 9 + i, 4:11] = True
        made.append(Scene(image, region, image, (0.02, 0.3), 0.5))
    return made


def opened(model: Any) -> Any:
    model.open("cpu", torch.float32)
    return model


@pytest.mark.parametrize(("name", "sampler"), [("ddpm", "ddim"), ("flat", "ddpm"), ("learnt_variance", "ddpm")])
def test_regions_by_a_model_of_pixels(folders: Callable[[str], Path], name: str, sampler: Any) -> None:
    model = opened(Repaint(str(folders(name)), sampler=sampler, **QUICK))
    photos, seeds = scenes(16), [5, 6, 1 << 62]
    made = model(photos, [""] * 3, seeds)
    for scene, image in zip(photos, made, strict=True):
        assert image.dtype == np.uint8
        assert image.shape == (16, 16, 3)
        assert (image[scene.region] != scene.image[scene.region]).any()
        if sampler == "ddim":  # the authors' form leaves them at the noise of the last level
            assert np.array_equal(image[~scene.region], scene.image[~scene.region])
    alone = model(photos[1:2], [""], seeds[1:2])[0]
    assert np.abs(alone.astype(int) - made[1]).max() <= 2  # but for rounding
    assert model.about()["calls"] == 5 + 2 * 2
    assert model.size == 16


@pytest.mark.parametrize("vq", [False, True])
def test_regions_by_a_latent_model(folders: Callable[[str], Path], vq: bool) -> None:
    model = opened(LatentRepaint(str(folders("vq" if vq else "kl")), **QUICK))
    photos = scenes(32)
    photos[0].region[:], photos[0].region[6, 7] = False, True  # one pixel: the whole cell is made anew
    made = model(photos, [""] * 3, [1, 2, 3])
    again = LatentRepaint(str(folders("vq" if vq else "kl")), scale=2.0, **QUICK)
    assert not model.paste
    assert model.size == 32
    assert (model.about()["scale"], again.about()["scale"]) == (0.5, 2.0)
    kept, there = model.network, torch.from_numpy(photos[0].image).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.inference_mode():
        plain = ((kept.decoded(kept.encoded(there))[0].clamp(-1, 1) + 1) * 127.5).round().permute(1, 2, 0).numpy()
    assert not np.array_equal(made[0], plain)
    alone = batched(model, photos[2:], [""], [3])[0]
    assert np.array_equal(alone, batched(model, photos, [""] * 3, [1, 2, 3])[2])


@pytest.mark.parametrize("vq", [False, True])
def test_photos_pass_the_autoencoder_of_a_latent_model(folders: Callable[[str], Path], vq: bool) -> None:
    from diffusers import AutoencoderKL, VQModel

    model = LatentRepaint(str(folders("vq" if vq else "kl")), **QUICK)
    vae, photo = opened(model.vae()), scenes(32, 1)
    codec = (VQModel if vq else AutoencoderKL).from_pretrained(vae.folder)
    there = torch.from_numpy(photo[0].image).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        want = codec(there).sample[0].permute(1, 2, 0).clamp(-1, 1)
    assert np.array_equal(vae(photo, [""], [0])[0], ((want + 1) * 127.5).round().byte().numpy())
    assert Vae(str(folders("vq" if vq else "kl"))).folder == vae.folder
    assert (vae.multiple, vae.codec) == (2, codec.__class__.__name__)


def test_whole_images_are_those_of_the_ddim_pipeline(folders: Callable[[str], Path]) -> None:
    from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel

    pipeline = DDIMPipeline(
        UNet2DModel.from_pretrained(folders("ddpm") / "unet"), DDIMScheduler(beta_schedule="linear")
    )
    pipeline.set_progress_bar_config(disable=True)
    sources = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    want = pipeline(batch_size=2, generator=sources, num_inference_steps=10, output_type="np").images
    got = opened(Unconditional(str(folders("ddpm")), steps=10))(scenes(16, 2), ["", ""], [3, 4])
    assert np.abs(np.stack(got) - want * 255).max() <= 0.51


def test_what_the_closed_form_makes_are_its_portraits_under_its_grain() -> None:
    network = ToyDenoiser(16, n=24, grain=0.04)
    network.open("cpu", torch.float32)
    nothing = torch.zeros(6, 3, 16, 16)
    for levels in (Ddim(network.betas, 250), Ddpm(network.betas, 250)):
        made = repaint(network, levels, nothing, nothing[:, :1], [torch.Generator().manual_seed(i) for i in range(6)])
        apart = torch.cdist(made.flatten(1).double(), network.means) / (3 * 16 * 16) ** 0.5
        nearest, which = apart.min(1)
        assert ((nearest > 0.025) & (nearest < 0.045)).all()
        assert len(which.unique()) > 1
    # by hand, of two portraits
    few = ToyDenoiser(16, n=2, grain=0.1)
    few.open("cpu", torch.float32)
    x, kept = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)), float(few.kept[600])
    y, v = x.double().numpy() / kept**0.5, (1 - kept) / kept + 0.1**2
    means = 2 * portraits(16, 2).astype(np.float64) - 1
    scores = -((y - means) ** 2).sum((1, 2, 3)) / 2 / v
    weights = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    mean = (weights[:, None, None, None] * means).sum(0)
    image = mean + 0.1**2 / v * (y - mean)
    np.testing.assert_allclose(few(x, 600), (x.numpy() - kept**0.5 * image) / (1 - kept) ** 0.5, atol=1e-5)


def test_forged_sets_hold_regions_with_masks_and_whole_images_of_nobody(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(toy_denoiser, "portraits", lambda size, n: portraits(size, 8))
    for i, image in enumerate(scenes(40, 6)):
        Image.fromarray(image.image).save(tmp_path / f"{i}.png")
    models = tmp_path / "models.yaml"
    models.write_text(
        "repaint: {class_path: Repaint, init_args: {model: 'toy:16', steps: 5, jump: 2, resample: 2}}\n"
        "whole: {class_path: Unconditional, init_args: {model: 'toy:16', steps: 5}}\n"
    )
    table = forge([str(tmp_path)], str(tmp_path / "set"), models=str(models), square=16, progress=False, workers=1)
    rows = list(csv.DictReader(table.open()))
    photos = {row["source"]: read_image(table.parent / row["path"]) for row in rows if row["label"] == "0"}
    fakes = {name: [row for row in rows if row["generator"] == name] for name in ("repaint", "whole")}
    assert [len(fakes[name]) for name in fakes] == [3, 3]
    for row in fakes["repaint"]:
        mask = read_image(table.parent / row["mask"])[..., 0] > 0
        changed = (read_image(table.parent / row["path"]) != photos[row["source"]]).any(2)
        assert changed.any()
        assert not changed[~mask].any()
        assert (row["class_label"], row["steps"]) == ("2", "5")
    for row in fakes["whole"]:
        assert (row["class_label"], row["mask_rule"], row["source"], row["identity"]) == ("1", "all", "", "")


def test_errors_name_what_to_change(folders: Callable[[str], Path], tmp_path: Path) -> None:
    ddpm_folder, kl = str(folders("ddpm")), str(folders("kl"))

    def broken(file: str, of: str = "ddpm", **words: Any) -> str:
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        return str(changed(Path(shutil.copytree(folders(of), folder)), file, **words))

    pickled = Path(shutil.copytree(folders("ddpm"), tmp_path / "pickled")) / "unet"
    (pickled / "diffusion_pytorch_model.safetensors").rename(pickled / "diffusion_pytorch_model.bin")
    mixed = shutil.copytree(folders("vq"), tmp_path / "mixed")
    shutil.rmtree(mixed / "vqvae")
    mixed = str(shutil.copytree(folders("kl") / "vae", mixed / "vae").parent)
    for maker, words, says in [
        (Repaint, {"model": "nowhere"}, "no folder 'nowhere'"),
        (Repaint, {"model": str(tmp_path)}, "no unet/config.json"),
        (Repaint, {"model": str(pickled.parent)}, "pickled"),
        (Repaint, {"model": "toy:8"}, "16 to 256"),
        (Repaint, {"model": "toy:big"}, "16 to 256"),
        (Repaint, {"model": kl}, "use LatentRepaint"),
        (LatentRepaint, {"model": ddpm_folder}, "use Repaint"),
        (LatentRepaint, {"model": ddpm_folder, "scale": 1.0}, "no autoencoder"),
        (Repaint, {"model": ddpm_folder, "steps": 300}, "must be at least 2, and divide 1000"),
        (Repaint, {"model": ddpm_folder, "steps": 1, "jump": 1}, "must be at least 2, and divide 1000"),
        (Repaint, {"model": ddpm_folder, "steps": 1001, "sampler": "ddpm"}, "within 2 and 1000"),
        (Repaint, {"model": ddpm_folder, "eta": 0.5, "sampler": "ddpm"}, "ddpm has its own"),
        (Repaint, {"model": ddpm_folder, "steps": 10, "jump": 10}, "jump is less than steps"),
        (Unconditional, {"model": broken("scheduler/scheduler_config.json", prediction_type="sample")}, "'sample'"),
        (Unconditional, {"model": broken("unet/config.json", num_class_embeds=7)}, "class of each image"),
        (Unconditional, {"model": broken("unet/config.json", out_channels=4)}, "4 channels of 3"),
        (Unconditional, {"model": broken("unet/config.json", sample_size=17)}, "sample_size 17, .* divides by 2"),
        (Unconditional, {"model": broken("unet/config.json", block_out_channels=3)}, "config.json says block_out_ch"),
        (LatentRepaint, {"model": mixed}, "vae/config.json has latents of 4 channels, and .*unet takes 3"),
        (LatentRepaint, {"model": broken("vae/config.json", "kl", in_channels=1)}, "in_channels 1, .* 3 of RGB"),
        (LatentRepaint, {"model": broken("vae/config.json", "kl", block_out_channels=7)}, "vae/config.json says block"),
        (LatentRepaint, {"model": broken("vae/config.json", "kl", scaling_factor="x")}, "vae/config.json says scaling"),
        (LatentRepaint, {"model": broken("vae/config.json", "kl", scaling_factor=0)}, "says scaling_factor '0'"),
        (LatentRepaint, {"model": kl, "scale": 0.0}, "scale is 0.0: .* above 0"),
        (LatentRepaint, {"model": kl, "scale": float("nan")}, "scale is nan: .* above 0"),
        (Vae, {"model": broken("vae/config.json", "kl", out_channels=1)}, "out_channels 1, .* 3 of RGB"),
        (Vae, {"model": broken("vae/config.json", "kl", block_out_channels="8")}, "vae/config.json says block_out"),
        (Unconditional, {"model": broken("unet/config.json", _class_name="UNet2DConditionModel")}, "UNet2DModel"),
        (
            Unconditional,
            {"model": broken("vae/config.json", "kl", _class_name="os.system")},
            "AutoencoderKL or VQModel",
        ),
    ]:
        with pytest.raises(UserError, match=says) as raised:
            maker(**words)
        assert "\n" not in str(raised.value)
    for change, says in [
        ({"beta_schedule": "steep"}, "scheduler_config.json cannot be used: steep"),
        ({"trained_betas": [0.1, 0.2]}, "scheduler_config.json holds 2 trained_betas, and num_train_timesteps is 1000"),
    ]:
        odd = Unconditional(broken("scheduler/scheduler_config.json", **change), steps=10)
        with pytest.raises(UserError, match=says):
            opened(odd)

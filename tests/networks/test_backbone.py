"""Weights come from where they were asked for, or the answer is one clear line."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from dfl.errors import UserError
from dfl.networks import create_backbone, is_convolutional, without_weights
from dfl.networks.normalize import Normalize


def test_weights_that_are_not_there_are_an_error() -> None:
    with pytest.raises(UserError, match="no weights for test_vit.*set model.weights to the file"):
        create_backbone("test_vit", pretrained=True)


def test_a_tag_that_timm_does_not_know_is_an_error() -> None:
    with pytest.raises(UserError, match="no weights for resnet18.nobodys"):
        create_backbone("resnet18", weights="nobodys")


def test_a_missing_file_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no weights file.*{tmp_path}"):
        create_backbone("test_vit", weights="none.safetensors")


def test_an_unknown_name_says_what_comes_near() -> None:
    with pytest.raises(UserError, match="did you mean 'resnet50'"):
        create_backbone("resnet_50", pretrained=False)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_loads_a_local_file_and_keeps_a_new_head_random(tmp_path: Path, suffix: str) -> None:
    donor = timm.create_model("test_vit", num_classes=1000)
    file = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": {f"module.{k}": v for k, v in donor.state_dict().items()}}, file)
    else:
        save_file(donor.state_dict(), file)
    model = create_backbone("test_vit", weights=str(file), num_classes=2)
    assert torch.equal(model.patch_embed.proj.weight, donor.patch_embed.proj.weight)
    assert model.head.weight.shape[0] == 2
    whole = create_backbone("test_vit", weights=str(file))
    assert torch.equal(whole.head.weight, donor.head.weight)


def test_a_file_that_does_not_fit_names_the_tensors(tmp_path: Path) -> None:
    state = timm.create_model("test_vit").state_dict()
    state["strange"] = state.pop("norm.weight")
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"1 missing \(norm.weight\); 1 unknown \(strange\)"):
        create_backbone("test_vit", weights=str(tmp_path / "w.safetensors"))


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, ("ran", "w"))


def test_a_planted_payload_does_not_run(tmp_path: Path) -> None:
    torch.save({"x": Payload()}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="no weights file that can be read safely"):
        create_backbone("test_vit", weights=str(tmp_path / "w.pth"))
    assert not (tmp_path / "ran").exists()


def test_without_weights_looks_for_none() -> None:
    with without_weights():
        create_backbone("test_vit", pretrained=True, weights="none.safetensors")


def test_tells_convolutions_from_attention() -> None:
    assert is_convolutional(timm.create_model("test_resnet"))
    assert not is_convolutional(timm.create_model("test_vit"))


def test_an_argument_that_a_model_does_not_take_is_one_line() -> None:
    with pytest.raises(UserError, match="timm cannot build test_vit with {'pad_type': 'same'}"):
        create_backbone("test_vit", pretrained=False, pad_type="same")


def test_positions_of_another_size_of_images_are_interpolated_as_timm_does(tmp_path: Path) -> None:
    state, file = timm.create_model("test_vit", img_size=96).state_dict(), str(tmp_path / "w.pth")
    torch.save(state, file)
    model = create_backbone("test_vit", weights=file, img_size=160)
    wanted = timm.create_model("test_vit", pretrained=True, img_size=160, pretrained_cfg_overlay={"file": file})
    torch.testing.assert_close(model.pos_embed, wanted.pos_embed)
    torch.save(state | {"pos_embed": state["pos_embed"][..., :8]}, file)
    with pytest.raises(UserError, match="1 of another shape .pos_embed"):  # another width is no size of images
        create_backbone("test_vit", weights=file, img_size=160)


def test_a_file_of_features_alone_leaves_the_head_at_random(tmp_path: Path) -> None:
    donor = timm.create_model("test_vit", num_classes=0)
    save_file(donor.state_dict(), tmp_path / "features.safetensors")
    model = create_backbone("test_vit", weights=str(tmp_path / "features.safetensors"), num_classes=2)
    assert model.at_random == ("head",)
    assert torch.equal(model.state_dict()["norm.weight"], donor.state_dict()["norm.weight"])


def test_integers_are_refused_and_not_taken_for_zero_to_one() -> None:
    """A picture as it is read, uint8, would pass the network, and every score be wrong."""
    with pytest.raises(TypeError, match="floats in \\[0, 1\\], not torch.uint8: give image / 255"):
        Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))(torch.zeros(1, 3, 2, 2, dtype=torch.uint8))

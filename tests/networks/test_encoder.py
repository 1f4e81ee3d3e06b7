"""Towers of timm and of transformers give the same kinds of features by the same words."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig

from dfl.errors import UserError
from dfl.networks import Encoder, without_weights

TINY: dict[str, Any] = {
    **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"image_size": 32, "patch_size": 8},
}
IDS = {"bos_token_id": 0, "eos_token_id": 1}
SIZED = {"mean": 32, "pooled": 32}
OUTPUTS: dict[str, dict[str, int]] = {
    "CLIPVisionModelWithProjection": SIZED | {"cls": 32, "projection": 24},
    "MetaClip2VisionModelWithProjection": SIZED | {"cls": 32, "projection": 24},
    "SiglipVisionModel": SIZED,
    "Dinov2Model": SIZED | {"cls": 32},
    "Dinov2WithRegistersModel": SIZED | {"cls": 32},
    "DINOv3ViTModel": SIZED | {"cls": 32},
}


def saved(kind: str, folder: Path, **words: Any) -> Any:
    """Save a tiny tower at random."""
    model: Any = getattr(transformers, kind)
    extra = {"projection_dim": 24} if "Projection" in kind else {}
    model = model(model.config_class(**TINY | extra | words)).eval()
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", OUTPUTS)
def test_every_tower_gives_its_outputs_at_every_size(kind: str, tmp_path: Path) -> None:
    model = saved(kind, tmp_path / "a")
    image = torch.rand(2, 3, 32, 32)
    for output, dim in OUTPUTS[kind].items():
        encoder = Encoder(folder=str(tmp_path / "a"), output=output)  # type: ignore[arg-type]
        assert (encoder.input_size, encoder.dim, encoder.convolutional) == (32, dim, False)
        feature = encoder(image)
        assert (feature.shape, feature.dtype) == ((2, dim), torch.float32)
        assert not any(p.requires_grad for p in encoder.parameters())
        seen = model(encoder.normalize(image))
        if output == "projection":
            torch.testing.assert_close(feature, seen.image_embeds)
        elif output == "pooled" and hasattr(seen, "pooler_output"):
            torch.testing.assert_close(feature, seen.pooler_output)
        larger = Encoder(folder=str(tmp_path / "a"), output=output, input_size=48)  # type: ignore[arg-type]
        assert larger(torch.rand(1, 3, 48, 48)).shape == (1, dim)


def test_the_mean_is_over_patches_alone(tmp_path: Path) -> None:
    model = saved("Dinov2WithRegistersModel", tmp_path, num_register_tokens=3)
    encoder, image = Encoder(folder=str(tmp_path), output="mean"), torch.rand(2, 3, 32, 32)
    tokens = model(encoder.normalize(image)).last_hidden_state
    assert tokens.shape[1] == 1 + 3 + 16
    torch.testing.assert_close(encoder(image), tokens[:, 4:].mean(1))


def test_of_an_image_text_model_it_is_the_image_side(tmp_path: Path) -> None:
    text = CLIPTextConfig(**{**TINY, "vocab_size": 99, "max_position_embeddings": 8, **IDS})
    config = CLIPConfig(text_config=text.to_dict(), vision_config=TINY, projection_dim=24)
    whole: Any = CLIPModel(config).eval()
    whole.save_pretrained(tmp_path)
    image = torch.rand(2, 3, 32, 32)
    encoder = Encoder(folder=str(tmp_path), output="projection")
    wanted = whole.get_image_features(pixel_values=encoder.normalize(image))
    torch.testing.assert_close(encoder(image), getattr(wanted, "pooler_output", wanted))


def test_timm_and_transformers_agree_on_one_tower(tmp_path: Path) -> None:
    """A DINOv2 of both libraries, with the same tensors under both names."""
    saved("Dinov2Model", tmp_path / "a", mlp_ratio=2, layerscale_value=0.7, qkv_bias=True)
    state = load_file(tmp_path / "a" / "model.safetensors")
    renamed = {
        "cls_token": state["embeddings.cls_token"],
        "pos_embed": state["embeddings.position_embeddings"],
        "patch_embed.proj.weight": state["embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": state["embeddings.patch_embeddings.projection.bias"],
        "norm.weight": state["layernorm.weight"],
        "norm.bias": state["layernorm.bias"],
    }
    layers = next(key for key in state if ".0.norm1.weight" in key).removesuffix("0.norm1.weight")
    for i in range(2):
        layer, block = f"{layers}{i}.", f"blocks.{i}."
        for end in ("weight", "bias"):
            qkv = [state[f"{layer}attention.attention.{n}.{end}"] for n in ("query", "key", "value")]
            renamed[f"{block}attn.qkv.{end}"] = torch.cat(qkv)
            renamed[f"{block}attn.proj.{end}"] = state[f"{layer}attention.output.dense.{end}"]
            for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                renamed[f"{block}{name}.{end}"] = state[f"{layer}{name}.{end}"]
        renamed[f"{block}ls1.gamma"] = state[f"{layer}layer_scale1.lambda1"]
        renamed[f"{block}ls2.gamma"] = state[f"{layer}layer_scale2.lambda1"]
    save_file({k: v.contiguous() for k, v in renamed.items()}, tmp_path / "w.safetensors")
    shape: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    image = torch.rand(2, 3, 32, 32)
    for output in ("pooled", "cls", "mean"):
        ours = Encoder(
            "vit_small_patch14_dinov2",
            weights=str(tmp_path / "w.safetensors"),
            timm_args=shape | {"mlp_ratio": 2},
            output=output,  # type: ignore[arg-type]
        )
        theirs = Encoder(folder=str(tmp_path / "a"), output=output)  # type: ignore[arg-type]
        torch.testing.assert_close(ours(image), theirs(image))


def test_a_projection_of_timm_is_its_head() -> None:
    encoder = Encoder("test_vit", pretrained=False, timm_args={"num_classes": 7}, output="projection")
    image = torch.rand(2, 3, 160, 160)
    assert encoder.dim == 7
    torch.testing.assert_close(encoder(image), encoder.network(encoder.normalize(image)))
    assert Encoder("test_resnet", pretrained=False).convolutional


def test_preprocessing_of_the_folder_is_taken(tmp_path: Path) -> None:
    saved("Dinov2Model", tmp_path)
    transformers.BitImageProcessor(
        size={"shortest_edge": 64}, crop_size={"height": 48, "width": 48}, image_mean=[0.1] * 3, image_std=[0.2] * 3
    ).save_pretrained(tmp_path)
    encoder = Encoder(folder=str(tmp_path))
    assert encoder.input_size == 48
    assert encoder.normalize.mean.flatten().tolist() == pytest.approx([0.1] * 3)


def test_it_stays_in_evaluation_until_something_is_trained() -> None:
    encoder = Encoder("test_vit", pretrained=False)
    assert not encoder.train().network.training
    encoder.network.norm.requires_grad_(True)
    assert encoder.train().network.training


def test_it_is_built_without_weights_to_be_counted(tmp_path: Path) -> None:
    saved("CLIPVisionModelWithProjection", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with without_weights(), torch.device("meta"):
        assert Encoder(folder=str(tmp_path), output="projection").dim == 24


def wrong_folder(case: str, folder: Path) -> dict[str, Any]:
    """Make what a case needs, and return the arguments."""
    words: dict[str, Any] = {"folder": str(folder)}
    folder.mkdir()
    if case == "text":
        transformers.CLIPTextModel(CLIPTextConfig(**{**TINY, "vocab_size": 99, **IDS})).save_pretrained(folder)
    elif case in ("siglip", "class token"):
        saved("SiglipVisionModel", folder)
        words["output"] = "projection" if case == "siglip" else "cls"
    elif case != "empty":
        saved("CLIPVisionModel", folder)
    if case == "no projection":
        words["output"] = "projection"
    elif case == "lost":
        state = load_file(folder / "model.safetensors")
        state.popitem()
        save_file(state, folder / "model.safetensors", {"format": "pt"})
    elif case == "pickle":
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    elif case == "size":
        words["input_size"] = 30
    elif case == "timm":
        words["weights"] = "w.safetensors"
    return words


@pytest.mark.parametrize(
    ("case", "line"),
    [
        ("empty", r"no model of transformers at '.*wrong', neither a folder with config\.json nor"),
        ("text", r"folder .*wrong holds a 'clip_text_model', no vision tower.*there are clip_vision_model, "),
        ("siglip", r"a siglip_vision_model has no projection: take output=pooled"),
        ("class token", r"SigLIP has no class token"),
        ("no projection", r"folder: .*wrong lacks 1 weights of its CLIPVisionModelWithProjection, such as visual_proj"),
        ("lost", r"folder: .*wrong lacks 1 weights of its CLIPVisionModel"),
        ("pickle", r"folder: .*wrong holds pickled weights \(pytorch_model\.bin\)"),
        ("size", r"has patches of 8 px, and input_size 30 is no multiple"),
        ("timm", r"and weights is of timm: leave it out"),
    ],
)
def test_a_wrong_folder_is_one_line(case: str, line: str, tmp_path: Path) -> None:
    words = wrong_folder(case, tmp_path / "wrong")
    with pytest.raises(UserError, match=line) as caught:
        Encoder(**words)
    assert "\n" not in str(caught.value)


def test_a_model_is_named_once_and_has_what_is_asked_for() -> None:
    with pytest.raises(UserError, match="give backbone .* and folder .* one"):
        Encoder()
    with pytest.raises(UserError, match="leave one out"):
        Encoder("test_vit", folder="somewhere")
    with pytest.raises(UserError, match="test_resnet has no class token"):
        Encoder("test_resnet", pretrained=False, output="cls")
    with pytest.raises(UserError, match="test_resnet has no tokens"):
        Encoder("test_resnet", pretrained=False, output="mean")
    with pytest.raises(UserError, match="ends without a projection"):
        Encoder("test_vit", pretrained=False, timm_args={"num_classes": 0}, output="projection")

"""A frozen foundation model as a function from images to vectors: of timm by name, or of transformers by folder.

    image in [0, 1] -> normalize -> network -> pooled | cls | mean | projection -> (N, D) float32

Both libraries have the same towers under other names. What they give is called here by one word each:

    pooled       the input of the last layer, as the model's own classifier would get it
    cls          the class token after the last normalisation; SigLIP and convolutional networks have none
    mean         the mean of the patch tokens after the last normalisation
    projection   what image and text meet in (CLIP): after the last linear layer, not brought to unit length
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import timm
import torch
import transformers
from torch import Tensor, nn

from dfl.errors import UserError, first_line
from dfl.hub import offline_if_no_network
from dfl.networks.backbone import backbone_and_view, is_convolutional, skips_weights
from dfl.networks.normalize import CLIP, HALF, IMAGENET, Normalize
from dfl.networks.pretrained import pretrained

Output = Literal["pooled", "cls", "mean", "projection"]
#: Towers of transformers by ``model_type``: class, the class that ends in a projection, mean and std of their images.
TOWERS: dict[str, tuple[str, str | None, Any]] = {
    "clip_vision_model": ("CLIPVisionModel", "CLIPVisionModelWithProjection", CLIP),
    "metaclip_2_vision_model": ("MetaClip2VisionModel", "MetaClip2VisionModelWithProjection", CLIP),
    "siglip_vision_model": ("SiglipVisionModel", None, HALF),
    "dinov2": ("Dinov2Model", None, IMAGENET),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", None, IMAGENET),
    "dinov3_vit": ("DINOv3ViTModel", None, IMAGENET),
}


class Encoder(nn.Module):
    """Features of a frozen model; it stays in evaluation mode as long as nothing in it is trained.

    Args:
        backbone: timm name; or give ``folder``.
        pretrained: Load weights. False starts at random, of timm alone.
        weights: Of ``backbone``: a local file, or a timm tag. None takes timm's default.
        timm_args: More arguments of ``timm.create_model``.
        folder: Vision tower of transformers (CLIP, MetaCLIP 2, SigLIP, DINOv2, DINOv3): a folder with config.json and
            safetensors, or a name on the Hub; of an image-text model the image side is taken.
        output: What is given of an image, see the top of this file.
        input_size: Side of the images in pixels; by default the model's own.

    Attributes:
        settings: All but the weights that features depend on, as a line: a key of stored features.
        network: The model of timm or transformers; all its parameters are frozen.
        normalize: Normalisation of images in [0, 1], which ``forward`` begins with.
        dim: D, length of a feature.
        input_size: Side of the images in pixels.
        convolutional: Whether most parameters are in convolutions, which run faster with channels last.

    Raises:
        UserError: If there is no such model, its weights are not there or do not fit, or it has no such output.
    """

    def __init__(
        self,
        backbone: str | None = None,
        pretrained: bool = True,
        weights: str | None = None,
        timm_args: dict[str, Any] | None = None,
        folder: str | None = None,
        output: Output = "pooled",
        input_size: int | None = None,
    ) -> None:
        super().__init__()
        if (backbone is None) == (folder is None):
            raise UserError(
                f"an encoder is one model: {'give' if folder is None else 'of'} backbone (a name of timm) and folder "
                f"(of transformers) {'one' if folder is None else 'leave one out'}"
            )
        self.output: Output = output
        self.network: Any
        self.of_timm = folder is None
        if backbone is not None:
            words = ({} if output == "projection" else {"num_classes": 0}) | (timm_args or {})
            self.network, self.input_size, self.normalize = backbone_and_view(
                backbone, pretrained, weights, input_size, **words
            )
            self.dim = self._dim_of_timm(backbone)
        else:
            if weights or timm_args or not pretrained:
                extra = "weights" if weights else "timm_args" if timm_args else "pretrained=false"
                raise UserError(f"folder {folder} names a model with its weights, and {extra} is of timm: leave it out")
            place = Path(str(folder)).expanduser()
            self.network, self.input_size, self.normalize, self.dim = _tower(
                str(place) if place.exists() else str(folder), output, input_size
            )
        own = {} if self.of_timm else {k: v for k, v in self.network.config.to_dict().items() if k != "_name_or_path"}
        view = [str(v.flatten().tolist()) for v in (self.normalize.mean, self.normalize.std) if not v.is_meta]
        versions = [timm.__version__ if self.of_timm else transformers.__version__, torch.__version__]
        parts = [backbone, timm_args, output, own, view, versions]
        self.settings = json.dumps(parts, sort_keys=True, default=str)
        self.network.requires_grad_(False)
        self.convolutional = is_convolutional(self.network)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Set the mode; without trained parameters it stays that of evaluation, since dropout would blur features."""
        return super().train(mode and any(p.requires_grad for p in self.parameters()))

    def forward(self, image: Tensor) -> Tensor:
        """Map images (N, 3, H, W) in [0, 1] to features (N, D) float32."""
        if self.output in ("cls", "mean"):
            tokens, prefix = self._tokens(self.normalize(image))
            return (tokens[:, 0] if self.output == "cls" else tokens[:, prefix:].mean(1)).float()
        if self.of_timm:
            features = self.network.forward_features(self.normalize(image))
            feature: Tensor = self.network.forward_head(features, pre_logits=self.output == "pooled")
            return feature.float()
        seen = self._seen(self.normalize(image))
        return (seen.image_embeds if self.output == "projection" else seen.pooler_output).float()

    def _dim_of_timm(self, backbone: str) -> int:
        if self.output == "pooled":
            return int(self.network.head_hidden_size)
        if self.output == "projection":
            if not self.network.num_classes:
                raise UserError(f"{backbone} ends without a projection: take output=pooled")
            return int(self.network.num_classes)
        what, needed = ("class token", "cls_token") if self.output == "cls" else ("tokens", "num_prefix_tokens")
        if getattr(self.network, needed, None) is None:
            raise UserError(f"{backbone} has no {what}, so no output={self.output}: take output=pooled")
        return int(self.network.num_features)

    def _tokens(self, image: Tensor) -> tuple[Tensor, int]:
        """Return tokens (N, T, D) after the last normalisation, and how many of them, at the front, are of no patch."""
        if self.of_timm:
            return self.network.forward_features(image), int(self.network.num_prefix_tokens)
        tokens: Tensor = self._seen(image).last_hidden_state
        config = self.network.config
        kind = config.model_type
        if kind in ("clip_vision_model", "metaclip_2_vision_model"):  # theirs are not normalised yet
            tokens = self.network.post_layernorm(tokens)
        prefix = 0 if kind == "siglip_vision_model" else 1 + int(getattr(config, "num_register_tokens", 0))
        return tokens, prefix

    def _seen(self, image: Tensor) -> Any:
        """Return what a tower of transformers gives of normalised images, its positions interpolated to their size."""
        config = self.network.config
        asks = image.shape[-1] != config.image_size and not config.model_type.startswith("dino")  # which always do
        return self.network(pixel_values=image, **{"interpolate_pos_encoding": True} if asks else {})


def _tower(folder: str, output: Output, input_size: int | None) -> tuple[Any, int, Normalize, int]:
    """Return a vision tower of transformers, the side of its images, their normalisation, and the features' length."""
    config = _vision_config(folder)
    name, with_projection, (mean, std) = TOWERS[config.model_type]
    if output == "projection":
        if with_projection is None:
            raise UserError(f"folder {folder}: a {config.model_type} has no projection: take output=pooled")
        name = with_projection
    if output == "cls" and config.model_type == "siglip_vision_model":
        raise UserError(f"folder {folder}: SigLIP has no class token: take output=pooled or mean")
    kind = getattr(transformers, name)
    network = kind(config) if skips_weights() else pretrained("folder", folder, kind, lambda _: {"config": config})
    network.at_random = ()
    own = _preprocessing(folder)
    size = input_size or _side(own, config.image_size)
    if size % config.patch_size:
        raise UserError(f"folder {folder} has patches of {config.patch_size} px, and input_size {size} is no multiple")
    normalize = Normalize(own.get("image_mean", mean), own.get("image_std", std))
    return network, size, normalize, int(config.projection_dim if output == "projection" else config.hidden_size)


def _vision_config(folder: str) -> Any:
    """Return the config of the vision tower in a folder.

    Raises:
        UserError: If there is none.
    """
    try:
        with offline_if_no_network():
            config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(
            f"no model of transformers at {folder!r}, neither a folder with config.json nor on the Hub or in its cache "
            f"({first_line(error)}); give a folder with config.json and safetensors"
        ) from error
    whole, kind = config, config.model_type
    if getattr(whole, "vision_config", None) is not None:  # an image-text model: its image side
        config = whole.vision_config
        config.projection_dim = getattr(whole, "projection_dim", None) or getattr(config, "projection_dim", None)
    if config.model_type not in TOWERS:
        known = ", ".join(TOWERS)
        raise UserError(f"folder {folder} holds a {kind!r}, no vision tower that is known here; there are {known}")
    return config


def _preprocessing(folder: str) -> Mapping[str, Any]:
    """Return what preprocessor_config.json says, if there is one."""
    try:
        with offline_if_no_network():
            own, _ = transformers.ImageProcessingMixin.get_image_processor_dict(folder)
    except (OSError, ValueError):
        return {}
    return own


def _side(own: Mapping[str, Any], default: Any) -> int:
    """Return the side of the images that a tower is shown, from its preprocessing or its config."""
    for name in ("crop_size", "size"):
        value = own.get(name)
        value = value.get("height", value.get("shortest_edge")) if isinstance(value, Mapping) else value
        if isinstance(value, int) and (name != "crop_size" or own.get("do_center_crop", True)):
            return value
    return int(default)

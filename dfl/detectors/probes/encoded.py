"""What the probes share, features of a frozen encoder; and the plainest of them, logistic regression."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from dfl.detectors.fitted import FittedDetector, LogisticHead, Penalty
from dfl.detectors.stored import Stored
from dfl.networks import TIMM, About, Encoder
from dfl.networks.encoder import Output

#: What a probe looks through where nothing else is named.
CLIP = "vit_base_patch16_clip_224.openai"


class Probe(Stored, FittedDetector):
    """A fitted detector on the features of a frozen foundation model.

    Args:
        backbone: timm name; by default CLIP ViT-B/16, and none where there is a ``folder``.
        pretrained: Take pretrained weights.
        weights: Of ``backbone``: a local file, or a timm tag. None takes timm's default.
        timm_args: More arguments of ``timm.create_model``.
        folder: In place of ``backbone``: a vision tower of transformers, a folder or a name on the Hub, see `Encoder`.
        output: What the encoder gives of an image: ``pooled``, ``cls``, ``mean`` or ``projection``, see `Encoder`.
        store: Folder that keeps the features, for fit, validate and test (`dfl.features`): a second probe of the same
            encoder and images encodes nothing. None encodes each image every time.
        store_gb: Gigabytes that it may hold; what was not read for longest goes first.
        **kwargs: Of `Detector`; by default the size of images is the encoder's own.
    """

    places = (*FittedDetector.places, "store")
    kinds: ClassVar[dict[str, Any]] = {"timm_args": TIMM}
    fits_in = torch.float32

    def __init__(
        self,
        backbone: str | None = None,
        pretrained: bool = True,
        weights: str | None = None,
        timm_args: dict[str, Any] | None = None,
        folder: str | None = None,
        output: Output = "pooled",
        store: str | None = None,
        store_gb: float = 20.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if folder is None and backbone is None:
            backbone = CLIP
        self.hparams["backbone"] = backbone
        size = kwargs.get("input_size")
        encoder = Encoder(backbone, pretrained, weights, timm_args, folder, output, size)
        # registered under the names of its parts, which checkpoints have had since before there was an Encoder
        self.__dict__["encoder"] = encoder
        self.network, self.normalize, self.input_size = encoder.network, encoder.normalize, encoder.input_size
        self.channels_last = encoder.convolutional

    encoder: Encoder

    def stored_weights(self) -> Mapping[str, Tensor]:
        """Return the encoder's weights."""
        return self.network.state_dict(keep_vars=True)

    def stored_settings(self) -> str:
        """Return what else the encoder's features depend on."""
        return self.encoder.settings

    def features(self, image: Tensor) -> Tensor:
        """Return the encoder's features (N, D) float32."""
        return self.kept(image, self.encoder)


class LinearProbe(Probe):
    """Logistic regression on z-scored features.

    Features of a model that was never shown a fake tell fakes of unseen generators apart better than a network that was
    trained on those of one (Ojha et al., Towards Universal Fake Image Detectors, CVPR 2023).

    Args:
        backbone: timm name; by default CLIP ViT-B/16, and none where there is a ``folder``.
        penalty: Of the squared weights, relative to the sum of the losses; ``auto``: by cross-validation.
        **kwargs: Of `Probe`.
    """

    about = About("foundation models", "Ojha et al.", 2023)

    def __init__(self, backbone: str | None = None, *, penalty: Penalty = 1.0, **kwargs: Any) -> None:
        super().__init__(backbone=backbone, **kwargs)
        self.head = LogisticHead(self.encoder.dim, penalty)
        self.eval()

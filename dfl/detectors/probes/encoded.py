"""What the probes share: features of a frozen encoder."""

from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from dfl.detectors.fitted import FittedDetector
from dfl.errors import UserError
from dfl.features import FeatureStore
from dfl.networks import TIMM, Encoder
from dfl.networks.encoder import Output
from dfl.training.sharded import FullyShardStrategy

#: What a probe looks through where nothing else is named.
CLIP = "vit_base_patch16_clip_224.openai"


class Probe(FittedDetector):
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
        self._store: FeatureStore | None = None

    encoder: Encoder

    def setup(self, stage: str) -> None:
        """Open the store; not for predict, where a folder would fill with images that are seen once.

        Raises:
            UserError: If the strategy cuts weights among devices: their hash would be that of a part.
        """
        super().setup(stage)
        folder = self.hparams["store"]
        if folder and isinstance(self.trainer.strategy, FullyShardStrategy):
            raise UserError("model.store does not go with FullyShardStrategy, which cuts all weights: leave one out")
        self._store = None
        if folder and stage != "predict":
            weights, limit = partial(self.network.state_dict, keep_vars=True), 1e9 * self.hparams["store_gb"]
            self._store = FeatureStore(folder, weights, self.encoder.settings, limit)

    def teardown(self, stage: str) -> None:
        """Write what the store has not written yet."""
        super().teardown(stage)
        if self._store is not None:
            self._store.flush()

    def features(self, image: Tensor) -> Tensor:
        """Return the encoder's features (N, D) float32."""
        with torch.no_grad():
            if self._store is None:
                return self.encoder(image)
            return self._store(image, lambda unseen: [self.encoder(unseen)])[0]

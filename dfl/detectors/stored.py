"""Detectors that look at images through a frozen encoder, whose features may be kept on disk (`dfl.features`)."""

from collections.abc import Callable, Mapping

import pytorch_lightning as pl
import torch
from torch import Tensor

from dfl.errors import UserError
from dfl.features import FeatureStore
from dfl.training.sharded import FullyShardStrategy


class Stored(pl.LightningModule):
    """What a detector inherits, before `Detector`, to have the arguments ``store``, a folder, and ``store_gb``.

    ``store`` is one of its ``places``. It keeps the features for fit, validate and test; not for predict, where a
    folder would fill with images that are seen once. ``store_gb`` are the gigabytes that it may hold.
    """

    _store: FeatureStore | None = None

    def stored_weights(self) -> Mapping[str, Tensor]:
        """Return the weights of the encoder, by name."""
        raise NotImplementedError

    def stored_settings(self) -> str:
        """Return all else that its features depend on."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        """Open the store.

        Raises:
            UserError: If the strategy cuts weights among devices: their hash would be that of a part.
        """
        super().setup(stage)
        folder = self.hparams["store"]
        if folder and isinstance(self.trainer.strategy, FullyShardStrategy):
            raise UserError("model.store does not go with FullyShardStrategy, which cuts all weights: leave one out")
        self._store = None
        if folder and stage != "predict":
            limit = 1e9 * self.hparams["store_gb"]
            self._store = FeatureStore(folder, self.stored_weights, self.stored_settings(), limit)

    def teardown(self, stage: str) -> None:
        """Write what the store has not written yet."""
        super().teardown(stage)
        if self._store is not None:
            self._store.flush()

    @torch.no_grad()
    def kept(self, image: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the features (N, D) of images (N, 3, H, W): those that are there, else what it encodes."""
        return encode(image) if self._store is None else self._store(image, lambda unseen: [encode(unseen)])[0]

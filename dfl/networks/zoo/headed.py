"""What timm asks of a classifier that ends in a linear layer, here once."""

from abc import abstractmethod

from torch import Tensor, nn


class Headed(nn.Module):
    """A classifier that ends in a linear layer, by default on what `forward_features` gives, flat.

    A subclass sets ``num_features``, and ``head_hidden_size``, D, what the last layer gets; it calls
    `reset_classifier`.
    """

    #: Name of the last layer.
    last = "head"
    num_features: int
    head_hidden_size: int

    @abstractmethod
    def forward_features(self, x: Tensor) -> Tensor:
        """Map images or maps (N, C, H, W) to features (N, ...)."""

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.get_submodule(self.last)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new last layer in place; none for 0 classes."""
        self.num_classes = num_classes
        self.set_submodule(self.last, nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity())

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map features to outputs (N, num_classes), or to what the last layer gets (N, D)."""
        x = x.flatten(1)
        return x if pre_logits else self.get_classifier()(x)

    def forward(self, x: Tensor) -> Tensor:
        """Map images or maps (N, C, H, W) to outputs (N, num_classes)."""
        return self.forward_head(self.forward_features(x))

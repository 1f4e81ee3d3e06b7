"""What timm asks of a classifier: of one that is features and a linear layer, here once."""

from abc import abstractmethod

from torch import Tensor, nn


class Headed(nn.Module):
    """A classifier that ends in a linear layer ``head``, on what `forward_features` gives, flat.

    A subclass sets ``num_features`` and ``head_hidden_size``, D, and calls `reset_classifier`.
    """

    num_features: int

    @abstractmethod
    def forward_features(self, x: Tensor) -> Tensor:
        """Map maps (N, C, S, S) to features (N, ...) of D numbers."""

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new last layer in place; none for 0 classes."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map features to outputs (N, num_classes), or to what the last layer gets (N, D)."""
        x = x.flatten(1)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """Map maps (N, C, S, S) to outputs (N, num_classes)."""
        return self.forward_head(self.forward_features(x))

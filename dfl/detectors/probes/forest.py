"""A random forest on features that an autoencoder made short.

    features (N, D) -> z-score -> encoder -> (N, 64) -> forest -> probability of fake
                                     |
                                  decoder -> features again: what the encoder is trained for, without labels

Trees cut along axes, and hundreds of correlated features would give each tree few that matter; so an autoencoder is
trained first, within `fit`, to keep what the features have in common. The forest is scikit-learn's (Breiman, Random
Forests, Machine Learning 2001), held as tensors, so that a checkpoint needs no pickle.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor, nn

from dfl.detectors.fitted import Grown
from dfl.detectors.probes.encoded import Probe
from dfl.errors import UserError
from dfl.networks import About

#: Images of a step of the autoencoder.
BATCH = 256


class Forest(Grown):
    """Trees for two classes as tensors over all their nodes; a leaf is a node that is its own child.

    Its probabilities are scikit-learn's, to the last bit.

    Args:
        width: d, numbers of an image.
    """

    feature: Tensor
    threshold: Tensor
    left: Tensor
    right: Tensor
    value: Tensor
    root: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        for name, dtype in (
            *(("feature", torch.int32), ("threshold", torch.float64), ("left", torch.int32), ("right", torch.int32)),
            *(("value", torch.float64), ("root", torch.int32)),
        ):
            self.register_buffer(name, torch.zeros(0, dtype=dtype))

    @property
    def trees(self) -> int:
        """How many trees there are."""
        return len(self.root)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (N, d) float32 to the probability of fake (N,) float64; without trees it is a half."""
        if not self.trees:
            return features.new_full((len(features),), 0.5, dtype=torch.float64)
        node = self.root.expand(len(features), -1)
        while True:
            at = features.gather(1, self.feature[node].long())
            further = torch.where(at.double() <= self.threshold[node], self.left[node], self.right[node])
            if torch.equal(further, node):
                break
            node = further
        share = features.new_zeros(len(features), dtype=torch.float64)
        for column in self.value[node].unbind(1):  # one by one, as scikit-learn adds them up
            share += column
        return share / self.trees

    def fill(self, model: RandomForestClassifier) -> None:
        """Take the trees of a fitted forest of two classes."""
        parts: dict[str, list[np.ndarray]] = {name: [] for name, _ in self.named_buffers()}
        start = 0
        for tree in (one.tree_ for one in model.estimators_):
            own, is_leaf = np.arange(tree.node_count), tree.children_left < 0
            parts["root"].append(np.array([start]))
            parts["feature"].append(np.where(is_leaf, 0, tree.feature))
            parts["threshold"].append(tree.threshold)
            parts["left"].append(start + np.where(is_leaf, own, tree.children_left))
            parts["right"].append(start + np.where(is_leaf, own, tree.children_right))
            parts["value"].append(tree.value[:, 0, 1])
            start += tree.node_count
        for name, buffer in list(self.named_buffers()):
            setattr(self, name, torch.from_numpy(np.concatenate(parts[name])).to(buffer))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *words: Any) -> None:
        """Load trees; those in which a walk would not end at a leaf are refused.

        Raises:
            UserError: For them.
        """
        super()._load_from_state_dict(state_dict, prefix, *words)
        own = torch.arange(len(self.left), device=self.left.device, dtype=torch.int32)
        lengths = {len(getattr(self, name)) for name in ("feature", "threshold", "left", "right", "value")}
        is_leaf = (self.left == own) & (self.right == own) if len(lengths) == 1 else own < 0
        ends = is_leaf | ((self.left > own) & (self.right > own) & (self.left < len(own)) & (self.right < len(own)))
        inside = (self.root >= 0) & (self.root < len(own))
        known = (self.feature >= 0) & (self.feature < self.width)
        if len(lengths) > 1 or not (ends.all() and inside.all() and known.all()):
            raise UserError("its trees are not those of a forest: nodes are missing, or lead nowhere")


class Short(nn.Module):
    """An autoencoder's encoder, and a forest on what it gives.

    Args:
        features: D.
        dims: Numbers that the encoder leaves.
        trees: Of the forest.
        steps: Of the autoencoder's training.
        seed: Of autoencoder and forest.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: int, dims: int, trees: int, steps: int, seed: int) -> None:
        super().__init__()
        self.features, self.dims, self.trees, self.steps, self.seed = features, dims, trees, steps, seed
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        self.hidden = max(dims, features // 2)
        self.encoder = nn.Sequential(nn.Linear(features, self.hidden), nn.ReLU(), nn.Linear(self.hidden, dims))
        self.forest = Forest(dims)

    def encode(self, features: Tensor) -> Tensor:
        """Map features (N, D) to (N, dims) float32."""
        short: Tensor = self.encoder((features.float() - self.mean) / self.std)
        return short

    def forward(self, features: Tensor) -> Tensor:
        """Map features (N, D) to log-odds (N,) float32: half a tree more for each class keeps them finite."""
        share, half = self.forest(self.encode(features)), 0.5 / self.trees
        return ((share + half) / (1 - share + half)).log().float()

    def fit(self, features: Tensor, label: Tensor) -> None:
        """Train the autoencoder on features (n, D) float32, and the forest on what it gives and labels (n,).

        Raises:
            UserError: If there are fewer images than numbers to be left.
        """
        if len(features) < self.dims:
            raise UserError(f"model.dims={self.dims} numbers of {len(features)} training images: take fewer")
        home = self.mean.device
        self.cpu()
        mean, std = features.double().mean(0), features.double().std(0, correction=0)
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 0, std, 1.0))
        self._train_encoder(features)
        with torch.no_grad():
            short = torch.cat([self.encode(rows) for rows in features.split(BATCH)])
        model = RandomForestClassifier(self.trees, random_state=self.seed, n_jobs=-1)
        self.forest.fill(model.fit(short.numpy(), label.numpy()))
        self.to(home)

    @torch.enable_grad()
    def _train_encoder(self, features: Tensor) -> None:
        """Train encoder and decoder to give z-scores again; the same on every run."""
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
            torch.manual_seed(self.seed)
            wide, back = nn.Linear(self.dims, self.hidden), nn.Linear(self.hidden, self.features)
            decoder = nn.Sequential(wide, nn.ReLU(), back)
            for layer in self.encoder:
                if isinstance(layer, nn.Linear):
                    layer.reset_parameters()
            optimizer = torch.optim.Adam([*self.encoder.parameters(), *decoder.parameters()], 1e-3)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
            for _ in range(self.steps):
                rows = torch.randint(len(features), (min(BATCH, len(features)),))
                scores = (features[rows] - self.mean) / self.std
                loss = F.mse_loss(decoder(self.encoder(scores)), scores)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()


class ForestProbe(Probe):
    """A random forest on the features of a frozen foundation model, shortened by an autoencoder.

    Args:
        backbone: timm name; by default CLIP ViT-B/16, and none where there is a ``folder``.
        dims: Numbers that the autoencoder leaves of a feature.
        trees: Of the forest.
        steps: Of the autoencoder's training, 256 images each.
        seed: Of autoencoder and forest.
        **kwargs: Of `Probe`.
    """

    about = About("foundation models")

    def __init__(
        self,
        backbone: str | None = None,
        *,
        dims: int = 64,
        trees: int = 500,
        steps: int = 1000,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone=backbone, **kwargs)
        self.head = Short(self.encoder.dim, dims, trees, steps, seed)
        self.eval()

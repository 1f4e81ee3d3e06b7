"""The nearest training images decide: Ojha et al., Towards Universal Fake Image Detectors (CVPR 2023).

    features of all training images, of unit length -> a bank of reals, a bank of fakes
    image -> encoder -> the k nearest in each bank, by cosine -> mean of the fakes' cosines less that of the reals'

Nothing is fitted but the bank, so nothing can lean on what the training fakes happen to share. With k = 1 an image is
fake if its nearest fake is nearer than its nearest real one, as published. With more neighbours the k nearest of both
banks may vote, which leaves k + 1 different scores; the difference of means says the same more finely.
"""

from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfl.detectors.fitted import Grown
from dfl.detectors.probes.encoded import Probe
from dfl.errors import UserError
from dfl.networks import About

Rule = Literal["distance", "vote"]
#: Rows of the bank, and images, that are compared at once: 64 MiB.
ROWS, IMAGES = 16_384, 1_024


class Neighbours(Grown):
    """A bank of real and one of fake features, searched by cosine.

    Args:
        features: D.
        k: Neighbours.
        rule: ``distance`` or ``vote``, see `NearestNeighbour`.
        z_score: Bring each number of the features to mean 0 and standard deviation 1 over the bank, before all else.
        faiss: Search with FAISS.
    """

    mean: Tensor
    std: Tensor
    real: Tensor
    fake: Tensor

    def __init__(
        self, features: int, k: int = 1, rule: Rule = "distance", z_score: bool = False, faiss: bool = False
    ) -> None:
        super().__init__()
        self.k, self.rule, self.z_score, self.faiss = k, rule, z_score, faiss
        #: What a difference of cosines is worth in log-odds; a parameter, since DDP asks every network for one.
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        self.register_buffer("real", torch.zeros(0, features))
        self.register_buffer("fake", torch.zeros(0, features))

    def forward(self, features: Tensor) -> Tensor:
        """Map features (N, D) to scores (N,) float32, see `NearestNeighbour`; without a bank they are 0."""
        if not len(self.real) or not len(self.fake):
            return features.new_zeros(len(features), dtype=torch.float32)
        query = F.normalize((features.float() - self.mean) / self.std, dim=1)
        if torch.compiler.is_exporting():  # a graph is of any number of images, and has no loop over them
            return self.scale * self._score(query)
        return self.scale * torch.cat([self._score(part) for part in query.split(IMAGES)])

    def _score(self, query: Tensor) -> Tensor:
        real, fake = (self.nearest(query, bank) for bank in (self.real, self.fake))
        nearer = fake.mean(1) - real.mean(1)
        if self.rule == "distance":
            return nearer
        place = torch.cat([real, fake], 1).argsort(dim=1, descending=True, stable=True)[:, : self.k]
        share = (place >= self.k).float().mean(1)
        return 2 * share - 1 + nearer / (2 * self.k + 1)  # too little to change a vote

    def nearest(self, query: Tensor, bank: Tensor) -> Tensor:
        """Return the k greatest cosines (N, k), falling, between unit vectors (N, D) and those of a bank (M, D)."""
        if self.faiss:
            import faiss

            asked, kept = (np.ascontiguousarray(one.detach().cpu().numpy()) for one in (query, bank))
            found, _ = faiss.knn(asked, kept, self.k, metric=faiss.METRIC_INNER_PRODUCT)
            return torch.from_numpy(found).to(query)
        best = query[:, :0]  # len() would fix the number of images in a graph
        for part in bank.split(ROWS):
            cosines = query @ part.T
            found = cosines.amax(1, keepdim=True) if self.k == 1 else cosines.topk(min(self.k, len(part)), 1).values
            best = torch.cat([best, found], 1)
            best = best.topk(min(self.k, best.shape[1]), 1).values
        return best

    @torch.no_grad()
    def fit(self, features: Tensor, label: Tensor) -> None:
        """Take features (n, D) float32 and labels (n,) as the banks; the memory of the features is theirs afterwards.

        Raises:
            UserError: If a class has fewer images than vote.
        """
        fewest = min((int((label == value).sum()), name) for value, name in ((0, "real"), (1, "fake")))
        if fewest[0] < self.k:
            raise UserError(
                f"model.k={self.k} neighbours, and only {fewest[0]} {fewest[1]} training images: take fewer"
            )
        if self.z_score:
            mean = torch.stack([rows.double().sum(0) for rows in features.split(ROWS)]).sum(0) / len(features)
            squares = torch.stack([(rows.double() - mean).square().sum(0) for rows in features.split(ROWS)]).sum(0)
            std = (squares / len(features)).sqrt()
            self.mean.copy_(mean)
            self.std.copy_(torch.where(std > 0, std, 1.0))
        for rows in features.split(ROWS):
            rows.sub_(self.mean.to(rows)).div_(self.std.to(rows))
            F.normalize(rows, dim=1, out=rows)
        # reals change places with the fakes that stand in front, so that nothing is twice in memory
        reals = int((label == 0).sum())
        in_front, behind = (label[:reals] == 1).nonzero()[:, 0], reals + (label[reals:] == 0).nonzero()[:, 0]
        for fake, real in zip(in_front.split(ROWS), behind.split(ROWS), strict=True):
            features[fake], features[real] = features[real], features[fake]
        self.real, self.fake = (part.to(self.real.device) for part in features.tensor_split([reals]))


class NearestNeighbour(Probe):
    """Whether the nearest training images are real or fake, by cosine of their features.

    Scores are no calibrated log-odds: they lie between -2 and 2, and above 0 for fakes.

    Args:
        backbone: timm name; by default CLIP ViT-B/16, and none where there is a ``folder``.
        k: Neighbours.
        rule: ``distance``: the mean cosine of the k nearest fakes less that of the k nearest reals. ``vote``: twice the
            share of fakes among the k nearest of both, less 1, and as much of that difference as orders equal votes.
        z_score: Bring each number of the features to mean 0 and standard deviation 1 over the training images first;
            the paper does not.
        faiss: Search with FAISS (``pip install 'dfl[faiss]'``): the same neighbours.
        **kwargs: Of `Probe`.
    """

    about = About("foundation models", "Ojha et al.", 2023)

    def __init__(
        self,
        backbone: str | None = None,
        *,
        k: Literal[1, 3, 5, 9] = 1,
        rule: Rule = "distance",
        z_score: bool = False,
        faiss: bool = False,
        **kwargs: Any,
    ) -> None:
        if faiss and find_spec("faiss") is None:
            raise UserError("model.faiss needs FAISS: pip install 'dfl[faiss]'")
        super().__init__(backbone=backbone, **kwargs)
        self.head = Neighbours(self.encoder.dim, k, rule, z_score, faiss)
        self.eval()

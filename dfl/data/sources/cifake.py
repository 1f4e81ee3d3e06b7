"""CIFAKE (Bird and Lotfi, 2024): CIFAR-10 and its counterpart by Stable Diffusion 1.4, 32 px."""

from dfl.data.sources.base import TrainTest
from dfl.data.sources.generators import made_by
from dfl.data.sources.trees import Row, class_rows


class Cifake(TrainTest):
    """``{train,test}/{REAL,FAKE}/*.jpg``; ``val`` is taken out of ``train``."""

    get = "get it from kaggle.com/datasets/birdy654/cifake-real-and-ai-generated-synthetic-images, or set root"

    def rows(self, split: str) -> list[Row]:
        self.require(split)
        return class_rows(self, self.root / split, **made_by("sdv1.4", "synthesis"))

"""Several trained detectors as one, whose score combines theirs.

    image -> each member, with its own normalisation and size -> log-odds of fake, (N, M) -> mean, max or regression

Members are runs or checkpoints of any of dfl's detectors. The ensemble keeps their class names, hyper-parameters and
all of their weights, so its checkpoint is whole: their files are not needed again, nor is that of a frozen backbone.

``fit`` trains no member. It reads the validation images, which members were not trained on, fits the regression to
their log-odds there (``combine: logistic``), and chooses the threshold there.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfl.detectors.base import Detector
from dfl.detectors.fitted import Collected, FittedDetector, LogisticHead
from dfl.detectors.loading import load, own_classes, plain_arguments
from dfl.detectors.outputs import Outputs
from dfl.errors import UserError
from dfl.networks import About, without_weights
from dfl.runs import settings
from dfl.runs.find import stage
from dfl.runs.plain import Misfit, shown
from dfl.training.domains import domains

#: Most members of an ensemble.
MOST = 64
#: Longest text of a member's arguments.
LONGEST = 100_000
#: What is left out of a validation batch until the regression is fitted.
LARGE = ("image", "views", "mask")


class Members:
    """What a checkpoint may give as members: classes of dfl with plain arguments, no file and no code."""

    @staticmethod
    def from_file(value: Any) -> list[str]:
        """Return members as JSON of class and arguments: text, in which no parser of configs finds a class to build.

        Raises:
            Misfit: If one is anything else.
        """
        if not isinstance(value, list | tuple) or not 2 <= len(value) <= MOST:
            raise Misfit(f"are {shown(value)}, and must be a list of 2 to {MOST}")
        return [json.dumps(_spec(one)) for one in value]


class Ensemble(FittedDetector):
    """Trained detectors as one: the mean, the maximum, or a logistic regression of their log-odds.

    Args:
        members: Of each the name of a run (its best checkpoint), ``RUN/last`` or a file; or ``{path: FILE, weights:
            FILE}`` with what its checkpoint leaves out. In an ensemble's own checkpoint: class and arguments, as JSON.
        combine: ``mean`` or ``max`` of the log-odds, or ``logistic``, a regression of them that ``fit`` makes.
        smaller: What a member sees whose images are smaller than the largest member's: ``resize``, all of the image,
            antialiased; or ``crop``, its centre, at the same scale.
        penalty: Of the squared weights of ``logistic``, relative to the sum of the losses.
        **kwargs: Of `Detector`; by default the size of images is the largest of the members'.

    Raises:
        UserError: If a member is not there, cannot be opened, or is none of dfl's.
    """

    about = About("others")

    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    kinds: ClassVar[dict[str, Any]] = {"members": Members}

    def __init__(
        self,
        members: list[str | dict[str, Any]],
        combine: Literal["mean", "max", "logistic"] = "mean",
        smaller: Literal["resize", "crop"] = "resize",
        penalty: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 2 <= len(members) <= MOST:
            raise UserError(f"an ensemble has 2 to {MOST} members, not {len(members)}: give --model.members '[A, B]'")
        built = [_opened(one) for one in members]
        self.hparams["members"] = [
            json.dumps(
                {"class_path": type(one).__name__, "init_args": plain_arguments(type(one), dict(one.hparams))[0]}
            )
            for one in built
        ]
        self.combine, self.smaller = combine, smaller
        self.input_size = kwargs.get("input_size") or max(one.input_size for one in built)
        self.members = nn.ModuleList(built).requires_grad_(False)
        self.head = LogisticHead(len(built), penalty) if combine == "logistic" else None
        self._held: list[tuple[dict[str, Any], int]] = []
        self.eval()

    def features(self, image: Tensor) -> Tensor:
        """Return the log-odds of each member, (N, M) float32."""
        return self._asked(lambda member: member(self._seen(image, member.input_size)))

    def outputs(self, batch: dict[str, Any]) -> Outputs:
        """Return ``logit`` (N,) and ``feature`` (N, M), the members' log-odds; members may read more than the image."""
        feature = batch.get("log_odds")
        if feature is None:
            image = batch["image"]
            feature = self._asked(lambda one: one.outputs(batch | {"image": self._seen(image, one.input_size)}))
        return {"logit": self.score(feature), "feature": feature}

    @torch.no_grad()
    def _asked(self, ask: Callable[[Any], Any]) -> Tensor:
        return torch.stack([ask(member)["logit"].float() for member in self.members], 1)

    def _seen(self, image: Tensor, size: int) -> Tensor:
        """Return images (N, 3, size, size) of squares of another size."""
        side = image.shape[-1]
        if side == size:
            return image
        if self.smaller == "crop" and size < side:
            start = (side - size) // 2
            return image[..., start : start + size, start : start + size]
        return F.interpolate(image, (size, size), mode="bilinear", antialias=True)

    def score(self, features: Tensor) -> Tensor:
        """Map log-odds of members (N, M) to those of the ensemble (N,)."""
        if self.head is not None:
            return self.head(features)
        return features.mean(1) if self.combine == "mean" else features.max(1).values

    def fit(self, features: Tensor, label: Tensor) -> None:
        """Fit the regression, if there is one."""
        if self.head is not None:
            self.head.fit(features, label)

    # the steps of `fit`: validation is its pass

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:  # type: ignore[override]
        """Go to validation: members know the training images too well to be weighed by them."""
        self.trainer.should_stop = True

    def on_validation_epoch_start(self) -> None:
        """Make the metrics, and begin to collect."""
        super().on_validation_epoch_start()
        self._held = []

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Measure a batch, or collect it where there is something to fit first."""
        if self.head is None or self.trainer.state.fn != "fit" or self.trainer.sanity_checking:
            super().validation_step(batch, batch_idx, dataloader_idx)
            return
        held = {key: value for key, value in batch.items() if key not in LARGE}
        self._held.append((held | {"log_odds": self.outputs(batch)["feature"]}, dataloader_idx))

    def on_validation_epoch_end(self) -> None:
        """Fit to the images of all domains, then measure them."""
        if self.head is not None and self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            tables = [Collected() for _ in domains(self.trainer, "val")]
            for batch, domain in self._held:
                tables[domain].add(batch["index"], batch["label"], batch["log_odds"])
            parts = [table.compute(self.device) for table in tables]
            self.fit_on_all_ranks(*(torch.cat(part) for part in zip(*parts, strict=True)))
            for i, (batch, domain) in enumerate(self._held):
                super().validation_step(batch, i, domain)
            self._held = []
        super().on_validation_epoch_end()


def _opened(member: str | Mapping[str, Any]) -> Detector:
    """Return a member: of the user's word for a checkpoint, or of class and arguments, whose weights come later."""
    if "path" not in member if isinstance(member, Mapping) else member.startswith("{"):
        try:
            spec = _spec(member)
        except Misfit as error:
            raise UserError(f"a member of an ensemble {error}; name a run or a file") from error
        with without_weights():
            one = own_classes()[spec["class_path"]](**spec["init_args"])
    else:
        words = {"path": member} if isinstance(member, str) else dict(member)
        path = stage(str(words.pop("path")), Path(), "--model.members")
        one = load(path, **_places_of_run(path) | words)
        if why := _unfit(one):
            raise UserError(f"{path} cannot be a member: {why}")
        for module in one.modules():
            module.at_random = ()  # type: ignore[assignment]
    one.threshold.nan_to_num_(0.5)  # of no use here, and a checkpoint holds no NaN
    return one


def _places_of_run(path: Path) -> dict[str, Any]:
    """Return where the frozen weights of a run of the user's own lie, as its settings say."""
    model = (settings.read(path.parent) or {}).get("model") or {}
    kind = own_classes().get(str(model.get("class_path")).rpartition(".")[2])
    names = (*kind.places, "pretrained") if kind is not None else ()
    return {name: value for name, value in (model.get("init_args") or {}).items() if name in names}


def _unfit(member: Detector) -> str | None:
    """Return why an ensemble could not be built again from its own checkpoint with a member."""
    kind, classes = type(member), _classes()
    if classes.get(kind.__name__) is not kind:
        return f"{kind.__name__} is none of {', '.join(classes)}"
    try:
        named = [name for name in kind.shaping if name in plain_arguments(kind, dict(member.hparams))[1]]
    except Misfit as error:
        return f"its hyper-parameters {error}"
    return f"its network is that of {' and '.join(named)}, which a checkpoint cannot name" if named else None


def _classes() -> dict[str, type[Detector]]:
    return {name: kind for name, kind in own_classes().items() if kind is not Ensemble}


def _spec(value: Any) -> dict[str, Any]:
    """Return class and arguments of a member, if they are those of one of dfl's detectors.

    Raises:
        Misfit: If they are not.
    """
    if isinstance(value, str) and value.startswith("{") and len(value) < LONGEST:
        with suppress(ValueError):
            value = json.loads(value)
    name = value.get("class_path") if isinstance(value, Mapping) else None
    classes = _classes()
    if not isinstance(name, str) or name not in classes:
        raise Misfit(f"is {shown(value if name is None else name)}, and it must be one of {', '.join(classes)}")
    init_args, places = plain_arguments(classes[name], value.get("init_args") or {})
    if places:
        raise Misfit(f"gives {' and '.join(places)} of {name}, which a file cannot")
    return {"class_path": name, "init_args": init_args}

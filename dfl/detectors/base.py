"""What every detector shares: steps, per-domain metrics, optimizers, and what a checkpoint holds.

A method writes three things: ``__init__`` builds the networks, ``forward`` maps images to outputs, ``loss`` maps
outputs and a batch to named losses. Everything else is here, once.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import Any, ClassVar

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from pytorch_lightning.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import Tensor, nn

import dfl
from dfl.detectors.measured import Measured
from dfl.detectors.outputs import Outputs, checked, shape_of
from dfl.distributed import is_sharded
from dfl.errors import UserError
from dfl.metrics import inside
from dfl.metrics.measures import TEXT_OUTPUTS
from dfl.metrics.verdicts import Verdicts
from dfl.networks import About, Normalize
from dfl.runs.plain import Misfit, arguments, parameters
from dfl.runs.weights_hash import WeightsHash
from dfl.training import SAM
from dfl.training.domains import domains, settle
from dfl.training.optimizers import WarmupCosine, total_steps

Losses = dict[str, Tensor]
#: Arguments that a checkpoint does not hold as they are: callables, and modules, whose class notes what they are.
NOT_PLAIN = ("optimizer", "scheduler", "criterion")


def class_path(kind: type) -> str:
    """Return the path by which a checkpoint names a class; ours may move among the files of ``dfl.detectors``."""
    home = "dfl.detectors" if kind.__module__.startswith("dfl.detectors.") else kind.__module__
    return f"{home}.{kind.__qualname__}"


class Detector(Measured, ABC):
    """A detector of fake images.

    A subclass hands on what it does not name itself: ``def __init__(self, mine: int = 3, **kwargs)``.

    Args:
        input_size: Side of the square images in pixels; by default that of the class.
        optimizer: Makes the optimizer from the trainable parameters.
        scheduler: Makes the learning-rate scheduler from the optimizer; stepped after each epoch, ``WarmupCosine``
            after each step.
    """

    #: What it is grouped with in ``dfl list``, and its paper.
    about: ClassVar[About | None] = None
    #: Side of the square images that the network wants, in pixels, and its normalisation of values in [0, 1].
    input_size: int = 224
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    #: Convolutional networks run faster with channels last.
    channels_last: bool = False
    #: Whether it wants every training image once, in whatever order, and no epochs.
    one_pass: ClassVar[bool] = False
    #: Arguments that name files, folders or models of a hub: the user gives them, a checkpoint cannot.
    places: ClassVar[tuple[str, ...]] = ("weights", "folder")
    #: Those of them that frozen weights come from.
    bases: ClassVar[tuple[str, ...]] = ("weights", "folder")
    #: Those of them that shapes of the network follow from.
    shaping: ClassVar[tuple[str, ...]] = ("folder",)
    #: What a checkpoint may give for arguments that are dictionaries: keys, each with its kind (`dfl.runs.plain`).
    kinds: ClassVar[dict[str, Any]] = {}
    #: Opens a shared folder or a repository of the hub; `dfl.detectors.loading`, which knows all classes, sets it.
    from_pretrained: ClassVar[Any]

    def __init__(
        self,
        input_size: int | None = None,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=1e-4),
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        names = [name for name in parameters(type(self)) if name not in NOT_PLAIN]
        self.save_hyperparameters(*names, ignore=NOT_PLAIN)
        if input_size is not None:
            if input_size < 1:
                raise UserError(f"model.input_size is {input_size}: it must be at least 1 pixel")
            self.input_size = input_size
        self.optimizer, self.scheduler = optimizer, scheduler
        #: First layer of the network; a class that learns its mean and std later sets another one.
        self.normalize = Normalize(self.mean, self.std)
        #: Losses that have parameters, such as a center; counted apart from the network.
        self.criterion: nn.Module | None = None
        #: Named losses of the newest training step.
        self.losses: Losses = {}
        self._weights_hash = WeightsHash()

    def merged(self) -> "Detector":
        """Return a detector of the same outputs with nothing left to merge, such as LoRA; itself where nothing is."""
        return self

    @abstractmethod
    def forward(self, image: Tensor) -> Outputs:
        """Map images (N, 3, H, W) in [0, 1] to outputs; the network begins with ``self.normalize``."""

    @abstractmethod
    def loss(self, out: Any, batch: Mapping[str, Any]) -> Losses:
        """Return the total under ``loss`` and its parts under their names, each a scalar.

        Args:
            out: Of `outputs`.
            batch: With labels, see `dfl.data.batch.Batch`.
        """

    def observe(self, sample: Callable[[int], Tensor], counts: Callable[..., dict[Any, int]]) -> None:
        """Look at the training data, once, before the first step; a resumed run's weights come after it.

        Args:
            sample: Returns n training images, always the same: (n, 3, H, W) in [0, 1].
            counts: Returns how many training images each id of a column has, see `DataModule.counts`.
        """
        if getattr(self, "supervision", "label") == "mask" and not counts("mask", label=1)[1]:
            warnings.warn(
                "no fake of the training data has a mask, so supervision: mask learns from real images alone; "
                "take data with masks, or supervision: label",
                stacklevel=2,
            )

    # steps

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the loss of a batch; log every part."""
        losses = self.loss(checked(self.outputs(batch), len(batch["label"]), self), batch)
        if not isinstance(losses, dict) or not isinstance(losses.get("loss"), Tensor) or losses["loss"].ndim:
            raise UserError(
                f"{type(self).__name__}.loss must return a dict with the total, a scalar tensor, under 'loss', and got "
                f"{shape_of(losses)}"
            )
        self.log_losses(losses, len(batch["label"]))
        return losses["loss"]

    def log_losses(self, losses: Losses, batch_size: int) -> None:
        """Log every part; a training step of its own, with manual optimization, calls this once."""
        self.losses = {name: value.detach() for name, value in losses.items()}
        self.log_dict({f"train/{name}": value for name, value in self.losses.items()}, batch_size=batch_size)

    def predict_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Return ``score`` and ``logit`` (N,) float32, ``index`` (N,), ``path`` and the name of the domain.

        Detectors that give ``mask_logit`` also give ``map`` (N, h, w) float32, the probability of manipulation; those
        that give ``class_logit`` the probabilities ``class_prob`` (N, K) float32 and ``class_names``; and those that
        write, ``text`` and ``generated_text``. Where images were padded ``extent`` (N, 2) says what of the square, and
        so of the map, they fill.
        """
        out: Any = self.over_views(batch)[1]
        logit = out["logit"].float()
        domain = domains(self.trainer, "predict")[dataloader_idx]
        answers = {"score": logit.sigmoid(), "logit": logit, "index": batch["index"]}
        answers |= {"path": batch["path"], "domain": domain}
        if "mask_logit" in out:
            answers["map"] = out["mask_logit"].float().sigmoid()
        if "extent" in batch:
            answers["extent"] = batch["extent"]
        if "class_logit" in out:
            answers |= {"class_prob": out["class_logit"].float().softmax(1), "class_names": self.class_names}
        return answers | {name: out[name] for name in TEXT_OUTPUTS if name in out}

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Turn uint8 images into floats in [0, 1], on the device; padding gets the mean colour, which is 0 inside."""
        image = batch["image"]
        if not image.is_floating_point():
            layout = torch.channels_last if self.channels_last else torch.contiguous_format
            image = image.to(torch.float32, memory_format=layout).div_(255)
            if (shown := inside(batch)) is not None:
                image = image.where(shown[:, None], self.normalize.mean)
            batch["image"] = image
        return batch

    def on_train_epoch_end(self) -> None:
        """Settle which images could not be read."""
        settle(self.trainer, "train")

    # optimization

    def configure_optimizers(self) -> Any:
        """Build the optimizer over the trainable parameters, fused where torch has it, and the scheduler."""
        optimizer = _built("model.optimizer", self.optimizer, [p for p in self.parameters() if p.requires_grad])
        sharded = is_sharded(self)  # torch fuses steps of slices for Adam alone
        for group in optimizer.param_groups:
            if group.get("fused", False) is None and not group.get("foreach") and not sharded:
                group["fused"] = True
        if isinstance(optimizer, SAM):
            if self._trainer is not None and self._trainer.accumulate_grad_batches != 1:
                raise UserError("SAM steps after every batch: set trainer.accumulate_grad_batches to 1")
            optimizer.prepare(self)
        if self.scheduler is None:
            return optimizer
        scheduler = _built("model.scheduler", self.scheduler, optimizer)
        config = {"scheduler": scheduler}
        if isinstance(scheduler, ReduceLROnPlateau):
            config["monitor"] = scheduler.monitor
        elif isinstance(scheduler, WarmupCosine):
            scheduler.prepare(total_steps(self.trainer))
            config["interval"] = "step"
        return {"optimizer": optimizer, "lr_scheduler": config}

    def setup(self, stage: str) -> None:
        """Lay the weights out as the network runs fastest.

        Raises:
            UserError: If the strategy keeps the weights in its own way: checkpoints would not be those that we promise.
        """
        strategy = None if self._trainer is None else self.trainer.strategy
        if isinstance(strategy, FSDPStrategy | DeepSpeedStrategy | ModelParallelStrategy):
            raise UserError(
                f"{type(strategy).__name__} has checkpoints of its own kind, from which dfl could not go on: to shard "
                "a network over GPUs take --config trainer/fsdp.yaml, and else trainer/ddp.yaml"
            )
        if self.channels_last:
            self.to(memory_format=torch.channels_last)

    # checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds this detector; leave out frozen weights that came from a named file."""
        mean, std = (value.flatten().tolist() for value in (self.normalize.mean, self.normalize.std))
        checkpoint["dfl"] = {
            "version": dfl.__version__,
            "class_path": class_path(type(self)),
            "input": {"size": self.input_size, "mean": mean, "std": std},
            "threshold": float(self.threshold),
        }
        if self.verdicts is not None:
            checkpoint["dfl"]["verdicts"] = self.verdicts.plain()
        run = getattr(self._trainer, "run_config", None)
        if run is not None:
            checkpoint["dfl"]["run"] = {"config": run}
        if left_out := self._named_weights():
            about = {"name": self._backbone_name(), "sha256": self._hash(left_out), "keys": left_out}
            checkpoint["dfl"]["backbone"] = about
            for key in list(checkpoint["state_dict"]):
                if not set(accumulate(key.split("."), "{}.{}".format)).isdisjoint(left_out):  # what unpacks 4 bits too
                    del checkpoint["state_dict"][key]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take what its validation said, and put back the frozen weights that it left out, if they are the same ones.

        Raises:
            UserError: If this backbone is not the one that was trained on.
        """
        about = checkpoint.get("dfl", {})
        self.verdicts = verdicts_of(about)
        backbone = about.get("backbone")
        if backbone is None:
            return
        own = self.state_dict()
        absent = [k for k in backbone["keys"] if k not in own]
        if absent or self._hash(backbone["keys"]) != backbone["sha256"]:
            raise UserError(
                f"the checkpoint holds what was trained on top of {backbone['name']} (sha256 "
                f"{backbone['sha256'][:12]}), and this backbone is another one ({self._backbone_name()}); "
                "give the same weights"
            )
        checkpoint["state_dict"].update({k: own[k] for k in backbone["keys"]})

    def _named_weights(self) -> list[str]:
        """Return the names of frozen parameters whose values came from a file or a hub, so need no second copy."""
        if not any(self.hparams.get(name) for name in ("pretrained", "weights", "folder")):
            return []
        at_random = tuple(f"network.{name}" for name in getattr(getattr(self, "network", None), "at_random", ()))
        return [n for n, p in self.named_parameters() if not p.requires_grad and not n.startswith(at_random)]

    def _backbone_name(self) -> str:
        if self.hparams.get("folder"):
            return str(self.hparams["folder"])
        name = self.hparams.get("backbone", type(self).__name__)
        return f"{name} with weights {self.hparams.get('weights') or 'of timm'}"

    def _hash(self, keys: list[str]) -> str:
        own = self.state_dict()
        return self._weights_hash({key: own[key] for key in keys})


def verdicts_of(about: Mapping[str, Any]) -> Verdicts | None:
    """Return what the validation of a checkpoint said of scores; None of one that holds no such numbers.

    Args:
        about: What the checkpoint says of its detector.

    Raises:
        Misfit: If it holds anything else.
    """
    if about.get("verdicts") is None:
        return None
    try:
        return Verdicts(**arguments(Verdicts, about["verdicts"], {}))
    except (Misfit, TypeError, ValueError) as error:
        raise Misfit(
            f"its numbers of verdicts {'are not complete' if isinstance(error, TypeError) else error}"
        ) from None


def _built(flag: str, make: Callable[[Any], Any], of: Any) -> Any:
    """Return what a callable of the user's settings makes; it sees their values only now."""
    try:
        return make(of)
    except (ValueError, TypeError) as error:
        raise UserError(f"{flag}: {error}") from error

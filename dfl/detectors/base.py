"""What every detector shares: steps, per-domain metrics, optimizers, and what a checkpoint holds.

A method writes three things: ``__init__`` builds the networks, ``forward`` maps images to outputs, ``loss`` maps
outputs and a batch to named losses. Everything else is here, once.
"""

import hashlib
import inspect
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc
import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from torch import Tensor, nn

import dfl
from dfl.errors import UserError
from dfl.metrics import Detection, Localization, balanced_draws_ap, choose_threshold, fairness, mean_over_domains
from dfl.metrics.localization import Protocol
from dfl.training import SAM
from dfl.training.optimizers import WarmupCosine

Losses = dict[str, Tensor]


class Detector(pl.LightningModule, ABC):
    """A detector of fake images.

    Args:
        optimizer: Makes the optimizer from the trainable parameters.
        scheduler: Makes the learning-rate scheduler from the optimizer; stepped after each epoch, ``WarmupCosine``
            after each step.
    """

    #: Side of the square images the network wants, in pixels, and the normalisation of values in [0, 1].
    input_size: int = 224
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    #: Convolutional networks run faster with channels last.
    channels_last: bool = False
    #: Whose localization metrics are taken of detectors that give ``mask_logit``.
    protocol: Protocol = "dfl"

    def __init__(
        self,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=1e-4),
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        # what the class itself takes; a parent's arguments that it fixes are not its own
        parameters = inspect.signature(type(self)).parameters.values()
        open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
        names = () if open_ended else tuple(p.name for p in parameters if p.name not in ("optimizer", "scheduler"))
        self.save_hyperparameters(*names, ignore=["optimizer", "scheduler"])
        self.optimizer, self.scheduler = optimizer, scheduler
        #: Losses that have parameters, such as a center; counted apart from the network.
        self.criterion: nn.Module | None = None
        #: Named losses of the newest training step.
        self.losses: Losses = {}
        #: Metrics by split and domain; they exist while a stage runs.
        self.metrics: dict[str, dict[str, Detection]] = {}
        #: The same of maps, for detectors that give ``mask_logit`` and images with masks; empty otherwise.
        self.maps: dict[str, dict[str, Localization]] = {}
        #: Values by split, domain (and ``mean``) and metric, of the last evaluation.
        self.results: dict[str, dict[str, dict[str, float]]] = {}
        self.threshold: Tensor
        #: Verdict is fake at this probability and above; chosen on validation, NaN before.
        self.register_buffer("threshold", torch.tensor(float("nan")))

    @abstractmethod
    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Map normalised images (N, 3, H, W) to outputs.

        Returns:
            ``logit`` (N,), the log-odds of fake, and where the method has them ``mask_logit`` (N, h, w),
            ``feature`` (N, D), ``class_logit`` (N, K), ``logits`` (N, K).
        """

    @abstractmethod
    def loss(self, out: dict[str, Tensor], batch: Mapping[str, Any]) -> Losses:
        """Return the total under ``loss`` and its parts under their names, each a scalar."""

    # steps

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the loss of a batch; log every part."""
        losses = self.loss(self(batch["image"]), batch)
        self.log_losses(losses, len(batch["image"]))
        return losses["loss"]

    def log_losses(self, losses: Losses, batch_size: int) -> None:
        """Log every part; a training step of its own calls this once."""
        self.losses = {name: value.detach() for name, value in losses.items()}
        self.log_dict({f"train/{name}": value for name, value in self.losses.items()}, batch_size=batch_size)

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Score a batch of a validation domain."""
        self._evaluate("val", batch, dataloader_idx)

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Score a batch of a test domain."""
        self._evaluate("test", batch, dataloader_idx)

    def predict_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Return ``score`` (N,) float32, ``index`` (N,), ``path`` and the name of the domain.

        Detectors that give ``mask_logit`` also give ``map`` (N, h, w) float32, the probability of manipulation.
        """
        out = self.answer(batch)
        score = out["logit"].float().sigmoid()
        domain = self._domains("predict")[dataloader_idx]
        said = {"score": score, "index": batch["index"], "path": batch["path"], "domain": domain}
        return said | ({"map": out["mask_logit"].float().sigmoid()} if "mask_logit" in out else {})

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Turn uint8 images into normalised floats, on the device."""
        batch["image"] = self.normalise(batch["image"])
        return batch

    def normalise(self, image: Tensor) -> Tensor:
        """Return uint8 images (N, 3, H, W) as float32, less ``mean``, over ``std``; floats pass as they are."""
        if image.is_floating_point():
            return image
        mean = torch.tensor(self.mean, device=image.device).view(1, 3, 1, 1) * 255
        std = torch.tensor(self.std, device=image.device).view(1, 3, 1, 1) * 255
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return image.to(torch.float32, memory_format=layout).sub_(mean).div_(std)

    # evaluation

    def answer(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the outputs that evaluation and predict read, of a batch; a detector may ask more of it than images.

        Beside what ``forward`` gives: ``forced_mask_logit`` (N, h, w), the map where the answer was given, and
        ``text``, a list of N strings.
        """
        return self(batch["image"])

    def on_validation_epoch_start(self) -> None:
        """Make a metric for each validation domain."""
        self._make_metrics("val")

    def on_test_epoch_start(self) -> None:
        """Make a metric for each test domain."""
        self._make_metrics("test")

    def on_validation_epoch_end(self) -> None:
        """Choose the threshold, then log every domain's metrics and their mean."""
        rows = [metric.rows() for metric in self.metrics["val"].values()]
        score, label = (torch.cat([r[k] for r in rows]) for k in ("score", "label"))
        self.threshold.copy_(choose_threshold(score, label))
        self._finish("val")
        auroc = self.results["val"]["mean"]["auroc"]
        if auroc < 0.4 and not self.trainer.sanity_checking:
            warnings.warn(
                f"validation AUROC is {auroc:.3f}, under 0.4: the scores are upside down; look for inverted labels "
                "(in dfl 0 is real and 1 is fake)",
                stacklevel=2,
            )

    def on_test_epoch_end(self) -> None:
        """Log every domain's metrics and their mean."""
        self._finish("test")

    def _make_metrics(self, split: str) -> None:
        domains = self._domains(split)
        self.metrics[split] = {domain: Detection(name=domain).to(self.device) for domain in domains}
        self.maps[split] = {d: Localization(self.protocol, name=d).to(self.device) for d in domains}

    def _domains(self, split: str) -> list[str]:
        """Return the domain names, from the data module, or numbers where loaders came without one."""
        data = getattr(self.trainer, "datamodule", None)
        if data is not None:
            return list(data.domains(split))
        loaders = {"val": self.trainer.val_dataloaders, "test": self.trainer.test_dataloaders}.get(split)
        return [str(i) for i in range(len(loaders) if isinstance(loaders, list) else 1)]

    def _evaluate(self, split: str, batch: dict[str, Any], dataloader_idx: int) -> None:
        out = self.answer(batch)
        score = out["logit"].float().sigmoid()  # bf16 scores tie, and AUROC falls
        domain = self._domains(split)[dataloader_idx]
        self.metrics[split][domain].update(score, batch["label"], batch["index"], batch["video"], batch.get("group"))
        if "mask_logit" in out and "mask" in batch:
            known = batch["index"].where(batch["has_mask"], -1)
            self.maps[split][domain].update(out["mask_logit"].float().sigmoid(), batch["mask"], batch["label"], known)

    def on_train_start(self) -> None:
        """Say so if masks are to be learned and no fake has one."""
        table = getattr(getattr(self.trainer, "datamodule", None), "sets", {}).get("train", {}).get("train")
        if getattr(self, "supervision", "label") != "mask" or table is None:
            return
        rows = table.table.filter(pc.equal(table.table["label"], 1))
        masked = pc.or_(pc.not_equal(rows["mask"], ""), pc.match_substring(rows["mask_rule"].cast("string"), "all"))
        if not pc.any(masked).as_py():
            warnings.warn(
                "no fake of the training data has a mask, so supervision: mask learns from real images alone; "
                "take data with masks, or supervision: label",
                stacklevel=2,
            )

    def on_train_epoch_end(self) -> None:
        """Settle which images could not be read."""
        self._settle("train")

    def _settle(self, split: str) -> None:
        data = getattr(self.trainer, "datamodule", None)
        if data is not None and hasattr(data, "settle"):
            data.settle(split)

    def _finish(self, split: str) -> None:
        self._settle(split)
        results: dict[str, dict[str, float]] = {}
        for domain, metric in self.metrics[split].items():
            metric.threshold = float(self.threshold)
            results[domain] = {k: float(v) for k, v in metric.compute().items()} | self._map_results(split, domain)
            if split == "test":
                results[domain] |= fairness.flat(self.compare_groups(domain))
        results["mean"] = mean_over_domains(list(results.values()))
        self.results[split] = results
        flat = {f"{split}/{d}/{k}": v for d, r in results.items() for k, v in r.items()}
        self.log_dict(flat, rank_zero_only=False, sync_dist=False)

    def compare_groups(self, domain: str) -> dict[str, fairness.GroupFairness]:
        """Return the comparison of groups in a test domain by attribute; empty where no image has a group."""
        names = getattr(getattr(self.trainer, "datamodule", None), "vocab", {}).get("group", {})
        return fairness.compare(self.metrics["test"][domain].rows(), names, float(self.threshold), domain)

    def _map_results(self, split: str, domain: str) -> dict[str, float]:
        """Return the localization metrics of a domain as ``mask_*``; none where no map met a mask, on any rank."""
        maps = self.maps.get(split, {}).get(domain)
        if maps is None or not len(maps.rows()["index"]):
            return {}
        found = {f"mask_{k}": float(v) for k, v in maps.compute().items()}
        if self.protocol == "dolos":  # detection as it measures it, next to the plain average precision
            rows = self.metrics[split][domain].rows()
            found["ap_draws"] = float(balanced_draws_ap(rows["score"], rows["label"])[0])
        return found

    # optimization

    def configure_optimizers(self) -> Any:
        """Build the optimizer over the trainable parameters, fused where torch has it, and the scheduler."""
        optimizer = self.optimizer([p for p in self.parameters() if p.requires_grad])
        for group in optimizer.param_groups:
            if group.get("fused", False) is None and not group.get("foreach"):
                group["fused"] = True
        if isinstance(optimizer, SAM):
            if self._trainer is not None and self._trainer.accumulate_grad_batches != 1:
                raise UserError("SAM steps after every batch: set trainer.accumulate_grad_batches to 1")
            optimizer.prepare(self)
        if self.scheduler is None:
            return optimizer
        scheduler = self.scheduler(optimizer)
        if isinstance(scheduler, ReduceLROnPlateau):
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": scheduler.monitor}}
        if not isinstance(scheduler, WarmupCosine):
            return {"optimizer": optimizer, "lr_scheduler": scheduler}
        scheduler.prepare(self._total_steps())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _total_steps(self) -> int:
        """Return the optimizer steps of the whole run.

        Lightning's own estimate would make the loader's iterator before it knows where a resumed run is.
        """
        data = getattr(self.trainer, "datamodule", None)
        if data is None or not hasattr(data, "train_steps"):
            return int(self.trainer.estimated_stepping_batches)
        epochs, most = self.trainer.max_epochs, self.trainer.max_steps
        if epochs is None or epochs < 0:
            if most <= 0:
                raise UserError("WarmupCosine needs the length of the run: set trainer.max_epochs or trainer.max_steps")
            return most
        steps = math.ceil(data.train_steps() / self.trainer.accumulate_grad_batches) * epochs
        return min(steps, most) if most > 0 else steps

    def setup(self, stage: str) -> None:
        """Lay the weights out as the network runs fastest."""
        if self.channels_last:
            self.to(memory_format=torch.channels_last)

    # checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds this detector; leave out frozen weights that came from a named file."""
        checkpoint["dfl"] = {
            "version": dfl.__version__,
            "class_path": f"{type(self).__module__}.{type(self).__qualname__}",
            "input": {"size": self.input_size, "mean": list(self.mean), "std": list(self.std)},
            "threshold": float(self.threshold),
        }
        run = getattr(self._trainer, "run_config", None)
        if run is not None:
            checkpoint["dfl"]["run"] = {"config": run}
        if kept_out := self._named_weights():
            checkpoint["dfl"]["backbone"] = {
                "name": self._backbone_name(),
                "sha256": self._hash(kept_out),
                "keys": kept_out,
            }
            for key in kept_out:
                checkpoint["state_dict"].pop(key, None)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put back the frozen weights that the checkpoint left out, if they are the same ones.

        Raises:
            UserError: If this backbone is not the one that was trained on.
        """
        backbone = checkpoint.get("dfl", {}).get("backbone")
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
        if not (self.hparams.get("pretrained") or self.hparams.get("weights")):
            return []
        at_random = tuple(f"network.{name}" for name in getattr(getattr(self, "network", None), "at_random", ()))
        return [n for n, p in self.named_parameters() if not p.requires_grad and not n.startswith(at_random or ("\0",))]

    def _backbone_name(self) -> str:
        name = self.hparams.get("backbone", type(self).__name__)
        return f"{name} with weights {self.hparams.get('weights') or 'of timm'}"

    def _hash(self, keys: list[str]) -> str:
        own, digest = self.state_dict(), hashlib.sha256()
        for key in keys:
            digest.update(key.encode())
            digest.update(own[key].detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()

"""Fully sharded data parallelism, for a network that is too large for one GPU.

Each rank holds a slice of every weight, of its gradient and of its optimizer's moments (ZeRO-3, Rajbhandari et al.
2020; torch's ``fully_shard``, also called FSDP2). A layer is gathered when its turn comes, and freed after it:

    rank 0   W[:n/2]  --+-- all-gather --> W, forward, W freed --> ... all-gather --> W, backward --+--> dW[:n/2], step
    rank 1   W[n/2:]  --+                                           reduce-scatter, the mean        +--> dW[n/2:], step

Slices are of single weights, so a layer may hold frozen ones of another number format (bfloat16) than the trained ones
(float32), and of the frozen ones neither gradient nor moments exist. Names of weights stay as they are.

Checkpoints are those of a single device, one whole file, in both directions: a run may go on with another number of
GPUs, and without this strategy. What the detector leaves out of its checkpoint is not gathered.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from lightning_utilities.core.apply_func import apply_to_collection
from pytorch_lightning.plugins import MixedPrecision
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from dfl.distributed import is_sharded
from dfl.errors import UserError

#: Parameters of the smallest layer that is worth a round of messages of its own.
SMALLEST = 4_000_000


class FullyShardStrategy(DDPStrategy):
    """Lightning's strategy for ``fully_shard``: ``Trainer(strategy=FullyShardStrategy())``, see ``trainer/fsdp.yaml``.

    Args:
        smallest: Parameters that a layer must have to be gathered by itself; smaller ones are gathered with the rest,
            once a step.
    """

    def __init__(self, smallest: int = SMALLEST) -> None:
        super().__init__()
        self.smallest = smallest
        self._whole: _Whole | None = None

    def setup(self, trainer: pl.Trainer) -> None:
        """Shard the network, then build the optimizers of its slices.

        Raises:
            UserError: If the network cannot be sharded, or the precision needs a scaled loss.
        """
        assert self.accelerator is not None
        assert self.lightning_module is not None
        self.accelerator.setup(trainer)
        module, fits = self.lightning_module, trainer.state.fn == "fit"
        if isinstance(self.precision_plugin, MixedPrecision) and self.precision_plugin.scaler is not None:
            raise UserError("FullyShardStrategy does not scale losses: take trainer.precision=bf16-mixed or 32-true")
        if fits:
            _refuse(module)
            if self._layer_sync:
                self._layer_sync.apply(module)
        # tensors of inference mode could not be gathered again for training
        evaluations = (trainer.validate_loop, trainer.test_loop, trainer.predict_loop)
        for loop in (trainer.fit_loop.epoch_loop.val_loop, *evaluations):
            loop.inference_mode = False
        self.model = self._shard(module)
        if fits:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    def _shard(self, model: nn.Module) -> nn.Module:
        """Return the network as the strategy calls it, its weights sharded, on the device.

        Raises:
            UserError: If another strategy has sharded it.
        """
        if not is_sharded(model):
            mesh = init_device_mesh(self.root_device.type, (self.world_size,))
            for layer in layers(model, self.smallest):
                _align(layer, self.root_device)
                fully_shard(layer, mesh=mesh)
            _align(model, self.root_device)
            # taken apart after the step: whoever looks at weights between two steps finds all of them sharded
            self._whole = _Whole(model)
            fully_shard(self._whole, mesh=mesh, reshard_after_forward=True)
        if self._whole is None:
            raise UserError(
                f"this {type(model).__name__} is sharded already, by another trainer: load its checkpoint anew"
            )
        return self._whole

    def model_to_device(self) -> None:
        """Nothing: its parts went there one by one."""

    # checkpoints

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Gather the weights and moments, one at a time, and write them on rank zero; all ranks must call."""
        super().save_checkpoint(apply_to_collection(checkpoint, DTensor, self._gather), filepath, storage_options)

    def _gather(self, value: DTensor) -> Tensor | None:
        whole = value.full_tensor()
        return whole.cpu() if self.is_global_zero else None

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take the slices of this rank of whole weights."""
        assert self.lightning_module is not None
        own = self.lightning_module.state_dict()
        state = {name: _sharded(value, own.get(name)) for name, value in checkpoint["state_dict"].items()}
        super().load_model_state_dict({"state_dict": state}, strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take the slices of this rank of whole moments."""
        for optimizer, whole in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            numbers = [n for group in whole["param_groups"] for n in group["params"]]
            slices = {
                n: {key: _sharded(value, p) for key, value in whole["state"].get(n, {}).items()}
                for n, p in zip(numbers, parameters, strict=True)
            }
            optimizer.load_state_dict({**whole, "state": {n: state for n, state in slices.items() if state}})

    def teardown(self) -> None:
        """Leave the slices where they are: they belong to the devices that talk to each other."""
        assert self.cluster_environment is not None
        assert self.accelerator is not None
        self.cluster_environment.teardown()
        self.precision_plugin.teardown()
        self.accelerator.teardown()


class _Whole(nn.Module):
    """What is gathered for all of a step: a wrapper, since ``fully_shard`` changes the class of its argument."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)


def layers(network: nn.Module, smallest: int = 0) -> Iterator[nn.Module]:
    """Yield the outermost repeated layers: items of one class, with parts of their own, in a list or a sequence.

    Args:
        network: Whose layers.
        smallest: Parameters that a layer must have.
    """
    for child in network.children():
        items = list(child.children()) if isinstance(child, nn.ModuleList | nn.Sequential) else []
        alike = len(items) > 1 and len({type(item) for item in items}) == 1 and any(items[0].children())
        if alike and all(sum(p.numel() for p in item.parameters()) >= max(1, smallest) for item in items):
            yield from items
        else:
            yield from layers(child, smallest)


def _refuse(module: pl.LightningModule) -> None:
    """Raise a `UserError` for what `fully_shard` cannot train."""
    name = type(module).__name__
    if not module.automatic_optimization:
        raise UserError(f"{name} steps its optimizer by itself, which FullyShardStrategy does not know: take ddp")
    trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
    if single := [n for n, p in trained.items() if p.dim() == 0]:
        raise UserError(f"FullyShardStrategy cannot cut the single number {single[0]} of {name}: take ddp")
    if len(kinds := {str(p.dtype).removeprefix("torch.") for p in trained.values()}) > 1:
        raise UserError(
            f"FullyShardStrategy wants all that is trained in one number format, and {name} has "
            f"{' and '.join(sorted(kinds))}: set model.dtype to float32"
        )


def _align(module: nn.Module, device: torch.device) -> None:
    """Bring what is not sharded yet to the device, and give every rank the values of rank zero."""
    for tensor in (*module.parameters(), *module.buffers()):
        if not isinstance(tensor, DTensor):
            tensor.data = tensor.data.to(device).contiguous()  # slices of channels last there are none
            dist.broadcast(tensor.data, 0)
    module.to(device)


def _sharded(value: Any, like: Any) -> Any:
    """Return the slice of this rank of a whole tensor where a tensor like it is sharded; anything else as it is."""
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)

"""Train on one mixture of sources; validate and test on many named domains."""

import math
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Sampler

from dfl.data.appearance import Usual
from dfl.data.batch import collate
from dfl.data.checks import check
from dfl.data.dataset import ImageDataset, Policy, Vocab, extend_vocab, usual_of
from dfl.data.depths import with_defaults
from dfl.data.epoch import Balance, Epoch
from dfl.data.loader_process import loader_context, outlive_signals
from dfl.data.locators import shared_paths
from dfl.data.overlap import Videos
from dfl.data.rows import Rows
from dfl.data.sampler import EvalSampler, TrainSampler, shuffled, steps_of_epoch
from dfl.data.sources.base import Source, by_name, joined
from dfl.data.transforms import Transform, Views
from dfl.data.unread import Unread
from dfl.errors import UserError

STAGES = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}

# Lightning says this of every loader without a state of its own; ours asks the trainer where it is
warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before the epoch ended")


class DataModule(pl.LightningDataModule):
    """Images of named domains, cut into batches.

    The image size comes from the detector that is trained or tested. Images stay uint8 until they are on its device.

    Args:
        train: Source or sources that are mixed for training.
        val: Source by domain name for validation; by default what is trained on, in its split ``val``.
        test: Source by domain name for the test; by default what is trained on, in its split ``test``.
        predict: Source by domain name for prediction; by default what is tested.
        transform: How images are brought to the detector's size, and augmented in training.
        batch_size: Images in a batch of one device.
        eval_batch_size: The same for validation, test and prediction; by default ``batch_size``.
        num_workers: Loader processes of one device.
        balance: ``sampling`` draws real and fake equally often; ``weights`` weighs the classes in the loss. The others
            say what each batch holds: ``pairs`` fake, real, fake, real, ...; ``groups`` every demographic group and
            class equally often; ``generators`` half real, and fakes of some generators, equally many of each.
        epoch_batches: Batches of an epoch on one device, however many images there are: when all were there they come
            again, in another order. By default an epoch shows every image once; with ``pairs``, every fake.
        originals: With ``pairs``, the real image after a fake is its own original (column ``source``). With
            ``generators``, each original is followed by its forgery by every generator.
        generators_per_batch: With ``generators``, how many of them are in a batch of all devices.
        on_bad: What to do with an unreadable image. ``substitute`` draws another one of the same class in
            training, and skips in evaluation.
        max_bad: Largest share of unreadable images in a domain; more end the run.
        max_pixels: Images with more pixels are refused before they are decoded.
        allow_overlap: Let images that are trained on be evaluated on too.
        seed: Seed of order and augmentation; by default that of the run (``seed_everything``).
        size: Side of the images in pixels; by default what the detector asks for.
        views: What validation, test and prediction see of an image: its ``centre`` crop; ``five``: and its corners;
            ``tiles``: nine crops, 3 x 3, evenly spread. Log-odds are the mean over the views, maps the centre's.
    """

    def __init__(
        self,
        train: Source | list[Source] | None = None,
        val: dict[str, Source] | None = None,
        test: dict[str, Source] | None = None,
        predict: dict[str, Source] | None = None,
        transform: Transform | None = None,
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        num_workers: int = 2,
        balance: Balance = "none",
        epoch_batches: int | None = None,
        originals: bool = False,
        generators_per_batch: int = 4,
        on_bad: Policy = "raise",
        max_bad: float = 0.01,
        max_pixels: int = 64_000_000,
        allow_overlap: bool = False,
        seed: int | None = None,
        size: int | None = None,
        views: Views = "centre",
    ) -> None:
        super().__init__()
        trained = [train] if isinstance(train, Source) else list(train or [])
        self.train_sources = trained
        self.sources: dict[str, dict[str, Source]] = {
            "val": val if val is not None else by_name(trained),
            "test": test if test is not None else by_name(trained),
            "predict": predict if predict is not None else test if test is not None else by_name(trained),
        }
        for domain in (d for domains in self.sources.values() for d in domains):
            if "." in domain or "/" in domain:
                raise UserError(f"domain name {domain!r} must not hold '.' or '/': they separate names in logs")
        self.transform = transform or Transform()
        self.views: Views = self.transform.checked(views)
        numbers = {
            "batch_size": (batch_size, 1),
            "eval_batch_size": (eval_batch_size, 1),
            "num_workers": (num_workers, 0),
            "size": (size, 1),
        }
        for name, (value, least) in numbers.items():
            if value is not None and value < least:
                raise UserError(f"data.{name} is {value}: it must be at least {least}")
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or batch_size
        if self.transform.resize == "whole" and self.eval_batch_size != 1:
            raise UserError("transform.resize: whole keeps sizes, which make no batch: set data.eval_batch_size to 1")
        self.num_workers, self.balance, self.on_bad, self.max_bad = num_workers, balance, on_bad, max_bad
        self.max_pixels, self.allow_overlap, self.size = max_pixels, allow_overlap, size
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", 0)) if seed is None else seed
        self._epoch = Epoch(balance, batch_size, epoch_batches, originals, generators_per_batch, self.seed)
        self._unread = Unread(max_bad)
        #: Videos that are trained on.
        self.videos = Videos()
        #: Ids by column and name, for the integers of a batch.
        self.vocab: Vocab = {}
        #: What training images look like: of a checkpoint, or of ``train`` once there is its loader.
        self.usual: Usual | None = None
        #: Returns how many batches of this process are predicted already, by domain; asked when the weights are there.
        self.done: Callable[[], Mapping[str, int]] = dict
        #: Data sets by split and domain, after ``setup``.
        self.sets: dict[str, dict[str, ImageDataset]] = {}

    def prepare_data(self) -> None:
        """Let every source make what it needs on disk; called on one process."""
        for source in (s for split in ("train", *self.sources) for s in self.sources_of(split)):
            source.prepare()

    def setup(self, stage: str) -> None:
        """Read the tables of the stage's splits and make their data sets."""
        for split in STAGES[stage]:
            self.sets[split] = dict(self.datasets(split))
        self._look()
        check(self, STAGES[stage])
        observe = getattr(getattr(self.trainer, "lightning_module", None), "observe", None)
        if stage == "fit" and observe is not None:
            observe(self.sample, self.counts)

    def sample(self, n: int) -> torch.Tensor:
        """Return n training images, evenly spread over the table: (n, 3, S, S) float32 in [0, 1]."""
        data = self.sets["train"]["train"]
        rows = np.linspace(0, len(data) - 1, min(n, len(data))).astype(int)
        return torch.stack([data[int(row)]["image"] for row in rows]).float().div_(255)

    def counts(self, column: str | tuple[str, ...], label: int | None = None) -> dict[Any, int]:
        """Return how many training images there are of each id.

        Args:
            column: Of names, such as ``group``, with ids of ``vocab`` and -1 for no name; several, such as ``(family,
                generator)``, for tuples of ids; or ``mask``: 1 with one, 0 without.
            label: Count real (0) or fake (1) images alone.
        """
        data = self.sets["train"]["train"]
        rows = data.table if label is None else data.table.filter(pc.equal(data.table["label"], label))
        if column == "mask":
            whole = pc.match_substring(rows["mask_rule"].cast("string"), "all")
            count = int(pc.sum(pc.or_(pc.not_equal(rows["mask"], ""), whole)).as_py() or 0)
            return {0: len(rows) - count, 1: count}
        if isinstance(column, tuple):
            names = pa.table({name: rows[name].cast("string") for name in column})
            pairs = names.group_by(list(column)).aggregate([([], "count_all")]).to_pylist()
            return {tuple(self.vocab[c].get(row[c], -1) for c in column): row["count_all"] for row in pairs}
        counted = rows[column].value_counts().to_pylist()
        return {self.vocab[column].get(row["values"], -1): row["counts"] for row in counted}

    def datasets(self, split: str) -> Mapping[str, ImageDataset]:
        """Return the data sets of ``train``, ``val``, ``test`` or ``predict`` by domain name.

        Raises:
            UserError: If a source is not there, or the split names no source.
        """
        tables = {domain: Rows.of(table) for domain, table in self._tables(split).items()}
        extend_vocab(self.vocab, tables.values())
        size = self.size or self._detector_size()
        drawn = split == "train" and not (self.transform.augment == "none" and self._is_one_pass())
        views: Views = "centre" if split == "train" else self.views  # of what is fitted without augmentation
        view = self.transform.train(size) if drawn else self.transform.eval(size, views)
        return {
            domain: ImageDataset(
                table,
                view,
                size,
                self.vocab,
                training=split == "train",
                on_bad=self.on_bad,
                seed=self.seed,
                max_pixels=self.max_pixels,
                class_weight=self._epoch.class_weight(table.label) if split == "train" else (1.0, 1.0),
            )
            for domain, table in tables.items()
        }

    def domains(self, split: str) -> list[str]:
        """Return the domain names of a split, in the order of its loaders."""
        return list(self.sets.get(split, {}))

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return the loader of the mixture; its order and position come from the trainer."""
        data = self.sets["train"]["train"]
        if self.trainer is None:
            raise UserError("a training loader needs a Trainer: its sampler asks the trainer where it is")
        if self.usual is None:  # not where a checkpoint is saved: that may be the last save, as a disk dies
            self.usual = usual_of(data, self.transform)
        world = self.trainer.world_size
        if self._is_one_pass():
            mixed = shuffled(len(data), self.seed)(0)  # so that a part of the pass has both classes
            return self._loader(data, EvalSampler(len(data), self.trainer.global_rank, world, mixed), self.batch_size)
        order, length = self._epoch.order(data, world), self._epoch.rows(data, world)
        sampler = TrainSampler(order, length, self.batch_size, self.trainer)
        return self._loader(data, sampler, self.batch_size, keep_workers=True)

    def train_steps(self) -> int:
        """Return the batches of one epoch on one device."""
        assert self.trainer is not None
        if self._is_one_pass():
            return math.ceil(math.ceil(len(self.sets["train"]["train"]) / self.trainer.world_size) / self.batch_size)
        length = self._epoch.rows(self.sets["train"]["train"], self.trainer.world_size)
        return steps_of_epoch(length, self.batch_size, self.trainer)

    def _is_one_pass(self) -> bool:
        """Return whether the detector wants every training image once, in the order of the table.

        Raises:
            UserError: If the batches are to be balanced too.
        """
        if not getattr(getattr(self.trainer, "lightning_module", None), "one_pass", False):
            return False
        if self.balance != "none" or self._epoch.batches is not None:
            raise UserError("a fitted detector sees every training image once: set data.balance=none, no epoch_batches")
        return True

    def val_dataloader(self) -> list[DataLoader[dict[str, Any]]]:
        """Return one loader for each validation domain."""
        return self._eval_loaders("val")

    def test_dataloader(self) -> list[DataLoader[dict[str, Any]]]:
        """Return one loader for each test domain."""
        return self._eval_loaders("test")

    def predict_dataloader(self) -> list[DataLoader[dict[str, Any]]]:
        """Return one loader for each domain to predict."""
        return self._eval_loaders("predict")

    def on_before_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Take the unreadable images out of a batch and record them; too many end the run.

        Raises:
            UserError: If more than ``max_bad`` of a domain's images cannot be read.
        """
        split, bad = self._running_split(), batch.pop("bad", [])
        assert self.trainer is not None
        self._unread.record(self.trainer, split, self.sets[split], self.domains(split)[dataloader_idx], bad)
        return batch

    def settle(self, split: str) -> None:
        """Compare the unreadable images of a split with ``max_bad`` at its end, over all ranks."""
        assert self.trainer is not None
        self._unread.check(self.trainer, split, self.sets[split])

    def state_dict(self) -> dict[str, Any]:
        """Return the vocabulary, so that ids keep their names, unreadable images, the transform, and what is usual."""
        transform = {k: v for k, v in self.transform.spec().items() if k not in Transform.TRAINING}
        bad = {split: {d: data.bad for d, data in domains.items()} for split, domains in self.sets.items()}
        return {"vocab": self.vocab, "bad": bad, "transform": transform, "usual": self.usual and self.usual.ranges}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Number names as the checkpoint does; names it does not know come after."""
        self.usual = Usual.of_file(state_dict.get("usual"))
        self._look()
        vocab: Vocab = {column: dict(ids) for column, ids in state_dict.get("vocab", {}).items()}
        for domains in self.sets.values():
            extend_vocab(vocab, [data.rows for data in domains.values()])
        self.vocab = vocab
        for data in (one for domains in self.sets.values() for one in domains.values()):
            data.encode(vocab)
        for split, domains in state_dict.get("bad", {}).items():
            for domain, bad in domains.items():
                if bad and (images := self.sets.get(split, {}).get(domain)):
                    here = shared_paths(images.table["path"], pa.chunked_array([list(bad)], pa.string()))
                    images.bad.update({path: bad[path] for path in bad if path in here})

    def _look(self) -> None:
        """Let images be compared with those of training in prediction, where these are known."""
        for data in self.sets.get("predict", {}).values():
            data.with_appearance = self.usual is not None

    def sources_of(self, split: str) -> list[Source]:
        """Return the sources of a split."""
        return self.train_sources if split == "train" else list(self.sources[split].values())

    def _tables(self, split: str) -> dict[str, pa.Table]:
        if split == "train":
            if not self.train_sources:
                raise UserError("nothing to train on: set data.train to a source")
            tables = [with_defaults(one.load("train"), f"train, {one!r}") for one in self.train_sources]
            for source, table in zip(self.train_sources, tables, strict=True):
                self.videos.add(source, table)
            return {"train": joined(tables)}
        if not self.sources[split]:
            raise UserError(f"no domain for {split}: set data.{split} to sources by domain name")
        side = "test" if split == "predict" else split
        tables_of = {domain: source.load(side) for domain, source in self.sources[split].items()}
        for domain, table in tables_of.items() if split == "val" and not self.allow_overlap else ():
            self.videos.check(f"val/{domain}", self.sources["val"][domain], table)
        return {name: with_defaults(table, f"{split}/{name}", split != "predict") for name, table in tables_of.items()}

    def _eval_loaders(self, split: str) -> list[DataLoader[dict[str, Any]]]:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        done, size = self.done() if split == "predict" else {}, self.eval_batch_size
        return [
            self._loader(data, EvalSampler(len(data), rank, world, start=done.get(domain, 0) * size), size)
            for domain, data in self.sets[split].items()
        ]

    def _loader(
        self, data: ImageDataset, sampler: Sampler[Any], batch_size: int, keep_workers: bool = False
    ) -> DataLoader[dict[str, Any]]:
        return DataLoader(
            data,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=collate,
            worker_init_fn=outlive_signals,
            multiprocessing_context=loader_context(self.num_workers),
            pin_memory=torch.cuda.is_available(),
            # with many evaluation domains, all their workers would live to the end
            persistent_workers=keep_workers and self.num_workers > 0,
            prefetch_factor=4 if self.num_workers else None,
        )

    def _detector_size(self) -> int:
        if self.trainer is None:
            raise UserError("no trainer and no detector to ask for the image size: set data.size")
        return int(cast(Any, self.trainer.lightning_module).input_size)

    def _running_split(self) -> str:
        assert self.trainer is not None
        state = self.trainer
        return "train" if state.training else "test" if state.testing else "predict" if state.predicting else "val"

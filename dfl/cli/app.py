"""The command line: Lightning's, with configs and runs by name, and checkpoints that know their model and data.

`dfl.cli.order` puts the words in order before they are parsed, `dfl.cli.messages` makes one line of what the parser
says.
"""

import json
import logging
import sys
import warnings
from contextlib import AbstractContextManager, ExitStack, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from dfl.cli import arguments, messages, order
from dfl.cli.callbacks import callbacks, writes
from dfl.cli.checkpoints import RUN_SETTINGS, data_module
from dfl.cli.options import OPTIONS, PREDICT, TOLD
from dfl.cli.verbs import ParseError, Raising
from dfl.data import DataModule, Source
from dfl.detectors import Detector, untrained
from dfl.detectors.base import class_path
from dfl.errors import UserError, behind
from dfl.evaluation.predictions import STANDARD
from dfl.networks import without_weights
from dfl.runs import settings
from dfl.runs.best import Keeper
from dfl.runs.claim import claim, clear
from dfl.training import AtomicCheckpointIO, KeepLast, loggers
from dfl.training.faults import explain, in_restoring
from dfl.training.monitored import follow_directions
from dfl.training.preemption import slurm_plugins
from dfl.training.trainer import Trainer

say = rank_zero_only(print)
#: Warnings about what is intended.
EXPECTED = (
    r"Checkpoint directory .* exists and is not empty",  # runs are resumed in their folder
    r"Total length of `DataLoader` across ranks is zero",  # a domain that is predicted already
    # a detector normalises on its device, and may look at a batch on the way there
    r"You have overridden `(on_after_batch_transfer|transfer_batch_to_device)` in `LightningModule`",
    r"Be aware that when using `ckpt_path`, callbacks used to create the checkpoint",  # training's are not for testing
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # of torch, to Lightning
)


def main(words: list[str]) -> "CLI":
    """Run a verb that needs a model, in this process.

    Args:
        words: The verb and its options, as typed.

    Returns:
        The object with ``model``, ``datamodule`` and ``trainer``.

    Raises:
        UserError: For whatever the user can mend.
    """
    _hush()
    try:
        with ExitStack() as until_end:
            return CLI(words, until_end)
    except UserError:
        raise
    except MisconfigurationException as error:
        raise UserError(str(error)) from error
    except Exception as error:
        if line := explain(error):
            raise UserError(line) from error
        if in_restoring(error):
            raise UserError(RESTORING.format(error=error)) from error
        raise


def _hush() -> None:
    """Silence Lightning's warnings about what is intended, and its advertisements."""
    for message in EXPECTED:
        warnings.filterwarnings("ignore", message=message)
    log = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    log.addFilter(lambda record: "Tip:" not in record.getMessage())


#: Of a checkpoint whose weights are in order and whose other contents are not.
RESTORING = (
    "the checkpoint does not hold the state of a run as this dfl writes it ({error}); to take its weights alone, copy "
    "it out of checkpoints/ and give --ckpt_path FILE"
)


class Parser(Raising, LightningArgumentParser):
    """Lightning's parser, for one line an error."""


class CLI(LightningCLI):
    """One command of the command line.

    ``fit`` writes to ``<root>/checkpoints/<name>`` and ``<root>/lightning_logs/<name>/version_N``.
    """

    def __init__(self, words: list[str], until_end: ExitStack) -> None:
        #: Where the rows of ``predict --output -`` go.
        self.rows = sys.stdout
        #: What is let go of when the command ends, however it ends.
        self.until_end = until_end
        self._verb = words[0]
        super().__init__(
            Detector,
            DataModule,
            trainer_class=Trainer,
            args=words,
            parser_class=Parser,
            parser_kwargs={"prog": "dfl", "predict": {"description": PREDICT}},
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            # checkpoints name their class themselves, see dfl.cli.checkpoints
            load_from_checkpoint_support=False,
            trainer_defaults={
                # the check would validate on the first batches only, which often hold a single class, so that every
                # ranking metric is undefined; a wrong set-up is seen at the end of the first epoch anyway
                "num_sanity_val_steps": 0,
            },
        )

    # parsing

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the verbs, and the arguments of their methods that are no options."""
        hidden = {"model", "dataloaders", "datamodule", "weights_only"}
        return {
            "fit": hidden - {"dataloaders"} | {"train_dataloaders", "val_dataloaders"},
            "validate": hidden,
            "test": hidden,
            "predict": hidden,
            "count": {"model", "datamodule"},
        }

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        """Give its options to the verb of this command alone; those of all five take most of a small command's time."""
        if subcommand != self._verb:
            return self.init_parser(**kwargs)
        return super()._prepare_subcommand_parser(klass, subcommand, **kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options that name a run and keep its checkpoints."""
        for name, kind, default, what in OPTIONS:
            parser.add_argument(f"--{name}", type=kind, default=default, help=what)
        # two, because Lightning's save_last writes last.ckpt only when the monitored value improves, and not exactly
        parser.add_class_arguments(Keeper, "checkpoint")
        parser.add_class_arguments(KeepLast, "last")
        best = {"filename": "best", "monitor": "val/mean/auroc", "mode": "max", "enable_version_counter": False}
        parser.set_defaults({f"checkpoint.{key}": value for key, value in best.items()})

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Put the words in order and parse them."""
        assert isinstance(args, list)
        self.plan = arguments.plan(args)
        try:
            self.config = parser.parse_args(order.arrange(self.plan))
        except ParseError as error:
            words = [f"{flag}={value}" for flag, value in self.plan.typed]
            options = messages.options(self._parser(self.plan.verb), ("model", Detector), ("data", DataModule))
            raise UserError(messages.explain(str(error), options, words, self.plan.files())) from error
        if wrong := messages.of_numbers(self.config[self.plan.verb]):
            raise UserError(wrong)

    def _parse_ckpt_path(self) -> None:
        """Nothing: Lightning would let the checkpoint win over typed flags; `dfl.cli.order` puts it in order."""

    # building

    def before_instantiate_classes(self) -> None:
        """Say what the command is about to do, and set where its files go."""
        run = self.config[self.subcommand]
        if self.subcommand == "predict" and run.output == STANDARD:  # it is for the rows alone
            self.until_end.enter_context(redirect_stdout(sys.stderr))
        for note in self.plan.notes:
            say(note)
        run.name, run.root = self.plan.name, str(self.plan.root)
        if self.subcommand == "predict":
            run.return_predictions = bool(run.return_predictions)  # they are on disk; memory is not for them
        if self.subcommand == "test":
            run.verbose = False  # the report's table says it better
        if self.subcommand == "fit":
            follow_directions(run, say)
        loggers.settle(run.trainer.get("logger"), self.plan.root, self.plan.name)
        for keeper in (run.checkpoint, run.last):
            keeper.dirpath = keeper.dirpath or str(self.plan.root / "checkpoints" / self.plan.name)
        if self.subcommand == "fit":
            self._claim(run)

    def _claim(self, run: Any) -> None:
        """Hold the folders that the run writes to until the command ends."""
        if run.overwrite and self.plan.trained and self.plan.goes_on:
            raise UserError("--overwrite begins the run anew, and --ckpt_path goes on with it; keep one")
        if writes(run.trainer) and getattr(rank_zero_only, "rank", 0) == 0:
            for folder in _folders(run):
                if note := self.until_end.enter_context(claim(folder, self.plan.goes_on, run.overwrite)):
                    say(note)

    def instantiate_classes(self) -> None:
        """Build data, model and trainer; weights are fetched only if no checkpoint brings them all."""
        trained = self.plan.trained
        skip = self.subcommand == "count" or (trained is not None and trained.all_weights)
        context: AbstractContextManager[Any] = without_weights() if skip else nullcontext()
        with context:
            try:
                super().instantiate_classes()
            except (UserError, ValueError) as error:
                # jsonargparse hides what a constructor raised under the types that it tried
                line = messages.of_constructor(error)
                mistake = behind(error, UserError) or (UserError(line) if line else None)
                raise (self._with_missing_data(mistake) if mistake else error) from error

        if (
            trained is None
            and self.plan.graph is None
            and self.subcommand != "count"
            and (line := untrained.note(self.model, str(self.subcommand)))
        ):
            say(line)

    def _with_missing_data(self, error: UserError) -> UserError:
        """Return the error, behind that of training data that are not there either: the user learns of both at once."""
        if self.subcommand != "fit":
            return error
        try:
            for source in data_module(self.config.fit.data.as_dict()).train_sources:
                if type(source).prepare is Source.prepare:  # others make what is missing
                    source.load("train")
        except (UserError, ParseError, ValueError) as other:
            missing = behind(other, UserError)
            if missing and str(missing) != str(error):
                return UserError(f"{missing}; and {error}")
        return error

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Build the trainer with this project's logger and callbacks; those of a config are added to them."""
        run, root = self.config_init[self.subcommand], self.plan.root
        options = run.trainer
        kwargs["logger"] = loggers.of_run(options.logger, root, self.plan.name)
        if options.logger is False:
            self.save_config_callback = None  # it would write into the root
        kwargs["default_root_dir"] = options.default_root_dir or str(root)
        kwargs["use_distributed_sampler"] = False  # our samplers share the data among processes
        kwargs["enable_model_summary"] = False  # ours is among the callbacks
        plugins = options.plugins or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        kwargs["plugins"] = [*plugins, AtomicCheckpointIO(self.subcommand != "fit"), *slurm_plugins(root)]
        verb, plan = str(self.subcommand), self.plan
        self.trainer_defaults["callbacks"] = callbacks(
            verb, run, plan, lambda trainer, _: self._begin(trainer, run), self.rows
        )
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (ValueError, TypeError, ImportError, RuntimeError) as error:  # such as no number of devices
            raise UserError(messages.of_trainer(error)) from error
        assert isinstance(trainer, Trainer)
        trainer.run_config = self._run_config()
        return trainer

    def _run_config(self) -> dict[str, Any]:
        """Return the settings that a checkpoint keeps, as plain values."""
        whole = json.loads(self.parser.dump(self.config, format="json", skip_none=False, skip_validation=True))
        run = whole[self.subcommand]
        record = {key: run[key] for key in ("model", "data", "name", "init_from", "seed_everything")}
        # a config names the class as it likes, a checkpoint in one way: in both it is the same model
        record["model"]["class_path"] = class_path(type(self.model))
        record["trainer"] = {key: run["trainer"][key] for key in RUN_SETTINGS if key in run["trainer"]}
        for keeper in ("checkpoint", "last"):
            record[keeper] = {key: value for key, value in run[keeper].items() if key != "dirpath"}
        return record

    def _run_subcommand(self, subcommand: str) -> None:
        """Run the verb: ``predict --ray`` in Ray's processes, anything else by the trainer."""
        run = self.config_init[subcommand]
        if subcommand != "predict" or run.ray is None:
            super()._run_subcommand(subcommand)
            return
        from dfl.cli import ray_job  # Ray is an extra

        if self.plan.trained is None or run.output in (None, STANDARD):
            raise UserError("--ray needs a checkpoint, which its workers open, and --output FOLDER for the parts")
        self.datamodule.usual = self.plan.trained.usual
        words = {key: run[key] for key in TOLD if key != "output"}
        precision = str(self.trainer.precision)
        ray_job.run(self.model, self.plan.trained.path, self.datamodule, words, precision, run.output, run.ray)

    # at the beginning and after the work

    def _begin(self, trainer: pl.Trainer, run: Any) -> None:
        """Keep the settings of the run beside its checkpoints, in place of another run's if it is to be replaced.

        Not before training begins: settings that were refused are not recorded, and a run that fails to begin leaves
        the old one.
        """
        if not trainer.is_global_zero:
            return
        if run.overwrite and not self.plan.goes_on:
            clear(*_folders(run))
        folder = self.plan.root / "checkpoints" / self.plan.name
        try:
            settings.write(folder, trainer.run_config)  # type: ignore[attr-defined]
        except UserError as error:
            warnings.warn(f"{error}; resume with --config", stacklevel=2)

    def after_fit(self) -> None:
        """Say how good the run is, where it lies, and what to type next."""
        checkpoint = self.trainer.checkpoint_callback
        if not isinstance(checkpoint, Keeper) or self.config_init.fit.trainer.fast_dev_run:
            return
        score, folder = checkpoint.best_model_score, self.plan.root / "checkpoints" / self.plan.name
        if checkpoint.monitor is None:
            say(f"nothing is monitored, so {folder / 'best.ckpt'} is the newest that was saved")
            return
        if score is None:
            say(f"no {checkpoint.monitor} was measured, so there is no best.ckpt; the end is in {folder / 'last.ckpt'}")
            return
        root = "" if self.plan.root == Path() else f" --root {self.plan.root}"
        say(
            f"best {checkpoint.monitor} {float(score):.4f} in {folder / 'best.ckpt'}, the end in {folder / 'last.ckpt'}"
        )
        say(f"next: dfl test --name {self.plan.name} --ckpt_path best{root} --data NAME.yaml")

    def after_test(self) -> None:
        """Say how to look at the curves."""
        folder = self.trainer.log_dir
        if folder and (Path(folder) / "report.html").is_file():
            say(f"curves: tensorboard --logdir {self.plan.root / 'lightning_logs'}")


def _folders(run: Any) -> list[Path]:
    """Return the folders that a run's checkpoints go to: one, unless two are typed."""
    return sorted({Path(one.dirpath) for one in (run.checkpoint, run.last)})

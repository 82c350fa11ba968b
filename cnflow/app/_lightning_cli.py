"""The commands that train and use a flow: fit, validate, test, predict and path, from one config."""

from __future__ import annotations

import hashlib
import logging
import shutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from filelock import FileLock
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from cnflow._atomic_files import replacing
from cnflow.app._command_line import (
    SettingError,
    asks_for_penalties,
    completed,
    default_parts,
    given_settings,
    with_shipped_configs,
)
from cnflow.app._history import History, Progress
from cnflow.app._narrowing_path import GRID, NarrowingPath, narrowing_path
from cnflow.app._parser import Parser
from cnflow.app._predict import ShardWriter
from cnflow.app._report import write_report
from cnflow.app._run_directory import (
    ResumeError,
    Run,
    RunExistsError,
    changed_settings,
    checkpoint_to_resume,
    clear_run,
    hold,
    remove_set_up,
    run_files,
)  # fmt: skip
from cnflow.app._signals import GracefulStop
from cnflow.app._topology import write_topology
from cnflow.data import DigitsDataModule, VectorDataModule  # noqa: F401 (so that the parser knows classes of data by name)
from cnflow.flow._checkpoint import find_checkpoint, read_checkpoint
from cnflow.flow._inputs import Inputs
from cnflow.training import NarrowingModule
from cnflow.training._checkpoints import CheckpointEvery, KeepBest, WholeCheckpoints
from cnflow.training._settings import METHODS
from cnflow.training._trainer_options import check_path_options, check_routing_options, check_trainer


def _is_first_process() -> bool:
    return getattr(rank_zero_only, "rank", 0) == 0


class NarrowingTrainer(Trainer):
    """Lightning's trainer, which can also train a path over the penalty."""

    def path(
        self,
        model: NarrowingModule,
        datamodule: LightningDataModule,
        grid: list[float] = list(GRID),  # noqa: B006 (read, never changed)
        warm: float = 0.6,
    ) -> NarrowingPath:
        """Train a flow for every penalty of a grid: width profile, held-out NLL, budget and noise check against λ.

        Args:
            model: the module; its own penalties are λ = 1.
            datamodule: the data.
            grid: factors λ on weight and price of the selecting penalties.
            warm: steps at every λ but the first, as a fraction of trainer.max_steps.
        """
        folder, data = Path(self.default_root_dir) / "path", cast(VectorDataModule, datamodule)
        path = narrowing_path(model, data, grid, folder=folder, max_steps=self.max_steps, warm=warm)
        print(f"{path}\n{path.folder}: table path.md, figure path.png", flush=True)
        return path


class NarrowingCLI(LightningCLI):
    """Lightning's CLI with a run directory, resumable runs, and a report at the end of fit.

    Args:
        *args: of lightning's.
        penalties: whether the model is trained by penalties, whose parts are then shown with their defaults.
        **kwargs: of lightning's.
    """

    _lock: FileLock | None = None

    def __init__(self, *args: Any, penalties: bool = False, **kwargs: Any) -> None:
        self._penalties = penalties
        kwargs["parser_class"] = Parser
        super().__init__(*args, **kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the group ``run``, this package's defaults of the trainer, and those of the model for its method."""
        parser.add_class_arguments(Run, "run")
        parser.set_defaults({"model.method": METHODS[self._penalties]} | (default_parts() if self._penalties else {}))
        parser.set_defaults(
            {
                "seed_everything": 0,
                "trainer.max_steps": 3000,
                "trainer.accelerator": "cpu",
                "trainer.log_every_n_steps": 25,
                "trainer.val_check_interval": 250,
                "trainer.check_val_every_n_epoch": None,
                "trainer.enable_progress_bar": False,
                "trainer.enable_model_summary": False,
                "trainer.num_sanity_val_steps": 0,
            }
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's, and ``path``."""
        return LightningCLI.subcommands() | {"path": {"model", "datamodule"}}

    @property
    def run(self) -> Run:
        """The group ``run`` of the config."""
        return Run(**vars(self._get(self.config, "run")))

    @property
    def folder(self) -> Path:
        """The run directory."""
        return Path(self.run.dir)

    def before_instantiate_classes(self) -> None:
        """Refuse a run directory that holds another run, before anything takes time."""
        if self.subcommand not in ("fit", "path") or self.config[self.subcommand]["trainer"]["fast_dev_run"]:
            return
        if self.folder.is_dir():
            self._hold()
        if self.subcommand == "path" and self.run.overwrite:
            shutil.rmtree(self.folder / "path", ignore_errors=True)
        if self.subcommand != "fit":
            return
        own, found = self.config["fit"], run_files(self.folder)
        if self.run.resume:
            if _is_first_process() and found:
                self._refuse_changes(changed_settings(self.folder, self._settings()))
            last = checkpoint_to_resume(self.folder)
            own["ckpt_path"] = last and str(last)
            if last is None:
                print(f"{self.folder} holds no checkpoint yet: the run starts from its beginning", file=sys.stderr)
        elif not _is_first_process():
            # the first process has checked the directory, and may have begun to write
            return
        elif self.run.overwrite:
            clear_run(self.folder)
        elif found and own.get("ckpt_path") is None and not remove_set_up(self.folder):
            raise RunExistsError(
                f"{self.folder} already holds a run ({', '.join(found)}). Continue it with --run.resume true, replace it "
                "with --run.overwrite true, or choose another directory with --run.dir."
            )

    def _hold(self) -> None:
        """Lock the run directory, once, by the first of several processes."""
        if self._lock is None and _is_first_process():
            self._lock = hold(self.folder)

    def before_path(self) -> None:
        """Refuse options that a path does not have, then make the run directory."""
        check_path_options(self._changed_options())
        nothing = sorted({"checkpoint_every", "log_every", "predictions"} & set(self._changed_options("run")))
        if nothing:
            raise ValueError(
                f"{', '.join(f'run.{name}' for name in nothing)} would do nothing: cnflow path saves every 250 steps, has metrics "
                "of every 25, and predicts nothing. Leave that out"
            )
        self._hold()

    def _is_rehearsal(self) -> bool:
        return bool(getattr(self.trainer, "fast_dev_run", False))

    def _changed_options(self, group: str = "trainer") -> list[str]:
        """Names of the options of a group that are not at the default of this command line."""
        defaults = self._parser(self.subcommand).get_defaults()[group]
        return [name for name, value in vars(self._get(self.config, group)).items() if value != defaults[name]]

    def _settings(self) -> str:
        """All settings as YAML, as ``config.yaml`` has them."""
        return str(self._parser("fit").dump(self.config["fit"], skip_none=False))

    def _refuse_changes(self, changes: list[str]) -> None:
        """Refuse to go on with other settings or data, unless that was asked for."""
        if not changes:
            return
        message = f"{self.folder} was begun otherwise:\n  " + "\n  ".join(changes)
        if self.run.resume != "changed":
            raise ResumeError(
                f"{message}\nUse what the run began with, start another one with --run.dir, or go on all the same with "
                "--run.resume=changed."
            )
        warnings.warn(f"{message}\nThe run goes on with what is new, as asked for.", UserWarning, stacklevel=2)

    def before_fit(self) -> None:
        """Refuse options that the training does not have, and other data than those that the run began with."""
        if self.model.routes:
            check_routing_options(self._changed_options())
        check_trainer(self.trainer, self.model)
        if self._is_rehearsal():
            return
        self._hold()
        last = self.config["fit"].get("ckpt_path")
        if not (self.run.resume and last):
            return
        old = read_checkpoint(last)["cnflow"].get("data") or {}
        new = self.model.fingerprint(self.datamodule)
        self._refuse_changes([
            f"data, {name}: {old.get(name)!r:.100} in the run, {new.get(name)!r:.100} now"
            for name in sorted((old.keys() | new.keys()) - {"path", "mtime"}) if old.get(name) != new.get(name)
        ])  # fmt: skip
        if old.get("mtime") != new.get("mtime"):
            warnings.warn(
                f"{new.get('path')} was written again since the run began; its size and 1 000 of its samples are the same, "
                "so the run goes on.", UserWarning, stacklevel=2,
            )  # fmt: skip

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer with this package's callbacks and loggers, unless the config brings its own logger."""
        run, folder = self.run, self.folder
        config = self._get(self.config_init, "trainer")
        given = config.get("callbacks") or []
        callbacks = list(given) if isinstance(given, list) else [given]
        if self.subcommand == "fit":
            self.history = History(folder, run.log_every)
            callbacks += [self.history, Progress()]
            if config.get("enable_checkpointing") is not False:
                saving = CheckpointEvery(folder / "checkpoints", run.checkpoint_every)
                callbacks += [saving, KeepBest(folder / "checkpoints"), GracefulStop(saving)]
                kwargs["plugins"] = [*(config.get("plugins") or []), WholeCheckpoints()]
            # lightning's checkpoints are written only where a callback of lightning is named
            kwargs["enable_checkpointing"] = any(isinstance(each, ModelCheckpoint) for each in callbacks)
            if isinstance(config.get("val_check_interval"), float) and config.get("check_val_every_n_epoch") is None:
                # a fraction of an epoch needs validation that is counted in epochs
                kwargs["check_val_every_n_epoch"] = 1
            if config.get("logger") in (None, True):
                kwargs["logger"] = TensorBoardLogger(folder, name="", version="tensorboard")
        else:
            kwargs["logger"] = False
            kwargs["enable_progress_bar"] = self.subcommand != "path"
        if self.subcommand == "predict":
            self.shards = ShardWriter(run.predictions or folder / "predictions")
            callbacks.append(self.shards)
        kwargs["callbacks"] = callbacks
        kwargs["default_root_dir"] = str(folder)
        return super().instantiate_trainer(**kwargs)

    def _run_subcommand(self, subcommand: str) -> None:
        options = self.config_init[subcommand]
        processes = self.trainer.num_devices * self.trainer.num_nodes
        if processes > 1 and subcommand in ("predict", "path"):
            raise ValueError(
                f"cnflow {subcommand} works in one process; got {processes}: set --trainer.devices=1 (fit can have several)"
            )
        if subcommand == "predict":
            # predictions go to shards; to return them as well would hold all of them in memory
            options["return_predictions"] = False
        if subcommand not in ("fit", "path"):
            # checkpoints hold histories, which weights_only loading admits: plain numbers and strings
            options["ckpt_path"] = options.get("ckpt_path") or str(find_checkpoint(self.folder))
            self._read_as_trained(Path(options["ckpt_path"]))
        super()._run_subcommand(subcommand)

    def _read_as_trained(self, checkpoint: Path) -> None:
        """Make the data module read the columns of the training, and a prediction continue where it was stopped."""
        data, inputs = self.datamodule, read_checkpoint(checkpoint)["cnflow"]["flow"].get("inputs")
        if inputs and hasattr(data, "inputs"):
            data.inputs = Inputs.from_dict(inputs)
        if self.subcommand == "predict" and hasattr(data, "predicted"):
            content = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
            data.predicted = self.shards.resume({"flow": content, "data": self.model.fingerprint(data)})

    def after_fit(self) -> None:
        """Summary and figures, by the first of several processes."""
        if self._is_rehearsal():
            self.trainer.print("fast_dev_run: a rehearsal, which leaves nothing behind")
            return
        last = self.folder / "checkpoints" / "last.ckpt"
        self.trainer.save_checkpoint(last)
        if not self.trainer.is_global_zero:
            return
        write_report(self.folder, self.model, self.datamodule, self.history, figures=self.run.figures)
        if self.run.topology:
            write_topology(self.folder / "topology", self.model.flow.eval(), self.datamodule, figures=self.run.figures)


class _ConfigToRunDirectory(SaveConfigCallback):
    """Writes the config as resolved into the run directory, and for the loggers."""

    def save_config(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Write ``config.yaml``, and ``hparams.yaml`` where the logger keeps one."""
        if stage != "fit":
            return
        folder = Path(trainer.default_root_dir)
        with replacing(folder / "config.yaml") as part:
            self.parser.save(self.config, part, skip_none=False, overwrite=True)
        settings = yaml.safe_load(self.parser.dump(self.config, skip_none=False))
        for logger in trainer.loggers:
            logger.log_hyperparams(settings)


def run(args: Sequence[str], own_process: bool = True) -> NarrowingCLI:
    """Run one of the commands that train and use a flow.

    Args:
        args: list of arguments as strings, the command among them.
        own_process: whether they are those of the process, which lightning then reads itself.
    """
    args = with_shipped_configs(args)
    command = next((one for one in args if one in NarrowingCLI.subcommands()), None)
    settings = {}
    if command is not None:
        settings = given_settings(args, command)
        try:
            args = completed(args, command)
        except SettingError as error:
            raise SystemExit(f"cnflow: {error}") from None
    if own_process:
        sys.argv[1:] = args
    penalties = command == "path" or asks_for_penalties(settings)
    if not penalties and any(one.startswith("--print_config") for one in args):
        print(
            "routing has no settings of the model but its seed; --model.method=penalties shows those of the other method",
            file=sys.stderr,
        )
    # hide the trainer's messages on the machine, but not its warnings
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    return NarrowingCLI(
        NarrowingModule,
        LightningDataModule,
        subclass_mode_data=True,
        trainer_class=NarrowingTrainer,
        save_config_callback=_ConfigToRunDirectory,
        save_config_kwargs={"save_to_log_dir": False},
        auto_configure_optimizers=False,
        args=None if own_process else args,
        penalties=penalties,
    )

"""Output folder of a run: locks, config and log."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import yaml

from slowfast.config.node import ConfigNode
from slowfast.errors import ConfigError, DiskError, system_reason
from slowfast.utils.distributed import World
from slowfast.utils.files import MIB, atomic_write_text
from slowfast.utils.locks import TESTING, TRAINING, FolderLock, exclusive_lock
from slowfast.utils.logging import get_logger, open_log
from slowfast.utils.nodes import check_shared_folder
from slowfast.utils.paths import UnreadableTextError, read_text_file
from slowfast.utils.screen import phase
from slowfast.visualization.html_report.run_files import CONFIG, TEST_CONFIG


class RunFolder:
    """Output folder of a run.

    While entered, it is locked against other runs that train there or, if this run only tests, against other tests.
    Entering raises ConfigError if it is locked.

    Args:
        cfg: Config of the run.
        world: Processes of the run; the first one writes.

    Attributes:
        begun: Whether the run has written something.
    """

    def __init__(self, cfg: ConfigNode, world: World) -> None:
        self.cfg, self.world, self.path, self.begun = cfg, world, Path(cfg.OUTPUT_DIR), False
        self._at_end = ExitStack()
        self._locked = TRAINING if cfg.TRAIN.ENABLE else TESTING

    def __enter__(self) -> RunFolder:
        self.world.run_or_raise_everywhere(self._lock)
        try:
            check_shared_folder(self.world, self.path)
        except BaseException:
            self._at_end.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._at_end.close()

    def _lock(self) -> None:
        if self.world.is_main:
            self._at_end.enter_context(exclusive_lock(self.path, self._locked))

    def begin(self) -> None:
        """Write the config and open the log. Call it after all checks that can reject the run.

        A run that only tests keeps the config of a training and writes config_test.yaml.
        """
        self.world.run_or_raise_everywhere(self._write)
        self.begun = True

    def _write(self) -> None:
        if not self.world.is_main:
            return
        name = TEST_CONFIG if not self.cfg.TRAIN.ENABLE and self._has_config_of_training() else CONFIG
        try:
            atomic_write_text(self.path / name, self.cfg.dump(), "OUTPUT_DIR")
            open_log(self.path)
        except DiskError:
            raise
        except OSError as error:
            raise ConfigError(f"OUTPUT_DIR {self.path} is not writable: {system_reason(error)}") from error

    def _has_config_of_training(self) -> bool:
        try:
            text = read_text_file(self.path / CONFIG, MIB)
            return bool(yaml.safe_load(text)["TRAIN"]["ENABLE"])
        except UnreadableTextError as error:
            return not error.missing
        except (ValueError, TypeError, KeyError, yaml.YAMLError):
            return True  # it was not written by a run, so it must not be replaced

    def wait_for_tests(self) -> None:
        """Before the test that follows a training, wait until other tests in the folder have finished."""
        if self._locked == TESTING:
            return
        lock = FolderLock(self.path, TESTING)
        self._at_end.callback(lock.release)
        reported = False
        with phase("waiting for another run that is testing in OUTPUT_DIR"):
            while self.world.any(self.world.is_main and not lock.acquire()):
                if not reported and self.world.is_main:
                    get_logger().info(f"waiting for another run that is testing in {self.path}")
                reported = True
                time.sleep(1)

"""OUTPUT_DIR of a run: locked against other runs, and written to only once it is certain that the run starts."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import yaml

from slowfast.config.node import ConfigNode
from slowfast.errors import ConfigError, DiskError, system_reason
from slowfast.runtime.distributed import World
from slowfast.runtime.folder_lock import TESTING, TRAINING, FolderLock, exclusive_lock
from slowfast.runtime.heartbeat import phase
from slowfast.runtime.logging import get_logger, open_log
from slowfast.runtime.unfinished import write_whole
from slowfast.utils.text_file import MIB, UnreadableTextError, read_text_file

CONFIG, TEST_CONFIG = "config.yaml", "config_test.yaml"


class RunFolder:
    """Output folder of a run.

    While entered, no other run trains there, or tests if this one only tests. Raises ConfigError where one does.

    Args:
        cfg: Config of the run.
        world: Processes of the run; the first one writes.
    """

    def __init__(self, cfg: ConfigNode, world: World) -> None:
        self.cfg, self.world, self.path = cfg, world, Path(cfg.OUTPUT_DIR)
        self._at_end = ExitStack()
        self._locked = TRAINING if cfg.TRAIN.ENABLE else TESTING

    def __enter__(self) -> RunFolder:
        self.world.agreed(self._lock)
        return self

    def __exit__(self, *error: object) -> None:
        self._at_end.close()

    def _lock(self) -> None:
        if self.world.is_main:
            self._at_end.enter_context(exclusive_lock(self.path, self._locked))

    def begin(self) -> None:
        """Write the config and open the log: everything that can refuse the run has been done.

        A run that only tests leaves the config of a training as it is and writes config_test.yaml beside it.
        """
        self.world.agreed(self._write)

    def _write(self) -> None:
        if not self.world.is_main:
            return
        name = TEST_CONFIG if not self.cfg.TRAIN.ENABLE and self._has_config_of_training() else CONFIG
        try:
            write_whole(self.path / name, self.cfg.dump(), "OUTPUT_DIR")
            open_log(self.path)
        except DiskError:
            raise
        except OSError as error:
            raise ConfigError(f"OUTPUT_DIR {self.path} cannot be written to: {system_reason(error)}") from error

    def _has_config_of_training(self) -> bool:
        try:
            text = read_text_file(self.path / CONFIG, MIB)
            return bool(yaml.safe_load(text)["TRAIN"]["ENABLE"])
        except UnreadableTextError as error:
            return not error.missing
        except (ValueError, TypeError, KeyError, yaml.YAMLError):
            return True  # not ours to replace

    def wait_for_tests(self) -> None:
        """Before a training tests: wait until other runs that test in the folder have ended."""
        if self._locked == TESTING:
            return
        lock = FolderLock(self.path, TESTING)
        self._at_end.callback(lock.release)
        told = False
        with phase("waiting for another run that is testing in OUTPUT_DIR"):
            while self.world.any(self.world.is_main and not lock.acquire()):
                if not told and self.world.is_main:
                    get_logger().info(f"waiting for another run that is testing in {self.path}")
                told = True
                time.sleep(1)

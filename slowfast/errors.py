"""The errors that are the user's to mend; `tools/run_net.py` prints them without a traceback and exits with 2."""


class UserError(Exception):
    """A mistake in the config, an index file or a checkpoint: one line that says what, where and what to do."""


class ToldElsewhere(UserError):
    """A mistake that the main process tells for all."""


class ConfigError(UserError):
    """An unknown key, a value of the wrong type or an impossible combination of values."""


class IndexFileError(UserError):
    """A broken line, an unusable label or a missing index file."""


class CheckpointError(UserError):
    """A file of weights that is missing, damaged, unsafe, or belongs to another network."""


class DataError(UserError):
    """More media failed than DATA.MAX_FAILED allows, or none could be read at all."""

"""Command `slowfast torchrun`: torchrun, with its errors in one line instead of tracebacks."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Sequence
from typing import NoReturn

from slowfast.cli.command import DONE, FAILED, USER_MISTAKE, CommandParser, exit_status
from slowfast.errors import UserError
from slowfast.utils.screen import Heartbeat, show
from slowfast.utils.signals import Stopped
from slowfast.utils.text import plain

COMMANDS = ("train", "test", "run")
EXAMPLE = (
    "slowfast torchrun --nnodes=2 --nproc_per_node=8 --rdzv_backend=c10d --rdzv_endpoint=node1:29500 "
    "train --cfg K400/K400_MLP_S16x4"
)
DESCRIPTION = f"""\
Start the processes of a run on this node with PyTorch's torchrun. The options are those of torchrun, which torchrun
--help lists; the command follows them. Run the same line on all nodes. Errors of torchrun, such as a rendezvous that
cannot be reached, are one line.

  {EXAMPLE}

docs/MULTI_NODE.md explains runs on several machines.
"""
_CPP_LEVEL = "TORCH_CPP_LOG_LEVEL"
USAGE = "%(prog)s [options of torchrun] train|test|run --cfg FILE [--import MODULE] [KEY VALUE ...]"


def main(arguments: Sequence[str]) -> int:
    """Run torchrun and return the exit status: 0 done, 1 after a failure, 2 after a user error."""
    return exit_status(lambda: _run(arguments))


def _run(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        CommandParser("slowfast torchrun", DESCRIPTION, USAGE, EXAMPLE, imports=False).parse(["--help"])
    # A replaced node gets the address of the new process group.
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    # Read by the import: without it, a failed connection shows its C++ stack. The processes choose for themselves.
    shown = os.environ.get(_CPP_LEVEL)
    os.environ[_CPP_LEVEL] = "FATAL"
    from torch.distributed import DistError, run

    os.environ.pop(_CPP_LEVEL)
    os.environ.update({} if shown is None else {_CPP_LEVEL: shown})
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError

    parser = run.get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    options = _as_module(parser.parse_args(list(arguments)))
    Heartbeat.end()  # the processes have their own
    try:
        run.run(options)
    except (RendezvousError, DistError) as error:
        raise UserError(_rendezvous_error(error, options)) from error
    except ChildFailedError as error:
        return _status_of_failed(*error.get_first_failure())
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from error
        raise Stopped(signal.Signals(error.sigval).name) from error
    except (ValueError, OSError) as error:
        raise UserError(f"torchrun: {' '.join(str(error).split())}") from error
    return DONE


def _refuse(message: str) -> NoReturn:
    raise UserError(f"torchrun: {message}. slowfast torchrun --help shows an example")


def _as_module(options: argparse.Namespace) -> argparse.Namespace:
    """Make a command of this package the module that torchrun starts."""
    if options.training_script in COMMANDS and not options.module:
        options.training_script_args = [options.training_script, *options.training_script_args]
        options.training_script, options.module = "slowfast", True
    return options


def _rendezvous_error(error: Exception, options: argparse.Namespace) -> str:
    """Return what went wrong, with the address and what to check."""
    from torch.distributed.elastic.rendezvous import api

    static = options.rdzv_backend == "static"
    place = f"{options.master_addr}:{options.master_port}" if static else options.rdzv_endpoint
    where = f"the rendezvous at {plain(place) or 'an address of this node'}"
    address = "--master_addr and --master_port" if static else "--rdzv_endpoint"
    if isinstance(error, api.RendezvousTimeoutError):
        return (
            f"torchrun: not all of {options.nnodes} nodes came to {where} in time. Check that all run the same command "
            "with the same --rdzv_id; --rdzv_conf=join_timeout=SECONDS waits longer"
        )
    if isinstance(error, api.RendezvousClosedError):
        return f"torchrun: the run at {where} has ended. Start the command again on all nodes"
    return (
        f"torchrun: no connection to {where}. Check that the node of this address runs the same command, that "
        f"{address} is right on all nodes, and that no firewall closes the port"
    )


def _status_of_failed(rank: int, failure: object) -> int:
    """Report the first process that failed, unless it has reported a user error; return the exit status."""
    code = int(getattr(failure, "exitcode", FAILED))
    if code == USER_MISTAKE:
        return USER_MISTAKE
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    show(f"error: rank {rank} {how}; see its output above", error=True)
    return FAILED

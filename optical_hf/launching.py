"""What surrounds a command: as many processes as asked for, room to write, its errors, and leaving the processes."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import psutil
import torch
from accelerate import PartialState
from accelerate.commands.config.config_args import default_config_file, load_config_from_file
from accelerate.commands.launch import launch_command_parser
from safetensors import SafetensorError

from .files import scratch, take_lock

LOCK = ".optical-hf.lock"
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def run(command: Callable[[Sequence[str]], None], arguments: Sequence[str]) -> None:
    """Run a command to the end of its processes; what is wrong with its input becomes one line and exit code 1.

    Args:
        command (`Callable`): its `main`, which takes the command line.
        arguments (`Sequence[str]`): the command line.
    """
    end_with_launcher()
    try:
        command(arguments)
    except (ValueError, OSError, RuntimeError, ImportError, FloatingPointError, SafetensorError) as error:
        sys.exit(f"error: {error}")
    end_processes()


def end_with_launcher() -> None:
    """End this process when the `accelerate launch` that started it is killed, which would leave it writing alone.

    On Linux only; elsewhere, and where no launcher started this process, nothing happens.
    """
    launcher = _launcher()
    if launcher is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != launcher.pid:  # killed before the line above
        os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def writing(folder: str | os.PathLike[str], is_main_process: bool = True) -> Iterator[None]:
    """Hold a folder as its only writer: a second training into it would mix its files with the first one's.

    Args:
        folder (`str` or `Path`): the output folder. The lock ends with the process, however that ends.
        is_main_process (`bool`, *optional*): other processes of the same launch hold nothing.

    Raises:
        OSError: naming the process that writes there now.
    """
    if not is_main_process:
        yield
        return
    path = Path(folder) / LOCK
    holder = path.with_suffix(".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock: int | None = take_lock(path)
    except (BlockingIOError, FileNotFoundError):
        said = "another process"
        with suppress(FileNotFoundError):  # not written yet, or removed by now
            said = holder.read_text(encoding="utf-8", errors="replace")
        raise OSError(f"{folder} is being written by {said}. Wait for it, or choose another --output_dir.") from None
    except PermissionError:
        raise
    except OSError:
        lock = None  # a disk without locks
    try:
        holder.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        if lock is not None:
            os.close(lock)


def start_logging(is_main_process: bool) -> None:
    """Show what the library logs, and of other processes than the first their errors only."""
    logging.basicConfig(level=logging.INFO if is_main_process else logging.ERROR, format="%(message)s")


def start_processes() -> PartialState:
    """Join the processes of this launch, to be called before anything else asks Accelerate for its state.

    While the first process indexes or encodes what the others need, they wait: for hours if they must, where the
    default is 10 to 30 minutes.

    Raises:
        RuntimeError: if there are fewer processes than were asked for, as [`check_world_size`].
    """
    # Without a GPU, processes of one launch only find each other if they are told to use the CPU.
    state = PartialState(cpu=not torch.accelerator.is_available(), timeout=timedelta(days=7))
    check_world_size(state.num_processes)
    return state


def end_processes() -> None:
    """Leave the processes of this launch, to be called last, and only where nothing failed.

    A process that exits while gloo's threads still run is now and then aborted ("terminate called without an active
    exception", exit code 134), after its work is done. They end with the group, and the group with the last model that
    was trained in it: call this where no variable holds a trainer any more. After an error, leaving would wait on GPUs
    for processes that are in the middle of something else; the launcher ends those.
    """
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
        # A thread of gloo may still wait for Python's lock while it holds one of its own, which the group's end takes
        # while it holds Python's: both would wait for ever, as was seen once on a busy machine. Let it pass first.
        time.sleep(0.2)
        gc.collect()  # A trainer, its model and the wrapper that holds the group refer to each other.


def check_world_size(world_size: int) -> None:
    """Raise an error if this run was asked for more processes than it got.

    `accelerate launch --cpu --num_processes 2` starts one process, and a CPU run that was not told `use_cpu` starts
    two that know nothing of each other and write the same folder; neither says so.

    Args:
        world_size (`int`): processes that train together, `TrainingArguments.world_size`.

    Raises:
        RuntimeError: naming both numbers, and what to do.
    """
    asked = max(int(os.environ.get("WORLD_SIZE", 1)), _processes_asked_of_accelerate())
    if asked > world_size:
        raise RuntimeError(
            f"{asked} processes were asked for, and {world_size} is running. On the CPU, launch with "
            "`accelerate launch --config_file examples/accelerate_configs/two_cpu.yaml` and pass `--use_cpu true` "
            "if it trains; on GPUs, check that as many are visible."
        )


def _launcher() -> psutil.Process | None:
    # `accelerate launch`, as `accelerate launch` or `python -m accelerate.commands.launch`, is the parent.
    try:
        parent = psutil.Process().parent()
        command = parent.cmdline() if parent else []
    except psutil.Error:
        return None
    return parent if any("accelerate" in part for part in command) and _launch_arguments(command) is not None else None


def _launch_arguments(command: Sequence[str]) -> Sequence[str] | None:
    for place, word in enumerate(command):
        if word == "launch" or word in ("accelerate.commands.launch", "accelerate-launch"):
            return command[place + 1 :]
    return None


def _processes_asked_of_accelerate() -> int:
    # Where it starts one process only, it leaves no number behind.
    launcher = _launcher()
    if launcher is None:
        return 1
    asked, _ = launch_command_parser().parse_known_args(_launch_arguments(launcher.cmdline()))
    # As `accelerate launch` does: its own file of defaults (`accelerate config`) holds where none is named.
    has_defaults = os.path.isfile(default_config_file) and not asked.cpu
    config_file = asked.config_file or (default_config_file if has_defaults else None)
    if asked.num_processes is None and config_file is not None:
        return load_config_from_file(config_file).num_processes
    return asked.num_processes or 1


def check_files(option: str, *paths: str | os.PathLike[str] | None) -> None:
    """Raise an error now, not once a model is loaded, if a file is not there.

    Args:
        option (`str`): the argument that names it, such as `"--topics"`.
        paths (`str` or `Path`): the files; `None` was not given.

    Raises:
        FileNotFoundError: naming argument and file.
    """
    for path in paths:
        if path is not None and not Path(path).is_file():
            raise FileNotFoundError(f"{option}: there is no file {path}.")


def check_writable(folder: str | os.PathLike[str], size: int) -> None:
    """Raise an error now, not after hours of training, if a folder cannot be written or has no room.

    Args:
        folder (`str` or `Path`): made if it is not there.
        size (`int`): bytes that are going to be written.

    Raises:
        OSError: naming the folder, and what to do.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with scratch(folder, "probe") as place:
            (place / "probe").write_bytes(b"0" * 4096)
    except OSError as error:
        raise OSError(
            f"The output folder {folder} cannot be written ({error}); choose another --output_dir."
        ) from error
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OSError(
            f"The output folder {folder} has {free / 1e9:.1f} GB free, and the student with its checkpoints needs "
            f"about {size / 1e9:.1f} GB: make room, choose another --output_dir, or save less (--save_strategy no)."
        )

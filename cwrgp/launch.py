"""Starting or joining the processes of a run."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from cwrgp.preemption import EXIT_CODE, Preempted, forwarded_to
from cwrgp.shared_memory import WorkerError


def local_device() -> torch.device:
    """This process's GPU where there is one, otherwise the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("cpu")


def launch(main: Callable[..., Any], num_gpus: int | None, args: tuple[Any, ...]) -> Any:
    """Runs ``main(*args)`` in as many processes as asked for, or joins those that torchrun started.

    Args:
        main: the worker; picklable.
        num_gpus: processes on this machine, one for each GPU; None: one.
        args: its arguments.

    Raises:
        ValueError: more processes than GPUs, or the user's mistake in one of the processes.
        Preempted: the processes were told to stop.
        torch.multiprocessing.ProcessExitedException, ProcessRaisedException: a process failed; the
            others have been ended.
    """
    if "LOCAL_RANK" in os.environ:  # torchrun
        return _worker(None, main, args)
    count = 1 if num_gpus is None else num_gpus
    available = torch.cuda.device_count()
    if count > max(available, 1) or count < 0:
        raise ValueError(
            f"--num-gpus {count}: this machine shows {available} GPU(s); several processes on the "
            f"CPU start with torchrun --nproc_per_node {count}"
        )
    if num_gpus == 0 and available:
        raise ValueError(
            "--num-gpus 0: set CUDA_VISIBLE_DEVICES= (to nothing) to run on this machine's CPU"
        )
    if count <= 1:
        return main(*args)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    mistakes = torch.multiprocessing.get_context("spawn").SimpleQueue()
    work = (main, args, mistakes)
    context = torch.multiprocessing.spawn(_spawned, work, nprocs=count, join=False)
    try:
        with forwarded_to(context.pids()):
            while not context.join():  # if one fails, it ends the others
                pass
    except (
        torch.multiprocessing.ProcessExitedException,
        torch.multiprocessing.ProcessRaisedException,  # perhaps only because another has failed
    ) as error:
        if not mistakes.empty():
            raise ValueError(mistakes.get()) from None
        if getattr(error, "exit_code", None) == EXIT_CODE:
            raise Preempted("stop requested") from None
        raise
    finally:
        for process in context.processes:  # after Ctrl-C
            if process.is_alive():
                process.kill()
                process.join()
    return None


def _spawned(
    local_rank: int, main: Callable[..., Any], args: tuple[Any, ...], mistakes: Any
) -> None:
    """Hands a user's mistake to the parent, where it is one line, not a traceback of processes."""

    def reporting(*args: Any) -> None:
        try:
            main(*args)
        except Preempted as error:
            raise SystemExit(EXIT_CODE) from error
        except (ValueError, OSError, FloatingPointError) as error:
            mistakes.put(str(error))  # before the others can notice that this process is gone
            raise SystemExit(2) from error

    _worker(local_rank, reporting, args)


def _worker(local_rank: int | None, main: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    if local_rank is not None:
        os.environ |= {"RANK": str(local_rank), "LOCAL_RANK": str(local_rank)}
    if torch.cuda.is_available():
        torch.cuda.set_device(local_device())
        dist.init_process_group("nccl", device_id=local_device())
    else:
        dist.init_process_group("gloo")
    alone = False
    try:
        return main(*args)
    except WorkerError:
        # The other processes go on. They fail when this one closes its connections, which must not
        # be before it has printed its error: torchrun ends all processes at the first failure.
        alone = True
        raise
    finally:
        if not alone:
            dist.destroy_process_group()

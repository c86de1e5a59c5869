"""Starting or joining the processes of a run."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from cwrgp.errors import USER_ERRORS, kind_of
from cwrgp.preemption import EXIT_CODE, Preempted, forwarded_to
from cwrgp.shared_memory import WorkerError


def local_device() -> torch.device:
    """This process's GPU where there is one, otherwise the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("cpu")


def check_num_gpus(num_gpus: int) -> None:
    """Checks a number of processes; one process may run without a GPU.

    Raises:
        ValueError: more processes than GPUs, or a negative number.
    """
    available = torch.cuda.device_count()
    if num_gpus < 0:
        raise ValueError(f"num_gpus {num_gpus} is negative; this machine shows {available} GPU(s)")
    if num_gpus > max(available, 1):
        raise ValueError(
            f"num_gpus {num_gpus}: this machine shows {available} GPU(s); several processes on "
            f"the CPU start with torchrun --nproc_per_node {num_gpus}"
        )


def launch(
    main: Callable[..., Any],
    num_gpus: int | None,
    args: tuple[Any, ...],
    *,
    num_machines: int = 1,
    machine_rank: int = 0,
    init_method: str | None = None,
) -> Any:
    """Runs ``main(*args)`` in the requested processes, or joins those that torchrun started.

    Args:
        main: the worker; picklable.
        num_gpus: processes on this machine, one for each GPU; None: one.
        args: its arguments.
        num_machines: of the run; each calls this function.
        machine_rank: number of this machine.
        init_method: URL at which the processes meet, ``tcp://HOST:PORT``; None: a free port of this
            machine.

    Returns:
        What ``main`` returns; None if it ran in processes that were started here.

    Raises:
        ValueError: more processes than GPUs.
        ValueError, OSError, FloatingPointError, MissingPackage: the user's mistake in one of the
            processes; see `kind_of` for its class.
        Preempted: the processes received a stop signal.
        torch.multiprocessing.ProcessExitedException, ProcessRaisedException: a process failed; the
            others have been ended.
    """
    if "LOCAL_RANK" in os.environ:  # torchrun
        return _worker(main, args, "env://")
    count = 1 if num_gpus is None else num_gpus
    check_num_gpus(count)
    if num_gpus == 0 and torch.cuda.device_count():
        raise ValueError(
            "num_gpus 0: set CUDA_VISIBLE_DEVICES= (to nothing) to run on this machine's CPU"
        )
    if count * num_machines <= 1:
        return main(*args)
    place = (init_method or _free_address(), machine_rank * count, num_machines * count, count)
    _spawn(main, args, place)
    return None


def _spawn(
    main: Callable[..., Any], args: tuple[Any, ...], place: tuple[str, int, int, int]
) -> None:
    """Starts the processes of this machine and waits for them; ``place`` is as in `_spawned`."""
    count = place[-1]
    mistakes = torch.multiprocessing.get_context("spawn").SimpleQueue()
    work = (main, args, *place, mistakes)
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
            kind, message = mistakes.get()
            raise kind(message) from None
        if getattr(error, "exit_code", None) == EXIT_CODE:
            raise Preempted("stop requested") from None
        raise
    finally:
        for process in context.processes:  # after Ctrl-C
            if process.is_alive():
                process.kill()
                process.join()


def _free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def _spawned(
    local_rank: int,
    main: Callable[..., Any],
    args: tuple[Any, ...],
    init_method: str,
    first_rank: int,
    world_size: int,
    local_size: int,
    mistakes: Any,
) -> None:
    """Hands a user's mistake to the parent, where it is one line, not a traceback of processes."""
    os.environ |= {  # as torchrun sets them
        "RANK": str(first_rank + local_rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_RANK": str(local_rank),
        "LOCAL_WORLD_SIZE": str(local_size),
    }

    def reporting(*args: Any) -> None:
        try:
            main(*args)
        except Preempted as error:
            raise SystemExit(EXIT_CODE) from error
        except USER_ERRORS as error:
            # Before the other processes can notice that this one is gone.
            mistakes.put((kind_of(error), str(error)))
            raise SystemExit(2) from error

    _worker(reporting, args, init_method)


def _worker(main: Callable[..., Any], args: tuple[Any, ...], init_method: str) -> Any:
    place: dict[str, Any] = {
        "init_method": init_method,
        "rank": int(os.environ["RANK"]),
        "world_size": int(os.environ["WORLD_SIZE"]),
    }
    if torch.cuda.is_available():
        torch.cuda.set_device(local_device())
        dist.init_process_group("nccl", device_id=local_device(), **place)
    else:
        dist.init_process_group("gloo", **place)
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

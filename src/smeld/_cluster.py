"""Where tasks run: one after the other in this process, in worker processes of this machine, or on a scheduler of
dask.distributed. Tasks are whole and independent; a worker that dies costs its task another try, nothing else."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from smeld import _check

#: a task that was on this many workers when they died is given up
TRIES = 3
DIED = "worker died (out of memory?)"
#: what numerical libraries of a worker are told: one thread each, for there is a worker a core
ONE_THREAD = dict.fromkeys(("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
#: workers that lag are no dead workers: a long step may hold Python's lock for minutes, and a broken connection tells
SETTINGS = {
    "distributed.scheduler.allowed-failures": TRIES - 1,
    "distributed.scheduler.worker-ttl": None,
    "distributed.worker.memory.pause": False,
}

#: a worker has one task at a time, however many threads it was given: plotting is not made for several
_alone = threading.Lock()


@dataclass(frozen=True)
class Lost:
    """A task that gave no result, and why."""

    reason: str


def require_distributed() -> None:
    """Raise InputError unless dask.distributed is installed."""
    if find_spec("distributed") is None:
        raise _check.problem(
            "several workers need the extra smeld[cluster]",
            found="no distributed",
            cure="pip install 'smeld[cluster]', or leave --jobs and --scheduler out",
        )


def each(
    task: Callable[[Any], Any],
    items: Sequence[Any],
    *,
    jobs: int = 1,
    scheduler: str | None = None,
    memory_bytes: int | None = None,
) -> Iterator[tuple[int, Any]]:
    """The task's result for each item, as they come.

    Parameters
    ----------
    task
        A function of a module (workers import it), of one item; what it raises becomes a :class:`Lost`.
    items
        What it is called with.
    jobs
        Worker processes, one thread each; 1: all in this process, in order.
    scheduler
        Address of a running scheduler (``tcp://host:port``), whose workers are then used in place of own ones.
    memory_bytes
        What all own workers together may take; one that takes more than its share is ended. None: no limit.

    Yields
    ------
    (int, Any)
        An item's index, and its result or Lost.
    """
    if scheduler is None and jobs == 1:
        for index, item in enumerate(items):
            yield index, _safely(task, item)
        return
    require_distributed()
    with ExitStack() as stack:
        client = stack.enter_context(_client(stack, min(jobs, max(1, len(items))), scheduler, memory_bytes))
        yield from _on_workers(client, task, items)


def _safely(task: Callable[[Any], Any], item: Any) -> Any:
    try:
        return task(item)
    except Exception as error:  # noqa: BLE001  one task's failure is a result: the others go on
        return Lost(f"{type(error).__name__}: {error}")


def _remote(task: Callable[[Any], Any], item: Any) -> Any:
    """What a worker runs."""
    with _alone:
        return _safely(task, item)


def _client(stack: ExitStack, jobs: int, scheduler: str | None, memory_bytes: int | None) -> Any:
    from distributed import Client

    if scheduler is not None:
        return _connected(scheduler)
    return Client(_local(stack, jobs, memory_bytes), set_as_default=False)


def _connected(scheduler: str) -> Any:
    from distributed import Client

    try:
        return Client(scheduler, set_as_default=False, timeout=30)
    except (OSError, ValueError, TypeError) as error:
        raise _check.problem(
            f"no scheduler answers at {scheduler}",
            found=f"{type(error).__name__}: {error}",
            cure="give the address that dask scheduler prints, tcp://HOST:PORT",
        ) from error


def _local(stack: ExitStack, jobs: int, memory_bytes: int | None) -> Any:
    """Workers of our own: nobody but this machine can reach them, and only with our key where keys can be made."""
    import dask
    from distributed import LocalCluster

    stack.enter_context(dask.config.set(SETTINGS))
    return stack.enter_context(
        LocalCluster(
            n_workers=jobs,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            memory_limit=0 if memory_bytes is None else memory_bytes // jobs,
            dashboard_address="127.0.0.1:0",
            silence_logs=50,
            security=True if find_spec("cryptography") else None,
            env=ONE_THREAD,
        )
    )


def _on_workers(client: Any, task: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """No more tasks at a time than there are workers: the scheduler holds a worker's death against every task that it
    had been given, also those that only waited."""
    from distributed import as_completed

    run, waiting = uuid.uuid4().hex[:8], iter(range(len(items)))
    index_of: dict[Any, int] = {}
    going: Any = as_completed(loop=client.loop, raise_errors=False)

    def start_more() -> None:
        while len(index_of) < max(1, len(client.nthreads())):
            index = next(waiting, None)
            if index is None:
                return
            future = client.submit(_remote, task, items[index], key=f"smeld-{run}-{index}", pure=False)
            index_of[future.key] = index
            going.add(future)

    start_more()
    for future in going:
        index = index_of.pop(future.key)
        result = _result(future)
        start_more()
        yield index, result


def _result(future: Any) -> Any:
    from concurrent.futures import CancelledError

    from distributed.scheduler import KilledWorker

    try:
        return future.result()
    except KilledWorker:
        return Lost(DIED)
    except CancelledError:
        return Lost("the scheduler was lost")
    except Exception as error:  # noqa: BLE001  what could not be sent, or not be imported there
        return Lost(f"{type(error).__name__}: {error}")

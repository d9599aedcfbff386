"""Where tasks run: one after the other in this process, in worker processes of this machine, or on a scheduler of
dask.distributed. Tasks are whole and independent; a worker that dies costs its task another try, nothing else."""

from __future__ import annotations

import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from smeld import _check
from smeld.kernels import _backend, _share, _threads

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
    "distributed.worker.profile.enabled": False,
    # memory is not handed back to the system after each use: numpy's temporary arrays would be mapped anew every time
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
}

#: a worker has one task at a time, however many threads it was given: plotting is not made for several
_alone = threading.Lock()


@dataclass(frozen=True)
class Lost:
    """A task that gave no result, and why; ``refused`` where its input is at fault."""

    reason: str
    refused: bool = False


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
    begun: Callable[[int], None] = lambda index: None,
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
    begun
        Told the index of each item as it is given to a worker.

    Yields
    ------
    (int, Any)
        An item's index, and its result or Lost.
    """
    if scheduler is None and jobs == 1:
        for index, item in enumerate(items):
            begun(index)
            yield index, _safely(task, item)
        return
    require_distributed()
    with ExitStack() as stack:
        client = stack.enter_context(_client(stack, min(jobs, max(1, len(items))), scheduler, memory_bytes))
        yield from _on_workers(client, task, items, begun)


def _safely(task: Callable[[Any], Any], item: Any) -> Any:
    try:
        return task(item)
    except _check.InputError as error:
        return Lost(str(error), refused=True)
    except Exception as error:  # noqa: BLE001  one task's failure is a result: the others go on
        return Lost(f"{type(error).__name__}: {error}")


def _remote(task: Callable[[Any], Any], item: Any) -> Any:
    """What a worker runs."""
    _threads.alone()
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
    made = LocalCluster(
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
    stack.callback(_close, made)
    return made


def _close(made: Any) -> None:
    """Ends the workers. One that takes its time (it was just started anew, the machine is busy) must not cost what was
    done: it ends with this process, if not before."""
    with suppress(TimeoutError):
        made.close()


def _on_workers(
    client: Any, task: Callable[[Any], Any], items: Iterable[Any], begun: Callable[[int], None] = lambda index: None
) -> Iterator[tuple[int, Any]]:
    """No more tasks at a time than there are workers: the scheduler holds a worker's death against every task that it
    had been given, also those that only waited."""
    from distributed import as_completed

    run, waiting = uuid.uuid4().hex[:8], enumerate(items)
    index_of: dict[Any, int] = {}
    going: Any = as_completed(loop=client.loop, raise_errors=False)

    def start_more() -> None:
        while len(index_of) < max(1, len(client.nthreads())):
            index, item = next(waiting, (None, None))
            if index is None:
                return
            future = client.submit(_remote, task, item, key=f"smeld-{run}-{index}", pure=False)
            index_of[future.key] = index
            going.add(future)
            begun(index)

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


# -- work of one section -------------------------------------------------------------------------------------


@contextmanager
def cluster(
    jobs: int = 1, scheduler: str | None = None, *, scratch: str | Path | None = None, memory_bytes: int | None = None
) -> Iterator[None]:
    """Within the block, tiles of ``sm.morph.embed`` and pairs of ``sm.tl.interactions`` are shared out among workers.

    Parameters
    ----------
    jobs
        Worker processes on this machine, one thread each, started when first needed; 1: all in this process.
    scheduler
        Address of a scheduler of dask.distributed (``tcp://host:port``), whose workers are used in place of own ones.
    scratch
        Folder for large arrays on their way, which all workers see; needed with ``scheduler``. Default: the system's
        temporary folder. What is written there is removed at the end of the block.
    memory_bytes
        What all own workers together may take; one that takes more than its share is ended, and its task given to
        another. Default: no limit.

    Writes
    ------
    Nothing into the data by itself: results have the same bits as without workers (networks: see docs/scale.md).

    Raises
    ------
    InputError
        ``smeld[cluster]`` is not installed; no scheduler answers; ``scratch`` cannot be written.

    Notes
    -----
    In a script, call it below ``if __name__ == "__main__":``, for workers import the script.

    Examples
    --------
    >>> import smeld as sm
    >>> adata = sm.datasets.simulate(n_obs=400, n_genes=100, seed=0)
    >>> with cluster(jobs=1):
    ...     morphology = sm.morph.embed(adata)
    """
    if jobs < 1:
        raise _check.problem("jobs must be at least 1", found=f"{jobs}")
    if scheduler is None and jobs == 1:
        yield
        return
    require_distributed()
    if scheduler is not None and scratch is None:
        raise _check.problem(
            "workers of a scheduler need a folder that all of them see", found="no scratch", cure="give scratch=FOLDER"
        )
    with ExitStack() as stack, _share.using(_Workers(stack, jobs, scheduler, _scratch(stack, scratch), memory_bytes)):
        yield


def _scratch(stack: ExitStack, beside: str | Path | None) -> Path:
    """A new folder that no other user can read, removed in the end."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=".smeld-scratch-", dir=beside)).resolve()
    except OSError as error:
        raise _check.problem(
            "scratch cannot be written", found=str(error), cure="give a folder that all workers can write to"
        ) from error
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder


class _Workers:
    """Workers that are started, or connected to, when something is to be shared out for the first time."""

    def __init__(
        self, stack: ExitStack, jobs: int, scheduler: str | None, scratch: Path, memory_bytes: int | None
    ) -> None:
        self._start = partial(_client, stack, jobs, scheduler, memory_bytes)
        self._stack, self._scratch, self._remote = stack, scratch, scheduler is not None
        # whether a scheduler answers is to be known before the long part
        self._client = stack.enter_context(self._start()) if self._remote else None

    @contextmanager
    def share(self) -> Iterator[_share.Share]:
        if self._client is None:
            self._client = self._stack.enter_context(self._start())
        folder = Path(tempfile.mkdtemp(dir=self._scratch))
        try:
            yield _Shared(self._client, folder, self._remote)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class _Job:
    """What all tasks of one call of ``each`` need: ``given`` as packed; ``device`` as asked for where it was made."""

    name: str
    folder: str
    make: Callable[[Any], Callable[[Any], Any]]
    given: Any
    device: str | None


@dataclass(frozen=True)
class _Done:
    """A result as packed, and the devices that kernels used for it."""

    value: Any
    devices: str | None


class _Shared:
    """A block of work on workers."""

    here = False

    def __init__(self, client: Any, folder: Path, remote: bool) -> None:
        self._client, self._files, self.remote = client, _share.Files(folder), remote

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self._files.empty(shape, dtype)

    def each(self, make: Any, given: Any, items: Iterable[Any]) -> Iterator[Any]:
        packed = self._files.pack(given)
        job = _Job(uuid.uuid4().hex, str(self._files.folder), make, packed, _backend.switch.asked)
        waiting = (_share.Files(self._of_item(k)).pack(item) for k, item in enumerate(items))
        come: dict[int, Any] = {}
        following = 0
        for index, result in _on_workers(self._client, partial(_apply, job), waiting):
            shutil.rmtree(self._of_item(index), ignore_errors=True)
            come[index] = result
            while following in come:
                yield _taken(come.pop(following))
                following += 1

    def _of_item(self, index: int) -> Path:
        return self._files.folder / str(index)


def _taken(result: Any) -> Any:
    """The result of a task, or its failure raised here."""
    if isinstance(result, Lost):
        if result.refused:
            raise _check.InputError(result.reason)
        raise RuntimeError(f"a task given to a worker failed: {result.reason}")
    if result.devices is not None:
        _backend.switch.start()
        for device in result.devices.split(", "):
            _backend.switch.use(device)
    return _share.unpack(result.value, _share.Stored.taken)


#: on a worker: the last job, whose function and arrays are kept for its next task
_last: dict[str, Callable[[Any], Any]] = {}


def _apply(job: _Job, item: Any) -> _Done:
    """What a worker runs for one item."""
    if job.name not in _last:
        _last.clear()
        _backend.switch.asked = job.device
        _last[job.name] = job.make(_share.unpack(job.given))
    result = _last[job.name](_share.unpack(item))
    return _Done(_share.Files(Path(job.folder)).pack(result), _backend.switch.taken())

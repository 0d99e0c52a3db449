"""Who does the work: the devices of this process, or the workers of a cluster."""

import concurrent.futures
import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from h2mv_tf import distribution
from h2mv_tf.data.store import Block, Store
from h2mv_tf.data.writing import Arrays
from h2mv_tf.errors import UserError
from h2mv_tf.inference.job import Job
from h2mv_tf.inference.samples import Samples
from h2mv_tf.inference.simulator import Simulator
from h2mv_tf.inference.work import Work
from h2mv_tf.trained import Trained

CONNECTING = 10  # seconds, to a dask scheduler


def on_devices(
    works: Sequence[Work], groups: Sequence[Sequence[Block]]
) -> Iterator[Sequence[Block]]:
    """Works on all devices of this process; gives the groups as they are written.

    Args:
        works: One for each device.
        groups: Blocks that are simulated together.
    """
    rest, taking, stop = iter(groups), threading.Lock(), threading.Event()
    done: queue.SimpleQueue = queue.SimpleQueue()

    def run(work: Work) -> None:
        before, waiting = None, []
        while not stop.is_set():
            with taking:
                group = next(rest, None)
            # One is written while the next is simulated.
            begun = work(group) if group else []
            for wait in waiting:
                wait()
            if before:
                done.put(before)
            if group is None:
                return
            before, waiting = group, begun

    with concurrent.futures.ThreadPoolExecutor(max(len(works), 1)) as pool:
        running = [pool.submit(run, work) for work in works]
        for future in running:
            future.add_done_callback(done.put)
        try:
            while running:
                finished = done.get()
                if isinstance(finished, concurrent.futures.Future):
                    running.remove(finished)
                    finished.result()
                else:
                    yield finished
        finally:
            stop.set()


def on_cluster(
    address: str,
    trained: Trained,
    job: Job,
    store: Store,
    targets: Sequence[Arrays],
    groups: Sequence[Sequence[Block]],
    samples: Samples | None = None,
    call: str = "",
) -> Iterator[Sequence[Block]]:
    """Has the workers of a dask cluster do it; gives the groups as they are written.

    Args:
        address: Of the scheduler.
        trained: The model.
        job: What is asked for.
        store: Where the weather is.
        targets: Where to write the predictions and, maybe, the state.
        groups: Blocks that are simulated together.
        samples: What is simulated, where it is more than one model.
        call: Tells this call from others.
    """
    import distributed

    try:
        client = distributed.Client(address, timeout=CONNECTING, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"There is no dask scheduler at '{address}': {error}. Start one with `dask "
            "scheduler`, and its workers with `dask worker ADDRESS` where this package "
            "is installed and the same paths are there."
        ) from error
    with client, client.as_current():
        period = tuple(f"{day:%Y-%m-%d}" for day in store.time[[0, -1]])
        place = (store.path.resolve(), tuple(store.groups.items()), period)
        paths = tuple(arrays.store.resolve() for arrays in targets)
        model = client.scatter((trained, samples), broadcast=True)
        futures = {
            client.submit(
                _of_cluster,
                model,
                job,
                *place,
                paths,
                group,
                call,
                pure=False,
            ): group
            for group in groups
        }
        for future in distributed.as_completed(futures):
            future.result()
            yield futures[future]


def _of_cluster(
    model: tuple[Trained, Samples | None],
    job: Job,
    path: Path,
    groups: tuple[tuple[str, str], ...],
    period: tuple[str, str],
    targets: tuple[Path, ...],
    blocks: Sequence[Block],
    call: str,
) -> None:
    """Works on some blocks in a process of a dask worker."""
    trained, samples = model
    with _ONE_AT_A_TIME:
        key = (call, trained.digest, job, path, period, targets)
        if key not in _WORK:
            _WORK.clear()
            store = Store.open(path, dict(groups)).during(*period)
            simulator = Simulator.of(trained, job, distribution.own_devices(1)[0])
            arrays = map(Arrays, targets)
            _WORK[key] = Work(
                simulator, job, store, store.static(), *arrays, samples=samples
            )
        for wait in _WORK[key](blocks):
            wait()


# Of a dask worker, which has one task after the other.
_ONE_AT_A_TIME = threading.Lock()
_WORK: dict[tuple, Work] = {}

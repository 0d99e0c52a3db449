"""Tasks of dask, one for each block, and how many of them are done."""

import functools
import itertools
from collections.abc import Callable, Sequence

import dask
import xarray as xr
from dask.callbacks import Callback

Progress = Callable[[int, int], None]


def run(tasks: Sequence[Callable], advance: Callable[[], None]) -> Sequence:
    """Results of tasks, by dask.

    Args:
        tasks: Called without arguments.
        advance: Called when a task is done.
    """
    calls = [functools.partial(_fast, task) for task in tasks]
    # Here as well, so that no thread turns it off that ends before the others.
    with xr.set_options(use_bottleneck=True), Callback(posttask=lambda *_: advance()):
        return dask.compute(*(dask.delayed(call, pure=False)() for call in calls))


def counter(total: int, progress: Progress | None) -> Callable[[], None]:
    """Counts tasks that are done, and tells how many there are of all.

    Args:
        total: Number of all tasks.
        progress: Told the number of those that are done, and of all.
    """
    done = itertools.count(1)
    return lambda: progress(next(done), total) if progress is not None else None


def _fast(task: Callable):
    """A task's result; also in a process of its own the same to the last digit."""
    # Bottleneck adds up plainly, which double precision allows, in a third of the time.
    with xr.set_options(use_bottleneck=True):
        return task()

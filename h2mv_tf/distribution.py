"""Distribution: the devices and processes that share a training.

One process uses all GPUs, or as many logical CPU devices as it has cores, under
MirroredStrategy: XLA keeps a loop over days on about one core. Several processes,
told of each other by TF_CONFIG or started by Slurm's srun, share a training under
MultiWorkerMirroredStrategy.
"""

import contextlib
import os
from collections.abc import Mapping
from typing import Literal, NamedTuple

import psutil
import tensorflow as tf

from h2mv_tf.errors import UserError

Devices = int | Literal["auto"]

MOST = 3 * (os.cpu_count() or 1)  # logical CPU devices: more only wait
LEAST = 16  # windows that are worth a device of their own
# Ports of a job's workers on a node of Slurm: another job there has others.
FIRST_PORT, JOBS, PORTS_PER_JOB = 10000, 1000, 16


class Worker(NamedTuple):
    """One of the processes that train together."""

    index: int
    count: int

    @property
    def chief(self) -> bool:
        """Whether this one keeps the run folder, and talks."""
        return self.index == 0


def worker() -> Worker:
    """Which process this is, from TF_CONFIG or Slurm's environment.

    Raises:
        UserError: They cannot be read.
    """
    resolver = _resolver()
    if resolver is None:
        return Worker(0, 1)
    cluster = resolver.cluster_spec().as_dict()
    before = len(cluster.get("chief", ())) if resolver.task_type == "worker" else 0
    count = sum(len(cluster.get(kind, ())) for kind in ("chief", "worker"))
    return Worker(before + resolver.task_id, count)


def make_devices(devices: Devices = "auto") -> None:
    """Makes the logical CPU devices that `strategy` will want.

    Has to come before TensorFlow computes anything, and changes nothing after that;
    `strategy` calls it, too.

    Args:
        devices: As of `strategy`.
    """
    if worker().count == 1:
        _make_devices(devices)


def _make_devices(wanted: Devices) -> None:
    if _gpus():
        return
    cpu = tf.config.list_physical_devices("CPU")[0]
    count = _cores() if wanted == "auto" else min(wanted, MOST)
    made = tf.config.get_logical_device_configuration(cpu) or [None]
    if len(made) < count:
        with contextlib.suppress(RuntimeError):  # it has started
            tf.config.set_logical_device_configuration(
                cpu, [tf.config.LogicalDeviceConfiguration()] * count
            )


def own_devices(wanted: Devices = "auto") -> list[str]:
    """Names of the devices of this process, whatever other processes do.

    Args:
        wanted: How many; `auto` takes the GPUs, or else the cores.

    Raises:
        UserError: There are fewer.
    """
    _make_devices(wanted)
    kind = "GPU" if _gpus() else "CPU"
    found = len(tf.config.list_logical_devices(kind))
    if wanted == "auto":
        wanted = found if kind == "GPU" else min(found, _cores())
    if found < wanted:
        raise UserError(
            f"distribution.devices is {wanted}, but TensorFlow has {found}. Choose "
            "fewer, or auto."
        )
    return [f"{kind}:{n}" for n in range(wanted)]


def strategy(
    devices: Devices = "auto", batch_size: int | None = None
) -> tf.distribute.Strategy:
    """The strategy that a training runs under.

    Workers have to call it before TensorFlow computes anything.

    Args:
        devices: Number of devices of a process that trains alone. `auto` takes the
            GPUs, or else the cores, as far as the batch has work for them.
        batch_size: Windows in a batch.

    Raises:
        UserError: There are fewer devices, or the workers do not find each other.
    """
    if worker().count > 1:
        return _of_workers()
    chosen = own_devices(devices)
    if batch_size is not None:
        chosen = chosen[: used(devices, len(chosen), batch_size)]
    if len(chosen) == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy(
        chosen,
        # The default is for GPUs; without them it would warn and then do this.
        cross_device_ops=None if _gpus() else tf.distribute.ReductionToOneDevice(),
    )


def used(devices: Devices, available: int, batch_size: int) -> int:
    """How many devices a training on one process takes.

    Args:
        devices: As of `strategy`.
        available: That are there.
        batch_size: Windows in a batch.
    """
    if devices != "auto":
        return devices
    return max(1, min(available, batch_size // LEAST))


def shares(count: int) -> list[list[int]]:
    """What is there, dealt out to processes that train side by side.

    Args:
        count: Of the processes.

    Returns:
        For each, numbers of GPUs, or of cores where there are none; at least one.
    """
    there = list(range(_gpus())) or _own_cores()
    return [there[n::count] or [there[n % len(there)]] for n in range(count)]


def worth(share: list[int]) -> int:
    """How many devices a share is worth: hyper-threads share one.

    Args:
        share: Of `shares`.
    """
    if _gpus():
        return len(share)
    logical = psutil.cpu_count() or 1
    physical = psutil.cpu_count(logical=False) or logical
    return max(1, len(share) * min(physical, logical) // logical)


def has_gpus() -> bool:
    """Whether TensorFlow finds a GPU."""
    return _gpus() > 0


def local_devices(strategy: tf.distribute.Strategy) -> int:
    """How many devices of a strategy belong to this process."""
    return strategy.num_replicas_in_sync // worker().count


def dealt(batch: Mapping, strategy: tf.distribute.Strategy) -> Mapping:
    """A batch of this process, dealt out to its devices.

    Args:
        batch: Tensors by name, of as many rows as the devices divide.
        strategy: Of the training.
    """
    devices = local_devices(strategy)
    if devices == 1:
        return batch

    def part(context):
        index = context.replica_id_in_sync_group % devices

        def rows(tensor):
            size = tensor.shape[0] // devices
            return tensor[index * size : (index + 1) * size]

        return tf.nest.map_structure(rows, batch)

    return strategy.experimental_distribute_values_from_function(part)


def _resolver() -> tf.distribute.cluster_resolver.ClusterResolver | None:
    """What knows the processes of this training; None where this one is alone."""
    resolvers = tf.distribute.cluster_resolver
    try:
        if os.environ.get("TF_CONFIG"):
            resolver = resolvers.TFConfigClusterResolver()
            if not resolver.cluster_spec():
                return None
            if resolver.task_type is None or resolver.task_id is None:
                raise ValueError("it does not say which task this is")
            return resolver
        tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
        if tasks > 1:
            job = int(os.environ.get("SLURM_JOB_ID", "0"))
            # It lists as many tasks of a node as it believes there to be GPUs, and
            # cannot count to none; Slurm itself deals them out (--gpus-per-task).
            resolver = resolvers.SlurmClusterResolver(
                port_base=FIRST_PORT + job % JOBS * PORTS_PER_JOB,
                gpus_per_node=tasks,
                gpus_per_task=1,
                auto_set_gpu=False,
            )
            resolver.cluster_spec()  # finds which task this is
            return resolver
    except (ValueError, TypeError, RuntimeError, KeyError) as error:
        source = "TF_CONFIG" if os.environ.get("TF_CONFIG") else "Slurm's environment"
        raise UserError(
            f"{source} does not tell which processes train together: {error}. "
            "docs/cluster.md shows what it has to hold."
        ) from error
    return None


def _of_workers() -> tf.distribute.Strategy:
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=_resolver())
    except (tf.errors.OpError, RuntimeError) as error:
        raise UserError(
            f"The workers of this training cannot connect: {error}"
        ) from error


def _cores() -> int:
    """Cores that are worth a device each: hyper-threads share one."""
    allowed = len(_own_cores())
    return min(allowed, psutil.cpu_count(logical=False) or allowed)


def _own_cores() -> list[int]:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _gpus() -> int:
    return len(tf.config.list_physical_devices("GPU"))

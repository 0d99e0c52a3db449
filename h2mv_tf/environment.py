"""The environment: what besides seed and configuration makes the numbers of a run.

`environment.json` of a run folder has a row for each time that it was begun or resumed.
"""

import importlib
import logging
import os
import platform
from datetime import UTC, datetime
from importlib import metadata

import tensorflow as tf

from h2mv_tf import __version__
from h2mv_tf.errors import UserError
from h2mv_tf.run_folder import RunFolder, git_commit

logger = logging.getLogger(__name__)

PACKAGES = (
    "tensorflow",
    "keras",
    "tensorflow-probability",
    "numpy",
    "xarray",
    "zarr",
    "tensorstore",
    "h5py",
)
# Of the environment, what begins so.
CLUSTER = "TF_CONFIG"  # names of hosts, which change and are nobody's business
PREFIXES = ("TF_", "XLA_", "OMP_", "CUDA_", "NVIDIA_", "ONEDNN_")


def note(run: RunFolder, strategy: tf.distribute.Strategy) -> None:
    """Adds a row to the run folder, and tells what differs from the one before.

    Args:
        run: The run folder.
        strategy: Of the devices.
    """
    rows = []
    if run.environment_file.is_file():
        rows = run.load_json(run.environment_file).get("rows")
        if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
            raise UserError(
                f"'{run.environment_file}' has no list of rows. Remove it, or copy the "
                "run folder again."
            )
    began = datetime.now(UTC).isoformat(timespec="seconds")
    row = {"began": began, **described(strategy)}
    if rows:
        differing = [
            f"{key} {_shown(rows[-1].get(key))}, now {_shown(row[key])}"
            for key in row
            if key != "began" and row[key] != rows[-1].get(key)
        ]
        if differing:
            logger.warning(
                "Since the last start something has changed, so that the last digits "
                "may differ: %s.",
                "; ".join(differing),
            )
    run.save_json(run.environment_file, {"rows": [*rows, row]})


def described(strategy: tf.distribute.Strategy) -> dict[str, object]:
    """Versions, processor, devices and threads of this process.

    Args:
        strategy: Of the devices.
    """
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    threads = tf.config.threading
    return {
        "h2mv_tf": __version__,
        "commit": git_commit(),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "system": platform.platform(),
        "processor": _processor(),
        "cores": len(cores) or os.cpu_count(),
        "devices": [
            f"{device.device_type} {_detail(device)}".strip()
            for device in tf.config.list_physical_devices()
        ],
        "replicas": strategy.num_replicas_in_sync,
        # 0: as many as cores.
        "intra_op_threads": threads.get_intra_op_parallelism_threads(),
        "inter_op_threads": threads.get_inter_op_parallelism_threads(),
        "variables": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(PREFIXES) and name != CLUSTER
        },
    }


def _version(package: str) -> str:
    """The version of a package, whose name may be another, as tensorflow-cpu."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        module = importlib.import_module(package.replace("-", "_"))
        return str(getattr(module, "__version__", "unknown"))


def _processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _detail(device) -> str:
    details = tf.config.experimental.get_device_details(device)
    return str(details.get("device_name", ""))


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

"""Weights of the published PyTorch code, from the file that they are in.

    checkpoint = read("fold1.ckpt")
    model = H2MV.from_reference(checkpoint.weights)

The file is a checkpoint of Lightning, for which torch has to be there, or an `.npz`
of its state dict. Whatever it holds, none of it is executed.
"""

import collections
import hashlib
import pickle
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from h2mv_tf.data.metadata import memory
from h2mv_tf.errors import UserError, listed, words
from h2mv_tf.model import REFERENCE_WEIGHTS, Normalization

# Keys that an .npz may have besides, in the order of `Normalization`.
MOMENTS = ("mean/forcing", "std/forcing", "mean/static", "std/static")
# Of several sets of arrays under the names of the weights, the first of these.
PREFIXES = ("", "weight/", "model.", "state_dict.")
CONVERSION = (
    "python -c \"import numpy, torch; weights = torch.load('{path}', "
    "map_location='cpu', weights_only=False)['state_dict']; numpy.savez('{npz}', "
    '**{{name: weight.double().numpy() for name, weight in weights.items()}})"'
)


class Checkpoint(NamedTuple):
    """What a file holds of the published model.

    Attributes:
        weights: Arrays under their PyTorch names.
        normalization: Of the inputs; None where the file does not know it.
        digest: SHA-256 of the file.
    """

    weights: Mapping[str, np.ndarray]
    normalization: Normalization | None
    digest: str


def read(path: str | Path) -> Checkpoint:
    """Reads a checkpoint.

    Args:
        path: An `.npz`, or a `.ckpt`, `.pt` or `.pth` of PyTorch, with the weights
            under their PyTorch names, which may have one prefix in common.

    Raises:
        UserError: It cannot be read without executing what is in it, holds other
            weights, or values that are no finite numbers.
    """
    path = Path(path)
    readers: dict[str, Callable] = {".npz": _of_numpy}
    readers |= dict.fromkeys((".ckpt", ".pt", ".pth"), _of_torch)
    if path.suffix.lower() not in readers:
        raise UserError(
            f"'{path}' is no checkpoint. Expected a file whose name ends with one of "
            f"{', '.join(readers)}."
        )
    if not path.is_file():
        raise UserError(f"There is no file '{path}'.")
    arrays = readers[path.suffix.lower()](path)
    for name, values in arrays.items():
        if values.dtype.kind not in "fiu" or not np.isfinite(values).all():
            raise UserError(
                f"'{name}' of checkpoint '{path}' holds values that are no finite "
                "numbers. Take another checkpoint of the training."
            )
    moments = [arrays.pop(key, None) for key in MOMENTS]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Checkpoint(arrays, _normalization(path, moments), digest)


def _of_numpy(path: Path) -> dict[str, np.ndarray]:
    expected = "Expected the state dict of the published code, of numpy.savez."
    if not zipfile.is_zipfile(path):
        raise UserError(f"'{path}' is no .npz, or damaged. {expected}")
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(info.file_size for info in archive.infolist())
        if size > memory():
            raise UserError(
                f"'{path}' claims arrays of {size / 1e9:.3g} GB, which memory does not "
                f"hold. {expected}"
            )
        with np.load(path, allow_pickle=False) as file:
            keys = _keys(path, file.files)
            return {name: file[key] for name, key in keys.items()}
    except UserError:
        raise
    except Exception as error:  # where a file is damaged, it may be any
        raise UserError(
            f"'{path}' cannot be read: {words(error)}. {expected}"
        ) from error


def _of_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"Reading '{path}' needs PyTorch: pip install 'h2mv_tf[torch]', or pip "
            "install torch. An .npz of the state dict needs neither."
        ) from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        command = CONVERSION.format(path=path, npz=path.with_suffix(".npz"))
        raise UserError(
            f"'{path}' holds more than arrays, which reading it would execute, or is "
            "damaged. Where you trust it and the published code is there, make an .npz "
            f"of its weights, and import that: {command}"
        ) from error
    except Exception as error:  # where a file is damaged, it may be any
        raise UserError(
            f"'{path}' is no checkpoint of PyTorch, or damaged. Copy it again."
        ) from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    names = [key for key in state if isinstance(state[key], torch.Tensor)]
    names = [name for name in names if isinstance(name, str)]
    return {
        name: state[key].detach().to(torch.float64).numpy()
        for name, key in _keys(path, names).items()
    }


def _keys(path: Path, names: Collection[str]) -> dict[str, str]:
    """Under which key each weight is, and each moment that there is."""
    prefix = _prefix(path, names)
    keys = {
        name.removeprefix(prefix): name
        for name in names
        if name.startswith(prefix) and (prefix or _is_of_module(name))
    }
    return keys | {name: name for name in MOMENTS if name in names}


def _prefix(path: Path, names: Iterable[str]) -> str:
    """What stands before the name of each weight."""
    found = collections.Counter(
        name.removesuffix(weight)
        for name in names
        for weight in REFERENCE_WEIGHTS
        if name.endswith(weight)
    )
    # A name ends where a letter cannot go on: `fold_beta_snow` is something else.
    found = {p: n for p, n in found.items() if not (p[-1:].isalnum() or p[-1:] == "_")}
    most = [prefix for prefix in found if found[prefix] == max(found.values())]
    if len(most) > 1:
        most = [prefix for prefix in PREFIXES if prefix in most] or most
    if not most:
        raise UserError(
            f"'{path}' holds no weight of the published model. Expected names as "
            f"fc_static.fc1.weight; found: {listed(names)}."
        )
    if len(most) > 1 and most[0] not in PREFIXES:
        raise UserError(
            f"'{path}' holds weights of several models, under "
            f"{listed(map(repr, most))}. Keep one of them."
        )
    return most[0]


def _is_of_module(name: str) -> bool:
    """Whether a name without prefix is that of a weight, and not of other data."""
    return name in REFERENCE_WEIGHTS or ("." in name and "/" not in name)


def _normalization(path: Path, moments: list) -> Normalization | None:
    lacking = [k for k, x in zip(MOMENTS, moments, strict=True) if x is None]
    if len(lacking) == len(MOMENTS):
        return None
    if lacking:
        raise UserError(
            f"'{path}' has a part of the normalisation only. Expected "
            f"{', '.join(MOMENTS)}; it lacks {', '.join(lacking)}."
        )
    normalization = Normalization(*map(np.ravel, moments))
    sizes = [len(x) for x in normalization]
    if sizes[:2] != [3, 3] or sizes[2] != sizes[3]:
        raise UserError(
            f"The normalisation of '{path}' is of {sizes[0]} and {sizes[1]} forcings, "
            f"{sizes[2]} and {sizes[3]} static inputs. Expected 3 and 3, and as many "
            "means as deviations."
        )
    return normalization

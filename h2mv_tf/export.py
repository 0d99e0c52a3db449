"""Export: the SavedModel, which runs without this package.

    export(Trained.open("runs/first"), next_version("saved_models/first"))

It has the functions of `signatures`, the card of the model in its assets, and requests
that warm TensorFlow Serving up.
"""

import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from h2mv_tf import __version__, card, warm_up
from h2mv_tf.card import Card, Input, Signature, Tensor, Training
from h2mv_tf.documents import parsed_yaml
from h2mv_tf.files import made
from h2mv_tf.run_folder import git_commit
from h2mv_tf.signatures import DEFAULT, INITIAL, SERIES, XLA, signatures
from h2mv_tf.trained import WEIGHTS, Trained, versions
from h2mv_tf.variables import FORCING

LICENCE = "MIT"
SOFTWARE = ("tensorflow", "keras", "numpy")
WARM_UP_DAYS = 30


def export(trained: Trained, path: str | Path, *, licence: str = LICENCE) -> Card:
    """Writes a SavedModel.

    Args:
        trained: The model.
        path: Folder to make; must not exist.
        licence: Of the weights.

    Returns:
        The card that travels with it.

    Raises:
        UserError: The path exists, or cannot be written.
    """
    path, model = Path(path), trained.model()
    functions = signatures(model, trained.domain)
    with made(path) as folder, tempfile.TemporaryDirectory() as scratch:
        # The names of tensors, which the card tells, are known when it is saved.
        empty = Path(scratch) / card.FILE
        empty.touch()
        root = tf.train.Checkpoint()
        setattr(root, WEIGHTS, [weight.value for weight in model.weights])
        root.model_card = tf.saved_model.Asset(str(empty))
        root.serve = _of_dictionary(functions[DEFAULT])
        tf.saved_model.save(root, str(folder), signatures=functions)
        described = _card(trained, path, _signatures(folder), licence)
        described.write(folder / card.ASSETS)
        warm_up.write(folder, path.parent.name, _requests(described))
    return described


def next_version(folder: str | Path) -> Path:
    """Where the next version of a model goes, as TensorFlow Serving numbers them.

    Args:
        folder: Of all versions of the model.
    """
    folder = Path(folder)
    return folder / str(max(versions(folder), default=0) + 1)


def _of_dictionary(function: Callable) -> tf.types.experimental.PolymorphicFunction:
    """A signature as `keras.layers.TFSMLayer` calls it."""
    inputs = function.function_type.parameters
    specs = {name: inputs[name].type_constraint for name in inputs}
    return tf.function(
        lambda inputs: function(**inputs), autograph=False, input_signature=[specs]
    )


def _signatures(folder: Path) -> dict[str, Signature]:
    """Names, types and shapes of the tensors of a SavedModel."""
    content = saved_model_pb2.SavedModel()
    content.ParseFromString((folder / "saved_model.pb").read_bytes())
    (graph,) = content.meta_graphs
    return {
        name: Signature(
            inputs={n: _tensor(info) for n, info in sorted(found.inputs.items())},
            outputs={n: _tensor(info) for n, info in sorted(found.outputs.items())},
        )
        for name, found in sorted(graph.signature_def.items())
        if not name.startswith("__")  # of TensorFlow's own
    }


def _tensor(info: meta_graph_pb2.TensorInfo) -> Tensor:
    sizes = (dim.size for dim in info.tensor_shape.dim)
    return Tensor(
        tensor=info.name,
        dtype=tf.as_dtype(info.dtype).name,
        shape=tuple(None if size < 0 else size for size in sizes),
    )


def _card(
    trained: Trained, path: Path, signatures: Mapping[str, Signature], licence: str
) -> Card:
    configuration = parsed_yaml(trained.attributes["configuration"])
    statistics, domain = trained.statistics, trained.domain
    constraints = tuple(statistics.constraints)
    versions = {"h2mv_tf": __version__}
    if commit := git_commit():
        versions["commit"] = commit
    return Card(
        path=path.as_posix(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        licence=licence,
        versions=versions | {name: metadata.version(name) for name in SOFTWARE},
        forcing=tuple(
            Input(
                **card.described(name).model_dump(),
                **statistics.forcing[name]._asdict(),
                **(domain.forcing[name]._asdict() if domain else {}),
            )
            for name in FORCING
        ),
        static=tuple(
            Input(
                name=name,
                units=domain.units.get(name, "") if domain else "",
                **moments._asdict(),
                **(domain.static[name]._asdict() if domain else {}),
            )
            for name, moments in statistics.static.items()
        ),
        state=card.described_states(),
        outputs=card.described_outputs(),
        signatures=dict(signatures),
        training=Training(
            data=configuration["data"]["store"],
            constraints=constraints,
            period=domain and domain.period,
            cells=domain and domain.cells,
            fold=domain and configuration["split"]["fold"],
        ),
        metrics=dict(trained.metrics),
        settings=dict(trained.settings),
        configuration=configuration,
        normalization=statistics.to_dict(),
    )


def _requests(described: Card) -> dict[str, dict[str, np.ndarray]]:
    """A cell of average weather for every signature that is not compiled."""
    found = {}
    forcing = [variable.mean for variable in described.forcing]
    for name, signature in described.signatures.items():
        if name.removesuffix(SERIES) == XLA:
            continue  # compiled for one number of cells and days, to no use
        values = {
            "forcing": forcing,
            "static": [variable.mean for variable in described.static],
            "cycles": 1,
            **dict(zip(FORCING, forcing, strict=True)),
        }
        found[name] = {
            key: np.broadcast_to(
                np.asarray(0 if key.startswith(INITIAL) else values[key], t.dtype),
                _filled(t.shape),
            )
            for key, t in signature.inputs.items()
        }
    return found


def _filled(shape: tuple[int | None, ...]) -> tuple[int, ...]:
    """A shape of one cell and a month of days."""
    lengths = iter((1, WARM_UP_DAYS))
    return tuple(next(lengths) if size is None else size for size in shape)

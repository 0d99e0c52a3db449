"""Architecture: what a stored model is made of, judged before anything is built of it.

A `.keras` file and the card of a SavedModel name classes and sizes, and may be of
anybody. Only our own model is built, of sizes that memory holds.

    refuse_other(Path("runs/first/model.keras"))
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import pydantic
from pydantic import Field

from h2mv_tf.data.metadata import memory
from h2mv_tf.documents import parsed_json
from h2mv_tf.errors import quoted, shown
from h2mv_tf.variables import FORCING

# Of a `.keras` file.
CONFIGURATION, WEIGHTS, ABOUT = "config.json", "model.weights.h5", "metadata.json"
LARGEST_CONFIGURATION = 1_000_000  # bytes
# As Keras tells whose class it is.
CLASS = {
    "module": "h2mv_tf.model",
    "class_name": "H2MV",
    "registered_name": "h2mv_tf>H2MV",
}
VALUE = 8  # bytes, at most
COPIES = 3  # of each weight, while they are read

Size = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]


class _Precision(pydantic.BaseModel):
    """Precision, as Keras writes it."""

    model_config = pydantic.ConfigDict(extra="forbid")

    module: Literal["keras"]
    class_name: Literal["DTypePolicy"]
    config: dict[Literal["name"], Literal["float32", "float64"]]
    registered_name: None = None


class _Settings(pydantic.BaseModel):
    """Arguments of the model's constructor, as its `get_config` tells them."""

    model_config = pydantic.ConfigDict(extra="forbid")

    name: str
    trainable: bool = True
    dtype: _Precision | Literal["float32", "float64"]
    static_size: Size
    encoder_units: Size = 150
    encoder_layers: Annotated[int, Field(ge=1, le=1000, strict=True)] = 1
    code_size: Size = 12
    lstm_units: Size = 100
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    observed: list[str] = []
    variational: bool = False
    last_layer: bool = True
    rank: Annotated[int, Field(ge=0, le=1000, strict=True)] = 0

    @property
    def weights(self) -> int:
        """How many numbers the networks are made of, roughly."""
        units, inner = self.lstm_units, self.encoder_units
        encoder = inner * (self.static_size + self.code_size)
        encoder += inner**2 * (self.encoder_layers - 1)
        lstm = 4 * units * (units + self.code_size + len(FORCING) + 5)
        return encoder + lstm + units * 7 * (2 + self.rank)


def checked(settings: Mapping) -> dict:
    """Arguments of the model's constructor, where nothing speaks against them.

    Args:
        settings: As the model's `get_config` tells them.

    Raises:
        ValueError: They are of another model, or of one that memory does not hold.
    """
    try:
        found = _Settings.model_validate(settings)
    except pydantic.ValidationError as error:
        mistake = error.errors(include_url=False)[0]
        place = quoted(".".join(map(str, mistake["loc"])), 50)
        raise ValueError(
            f"it is no H2MV of this version: {place or 'it'} is "
            f"{shown(mistake['input'], 50)}"
        ) from error
    size = COPIES * VALUE * found.weights
    if size > memory():
        raise ValueError(
            f"its networks would take {size / 1e9:.3g} GB, and there is memory for "
            f"{memory() / 1e9:.3g} GB"
        )
    return dict(settings)


def refuse_other(file: Path) -> None:
    """Refuses a `.keras` file that holds something else than our model.

    Args:
        file: The file.

    Raises:
        ValueError: It holds other parts or classes, or is larger than memory.
        zipfile.BadZipFile: It is no `.keras` file, or damaged.
    """
    with zipfile.ZipFile(file) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        expected = {CONFIGURATION, WEIGHTS, ABOUT}
        if set(sizes) != expected or len(archive.infolist()) != len(expected):
            raise ValueError(
                f"it holds {shown(sorted(sizes))}, expected {sorted(expected)}"
            )
        if sizes[CONFIGURATION] > LARGEST_CONFIGURATION or sizes[WEIGHTS] > memory():
            raise ValueError(
                f"it claims {max(sizes.values()) / 1e9:.3g} GB, larger than any model"
            )
        content = parsed_json(archive.read(CONFIGURATION))
    parts = content if isinstance(content, dict) else {}
    if any(parts.get(key) != value for key, value in CLASS.items()):
        raise ValueError(
            f"it holds a model of the class {shown(parts.get('class_name'), 50)}, "
            f"expected {CLASS['class_name']} of {CLASS['module']}"
        )
    if parts.get("compile_config"):
        raise ValueError("it holds an optimizer, expected none")
    checked(parts.get("config", {}))

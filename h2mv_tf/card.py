"""The card of a model: what it takes and gives, where it comes from, how good it is.

It travels in the assets of a SavedModel, as JSON for programs and as a page for
people. Needs no TensorFlow:

    card = Card.read("saved_models/demo/1")
    [variable.name for variable in card.static]
"""

from pathlib import Path
from typing import Any

import jinja2
import pydantic

from h2mv_tf.documents import parsed_json
from h2mv_tf.errors import UserError, quoted, words
from h2mv_tf.variables import OUTPUTS, PROGNOSTIC, VARIABLES

ASSETS, FILE, PAGE = "assets", "model_card.json", "README.md"
FORMAT = 1
CITATION = (
    "Baghirov, Z., Jung, M., Reichstein, M., Körner, M., and Kraft, B.: H2MV (v1.0): "
    "global physically constrained deep learning water cycle model with vegetation, "
    "Geosci. Model Dev., 18, 2921-2943, https://doi.org/10.5194/gmd-18-2921-2025, 2025."
)


CLIENT = """\
import json, numpy as np, tensorflow as tf

path, days = "{path}", np.arange(730)
card = json.load(open(path + "/assets/model_card.json"))
simulate = tf.saved_model.load(path).signatures["serving_default"]
season, rain = -np.cos(days / 58.1), np.random.default_rng(0).gamma(0.3, 8, 730)
forcing = np.array([np.stack([80 + 70 * season, rain, 280 + 12 * season], axis=-1)])
static = np.array([[variable["mean"] for variable in card["static"]]])
outputs = simulate(forcing=forcing.astype("{dtype}"), static=static.astype("{dtype}"))
for variable in card["outputs"]:
    print(variable["name"], outputs[variable["name"]].numpy().mean(), variable["units"])
"""


class Part(pydantic.BaseModel):
    """A part of a card: what it does not know is refused."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class Described(Part):
    """A variable.

    Attributes:
        name: Its name in the registry, or that of a static input.
        long_name: What it is.
        units: Native units; empty where they are not known.
    """

    name: str
    long_name: str = ""
    units: str = ""


class Input(Described):
    """An input, with what the training cells have of it in native units.

    Attributes:
        mean: What the network takes off.
        std: What it divides by.
        low: The least value of the training; None where it is not known.
        high: The largest value of the training; None where it is not known.
    """

    mean: float
    std: float
    low: float | None = None
    high: float | None = None


class Output(Described):
    """An output.

    Attributes:
        dims: Of what it is returned for a series.
    """

    dims: tuple[str, ...]


class Tensor(Part):
    """An input or output of a signature.

    Attributes:
        tensor: Its name in the graph, for the C API.
        dtype: As NumPy calls it.
        shape: None where any length will do.
    """

    tensor: str
    dtype: str
    shape: tuple[int | None, ...]


class Signature(Part):
    """What can be asked of the SavedModel, by the name of the signature."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


class Training(Part):
    """Where the weights come from.

    Attributes:
        data: Name of the store.
        constraints: That it was trained against.
        period: First and last day; None where they are not known.
        cells: Number of training cells; None where it is not known.
        fold: Of the split; None where the cells are not known.
    """

    data: str
    constraints: tuple[str, ...]
    period: tuple[str, str] | None = None
    cells: int | None = None
    fold: int | None = None


class Card(Part):
    """The card.

    Attributes:
        format: Of the card.
        title: What it is.
        path: Where it was exported to.
        created: When it was exported.
        licence: Of the weights.
        citation: What to cite.
        versions: Of the software that exported it.
        forcing: Of each day, in the order of the array `forcing`.
        static: In the order of the array `static`.
        state: What one day hands to the next.
        outputs: By name.
        signatures: Of the SavedModel.
        training: Where the weights come from.
        metrics: Of the test cells, trained and untrained: terms of the objective; and
            what these measure.
        settings: Of the model's constructor.
        configuration: Of the training.
        normalization: Moments of inputs and observations.
    """

    format: int = FORMAT
    title: str = "H2MV: hybrid model of the land water cycle"
    path: str
    created: str
    licence: str
    citation: str = CITATION
    versions: dict[str, str]
    forcing: tuple[Input, ...]
    static: tuple[Input, ...]
    state: tuple[Described, ...]
    outputs: tuple[Output, ...]
    signatures: dict[str, Signature]
    training: Training
    metrics: dict[str, Any]
    settings: dict[str, Any]
    configuration: dict[str, Any]
    normalization: dict[str, Any]

    @classmethod
    def read(cls, path: str | Path) -> "Card":
        """The card of a SavedModel.

        Args:
            path: Its folder.

        Raises:
            UserError: It has none, or one of another version.
        """
        file = Path(path) / ASSETS / FILE
        try:
            return cls.model_validate(parsed_json(file.read_bytes()))
        except FileNotFoundError:
            raise UserError(
                f"SavedModel '{path}' has no model card ({ASSETS}/{FILE}), so that it "
                "is not known what it is. Expected one of `python -m h2mv_tf export`."
            ) from None
        except (OSError, ValueError) as error:
            reason = words(error)
            if isinstance(error, pydantic.ValidationError):
                mistake = error.errors(include_url=False)[0]
                place = quoted(".".join(map(str, mistake["loc"])))
                reason = f"{place}: {quoted(mistake['msg'])}"
            raise UserError(
                f"The model card of SavedModel '{path}' cannot be read: {reason}. "
                "Export the model anew, or use the version of h2mv_tf that it is of."
            ) from error

    def write(self, folder: Path) -> None:
        """Writes the card, for programs and for people.

        Args:
            folder: The assets of a SavedModel.
        """
        text = self.model_dump_json(indent=1) + "\n"
        (folder / FILE).write_text(text, encoding="utf-8")
        (folder / PAGE).write_text(self.page(), encoding="utf-8")

    @property
    def client(self) -> str:
        """Ten lines of Python that run the model."""
        dtype = self.signatures["serving_default"].inputs["forcing"].dtype
        return CLIENT.format(path=self.path, dtype=dtype)

    def page(self) -> str:
        """The card for people, in Markdown."""
        return rendered("card.md.j2", card=self)


def rendered(template: str, **values: object) -> str:
    """A page made of a template of this package.

    Args:
        template: Its file, `.md.j2` or `.html.j2`.
        **values: Its variables.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("h2mv_tf", "."),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=".html" in template,
    )
    return environment.get_template(template).render(**values)


def described_states() -> tuple[Described, ...]:
    """What one day hands to the next."""
    return tuple(described(name) for name in PROGNOSTIC)


def described_outputs() -> tuple[Output, ...]:
    """All outputs for a series."""
    dims = {"constant": (), "parameter": ("cell",)}
    return tuple(
        Output(
            **described(name).model_dump(),
            dims=dims.get(VARIABLES[name].kind, ("cell", "day")),
        )
        for name in OUTPUTS
    )


def described(name: str) -> Described:
    """A variable of the registry."""
    variable = VARIABLES[name]
    return Described(name=name, long_name=variable.long_name, units=variable.units)

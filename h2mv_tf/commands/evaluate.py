"""`python -m h2mv_tf evaluate`: predictions against observations and the truth."""

import contextlib
import tempfile
from pathlib import Path

import click

from h2mv_tf import console


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="STORE",
    help="Store with the observations; by default the one that was predicted on.",
)
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder to make; must not exist. OUT.evaluation by default.",
)
@click.option(
    "--regions",
    "regions_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="NetCDF or Zarr with the number of each cell's region; the main climates of "
    "Koppen and Geiger by default.",
)
@click.option(
    "--untrained/--no-untrained",
    "with_untrained",
    default=True,
    help="Whether to simulate with the untrained model, to compare with.",
)
@click.option(
    "--saturation",
    type=click.FloatRange(0, min_open=True),
    default=100.0,
    show_default=True,
    metavar="MM",
    help="Snow beyond which observations say only that it is deep.",
)
def command(
    out: Path,
    data: Path | None,
    to: Path | None,
    regions_file: Path | None,
    with_untrained: bool,
    saturation: float,
) -> None:
    """Scores predictions against the observations of a store.

    Where the store has a truth, all hidden variables are scored against it. OUT are
    predictions, as `predict` and trainers/cross_validate.py write them.
    """
    to = to or out.with_suffix(".evaluation")
    with console.command(interrupted=f"Interrupted. Nothing is left of {to}."):
        from h2mv_tf import evaluation, predictions
        from h2mv_tf.data.writing import refuse_existing
        from h2mv_tf.evaluation import regions, results, tables

        refuse_existing(to)
        predicted = predictions.load(out)
        store = _store(predicted, data)
        named = None if regions_file is None else regions.load(regions_file, store.land)
        evaluation.refuse_unfit(predicted, store)
        with contextlib.ExitStack() as stack:
            untrained = None
            if with_untrained:
                untrained = stack.enter_context(_untrained(predicted, store, to))
            progress = stack.enter_context(console.progress("scoring"))
            result = evaluation.evaluate(
                predicted,
                store,
                untrained=untrained,
                regions=named,
                saturation=saturation,
                progress=progress,
            )
        result.attrs |= {"predictions": str(out), "store": str(store.path)}
        results.write(result, to, days=predicted.sizes["time"])
        for table in tables.tables(result):
            console.table(*table)
        for note in filter(None, result.attrs["notes"].split("\n")):
            console.console.print(f"note: {note}", markup=False)
        console.console.print(f"{to}", markup=False)


def _store(predicted, data: Path | None):
    """The store, with the groups of the configuration of the run."""
    import yaml

    from h2mv_tf.data.store import Store
    from h2mv_tf.errors import UserError

    path = data or predicted.attrs.get("store")
    if not path:
        raise UserError(
            "The predictions do not tell which store they are of. Name it in --data."
        )
    configuration = yaml.safe_load(predicted.attrs.get("configuration", "")) or {}
    groups = configuration.get("data", {}).get("groups") or None
    return Store.open(path, groups)


@contextlib.contextmanager
def _untrained(predicted, store, to: Path):
    """Predictions of the untrained model, kept beside DIR while they are needed.

    Yields None where the predictions do not know how their model was made.
    """
    if "normalization" not in predicted.attrs:
        console.console.print(
            "note: no untrained model to compare with: the predictions do not know how "
            "theirs was made."
        )
        yield None
        return
    from h2mv_tf import startup

    startup.import_tensorflow()
    from h2mv_tf import inference

    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{to.name}.", dir=to.parent) as folder:
        path = Path(folder) / "untrained.zarr"
        with console.progress("simulating, untrained") as progress:
            untrained = inference.untrained(predicted, store, path, progress=progress)
        yield untrained

"""`python -m h2mv_tf evaluate`: predictions against observations and the truth."""

from pathlib import Path

import click

from h2mv_tf import console

# Bytes of predictions whose scores are worth processes of their own: threads share a
# core for half of their time.
LARGE = 1e9


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
@click.option(
    "--prior",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Samples of the prior, of `predict --prior`: how much narrower those of OUT "
    "are.",
)
def command(
    out: Path,
    data: Path | None,
    to: Path | None,
    regions_file: Path | None,
    with_untrained: bool,
    saturation: float,
    prior: Path | None,
) -> None:
    """Scores predictions against the observations of a store.

    Where the store has a truth, all hidden variables are scored against it. OUT are
    predictions, as `predict` and trainers/cross_validate.py write them. Of samples,
    which `predict --samples N --realizations` keeps, the spread is judged as well.
    """
    with console.command():
        from h2mv_tf import startup

        startup.import_tensorflow()
        import dask

        from h2mv_tf import predictions, results
        from h2mv_tf.evaluation import tables
        from h2mv_tf.evaluation.results import of_samples

        to = to or results.scores_of(out)
        large = predictions.load(out).nbytes > LARGE
        with dask.config.set(scheduler="processes" if large else "threads"):
            scores = results.evaluated(
                out,
                data=data,
                to=to,
                untrained=with_untrained,
                regions=regions_file,
                saturation=saturation,
                prior=prior,
                bars=console.progress,
            )
        samples = of_samples(to)
        found = tables.tables(scores)
        notes = scores.attrs["notes"].split("\n")
        if samples is not None:
            found += tables.sample_tables(samples)
            notes += samples.attrs["notes"].split("\n")
        for table in found:
            console.table(*table)
        for note in filter(None, notes):
            console.console.print(f"note: {note}", markup=False)
        console.console.print(f"{to}", markup=False)

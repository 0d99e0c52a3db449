"""`python -m h2mv_tf replay`: a batch that was not finite, computed again."""

from pathlib import Path

import click

from h2mv_tf import console


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def command(folder: Path) -> None:
    """Computes a batch of a failure again, and tells what is not finite in it.

    FOLDER lies within the failure/ of a run folder, as failure/epoch-3-batch-12.
    """
    with console.command():
        from h2mv_tf import startup

        startup.import_tensorflow()
        from h2mv_tf import distribution, failure

        distribution.make_devices(failure.devices_of(folder))
        found = failure.replay(folder)
        console.table(
            f"The objective of {found.where.words}",
            ("term", "recorded", "again"),
            [
                (name, f"{recorded:.6g}", f"{found.terms[name]:.6g}")
                for name, recorded in found.recorded.items()
            ],
        )
        if found.gradient_norms:
            console.table(
                "Norms of the gradients",
                ("weight", "norm"),
                [(name, f"{norm:.3g}") for name, norm in found.gradient_norms.items()],
            )
        console.console.print(f"Not finite: {found.first}.", markup=False)

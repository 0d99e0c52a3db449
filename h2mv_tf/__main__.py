"""Commands: `python -m h2mv_tf VERB --help`."""

import importlib

import click

from h2mv_tf import __version__

# Verb -> what it does, as the list of verbs tells it.
VERBS = {
    "ingest": "CF data sets become a store to train on.",
    "unpack": "An archived store, run or model becomes a folder.",
    "check-data": "What is wrong with a store, and what training on it needs.",
    "synthesize": "A synthetic world: weather, observations and the truth.",
    "predict": "Every variable of a trained model, on the grid of a store.",
    "import-reference": "Weights of the published PyTorch code become a run folder.",
    "export": "A trained model as a SavedModel, which needs TensorFlow alone.",
    "evaluate": "Predictions against observations, and the truth where it is known.",
    "equifinality": "What the folds of a cross-validation disagree about, and how.",
    "twin": "What can be recovered from which constraints, on a synthetic world.",
    "replay": "A batch of a training that was not finite, computed again.",
    "plot": "Figures of a run or a cross-validation.",
    "report": "One page with all of it.",
}


class Verbs(click.Group):
    """Loads the module of a verb when it is asked for, so that help comes at once."""

    def list_commands(self, ctx):
        """All verbs, in the order in which one uses them."""
        return list(VERBS)

    def get_command(self, ctx, cmd_name):
        """The command of a verb; None where there is none."""
        if cmd_name not in VERBS:
            return None
        module = f"h2mv_tf.commands.{cmd_name.replace('-', '_')}"
        return importlib.import_module(module).command

    def format_commands(self, ctx, formatter):
        """The list of verbs, for which none is loaded."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=Verbs, context_settings={"max_content_width": 88})
@click.version_option(__version__, prog_name="h2mv_tf")
def main() -> None:
    """Hybrid model of the land water cycle."""


if __name__ == "__main__":
    main()

import numpy as np
import pandas as pd

from h2mv_tf import plots


def history(*terms):
    table = pd.DataFrame({"epoch": [1, 2, 3], "loss": [3.0, 2.0, 1.0]})
    table["val_loss"] = [3.0, 1.0, 2.0]
    for term in terms:
        table[term], table[f"val_{term}"] = table["loss"], table["val_loss"]
    return table.assign(learning_rate=0.01)


def test_each_term_has_its_panel_with_training_and_validation():
    figure = plots.loss_curves(history("tws", "swe"))
    assert [axis.get_title() for axis in figure.axes] == [
        "loss (sum of terms)",
        "tws",
        "swe",
    ]
    training, validation, _ = figure.axes[2].lines
    np.testing.assert_array_equal(training.get_ydata(), [3, 2, 1])
    np.testing.assert_array_equal(validation.get_ydata(), [3, 1, 2])


def test_the_best_epoch_is_that_of_the_least_validation_loss():
    best = plots.loss_curves(history("swe")).axes[0].lines[-1]
    assert set(best.get_xdata()) == {2}


def test_panels_without_a_term_stay_empty():
    figure = plots.loss_curves(history("tws", "swe", "runoff"))
    assert [axis.axison for axis in figure.axes] == [True] * 4 + [False] * 2

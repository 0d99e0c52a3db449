"""Cells and states that reach every branch of the water cycle."""

import tensorflow as tf

from h2mv_tf.cell import H2MVCell, State


def lively(code, units, rng):
    """A cell with weights that take its coefficients through their range."""
    cell = H2MVCell(code, units=units, dtype="float64")
    cell.build()
    for weight in cell.trainable_variables:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    cell.forcing_mean.assign([60, 3, 274])
    cell.forcing_std.assign([60, 6, 8])
    return cell


def started(cells, units, rng, dtype="float64"):
    """A state that is nowhere empty."""
    state = State(
        swe=rng.uniform(0, 30, (cells, 1)),
        soil_moisture=rng.uniform(0, 60, (cells, 1)),
        groundwater=rng.uniform(0, 90, (cells, 1)),
        fapar=rng.random((cells, 1)),
        lstm_hidden=rng.uniform(-1, 1, (cells, units)),
        lstm_carry=rng.uniform(-1, 1, (cells, units)),
    )
    return State(*(tf.constant(x, dtype) for x in state))

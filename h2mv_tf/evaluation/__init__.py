"""Predictions against observations, and against the truth where it is known."""

from h2mv_tf.evaluation.flow import evaluate, refuse_unfit

__all__ = ["evaluate", "refuse_unfit"]

"""Hyperparameter sweeps: which configuration learns best.

KerasTuner's oracles say what to try next; what they are asked and told is kept in a
journal, from which an interrupted sweep is played again. Each trial trains in a
process of its own, as `trainers/train.py` would with its configuration.
"""

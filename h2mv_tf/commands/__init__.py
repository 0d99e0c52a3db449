"""The verbs of `python -m h2mv_tf`, a module each, loaded when it is asked for."""

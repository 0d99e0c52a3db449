"""Settings of a training of seconds."""

from h2mv_tf import config

SMALL = (
    "split.block_size=2",
    "model.encoder_units=6",
    "model.code_size=3",
    "model.lstm_units=5",
    "window.length=90",
    "window.spin_up=30",
    "window.stride=180",
    "training.batch_size=16",
    "training.epochs=3",
    "uncertainty.warm_up=1",
    "training.jit_compile=false",
    "distribution.devices=1",
)


def small_settings(store, *overrides):
    """A configuration of a few weights and epochs on a store."""
    return config.load(None, [f"data.store={store}", *SMALL, *overrides])

"""What several devices or processes train is what one would."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from h2mv_tf import config, distribution, training
from h2mv_tf.errors import UserError
from h2mv_tf.model import H2MV
from h2mv_tf.run_folder import RunFolder
from h2mv_tf.steps import Trainer

ROOT = Path(__file__).parents[1]
SIZES = {"encoder_units": 6, "code_size": 3, "lstm_units": 5}
SMALL = (
    "split.block_size=2",
    *(f"model.{name}={size}" for name, size in SIZES.items()),
    "window.length=90",
    "window.spin_up=30",
    "window.stride=180",
    "training.precision=float64",
    "training.jit_compile=false",
)


def task(world, devices, *overrides):
    settings = (f"data.store={world}", f"distribution.devices={devices}")
    return training.prepare(config.load(None, [*SMALL, *settings, *overrides]))


def without_observations(batch, rows):
    """The batch, in which some windows have no observation."""
    targets = {
        name: tf.where(
            tf.range(len(target))[:, None] < rows,
            tf.constant(np.nan, "float64"),
            target,
        )
        for name, target in batch["targets"].items()
    }
    return {**batch, "targets": targets}


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_several_devices_take_the_steps_of_one(world, jit_compile):
    """Five steps of a batch that three devices do not divide.

    Most cells of the first device have no observation, and gradients are clipped.
    """
    curves, weights = [], []
    for devices in (1, 3):
        given = task(world, devices, "training.batch_size=16")
        assert given.strategy.num_replicas_in_sync == devices
        batches = [without_observations(b, 4) for b in given.train.batches()][:5]
        assert len(batches[0]["static"]) == (16 if devices == 1 else 18)
        keras.utils.set_random_seed(1)
        with given.strategy.scope():
            model = H2MV(10, **SIZES, dtype="float64")
            optimizer = keras.optimizers.AdamW(0.01, epsilon=1e-8)
            optimizer.build(model.trainable_variables)
        trainer = Trainer(
            model,
            given.objective,
            optimizer,
            strategy=given.strategy,
            clip_value=0.05,
            jit_compile=jit_compile,
        )
        steps = [trainer.step(batch) for batch in batches]
        curves.append(
            [[float(part) for term in step.values() for part in term] for step in steps]
        )
        weights.append(model.get_weights())
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-9)
    for one, several in zip(*weights, strict=True):
        np.testing.assert_allclose(several, one, rtol=1e-9, atol=1e-12)


def test_several_devices_evaluate_as_one(world):
    found = []
    for devices in (1, 3):
        given = task(world, devices, "training.batch_size=16")
        keras.utils.set_random_seed(1)
        with given.strategy.scope():
            model = H2MV(10, **SIZES, dtype="float64")
        trainer = Trainer(
            model, given.objective, strategy=given.strategy, jit_compile=False
        )
        found.append(trainer.evaluate(given.test))
    one, several = found
    assert several.counts == one.counts
    assert several.terms == pytest.approx(one.terms, rel=1e-9)
    # Rounding, of which the largest is on any of the devices.
    assert several.residual == pytest.approx(one.residual, rel=0.5)


def test_each_device_drops_other_units(world):
    """Two devices that hold the same windows, and one that holds them once."""
    losses = {}
    for dropout in (0.0, 0.4):
        for devices in (1, 2):
            given = task(world, devices, "training.batch_size=16")
            half = next(given.train.batches())
            batch = tf.nest.map_structure(
                lambda x, times=devices: tf.concat([x[:8]] * times, 0), half
            )
            keras.utils.set_random_seed(1)
            with given.strategy.scope():
                model = H2MV(10, **SIZES, dropout=dropout, dtype="float64")
                optimizer = keras.optimizers.SGD(0.01)
                optimizer.build(model.trainable_variables)
            trainer = Trainer(
                model,
                given.objective,
                optimizer,
                strategy=given.strategy,
                jit_compile=False,
            )
            terms = trainer.step(batch)
            losses[dropout, devices] = float(terms["swe"].total) / devices
            assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert losses[0.0, 2] == pytest.approx(losses[0.0, 1], rel=1e-9)
    assert losses[0.4, 2] != pytest.approx(losses[0.4, 1], rel=1e-3)


# Devices


def test_a_small_batch_is_not_shared():
    strategy = distribution.strategy("auto", batch_size=distribution.LEAST)
    assert strategy.num_replicas_in_sync == 1


def test_more_devices_than_there_are_are_refused():
    with pytest.raises(UserError, match=r"devices is 99, but TensorFlow has 3"):
        distribution.strategy(99)


def test_a_process_alone_is_the_chief(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert distribution.worker() == (0, 1)
    assert distribution.worker().chief


# Workers


def tf_config(index, ports):
    hosts = [f"localhost:{port}" for port in ports]
    cluster = {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}
    return {"TF_CONFIG": json.dumps(cluster)}


def slurm(index, nodes="node[07-08]", tasks="2,1", job=4711):
    """What srun tells one of its tasks: of three on two nodes, say."""
    return {
        "SLURM_JOB_ID": str(job),
        "SLURM_PROCID": str(index),
        "SLURM_STEP_NUM_TASKS": str(sum(map(int, tasks.split(",")))),
        "SLURM_STEP_NODELIST": nodes,
        "SLURM_STEP_TASKS_PER_NODE": tasks,
    }


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (tf_config(1, (1, 2, 3)), (1, 3)),
        (slurm(2), (2, 3)),
        (
            {
                "TF_CONFIG": json.dumps(
                    {
                        "cluster": {"chief": ["a:1"], "worker": ["b:1"]},
                        "task": {"type": "worker", "index": 0},
                    }
                )
            },
            (1, 2),
        ),
    ],
    ids=["TF_CONFIG", "Slurm", "a chief of its own"],
)
def test_a_worker_knows_its_place(environment, expected, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert distribution.worker() == expected


@pytest.mark.parametrize("text", ["{", '{"cluster": {"worker": ["a:1", "b:1"]}}'])
def test_a_cluster_that_cannot_be_read_is_one_line(text, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match=r"TF_CONFIG does not tell.*docs/cluster"):
        distribution.worker()


def test_workers_have_to_share_the_batch_evenly(world, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", tf_config(0, (1, 2, 3))["TF_CONFIG"])
    with pytest.raises(UserError, match=r"256, which 3 workers cannot share"):
        task(world, "auto")


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("localhost", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def trained(folder, world, environments):
    """The run of `train.py` in as many processes, and what they printed."""
    run = RunFolder(folder / "run")
    overrides = [
        *SMALL,
        f"data.store={world}",
        "training.epochs=2",
        "training.batch_size=16",
        "distribution.devices=1",
    ]
    command = [sys.executable, ROOT / "trainers" / "train.py", "--run-dir", run.path]
    command += [part for override in overrides for part in ("--set", override)]
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for environment in environments
    ]
    told = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(told), told
    return run, told


@pytest.fixture(scope="module")
def alone(world, tmp_path_factory):
    return trained(tmp_path_factory.mktemp("alone"), world, [{}])[0]


@pytest.mark.slow
@pytest.mark.parametrize("by", ["TF_CONFIG", "Slurm"])
def test_two_workers_find_the_weights_of_one_process(by, alone, world, tmp_path):
    ports = free_ports(2)
    environments = [
        tf_config(n, ports)
        if by == "TF_CONFIG"
        else slurm(n, "localhost", "2", ports[0])
        for n in range(2)
    ]
    together, (chief, other) = trained(tmp_path, world, environments)
    columns = ["loss", "val_loss", "tws", "val_swe"]
    np.testing.assert_allclose(
        together.load_history()[columns], alone.load_history()[columns], rtol=1e-9
    )
    models = [keras.models.load_model(run.model_file) for run in (alone, together)]
    for one, several in zip(*(m.get_weights() for m in models), strict=True):
        np.testing.assert_allclose(several, one, rtol=1e-9, atol=1e-12)
    assert "Training on 2 devices of 2 workers." in chief
    assert "Best epoch" in chief
    assert other.strip() == ""  # one of them talks

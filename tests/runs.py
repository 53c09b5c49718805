"""Configs of the runs that tests make: six steps of a tiny network on 32x32 shapes."""

import json
from functools import partial

import jax
import numpy as np
import orbax.checkpoint as ocp

from configs import black_box_shapes, casm_shapes, classifier_shapes, generator_shapes
from saliency_jax.models import create
from saliency_jax.models.resnet import BACKBONES, ResNet
from saliency_jax.training.checkpoints import checkpoint_folder, saved_steps

TIMES = ("time", "images_per_second")

# One block of eight channels: a quarter of what the smallest real one takes to compile.
create.BACKBONES["resnet4"] = BACKBONES["resnet10"]._replace(
    create=partial(ResNet, (1,), False)
)


def classifier_config(data_dir, **changed):
    config = classifier_shapes.get_config("smoke")
    return changed_for(config, data_dir, changed)


def casm_config(data_dir, init, arg="L2", **changed):
    """Six steps against a pool of three, the past of every second step."""
    config = casm_shapes.get_config(f"{arg},smoke")
    config.classifier.init = str(init)
    config.masker.taps = (0, 1)
    return changed_for(config, data_dir, changed)


def black_box_config(data_dir, init, **changed):
    """Two steps of the selector and four of the decoder."""
    config = black_box_shapes.get_config("smoke")
    config.classifier.init = str(init)
    return changed_for(config, data_dir, {"classifier__network": "resnet10", **changed})


def generator_config(data_dir, **changed):
    """Six steps of a DCGAN of 32x32 images."""
    return changed_for(generator_shapes.get_config("smoke"), data_dir, changed)


def changed_for(config, data_dir, changed):
    """Points a config at the tests' data; `changed` has dots as double underscores."""
    config.checkpoint.keep_last = 1  # what two runs leave can then be compared
    config.data.name = "shapes/32x32"
    config.data.data_dir = str(data_dir)
    if "classifier" in config:
        config.classifier.network = "resnet4"
    config.update_from_flattened_dict(
        {name.replace("__", "."): value for name, value in changed.items()}
    )
    return config


def lines_of(workdir):
    """The figures that a run has written."""
    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def figures_of(workdir):
    """The lines of metrics.jsonl, without what two runs cannot have in common."""
    return [
        {name: value for name, value in line.items() if name not in TIMES}
        for line in lines_of(workdir)
    ]


def numpy_tree(folder):
    """A part of a checkpoint, whatever devices it was saved from."""
    handler = ocp.PyTreeCheckpointHandler()
    as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
    restore_args = jax.tree.map(lambda _: as_numpy, handler.metadata(folder).tree)
    with ocp.Checkpointer(handler) as checkpointer:
        return checkpointer.restore(
            folder, ocp.args.PyTreeRestore(restore_args=restore_args)
        )


def assert_same_bits(workdir, expected):
    """All that two runs have saved: networks, optimisers, pool, place in the data."""
    step, arrays, files = arrays_of(workdir)
    expected_step, expected_arrays, expected_files = arrays_of(expected)
    assert step == expected_step and arrays.keys() == expected_arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, expected_arrays[name], err_msg=name)
    assert files == expected_files


def arrays_of(workdir):
    """Everything in the last checkpoint, as bytes or arrays."""
    step = saved_steps(workdir, "last")[-1]
    folder = checkpoint_folder(workdir, "last") / str(step)
    trees = [numpy_tree(folder / name) for name in ("networks", "optimisers")]
    leaves = {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(trees)
    }
    pool = checkpoint_folder(workdir, "pool")
    files = [*(folder / "data").glob("*.json"), *pool.glob("*")]
    return step, leaves, {path.name: path.read_bytes() for path in files}

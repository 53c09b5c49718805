"""Where a classifier comes from: a run, a weights file, nothing; and the mistakes."""

import importlib
from pathlib import Path

import flax.traverse_util
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from configs import casm_imagenet, casm_tiny_imagenet
from saliency_jax.data import sources
from saliency_jax.data.pipeline import make_train_iterator
from saliency_jax.data.shapes import CLASSES
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier
from saliency_jax.models.create import create_classifier
from saliency_jax.training import run_folder, sharding
from saliency_jax.training.checkpoints import restore_networks
from saliency_jax.training.start import (
    classifier_command,
    initial_classifier,
    known_network,
    with_live_batch_norm,
)
from tests.models import reproducible
from tests.runs import casm_config, classifier_config
from tests.weights_files import write_weights


def resolved(config):
    run_folder.resolve(config, 10, known_network(config, Path("runs/none")))
    config.data.class_names = CLASSES
    return config


def test_a_run_gives_its_last_classifier(classifier_run):
    config = resolved(casm_config("data", classifier_run))
    variables = initial_classifier(config)
    like = {"classifier": variables}
    expected, _ = restore_networks(classifier_run, "last", like)
    for name in ("conv1", "fc"):
        np.testing.assert_array_equal(
            variables["params"][name]["kernel"],
            expected["classifier"]["params"][name]["kernel"],
        )
    running = variables["batch_stats"]["bn1"]
    assert running["mean"].shape == (8,) and np.abs(running["mean"]).max() > 0


def test_a_casm_run_gives_its_classifier_too(casm_run):
    variables = initial_classifier(resolved(casm_config("data", casm_run)))
    assert set(variables) == {"params", "batch_stats"}


def test_a_weights_file_is_imported(tmp_path):
    path = tmp_path / "weights.safetensors"
    config = resolved(casm_config("data", path))
    arrays = write_weights(path, create_classifier(config.classifier))
    variables = initial_classifier(config)
    np.testing.assert_array_equal(
        variables["params"]["fc"]["kernel"], arrays["fc.weight"].T
    )
    np.testing.assert_array_equal(
        variables["batch_stats"]["bn1"]["var"], arrays["bn1.running_var"]
    )


def test_a_new_head_for_weights_of_other_classes(tmp_path):
    path = tmp_path / "weights.safetensors"
    config = resolved(classifier_config("data", classifier__init=str(path)))
    module = create_classifier(config.classifier).clone(num_classes=7)
    arrays = write_weights(path, module)
    with pytest.raises(InputError, match="7 classes apart.*10.*new_head=True"):
        initial_classifier(config)
    config.classifier.new_head = True
    variables = initial_classifier(config)
    head = variables["params"]["fc"]
    assert head["kernel"].shape[-1] == head["bias"].shape[0] == 10
    assert np.std(head["kernel"]) > 0
    np.testing.assert_array_equal(
        variables["batch_stats"]["bn1"]["var"], arrays["bn1.running_var"]
    )
    again = initial_classifier(config)["params"]["fc"]["kernel"]
    np.testing.assert_array_equal(again, head["kernel"])
    config.seed = 1
    other = initial_classifier(config)["params"]["fc"]["kernel"]
    assert np.abs(other - head["kernel"]).max() > 0


def test_a_run_keeps_its_head(classifier_run):
    config = resolved(classifier_config("data", classifier__init=str(classifier_run)))
    config.classifier.new_head = True
    with pytest.raises(InputError, match="new_head is for weights files"):
        initial_classifier(config)


def test_a_classifier_run_may_start_from_nothing():
    config = resolved(classifier_config("data"))
    assert initial_classifier(config) is None
    config.classifier.new_head = True
    with pytest.raises(InputError, match="new_head is .*: set --config.classifier.in"):
        initial_classifier(config)


@pytest.mark.parametrize(
    ("name", "experiment", "named"),
    [
        ("shapes", "classifier_shapes", ""),
        ("imagenet_loc", "classifier_imagenet", ""),
        ("shapes/128x128", "classifier_shapes", "--config.data.name=shapes/128x128 "),
        ("cifar10", "classifier_tiny_imagenet", "--config.data.name=cifar10 "),
        ("shapes_pairs", "classifier_shapes", "--config.data.name=shapes_pairs "),
        ("pets", "classifier_imagenet", "--config.data.name=pets "),
    ],
)
def test_the_command_for_a_classifier(name, experiment, named):
    config = casm_config("/sets", "")
    config.data.name = name
    command = (
        f"python train.py --config configs/{experiment}.py:smoke {named}"
        f"--config.data.data_dir=/sets --workdir runs/{experiment}"
    )
    assert classifier_command(config) == command
    assert (Path(__file__).parents[2] / f"configs/{experiment}.py").exists()
    with pytest.raises(InputError) as raised:
        initial_classifier(config)
    assert str(raised.value).endswith(f"this makes one: {command}")


@pytest.mark.parametrize("data", ["shapes", "tiny_imagenet", "imagenet", "cifar10"])
def test_the_command_makes_a_classifier_that_fits_the_black_box(data):
    config = importlib.import_module(f"configs.black_box_{data}").get_config()
    command = classifier_command(config)
    assert "--config.data.name" not in command
    advised = importlib.import_module(f"configs.classifier_{data}")
    assert f"--config configs/classifier_{data}.py --workdir" in command
    for name in ("network", "width", "stem"):
        assert config.classifier[name] == advised.get_config().classifier[name]


def test_the_command_for_a_classifier_says_where_it_starts():
    config = casm_tiny_imagenet.get_config("F,pretrained")
    assert classifier_command(config) == (
        "python train.py --config configs/classifier_tiny_imagenet.py:pretrained "
        "--config.classifier.init=WEIGHTS_FILE --workdir runs/classifier_tiny_imagenet"
    )


def test_no_command_makes_the_classifier_of_the_form_for_weights():
    config = resolved(casm_imagenet.get_config("mini"))
    with pytest.raises(InputError, match=r"\(.pth, .safetensors\) of mobilenet_v2$"):
        initial_classifier(config)


def test_the_command_for_a_classifier_names_an_own_network():
    config = casm_config("data", "", model__factory="my_model:create")
    named = "smoke --config.data.name=shapes/32x32 --config.model.factory=my_model:crea"
    assert named in classifier_command(config)


def test_what_is_named_must_exist():
    config = resolved(casm_config("data", "runs/nothing"))
    with pytest.raises(InputError, match="init = runs/nothing does not exist"):
        initial_classifier(config)


@pytest.mark.parametrize(
    ("field", "value"), [("width", 16), ("stem", "small"), ("network", "resnet18")]
)
def test_another_architecture_is_named(classifier_run, field, value):
    config = resolved(casm_config("data", classifier_run))
    config.classifier[field] = value
    expected = rf"classifier\.{field} = .*this config has {value!r}"
    with pytest.raises(InputError, match=expected):
        initial_classifier(config)


def test_a_folder_that_is_no_run(tmp_path):
    config = casm_config("data", tmp_path)
    with pytest.raises(InputError, match="is not a run"):
        known_network(config, tmp_path / "workdir")
    with pytest.raises(InputError, match="is not a run"):
        initial_classifier(config)


def test_a_run_without_a_checkpoint(classifier_run, tmp_path):
    (tmp_path / "config.json").write_text((classifier_run / "config.json").read_text())
    config = resolved(casm_config("data", tmp_path))
    with pytest.raises(InputError, match="has no 'last' checkpoint: train it first"):
        initial_classifier(config)


def test_a_weights_file_of_another_network(tmp_path):
    path = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file({"fc.weight": np.zeros((3, 4), np.float32)}, path)
    config = resolved(casm_config("data", path))
    with pytest.raises(InputError, match=r"missing: bn1.*fc.weight \(3, 4\) instead"):
        initial_classifier(config)


def test_folded_batch_norm_is_put_back_and_the_data_begin_anew(shapes_dir):
    config = resolved(classifier_config(shapes_dir))
    source = sources.open_source(config.data.name, shapes_dir, "train")
    data = make_train_iterator(
        source,
        batch_size=8,
        image_size=32,
        seed=0,
        sharding=sharding.by_batch(sharding.data_mesh()),
    )
    module = create_classifier(config.classifier)
    alive = reproducible.variables(module, jnp.zeros((1, 32, 32, 3)))
    assert with_live_batch_norm(alive, config, data) is alive

    values = {"scale": 1.0, "mean": 0.0, "var": 1.0}
    flat = flax.traverse_util.flatten_dict(alive)
    folded = flax.traverse_util.unflatten_dict(
        {
            path: jnp.full(leaf.shape, values[path[-1]]) if path[-1] in values else leaf
            for path, leaf in flat.items()
        }
    )
    variables = with_live_batch_norm(folded, config, data)
    first = next(data)["image"]
    mean, std = tuple(config.data.mean), tuple(config.data.std)
    logits = [
        Classifier(v, module, mean, std)(np.asarray(first)) for v in (folded, variables)
    ]
    np.testing.assert_allclose(*logits, rtol=1e-3, atol=1e-4)
    assert abs(variables["batch_stats"]["bn1"]["mean"]).max() > 0.01
    data.close()

    again = make_train_iterator(source, batch_size=8, image_size=32, seed=0)
    np.testing.assert_array_equal(first, next(again)["image"])
    again.close()

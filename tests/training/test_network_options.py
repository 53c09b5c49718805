"""How a run learns of padding, width, epsilon and normalisation, and never guesses."""

import json

import numpy as np
import pytest
import safetensors.numpy

from configs import casm_imagenet, classifier_imagenet
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import IMAGENET_MEAN, IMAGENET_STD
from saliency_jax.models.weights_metadata import (
    Unclear,
    normalisation,
    read_metadata,
    told_by_metadata,
)
from saliency_jax.training import run_folder, start
from tests.training.test_run_folder import pretend_checkpoint

TENSORFLOW = {
    "input": "RGB 224x224, (uint8-127)*0.007843137718737125",
    "padding": "TensorFlow SAME",
    "architecture": "mobilenet_v2 width 1.0, torchvision state_dict names, (eps 1e-5)",
}
KERAS = {
    "input": "RGB 224x224, uint8/127.5-1",
    "padding": "Keras: explicit (0,1) zero pad then VALID at stride 2, SAME elsewhere",
    "architecture": "Keras MobileNet (v1) alpha 0.75, BatchNorm eps 1e-3",
}
IMAGENET = {"input": "RGB 227x227 (224 works), ImageNet mean/std normalised"}


def weights_file(folder, metadata):
    """A file that carries this text; its weights do not matter here."""
    path = folder / "weights.safetensors"
    safetensors.numpy.save_file({"x": np.zeros(1, np.float32)}, path, metadata)
    return path


def resolved(network, init, workdir, **changed):
    config = classifier_imagenet.get_config()
    config.classifier.network = network
    config.classifier.init = str(init)
    config.update_from_flattened_dict(
        {name.replace("__", "."): value for name, value in changed.items()}
    )
    run_folder.resolve(config, 10, start.known_network(config, workdir / "workdir"))
    return config


def options_of(config):
    names = ("width", "stem", "width_multiplier", "padding", "epsilon")
    return tuple(config.classifier[name] for name in names)


@pytest.mark.parametrize(
    ("network", "options", "mean"),
    [
        ("resnet50", (64, "imagenet", 0.0, "", 1e-5), IMAGENET_MEAN),
        ("mobilenet_v2", (0, "", 1.0, "symmetric", 1e-5), IMAGENET_MEAN),
        ("mobilenet_v1", (0, "", 1.0, "tensorflow", 1e-3), (0.5, 0.5, 0.5)),
        ("squeezenet1_1", (0, "", 0.0, "", 0.0), IMAGENET_MEAN),
        # What torchvision's `transform_input=True` makes of an image.
        ("googlenet", (0, "", 0.0, "", 1e-3), (0.5, 0.5, 0.5)),
        ("vgg16", (64, "", 0.0, "", 0.0), IMAGENET_MEAN),
        ("vgg16_bn", (64, "", 0.0, "", 1e-5), IMAGENET_MEAN),
        ("small_cnn", (32, "", 0.0, "", 1e-5), IMAGENET_MEAN),
    ],
)
def test_without_a_file_the_networks_own(network, options, mean, tmp_path):
    config = resolved(network, "", tmp_path)
    assert options_of(config) == options and config.data.mean == mean
    std = IMAGENET_STD if mean == IMAGENET_MEAN else (0.5, 0.5, 0.5)
    assert config.data.std == std


@pytest.mark.parametrize(
    ("network", "metadata", "options", "mean", "std"),
    [
        (
            "mobilenet_v2",
            TENSORFLOW,
            (0, "", 1.0, "tensorflow", 1e-5),
            3 * (127 / 255,),
            3 * (0.5,),
        ),
        (
            "mobilenet_v1",
            KERAS,
            (0, "", 0.75, "keras", 1e-3),
            3 * (0.5,),
            3 * (0.5,),
        ),
        (
            "squeezenet1_1",
            IMAGENET,
            (0, "", 0.0, "", 0.0),
            IMAGENET_MEAN,
            IMAGENET_STD,
        ),
    ],
)
def test_a_files_metadata_fill_what_is_empty(
    network, metadata, options, mean, std, tmp_path
):
    config = resolved(network, weights_file(tmp_path, metadata), tmp_path)
    assert options_of(config) == options
    np.testing.assert_allclose(config.data.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(config.data.std, std, rtol=1e-6)


def test_an_explicit_value_may_say_the_same(tmp_path):
    path = weights_file(tmp_path, TENSORFLOW)
    config = resolved(
        "mobilenet_v2",
        path,
        tmp_path,
        classifier__padding="tensorflow",
        data__mean=(0.498, 0.498, 0.498),
        data__std=(0.5, 0.5, 0.5),
    )
    assert config.classifier.padding == "tensorflow"
    assert config.data.mean == (0.498, 0.498, 0.498)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("classifier.padding", "symmetric", "'keras'"),
        ("classifier.epsilon", 1e-5, "0.001"),
        ("classifier.width_multiplier", 1.0, "0.75"),
        ("data.mean", IMAGENET_MEAN, r"\(0.5, 0.5, 0.5\)"),
        ("data.std", IMAGENET_STD, r"\(0.5, 0.5, 0.5\)"),
    ],
)
def test_an_explicit_value_that_contradicts_the_file(field, value, told, tmp_path):
    path = weights_file(tmp_path, KERAS)
    with pytest.raises(InputError, match=rf"{field} = {told}, this config has") as e:
        resolved("mobilenet_v1", path, tmp_path, **{field.replace(".", "__"): value})
    assert str(path) in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("network", ["resnet50", "googlenet", "squeezenet1_1"])
def test_a_file_of_a_network_with_another_option(network, tmp_path):
    path = weights_file(tmp_path, {"padding": "TensorFlow SAME"})
    message = f"padding = 'tensorflow', an option that {network} does not have"
    with pytest.raises(InputError, match=message):
        resolved(network, path, tmp_path)
    plain = {"padding": "PyTorch symmetric", "architecture": f"{network} width 1.0"}
    config = resolved(network, weights_file(tmp_path, plain), tmp_path)
    assert config.classifier.padding == ""


def test_metadata_in_no_known_form_have_to_be_answered(tmp_path):
    path = weights_file(tmp_path, {"input": "BGR 224x224, uint8/127.5-1"})
    with pytest.raises(InputError, match=r"input as 'BGR .* set --config.data.mean"):
        resolved("mobilenet_v2", path, tmp_path)
    half = (0.5, 0.5, 0.5)
    config = resolved("mobilenet_v2", path, tmp_path, data__mean=half, data__std=half)
    assert config.data.mean == half
    path = weights_file(tmp_path, {"padding": "VALID"})
    with pytest.raises(InputError, match="padding as 'VALID'.*--config.classifier.pad"):
        resolved("mobilenet_v2", path, tmp_path)


def test_options_of_other_networks_are_refused(tmp_path):
    with pytest.raises(InputError, match="stem = .small., but mobilenet_v2 has"):
        resolved("mobilenet_v2", "", tmp_path, classifier__stem="small")


def filed_run(folder, network, **changed):
    """A run's folder, as far as its config goes."""
    config = resolved(network, "", folder, **changed)
    workdir = folder / f"run_{network}"
    run_folder.prepare(workdir, config)
    return workdir


def test_a_run_that_is_the_beginning_fills_what_is_empty(tmp_path):
    run = filed_run(
        tmp_path,
        "mobilenet_v1",
        classifier__padding="keras",
        classifier__width_multiplier=0.25,
        data__mean=(0.1, 0.2, 0.3),
    )
    config = resolved("mobilenet_v1", run, tmp_path)
    assert options_of(config) == (0, "", 0.25, "keras", 1e-3)
    assert config.data.mean == (0.1, 0.2, 0.3) and config.data.std == (0.5, 0.5, 0.5)
    with pytest.raises(InputError, match=r"width_multiplier = 0\.25, this config has"):
        resolved("mobilenet_v1", run, tmp_path, classifier__width_multiplier=0.5)


def test_a_resumed_run_fills_from_its_own_config(tmp_path):
    """The file that it began with may be gone, or not be named again."""
    weights = weights_file(tmp_path, KERAS)
    config = resolved("mobilenet_v1", weights, tmp_path)
    workdir = tmp_path / "workdir"
    run_folder.prepare(workdir, config)
    pretend_checkpoint(workdir)
    weights.unlink()
    again = resolved("mobilenet_v1", "", tmp_path)
    assert options_of(again) == (0, "", 0.75, "keras", 1e-3)
    run_folder.prepare(workdir, again)
    other = resolved("mobilenet_v1", "", tmp_path, classifier__padding="tensorflow")
    with pytest.raises(InputError, match="padding was 'keras', now 'tensorflow'"):
        run_folder.prepare(workdir, other)


def test_the_filed_config_is_the_resolved_one(tmp_path):
    run = filed_run(tmp_path, "googlenet")
    filed = json.loads((run / "config.json").read_text())
    assert filed["data"]["mean"] == [0.5, 0.5, 0.5]
    assert filed["classifier"]["epsilon"] == 1e-3


def test_casm_takes_the_same_flags(tmp_path):
    config = casm_imagenet.get_config("F")
    config.classifier.network = "mobilenet_v2"
    config.classifier.init = str(weights_file(tmp_path, TENSORFLOW))
    run_folder.resolve(config, 1000, start.known_network(config, tmp_path / "run"))
    assert options_of(config) == (0, "", 1.0, "tensorflow", 1e-5)


@pytest.mark.parametrize(
    ("text", "mean", "std"),
    [
        ("RGB, uint8/255-0", 0.0, 1.0),
        ("RGB 64x64, uint8 / 127.5 - 1", 0.5, 0.5),
        ("RGB, (uint8 - 127.5) * 0.0078431372549", 0.5, 0.5),
    ],
)
def test_normalisations_by_hand(text, mean, std):
    told = normalisation(text)
    np.testing.assert_allclose(told, [3 * [mean], 3 * [std]], atol=1e-9)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "RGB",
        "BGR 224x224, or RGB: ImageNet mean/std",
        "uint8/127.5-1",
        "RGB, uint8/255-0.485,0.456",
        "RGB, uint8/255",
        "RGB (uint8 - 9)*0",
        "RGB, uint8/0-1",
        f"RGB, uint8/{'9' * 400}-1",
        f"RGB, uint8/255-{'9' * 400}",
        "RGB, uint8/1e200-1e200",
        f"RGB, (uint8 - {'9' * 400}) * 1",
        f"RGB, (uint8 - 1) * {'9' * 400}",
        "RGB, (uint8 - 1) * 1e-320",
        "RGB, (uint8 - 1) * 1e-999",
        "RGB, (uint8 - 1) * 1e308",
        "RGB, (uint8 - 1) * 1e45",
        "RGB, uint8/255-1e39",
    ],
)
def test_normalisations_that_are_not_guessed(text):
    assert normalisation(text) == (Unclear("input", text), Unclear("input", text))


def test_an_unclear_entry_that_no_option_is_for(tmp_path):
    weights = weights_file(tmp_path, {"padding": "same"})
    with pytest.raises(InputError, match="padding as 'same', .* no known form: mend"):
        resolved("resnet50", weights, tmp_path)


def test_files_without_text(tmp_path):
    assert told_by_metadata(read_metadata(tmp_path / "weights.pth")) == {}
    path = tmp_path / "plain.safetensors"
    safetensors.numpy.save_file({"x": np.zeros(1, np.float32)}, path)
    assert told_by_metadata(read_metadata(path)) == {}
    path.write_bytes(b"damaged")
    with pytest.raises(InputError, match="not a readable safetensors"):
        read_metadata(path)

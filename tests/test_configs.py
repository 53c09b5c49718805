"""Every experiment with every documented argument, and the published constants."""

import importlib
from pathlib import Path

import jax
import pytest
from absl import flags
from ml_collections import config_flags

from configs import casm_imagenet, casm_shapes, classifier_imagenet
from saliency_jax.data.sources import PREPARED_BY_TFDS, PREPARED_HERE
from saliency_jax.errors import InputError
from saliency_jax.models import create
from saliency_jax.models.classifier import IMAGENET_MEAN, IMAGENET_STD
from saliency_jax.objectives import casm
from saliency_jax.training import black_box_stage, encoder, run_folder
from saliency_jax.training.casm_stage import casm_options
from saliency_jax.training.optim import create_optimiser

EXPERIMENTS = ("shapes", "tiny_imagenet", "imagenet")
THINNING = ("F", "L", "FL", "L100", "L1000")
CASM_ARGS = (
    "",
    *THINNING,
    *casm.SCORES,
    *casm.VARIANTS,
    "smoke",
    "F,classification",
    "smoke,paper,L7,classification",
)


def config_of(stage, experiment, arg):
    return importlib.import_module(f"configs.{stage}_{experiment}").get_config(arg)


def check_usable(config, classes):
    """What `train.py` does with a config before it needs data."""
    assert config.data.name in (*PREPARED_HERE, *PREPARED_BY_TFDS)
    assert config.total_steps > 0
    run_folder.resolve(config, classes)
    classifier = create.create_classifier(config.classifier)
    create_optimiser(config.classifier.optimiser, config.total_steps)
    masker = None
    if config.stage == "casm":
        masker = create.create_masker(config.masker, classifier)
        create_optimiser(config.masker.optimiser, config.total_steps)
        casm_options(config)
    return classifier, masker


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("arg", CASM_ARGS)
def test_casm(experiment, arg):
    config = config_of("casm", experiment, arg)
    words = arg.split(",")
    thinning = [word for word in words if word in (*THINNING, "L7")]
    if thinning:
        assert config.casm.thinning == thinning[0]
    else:
        expected = "L1000" if experiment == "imagenet" else "L100"
        assert config.casm.thinning == expected
    assert (config.casm.score == "classification") == ("classification" in words)
    assert (config.casm.variant == "paper") == ("paper" in words)
    assert (config.total_steps <= 10) == ("smoke" in words)
    check_usable(config, 10)


@pytest.mark.parametrize("experiment", (*EXPERIMENTS, "cifar10", "small_cnn"))
@pytest.mark.parametrize("arg", ["", "smoke"])
def test_classifier(experiment, arg):
    config = config_of("classifier", experiment, arg)
    assert (config.total_steps <= 10) == (arg == "smoke")
    check_usable(config, 10)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("arg", ["", "smoke"])
def test_casm_fits_the_classifier_of_the_same_experiment(experiment, arg):
    """A run of one is what the other starts from, without any further flag."""
    one = config_of("classifier", experiment, arg)
    other = config_of("casm", experiment, arg)
    for name in ("network", "width", "stem"):
        assert one.classifier[name] == other.classifier[name]
    for name in ("name", "image_size", "mean", "std"):
        assert one.data[name] == other.data[name]


@pytest.mark.parametrize("arg", ["pretrained", "F,pretrained"])
def test_pretrained_tiny_imagenet(arg):
    one = config_of("classifier", "tiny_imagenet", "pretrained")
    other = config_of("casm", "tiny_imagenet", arg)
    assert one.classifier.new_head
    assert other.casm.thinning == ("F" if arg.startswith("F") else "L100")
    for config in (one, other):
        check_usable(config, 100)
    assert one.data.image_size == other.data.image_size
    # The width is resolved from the weights file, then from the run.
    for name in ("network", "width", "stem"):
        assert one.classifier[name] == other.classifier[name]


@pytest.mark.parametrize("arg", ["mini", "mini,F"])
def test_the_laptops_form_of_imagenet(arg):
    config = config_of("casm", "imagenet", arg)
    assert config.casm.thinning == ("F" if "F" in arg else "L100")
    assert config.casm.area_factor == (1.0 if "F" in arg else 0.5)
    assert config.total_steps < 1000 and config.classifier.network == "mobilenet_v2"
    check_usable(config, 1000)


@pytest.mark.parametrize("experiment", (*EXPERIMENTS, "cifar10"))
@pytest.mark.parametrize("arg", ["", "paper", "smoke", "smoke,paper"])
def test_black_box(experiment, arg):
    config = config_of("black_box", experiment, arg)
    assert (config.black_box.variant == "paper") == ("paper" in arg)
    assert config.removal.blur_sigma == (10.0 if "paper" in arg else 11.0)
    assert (config.selector.steps + config.decoder.steps <= 10) == ("smoke" in arg)
    run_folder.resolve(config, 10)
    assert config.total_steps == config.selector.steps + config.decoder.steps
    if config.encoder.network:
        config.encoder.mean, config.encoder.std = IMAGENET_MEAN, IMAGENET_STD
    else:
        encoder.resolve_encoder(config, Path("nowhere"))
        assert config.encoder.network == config.classifier.network
    black_box_stage.create_stage(config)


@pytest.mark.parametrize("experiment", (*EXPERIMENTS, "cifar10"))
@pytest.mark.parametrize("arg", ["", "smoke"])
def test_a_black_box_is_a_classifier_of_the_same_experiment(experiment, arg):
    one = config_of("classifier", experiment, arg)
    other = config_of("black_box", experiment, arg)
    for name in ("network", "width", "stem"):
        assert one.classifier[name] == other.classifier[name]
    for name in ("name", "image_size", "mean", "std"):
        assert one.data[name] == other.data[name]


def test_the_published_black_box_run():
    config = config_of("black_box", "imagenet", "")
    phases = [
        (phase.steps, phase.batch_size, phase.fake_probability)
        for phase in (config.selector, config.decoder)
    ]
    assert phases == [(8500, 128, 0.5), (3000, 64, 0.3)]
    rate = create_optimiser(config.selector.optimiser, 8500).learning_rate
    for step, expected in ((3999, 1e-3), (4000, 1e-4), (8000, 1e-5)):
        assert float(rate(step)) == pytest.approx(expected)
    rate = create_optimiser(config.decoder.optimiser, 3000).learning_rate
    assert float(rate(2999)) == pytest.approx(1e-3)
    assert config.black_box.to_dict() == {
        "variant": "author",
        "fake": "inverted",
        "area_weight": 8.0,
        "area_power": 0.3,
        "smoothness_weight": 0.005,
        "border_weight": 0.3,
        "preserver_weight": 0.3,
        "destroyer_weight": 1.0,
        "destroyer_power": 0.3,
        "strong_margin": 5.0,
        "weak_margin": 1.0,
        "area_offset": 0.0005,
    }
    assert config.encoder.network == "resnet50" and config.masker.confidence == 6.0
    with pytest.raises(InputError, match="expected one of"):
        config_of("black_box", "imagenet", "L100")
    with pytest.raises(InputError, match="are both a variant"):
        config_of("black_box", "imagenet", "paper,author")


def test_the_black_box_on_a_laptop():
    config = config_of("black_box", "imagenet", "mini")
    assert config.classifier.network == "mobilenet_v2" and not config.encoder.network
    assert config.masker.selector_init == "classifier" and config.selector.steps == 0


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("smok", r"'smok': expected one of \['author', .*'smoke'\], or a thinning"),
        ("L0", "unknown thinning strategy 'L0'"),
    ],
)
def test_a_word_that_casm_does_not_know(word, message):
    with pytest.raises(InputError, match=message):
        config_of("casm", "shapes", word)


@pytest.mark.parametrize("stage", ["classifier", "casm"])
def test_the_demo_is_the_experiment_on_shapes_with_fewer_images(stage):
    whole, demo = config_of(stage, "shapes", ""), config_of(stage, "shapes", "demo")
    images = [c.total_steps * c.data.batch_size for c in (demo, whole)]
    assert images[0] < images[1]
    for config in (whole, demo):
        check_usable(config, 10)
        config.total_steps = config.data.batch_size = 0
        del config.form, config.log, config.checkpoint
        for section in ("classifier", "masker"):
            if section in config:
                del config[section].optimiser
    assert demo.to_dict() == whole.to_dict()


@pytest.mark.parametrize("stage", ["classifier", "casm"])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_smoke_is_small_in_all_that_costs(stage, experiment):
    config = config_of(stage, experiment, "smoke")
    assert config.total_steps <= 10 and config.data.image_size <= 32
    assert config.data.batch_size <= 8 and config.classifier.width <= 8
    assert config.checkpoint.every < config.total_steps
    if stage == "casm":
        assert config.casm.pool_slots <= 3


@pytest.mark.parametrize("stage", ["classifier", "casm"])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_killed_run_keeps_something_and_best_has_a_choice(stage, experiment):
    config = config_of(stage, experiment, "")
    assert 2 * config.checkpoint.every <= config.total_steps or stage == "classifier"
    assert config.checkpoint.every < config.total_steps
    assert config.log.evaluate_every < config.total_steps


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_unknown_arguments_are_named(experiment):
    with pytest.raises(InputError, match="'L0'.*F, L, FL or L followed by"):
        config_of("casm", experiment, "L0")
    with pytest.raises(InputError, match="'F' and 'L100' are both a thinning"):
        config_of("casm", experiment, "F,smoke,L100")
    with pytest.raises(InputError, match="'author;paper'"):
        config_of("casm", experiment, "author;paper")
    with pytest.raises(InputError, match="'L100': expected one of .*'smoke'"):
        config_of("classifier", experiment, "L100")


def test_published_constants():
    """kondiz/casme: 60 epochs of 2,003 steps, both rates down every 20 epochs."""
    config = casm_imagenet.get_config()
    run_folder.resolve(config, 1000)
    assert config.total_steps == 60 * 2003 == 120_180
    assert config.data.batch_size == 128 and config.data.image_size == 224
    assert config.data.min_area == 0.08 and config.data.flip
    assert config.data.mean == IMAGENET_MEAN and config.data.std == IMAGENET_STD
    assert config.casm.pool_slots == 30
    assert (config.casm.thinning, config.casm.score) == ("L1000", "entropy")
    assert config.casm.variant == "author"
    assert config.classifier.network == "resnet50"
    assert (config.classifier.width, config.classifier.stem) == (64, "imagenet")
    common = {
        "learning_rate": 1e-3,
        "weight_decay": 1e-4,
        "schedule": "step",
        "decay_every": 20 * 2003,
        "decay_factor": 0.1,
        "warmup_steps": 0,
    }
    sgd = {"name": "sgd", "momentum": 0.9, "clip_norm": 0.0}
    adam = {"name": "adam", "clip_norm": 10.0}
    for optimiser, own in (
        (config.classifier.optimiser, sgd),
        (config.masker.optimiser, adam),
    ):
        expected = common | own
        assert {name: optimiser[name] for name in expected} == expected
    assert config.masker.to_dict() | {"optimiser": None} == {
        "encoder": "shared",
        "taps": (0, 1, 2, 3, 4),
        "features": 64,
        "final_upsampling": "nearest",
        "optimiser": None,
    }


def test_the_published_networks_have_their_sizes():
    classifier, masker = check_usable(casm_imagenet.get_config(), 1000)
    networks = jax.eval_shape(
        lambda key: create.init_networks(classifier, masker, key, 224),
        jax.random.key(0),
    )
    counts = {
        name: sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
        for name, variables in networks.items()
    }
    assert counts == {"classifier": 25_557_032, "masker": 249_153}


@pytest.mark.parametrize(
    ("arg", "classes", "weight"),
    [
        ("", 1000, 10.0),
        ("F", 1000, 2.5),
        ("L", 1000, 14.0),
        ("FL", 1000, 7.5),
        ("L100,classification", 1000, 17.0),
        ("L100", 100, 10.0 * 2 / 3),
        ("F,classification", 10, 3.0),
    ],
)
def test_the_steps_options(arg, classes, weight):
    config = casm_imagenet.get_config(arg)
    run_folder.resolve(config, classes)
    options = casm_options(config)
    assert options.area_weight == pytest.approx(weight)
    assert options.mean == IMAGENET_MEAN and options.std == IMAGENET_STD
    config.casm.area_factor = 3.0
    assert casm_options(config).area_weight == pytest.approx(3.0 * weight)


def test_unknown_options_are_refused_whatever_else_is_set():
    config = casm_shapes.get_config()
    run_folder.resolve(config, 10)
    config.casm.score = "entropie"
    with pytest.raises(InputError, match="unknown score 'entropie'"):
        casm_options(config)
    config.casm.score = "entropy"
    config.casm.variant = "authors"
    with pytest.raises(InputError, match="unknown variant 'authors'"):
        casm_options(config)


def test_flags_override_any_value(monkeypatch):
    arguments = [
        "train.py",
        "--config=configs/casm_imagenet.py:L100,paper",
        "--config.data.data_dir=/somewhere",
        "--config.casm.pool_slots=7",
        "--config.masker.taps=(3, 4)",
        "--config.masker.optimiser.learning_rate=0.5",
        "--config.data.flip=false",
        "--config.data.mean=(0.5, 0.5, 0.5)",
        "--config.classifier.network=mobilenet_v1",
        "--config.classifier.width_multiplier=0.25",
        "--config.classifier.padding=keras",
    ]
    monkeypatch.setattr("sys.argv", arguments)
    monkeypatch.chdir(Path(casm_imagenet.__file__).parent.parent)
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "", values)
    values(arguments)
    config = values.config
    assert config.casm.thinning == "L100" and config.casm.variant == "paper"
    assert config.data.data_dir == "/somewhere" and config.casm.pool_slots == 7
    assert config.masker.taps == (3, 4) and not config.data.flip
    assert config.data.mean == (0.5, 0.5, 0.5) and config.data.std == ()
    assert config.classifier.width_multiplier == 0.25
    module = create.create_classifier(config.classifier)
    assert (module.width_multiplier, module.padding) == (0.25, "keras")
    # sections are not shared: the classifier's rate is its own
    assert config.masker.optimiser.learning_rate == 0.5
    assert config.classifier.optimiser.learning_rate == 1e-3


def test_experiments_do_not_share_state():
    one = classifier_imagenet.get_config()
    one.classifier.optimiser.learning_rate = 9.0
    assert classifier_imagenet.get_config().classifier.optimiser.learning_rate == 0.1

"""Every field that a run has, with the published values; the experiments override."""

import dataclasses
from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from saliency_jax.errors import InputError
from saliency_jax.objectives import black_box, casm
from saliency_jax.objectives.generator import REAL_LABEL
from saliency_jax.removal import RemovalOptions


def classifier_config(arg: str = "", forms: tuple[str, ...] = ("smoke",)) -> ConfigDict:
    """The stage `classifier`: supervised training from scratch.

    Args:
      arg: what stands behind the colon of `--config`.
      forms: the smaller forms of the experiment that `arg` may ask for.

    Raises:
      InputError: for a word that is none of `forms`.
    """
    if arg not in ("", *forms):
        raise InputError(f"config argument {arg!r}: expected one of {forms}")
    config = ConfigDict()
    config.stage = "classifier"
    config.form = arg
    config.seed = 0
    config.total_steps = 0
    # A step whose losses or new weights are not finite ends the run, or changes nothing
    # ("skip": networks and pool are held twice while a step runs).
    config.not_finite = "stop"

    config.data = data = ConfigDict()
    data.name = ""
    data.data_dir = "data"
    data.image_size = 224
    data.batch_size = 128  # over all devices
    data.class_names = ()  # taken from the data
    data.num_train = 0  # taken from the data
    # Of images in [0, 1]. Empty: as `classifier.init` says, else the network's own.
    data.mean = ()
    data.std = ()
    data.min_area = 0.08  # of the random resized crop
    data.flip = True
    data.erasing_probability = 0.0
    # Of the stage `classifier`: labels that mean nothing, to be memorised, of training
    # images only. Methods are checked by the maps of such a classifier.
    data.random_labels = False
    data.holdout = 1000  # training images with boxes that judge `best`
    data.num_threads = 4
    data.num_workers = 0  # processes; 0 reads in threads of this one

    # A network of your own, "package.module:function", in the place of that below and
    # its options.
    config.model = ConfigDict({"factory": ""})

    config.classifier = classifier = ConfigDict()
    classifier.network = "resnet50"  # one of `models.create.BACKBONES`
    # Options of some networks. Empty (0 or ""): as `init` says, else the network's own;
    # an option that the network does not have stays empty.
    classifier.width = 0  # of a ResNet, VGG, small_cnn: first channels
    classifier.stem = ""  # of a ResNet
    classifier.width_multiplier = 0.0  # of a MobileNet
    classifier.padding = ""  # of a MobileNet: symmetric, tensorflow or keras
    classifier.epsilon = 0.0  # of BatchNorm
    classifier.num_classes = 0  # taken from the data
    classifier.dtype = "float32"
    classifier.init = ""  # a classifier run's workdir, or a .pth / .safetensors file
    classifier.new_head = False  # a fresh last layer, for a weights file
    # "softmax", or "sigmoid" of each class where images may have several labels; CASM
    # takes the first only.
    classifier.output = "softmax"
    classifier.label_smoothing = 0.0
    classifier.optimiser = ConfigDict(
        {
            "name": "sgd",
            "learning_rate": 0.1,
            "momentum": 0.9,
            "weight_decay": 1e-4,
            "clip_norm": 0.0,
            "schedule": "cosine",
            "warmup_steps": 0,
            "decay_every": 0,
            "decay_factor": 0.1,
        }
    )

    config.checkpoint = ConfigDict({"every": 1000, "keep_last": 2})
    config.log = ConfigDict({"every": 50, "evaluate_every": 1000})
    return config


def casm_config(
    arg: str, default_thinning: str, forms: tuple[str, ...] = ("smoke",)
) -> ConfigDict:
    """The stage `casm`, with the authors' constants (kondiz/casme).

    Args:
      arg: what stands behind the colon of `--config`, comma-separated, in any order: a
        thinning strategy (F, L, FL, L100, ...), a score (entropy, classification), a
        variant (author, paper), one of `forms`.
      default_thinning: where `arg` names none.
      forms: the smaller forms of the experiment.

    Raises:
      InputError: for a word that is none of these, or two of a kind.
    """
    config = classifier_config()
    config.stage = "casm"

    classifier = config.classifier.optimiser
    classifier.learning_rate = 1e-3
    classifier.schedule = "step"
    classifier.decay_every = 40_060  # 20 of the original's epochs of 2,003 steps
    del config.classifier.label_smoothing, config.classifier.new_head

    config.masker = masker = ConfigDict()
    masker.encoder = "shared"  # or "own"
    masker.taps = (0, 1, 2, 3, 4)
    masker.features = 64
    masker.final_upsampling = "nearest"  # or "bilinear"
    masker.optimiser = ConfigDict(classifier.to_dict())
    masker.optimiser.name = "adam"
    masker.optimiser.clip_norm = 10.0

    config.casm = options = ConfigDict()
    options.thinning = default_thinning
    options.score = "entropy"
    options.variant = "author"  # or "paper": Algorithm 1 as printed
    # Times the published lambda of the thinning strategy and the score, which the step
    # scales by ln K / ln 1000.
    options.area_factor = 1.0
    options.pool_slots = 30
    options.pool_dtype = "float32"  # or "bfloat16": half the memory
    options.pool_memory = "device"  # or "pinned_host": none of the device's
    options.pool_split = False  # or True: of N devices each holds an Nth of it
    config.log.picture_every = 500

    kinds = {"score": casm.SCORES, "variant": casm.VARIANTS, "form": forms}
    named = {word for words in kinds.values() for word in words}
    others = [word for word in arg.split(",") if word and word not in named]
    for word in others:
        if word[0] not in "FL":
            raise InputError(
                f"config argument {word!r}: expected one of {sorted(named)}, or a "
                "thinning strategy such as F, L, FL or L100"
            )
        casm.thinning(word)  # or says what is known
    chosen = _choose(arg, {**kinds, "thinning": others})
    config.form = chosen.pop("form", "")
    options.update(chosen)
    return config


def black_box_config(arg: str, forms: tuple[str, ...] = ("smoke",)) -> ConfigDict:
    """The stage `black_box`, with the constants of Dabkowski and Gal.

    Args:
      arg: what stands behind the colon of `--config`, comma-separated, in any order: a
        variant ("author", the authors' code, or "paper"), one of `forms`.
      forms: the smaller forms of the experiment.

    Raises:
      InputError: for a word that is none of these, or two of a kind.
    """
    chosen = _choose(arg, {"variant": black_box.VARIANTS, "form": forms})
    is_paper = chosen.get("variant") == "paper"

    config = classifier_config()
    config.stage = "black_box"
    config.form = chosen.get("form", "")
    config.data.batch_size = 64  # of evaluation; the phases have their own
    config.data.min_area = 0.3

    # The black box. It never changes.
    for field in ("optimiser", "label_smoothing", "new_head"):
        del config.classifier[field]
    # "package.module:function" from images in [0, 1] to logits, in its place.
    config.classifier.function = ""

    # The masker's own encoder, which never changes either. Without a network: a copy of
    # the black box.
    config.encoder = encoder = ConfigDict(config.classifier.to_dict())
    del encoder["function"], encoder["output"]
    encoder.network = "resnet50"
    encoder.mean = ()  # of images in [0, 1]; empty: as the weights say
    encoder.std = ()

    config.masker = masker = ConfigDict()
    masker.upsampling = "paper" if is_paper else "author"  # or "resize"
    masker.base = 64  # channels of the finest step
    masker.pooling = "max" if is_paper else "mean"  # of the selector's scores
    masker.selector_init = "random"  # or "classifier": the encoder's last layer
    # What the selector's scores have to exceed, in training and in use.
    masker.training_confidence = 0.0
    masker.confidence = 6.0

    for name, steps, batch_size, fake_probability, decay_every in (
        ("selector", 8500, 128, 0.5, 4000),
        ("decoder", 3000, 64, 0.3, 0),
    ):
        config[name] = phase = ConfigDict()
        phase.steps = steps
        phase.batch_size = batch_size
        phase.fake_probability = fake_probability
        phase.optimiser = ConfigDict(classifier_config().classifier.optimiser.to_dict())
        phase.optimiser.name = "adam"
        phase.optimiser.learning_rate = 1e-3
        phase.optimiser.schedule = "step" if decay_every else "constant"
        phase.optimiser.decay_every = decay_every

    variant = chosen.get("variant", "author")
    config.black_box = ConfigDict(dataclasses.asdict(black_box.published(variant)))
    config.removal = ConfigDict(dataclasses.asdict(RemovalOptions()))
    if is_paper:
        config.removal.blur_sigma = 10.0
    config.log.picture_every = 500
    return config


def generator_config(arg: str = "", forms: tuple[str, ...] = ("smoke",)) -> ConfigDict:
    """The stage `generator`: a DCGAN, with the constants of Thakur and Fischmeister.

    Args:
      arg: what stands behind the colon of `--config`.
      forms: the smaller forms of the experiment that `arg` may ask for.

    Raises:
      InputError: for a word that is none of `forms`.
    """
    config = classifier_config(arg, forms)
    config.stage = "generator"
    optimiser = ConfigDict(config.classifier.optimiser.to_dict())
    del config.classifier, config.model, config.data.mean, config.data.std
    config.data.batch_size = 64
    config.data.holdout = 0  # there is no score to choose a best checkpoint by

    del optimiser.momentum
    optimiser.name = "adam"
    optimiser.learning_rate = 2e-4
    optimiser.beta1 = 0.5
    optimiser.weight_decay = 0.0
    optimiser.schedule = "constant"
    config.generator = ConfigDict(
        {
            "latent_size": 100,
            "width": 128,  # channels of the last map; 448 in the code for 224 pixels
            "optimiser": optimiser.to_dict(),
        }
    )
    config.discriminator = ConfigDict(
        {
            "width": 64,  # channels of the first map; 56 in the code for 224 pixels
            "real_label": REAL_LABEL,
            "optimiser": optimiser.to_dict(),
        }
    )
    config.log.picture_every = 500
    return config


def _choose(arg: str, kinds: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Sorts the words of a config's argument by their kinds.

    Raises:
      InputError: for a word of no kind, or two of one.
    """
    chosen: dict[str, str] = {}
    for word in filter(None, arg.split(",")):
        kind = next((kind for kind, words in kinds.items() if word in words), None)
        if kind is None:
            known = [known for words in kinds.values() for known in words]
            raise InputError(f"config argument {word!r}: expected one of {known}")
        if kind in chosen:
            raise InputError(
                f"config argument {arg!r}: {chosen[kind]!r} and {word!r} are both a "
                f"{kind}; give one"
            )
        chosen[kind] = word
    return chosen


def shrink(config: ConfigDict) -> None:
    """Makes any experiment run in seconds on a CPU: the same path, tiny sizes."""
    config.total_steps = 6
    config.data.batch_size = 8
    config.data.image_size = 32
    config.data.num_threads = 1
    config.checkpoint.every = 3
    config.log.every = 2
    config.log.evaluate_every = 3
    if config.stage == "generator":
        config.log.picture_every = 3
        config.generator.width = config.discriminator.width = 4
        config.generator.latent_size = 8
        return
    config.data.holdout = 16
    config.classifier.network = "resnet10"
    config.classifier.width = 8
    config.classifier.stem = "small_stride2"
    if config.stage != "black_box":
        config.classifier.optimiser.warmup_steps = 0
    if config.stage == "casm":
        config.log.picture_every = 3
        config.casm.pool_slots = 3
        config.masker.features = 8
    if config.stage == "black_box":
        config.total_steps = 0  # of both phases
        config.log.picture_every = 3
        config.encoder.network = ""
        config.masker.base = 4
        config.selector.steps, config.decoder.steps = 2, 4
        config.selector.batch_size, config.decoder.batch_size = 16, 8

r"""CASM on Tiny ImageNet, from a classifier of `classifier_tiny_imagenet.py`.

    python train.py --config configs/casm_tiny_imagenet.py \
        --config.classifier.init=runs/classifier_tiny_imagenet \
        --workdir runs/casm_tiny_imagenet

`casm_tiny_imagenet.py:pretrained` goes on from a run of
`classifier_tiny_imagenet.py:pretrained`: 7 minutes on two CPU cores, localisation error
42.8 and 43.3 % in two runs, on validation images of 100 classes (centre box 45.3 %).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; see `common.casm_config` for `arg`."""
    config = common.casm_config(
        arg, default_thinning="L100", forms=("smoke", "pretrained")
    )
    config.total_steps = 800

    config.data.name = "tiny_imagenet"
    config.data.image_size = 64
    config.data.batch_size = 64
    config.data.min_area = 0.25

    config.classifier.network = "resnet10"
    config.classifier.width = 32
    config.classifier.stem = "small_stride2"
    config.classifier.optimiser.learning_rate = 3e-3
    config.classifier.optimiser.schedule = "cosine"
    config.masker.optimiser.learning_rate = 3e-3
    config.masker.optimiser.schedule = "cosine"
    # The objects fill half of the image: the published lambda marks a tenth of it.
    config.casm.area_factor = 0.3
    config.checkpoint.every = 200
    config.log.evaluate_every = 200
    config.log.picture_every = 200
    if config.form == "pretrained":
        config.data.image_size = 128
        config.data.batch_size = 32
        config.data.min_area = 0.4
        config.classifier.network = "mobilenet_v1"
        config.classifier.width, config.classifier.stem = 0, ""
        config.classifier.optimiser.name = "adam"
        config.classifier.optimiser.learning_rate = 1e-4
        config.masker.optimiser.learning_rate = 1e-3
        # Objects are marked whole; with 0.3 a wide margin around them as well.
        config.casm.area_factor = 0.45
        # The finest two maps only add speckles to the masks.
        config.masker.taps = (2, 3, 4)
        config.masker.final_upsampling = "bilinear"
    if config.form == "smoke":
        common.shrink(config)
    return config

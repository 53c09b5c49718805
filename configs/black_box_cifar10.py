r"""The real-time masker on CIFAR-10, for a run of `classifier_cifar10.py`.

    python train.py --config configs/black_box_cifar10.py \
        --workdir runs/black_box_cifar10 \
        --config.classifier.init=runs/classifier_cifar10

12 minutes on two CPU cores; of the masks' crops 60 % are right.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; see `common.black_box_config` for `arg`."""
    config = common.black_box_config(arg)

    config.data.name = "cifar10"
    config.data.image_size = 32
    config.data.holdout = 0  # it has no boxes

    config.classifier.network = "resnet10"
    config.classifier.width = 32
    config.classifier.stem = "small"
    config.encoder.network = ""
    config.masker.base = 16
    config.masker.confidence = 0.0
    config.selector.steps = 400
    config.decoder.steps = 1000
    config.decoder.optimiser.schedule = "cosine"
    config.checkpoint.every = 200
    config.log.every = 20
    config.log.picture_every = 200
    if config.form == "smoke":
        common.shrink(config)
    return config

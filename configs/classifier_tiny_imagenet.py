r"""A ResNet-10 on Tiny ImageNet, 64x64.

    python train.py --config configs/classifier_tiny_imagenet.py \
        --workdir runs/classifier_tiny_imagenet
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty or "smoke"."""
    config = common.classifier_config(arg)
    config.total_steps = 4000

    config.data.name = "tiny_imagenet"
    config.data.image_size = 64
    config.data.batch_size = 64
    config.data.min_area = 0.25

    config.classifier.network = "resnet10"
    config.classifier.width = 32
    config.classifier.stem = "small_stride2"
    config.classifier.label_smoothing = 0.1
    config.classifier.optimiser.learning_rate = 0.1
    config.classifier.optimiser.weight_decay = 5e-4
    config.classifier.optimiser.warmup_steps = 300
    if config.form == "smoke":
        common.shrink(config)
    return config

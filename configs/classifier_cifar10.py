r"""A small ResNet on CIFAR-10, 32x32.

    python train.py --config configs/classifier_cifar10.py \
        --workdir runs/classifier_cifar10

`cifar10` is TFDS's. For a folder of pictures, prepare it as an `image_folder` and give
its name as --config.data.name. On two CPU cores 120 to 180 images/s; in three runs of
6,300 steps in all, on a lossy copy, 86 % of the test images right (docs/results.md).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty or "smoke"."""
    config = common.classifier_config(arg)
    config.total_steps = 4700  # 12 epochs

    config.data.name = "cifar10"
    config.data.image_size = 32
    config.data.batch_size = 128
    config.data.min_area = 0.4
    config.data.erasing_probability = 0.25

    config.classifier.network = "resnet10"
    config.classifier.width = 32
    config.classifier.stem = "small"
    config.classifier.label_smoothing = 0.1
    config.classifier.optimiser.learning_rate = 0.2
    config.classifier.optimiser.weight_decay = 5e-4
    config.classifier.optimiser.warmup_steps = 300
    config.checkpoint.every = 500
    if config.form == "smoke":
        common.shrink(config)
    return config

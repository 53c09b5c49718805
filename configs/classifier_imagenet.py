r"""A ResNet-50 on ImageNet, 90 epochs at batch 256.

    python train.py --config configs/classifier_imagenet.py \
        --workdir runs/classifier_imagenet --config.data.data_dir=DIR
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty or "smoke"."""
    config = common.classifier_config(arg)
    config.total_steps = 450_000  # 90 epochs of 1,281,167 images

    config.data.name = "imagenet_loc"
    config.data.batch_size = 256
    config.data.holdout = 5000
    config.data.num_threads = 16

    config.classifier.dtype = "bfloat16"
    config.classifier.label_smoothing = 0.1
    config.classifier.optimiser.warmup_steps = 25_000
    config.checkpoint.every = 5000
    config.log.evaluate_every = 5000
    if config.form == "smoke":
        common.shrink(config)
    return config

r"""A ResNet-10 on Tiny ImageNet, 64x64, or an ImageNet classifier tuned on it, 128x128.

    python train.py --config configs/classifier_tiny_imagenet.py \
        --workdir runs/classifier_tiny_imagenet
    python train.py --config configs/classifier_tiny_imagenet.py:pretrained \
        --config.classifier.init=mobilenet_v1_075_keras.safetensors \
        --workdir runs/classifier_tiny_imagenet

On two CPU cores and 100 of the classes the first takes about an hour and reaches 37.5 %
top-1 on the validation images, the second 5 minutes and 64 %.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty, "pretrained" or "smoke"."""
    config = common.classifier_config(arg, forms=("smoke", "pretrained"))
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
    if config.form == "pretrained":
        config.total_steps = 600
        config.data.image_size = 128
        config.data.min_area = 0.4
        config.classifier.network = "mobilenet_v1"
        config.classifier.width, config.classifier.stem = 0, ""
        config.classifier.new_head = True
        config.classifier.label_smoothing = 0.0
        config.classifier.optimiser.name = "adam"
        config.classifier.optimiser.learning_rate = 3e-4
        config.classifier.optimiser.weight_decay = 1e-5
        config.classifier.optimiser.warmup_steps = 50
        config.log.every = 20
        config.checkpoint.every = config.log.evaluate_every = 200
    if config.form == "smoke":
        common.shrink(config)
    return config

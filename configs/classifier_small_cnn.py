r"""A small network of five convolutions on Tiny ImageNet, 64x64.

    python train.py --config configs/classifier_small_cnn.py \
        --workdir runs/classifier_small_cnn

With `--config.total_steps=1200 --config.classifier.optimiser.warmup_steps=100` it took
40 minutes of one CPU core with other work beside, and reached 24.1 % top-1 on the
validation images of 100 classes (2026-11-28); its own 4,000 steps have not been run.

`configs/casm_tiny_imagenet.py` puts a masker on it, with
`--config.classifier.network=small_cnn --config.classifier.stem=` and
`--config.classifier.init=runs/classifier_small_cnn`.
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

    config.classifier.label_smoothing = 0.1
    config.classifier.optimiser.learning_rate = 0.1
    config.classifier.optimiser.weight_decay = 5e-4
    config.classifier.optimiser.warmup_steps = 300
    if config.form == "smoke":
        common.shrink(config)
    config.classifier.network = "small_cnn"
    config.classifier.width = 8 if config.form == "smoke" else 32
    config.classifier.stem = ""
    return config

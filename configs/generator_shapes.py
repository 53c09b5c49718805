r"""A DCGAN of the embedded shapes, for `saliency_jax.synthesis`.

    python train.py --config configs/generator_shapes.py \
        --workdir runs/generator_shapes

An eighth of the published width, so that a CPU can train it: 59 minutes on one core.
Nothing scores it: look at the samples in the run's `pictures`.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty or "smoke"."""
    config = common.generator_config(arg)
    config.total_steps = 3000

    config.data.name = "shapes"
    config.data.image_size = 64
    config.data.batch_size = 64
    config.data.min_area = 0.5

    config.generator.width = 16
    config.discriminator.width = 16
    # A narrow generator bears a higher rate than the published one, and needs fewer
    # steps. At that rate the discriminator was certain after a hundred of them.
    config.generator.optimiser.learning_rate = 4e-4
    config.discriminator.optimiser.learning_rate = 1e-4
    config.checkpoint.every = 250
    config.log.picture_every = 250
    if config.form == "smoke":
        common.shrink(config)
    return config

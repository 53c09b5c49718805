"""TFDS builders, written without TensorFlow; `python -m saliency_jax.data prepare`."""

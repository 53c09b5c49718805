"""Images that a classifier's answers make: of classes, attacks and variations."""

from saliency_jax.synthesis.adversarial import fgsm, pgd
from saliency_jax.synthesis.class_image import class_image

__all__ = ["class_image", "fgsm", "pgd"]

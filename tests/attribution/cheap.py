"""Options that make each method fast enough for a test of all of them."""

from saliency_jax.attribution.iterative_mask import IterativeOptions

CHEAP = {
    "meaningful_perturbation": {"steps": 4},
    "extremal_perturbation": {"steps": 4},
    "mask_estimation": {"steps": 6, "chains": 3, "grid": 4},
    "iterative_masks": {"options": IterativeOptions(iterations=4, mask_size=8)},
}

"""Options that make each method fast enough for a test of all of them."""

CHEAP = {
    "smooth_grad": {"samples": 3},
    "smooth_grad_squared": {"samples": 3},
    "var_grad": {"samples": 3},
    "integrated_gradients": {"steps": 5},
    "blur_integrated_gradients": {"steps": 5, "max_sigma": 8.0},
    "expected_gradients": {"samples": 3},
    "occlusion": {"patch_size": 4, "stride": 3},
    "rise": {"masks": 60, "cells": 4},
    "lime": {"segments": "grid", "samples": 60},
    "kernel_shap": {"segments": "grid", "samples": 60},
}

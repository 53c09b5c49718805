"""Options that make each method fast enough for a test of all of them."""

CHEAP = {
    "occlusion": {"patch_size": 4, "stride": 3},
    "rise": {"masks": 60, "cells": 4},
    "lime": {"segments": "grid", "samples": 60},
    "kernel_shap": {"segments": "grid", "samples": 60},
}

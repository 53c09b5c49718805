"""A small comparison with everything in it that a table can have."""

import numpy as np

from saliency_jax.report.comparison import (
    Comparison,
    ComparisonRow,
    Figure,
    Gallery,
    Metric,
)

HOSTILE = '<script>window.injected = 1</script>"><img src=x onerror=alert(1)> & co'


def compare():
    """Four rows and a failed one, by three metrics in two groups."""
    metrics = {
        "le": Metric("LE %", "lower", "per_cent", "localisation", "No hit."),
        "area": Metric("area %", "", "per_cent", "localisation", "Mean of the map."),
        "speed": Metric("images/s", "higher", "number", "cost", "Per second."),
    }

    def figures(le, low, high, speed):
        found = {"le": Figure(le, (low, high), 8), "speed": Figure(speed, None, 6)}
        return found | {"area": Figure(0.5, None, 8)}

    rows = {
        "cam": ComparisonRow("Grad_CAM", "method", figures(0.3, 0.2, 0.4, 21.5)),
        "truth": ComparisonRow(
            "truth", "baseline", {"le": Figure(0.0, None, 8)}, competes=False
        ),
        "broken": ComparisonRow("A & B", "method", {}, error="out of memory"),
        "centre": ComparisonRow("centre box", "baseline", figures(0.2999, 0, 1, 250)),
        "casm": ComparisonRow("CASM", "masker", figures(0.4, 0.3, 0.5, 2), "alpha 0.1"),
    }
    curves = {
        "cam": {"insertion": [0.0, 0.5, 1.0], "deletion": [1.0, 0.25, 0.0]},
        "casm": {"insertion": [0.0, 0.25, 1.0]},
    }
    return Comparison(
        metrics,
        rows,
        curves,
        (["cam", "casm"], [[1.0, -0.5], [-0.5, 1.0]]),
        {"casm": {"le": (0.361, "ImageNet, Table 1")}},
        {"command": "evaluate.py --out <here>", "versions": {"jax": "1"}, "seed": 0},
    )


def gallery_of(rows, images=3, side=48):
    """Pictures with smooth content, a signed map for the first row, boxes for all."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (images, side // 8, side // 8, 3), np.uint8)
    steps = np.linspace(-1, 1, side, dtype=np.float32)
    ramp = np.repeat(steps[None, None], side, axis=1).repeat(images, axis=0)
    captions = [f"image {number}" for number in range(images - 1)] + [HOSTILE]
    box = np.array([[4, 6, 20, 30]] * images)
    box[-1] = 0
    scores = np.linspace(0.9, 0.1, images)
    scores[-1] = np.nan
    return Gallery(
        coarse.repeat(8, axis=1).repeat(8, axis=2),
        captions,
        [np.array([[8, 8, 40, 44]])] * (images - 1) + [np.zeros((0, 4), int)],
        {name: ramp if name == rows[0] else np.abs(ramp) for name in rows},
        {name: box for name in rows},
        {name: [0] for name in rows},
        {name: [1] for name in rows},
        {name: scores for name in rows},
    )

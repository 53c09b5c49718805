"""Occlusion, LIME and Shapley values: captum's values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("captum")

from captum import attr  # noqa: E402

from saliency_jax.attribution import (  # noqa: E402
    kernel_shap,
    lime,
    occlusion,
)
from saliency_jax.attribution.perturbation import linear_surrogate  # noqa: E402
from tests.attribution.captum_parity.twins import (  # noqa: E402
    MARKS,
    assert_same,
    on_both,
    twins_of,
)
from tests.models.torch_resnet import from_torch  # noqa: E402

pytestmark = MARKS


@on_both
@pytest.mark.parametrize(("patch", "stride"), [((5, 4), (3, 4)), ((4, 4), (4, 4))])
def test_occlusion(name, patch, stride):
    """captum cuts off the last patch at the border, and takes the mean, as here."""
    twins = twins_of(name)
    scale = twins.images.shape[1] // 16
    patch, stride = (tuple(scale * x for x in sides) for sides in (patch, stride))
    expected = attr.Occlusion(twins.module).attribute(
        twins.inputs.detach(),
        sliding_window_shapes=(3, *patch),
        strides=(3, *stride),
        target=twins.labels,
        perturbations_per_eval=10,
    )
    asked = twins.classifier, twins.images, twins.targets
    maps = occlusion(*asked, patch_size=patch, stride=stride)
    assert_same(maps, from_torch(expected)[..., 0])


def segments_of(twins, borders):
    """Some of different sizes, the same for all images."""
    rows, columns = (np.arange(side) for side in twins.images.shape[1:3])
    across = np.digitize(columns, borders)
    return np.add.outer((len(borders) + 1) * (rows > 5), across)


def test_feature_ablation():
    """Of equal rectangles it is occlusion whose stride is the patch."""
    twins = twins_of("small")
    rows, columns = (np.arange(side) // 4 for side in twins.images.shape[1:3])
    expected = attr.FeatureAblation(twins.module).attribute(
        twins.inputs.detach(),
        target=twins.labels,
        feature_mask=torch.from_numpy(np.add.outer(4 * rows, columns))[None, None],
    )
    asked = twins.classifier, twins.images, twins.targets
    maps = occlusion(*asked, patch_size=4, stride=4)
    assert_same(maps, from_torch(expected)[..., 0])


def test_shapley_values():
    """With few segments all coalitions are asked, and KernelSHAP is exact."""
    twins = twins_of("small")
    segments = segments_of(twins, (7,))
    expected = attr.ShapleyValues(twins.module).attribute(
        twins.inputs.detach(),
        target=twins.labels,
        feature_mask=torch.from_numpy(segments)[None, None],
        perturbations_per_eval=8,
    )
    maps = kernel_shap(
        twins.classifier,
        twins.images,
        twins.targets,
        segments=segments,
        output="logit",
    )
    assert_same(maps, from_torch(expected)[..., 0])


class Ridge:
    """The regression of `lime` for captum, whose own is a lasso of scikit-learn."""

    def fit(self, batches):
        ((features, answers, weights),) = (map(np.float64, batch) for batch in batches)
        design = np.concatenate([features, np.ones((len(features), 1))], axis=1)
        penalty = np.diag([1.0] * features.shape[1] + [0.0])
        normal = design.T @ (weights[:, None] * design) + penalty
        self.coefficients = np.linalg.solve(normal, design.T @ (weights * answers))

    def representation(self):
        return torch.from_numpy(self.coefficients[None, :-1]).float()


def test_lime():
    """captum's distances, with this package's draws and ridge regression.

    captum fits a lasso, of 50 samples in which every segment may be hidden; here it is
    a ridge regression as in LIME, and the first sample is the image.
    """
    twins = twins_of("small")
    segments, key, samples = segments_of(twins, (4, 11)), jax.random.key(3), 40
    count = segments.max() + 1
    used = jnp.arange(64) < count
    numbers = jnp.arange(samples)
    shown = [linear_surrogate.draw(key, i, used, samples) for i in numbers]

    def draws(_, **__):
        for one in shown:
            yield torch.from_numpy(np.array(one[:count])).long()[None]

    expected = [
        attr.Lime(twins.module, Ridge(), perturb_func=draws).attribute(
            twins.inputs.detach()[i : i + 1],
            target=int(twins.targets[i]),
            feature_mask=torch.from_numpy(segments)[None, None],
            n_samples=samples,
        )
        for i in range(len(twins.images))
    ]
    maps = lime(
        twins.classifier,
        twins.images,
        twins.targets,
        key=key,
        segments=segments,
        samples=samples,
        value=None,
        variant="captum",
        output="logit",
    )
    assert_same(maps, from_torch(torch.cat(expected))[..., 0])

"""Integrated and expected gradients: captum's values."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("captum")

from captum import attr  # noqa: E402

from saliency_jax import prng  # noqa: E402
from saliency_jax.attribution import (  # noqa: E402
    expected_gradients,
    integrated_gradients,
)
from tests.attribution.captum_parity.twins import (  # noqa: E402
    MARKS,
    assert_same,
    on_both,
    twins_of,
)
from tests.models import torch_resnet  # noqa: E402
from tests.models.torch_resnet import from_torch  # noqa: E402

pytestmark = MARKS


QUADRATURES = {
    "gausslegendre": "gauss_legendre",
    "riemann_middle": "midpoint",
    "riemann_trapezoid": "captum_trapezoid",
}


@pytest.mark.parametrize(
    ("name", "captum_method"),
    [*(("small", rule) for rule in QUADRATURES), ("resnet", "gausslegendre")],
)
def test_integrated_gradients(name, captum_method):
    twins = twins_of(name)
    steps = 7
    method = attr.IntegratedGradients(twins.module)
    arguments = {"target": twins.labels, "n_steps": steps, "method": captum_method}
    random = np.random.default_rng(1)
    image = random.uniform(size=twins.images.shape[1:]).astype(np.float32)
    for baseline in (None, image):
        if baseline is not None:
            arguments["baselines"] = twins.normalised(baseline[None])
        expected = method.attribute(twins.inputs, **arguments)
        maps = integrated_gradients(
            twins.classifier,
            twins.images,
            twins.targets,
            steps=steps,
            quadrature=QUADRATURES[captum_method],
            baseline=baseline,
            reduction=None,
        )
        assert_same(maps, expected)


@on_both
def test_integrated_gradients_of_a_layer(name):
    twins = twins_of(name)
    for layer, module in twins.layers.items():
        maps = integrated_gradients(
            twins.classifier,
            twins.images,
            twins.targets,
            steps=7,
            quadrature="gauss_legendre",
            layer=layer,
            reduction=None,
            upsampling=None,
        )
        method = attr.LayerIntegratedGradients(twins.module, module)
        arguments = {"target": twins.labels, "n_steps": 7}
        assert_same(maps, method.attribute(twins.inputs, **arguments))


def test_completeness_gap():
    twins = twins_of("small")
    _, expected = attr.IntegratedGradients(twins.module).attribute(
        twins.inputs, target=twins.labels, n_steps=7, return_convergence_delta=True
    )
    _, aux = integrated_gradients(
        twins.classifier,
        twins.images,
        twins.targets,
        steps=7,
        quadrature="gauss_legendre",
        return_aux=True,
    )
    # A difference of numbers of order one.
    gap = np.asarray(aux["completeness_gap"])
    np.testing.assert_allclose(gap, expected.numpy(), atol=1e-4)
    assert np.abs(gap).max() > 1e-3


@pytest.mark.parametrize("stdevs", [0.0, 0.3])
def test_gradient_shap_of_the_same_draws(stdevs, monkeypatch):
    """captum is given this package's references, points and noise, by their law."""
    twins = twins_of("small")
    std, count = np.float32(twins.classifier.std), len(twins.images)
    samples, key = 6, jax.random.key(3)
    shape = twins.images.shape[1:]
    references = np.random.default_rng(1).uniform(size=(4, *shape)).astype(np.float32)
    numbers, points = [], []
    for i in range(samples):
        of_reference, of_point = jax.random.split(jax.random.fold_in(key, i))
        numbers.append(int(jax.random.randint(of_reference, (), 0, 4)))
        points.append(float(jax.random.uniform(of_point)))
    keys = [prng.stream_key(key, "noise", i) for i in range(samples)]
    noise = np.stack([jax.random.normal(key, shape) for key in keys])
    noise = torch_resnet.to_torch(np.float32(stdevs) * noise).repeat(count, 1, 1, 1)
    # captum asks for one of each pair of an image and a sample.
    monkeypatch.setattr(np.random, "choice", lambda *_: np.tile(numbers, count))
    monkeypatch.setattr(np.random, "uniform", lambda *_: np.tile(points, count))
    monkeypatch.setattr(
        attr.NoiseTunnel,
        "_add_noise_to_input",
        staticmethod(lambda x, _, count: x.repeat_interleave(count, dim=0) + noise),
    )
    expected = attr.GradientShap(twins.module).attribute(
        twins.inputs,
        twins.normalised(references),
        n_samples=samples,
        stdevs=stdevs,
        target=twins.labels,
    )
    maps = expected_gradients(
        twins.classifier,
        twins.images,
        twins.targets,
        key=key,
        references=references,
        samples=samples,
        points="independent",
        sigma=stdevs * std if stdevs else None,
        reduction=None,
    )
    assert_same(maps, expected)


def test_gradient_shap():
    """Both are random; with one reference both tend to integrated gradients.

    captum draws points of the line independently, here each lies in its own part of
    the line, so the same number of samples comes nearer.
    """
    twins = twins_of("small")
    random = np.random.default_rng(1)
    reference = random.uniform(size=(1, *twins.images.shape[1:])).astype(np.float32)
    baselines = twins.normalised(reference)
    limit = attr.IntegratedGradients(twins.module).attribute(
        twins.inputs,
        baselines=baselines,
        target=twins.labels,
        n_steps=2000,
        method="riemann_middle",
    )
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  captum draws with it
    by_captum = attr.GradientShap(twins.module).attribute(
        twins.inputs, baselines, n_samples=500, stdevs=0.0, target=twins.labels
    )
    maps = expected_gradients(
        twins.classifier,
        twins.images,
        twins.targets,
        references=reference,
        samples=500,
        reduction=None,
    )
    assert_same(maps, limit, 1e-2)
    assert_same(from_torch(by_captum), limit, 0.2)

"""The same weights and images give what PyTorch gives, at every tap and the logits."""

import json
from functools import partial

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.models.masker import CasmMasker
from saliency_jax.models.resnet import ResNet
from saliency_jax.models.weights import load_weights
from tests.models import reproducible
from tests.models.cases import CASES
from tests.models.make_golden import PATH, flat_by_name, reference

TOLERANCE = 1e-4


@partial(jax.jit, static_argnums=(0, 3))
def apply(module, variables, images, train):
    return module.apply(variables, images, train, mutable=["batch_stats"])


def flax_outputs(case, arrays):
    """`make_golden.reference`'s outputs, computed by the package."""
    module = ResNet(*case[:4])
    variables = load_weights(arrays, module)
    images = reproducible.images(case.images)
    (logits, taps), updated = apply(module, variables, images, case.train)
    outputs = {"logits": logits} | {f"tap{i}": tap for i, tap in enumerate(taps)}
    if case.train:
        statistics = flax.traverse_util.flatten_dict(updated)
        outputs["running"] = flat_by_name(
            {
                ResNet.weight_names.name(path): value
                for path, value in statistics.items()
            }
        )
    return outputs


@pytest.mark.parametrize("name", CASES)
def test_golden_taps(name):
    with np.load(PATH) as golden:
        stored = {
            key.removeprefix(f"{name}/"): golden[key]
            for key in golden.files
            if key.startswith(f"{name}/")
        }
    shapes = json.loads(str(stored.pop("shapes")))
    arrays = reproducible.state_dict({k: tuple(v) for k, v in shapes.items()})
    outputs = flax_outputs(CASES[name], arrays)
    assert outputs.keys() == stored.keys()
    for key, expected in stored.items():
        difference = np.abs(reproducible.sample(outputs[key]) - expected).max()
        assert difference < TOLERANCE, f"{key}: {difference}"
        assert expected.std() > 0.3, f"{key} is too flat to tell anything"


@pytest.mark.torch
@pytest.mark.parametrize("name", CASES)
def test_live_pytorch(name, tmp_path):
    torch = pytest.importorskip("torch")
    expected, arrays, module = reference(CASES[name])
    if not CASES[name].train:  # by way of a file, counters and all
        arrays = tmp_path / "weights.pth"
        torch.save(module.state_dict(), arrays)
    outputs = flax_outputs(CASES[name], arrays)
    assert outputs.keys() == expected.keys()
    for key, value in expected.items():
        assert outputs[key].shape == value.shape
        difference = np.abs(np.asarray(outputs[key]) - value).max()
        print(f"{name} {key}: max abs difference {difference:.1e}")
        assert difference < TOLERANCE, f"{key}: {difference}"


@pytest.mark.torch
@pytest.mark.parametrize("selected", [(0, 1, 2, 3, 4), (3, 4)])
@pytest.mark.parametrize("train", [False, True])
def test_masker_live_pytorch(selected, train):
    torch = pytest.importorskip("torch")
    from tests.models import torch_resnet

    channels = (64, 24, 32, 40, 48)
    sizes = ((9, 12), (9, 12), (5, 6), (3, 3), (2, 2))
    taps = [
        jnp.asarray(reproducible.uniform((3, *size, c), f"tap{i}", 0.0, 2.0))
        for i, (size, c) in enumerate(zip(sizes, channels, strict=True))
    ]
    module = torch_resnet.TorchMasker(channels, selected)
    arrays = reproducible.state_dict(torch_resnet.shapes_of(module))
    torch_resnet.load(module, arrays).train(train)
    with torch.no_grad():
        inputs = [torch_resnet.to_torch(np.asarray(tap)) for tap in taps]
        expected = module(inputs, (35, 48))

    masker = CasmMasker(taps=selected)
    variables = reproducible.variables(masker, taps, (35, 48))
    masks, _ = jax.jit(
        lambda v: masker.apply(v, taps, (35, 48), train, mutable=["batch_stats"])
    )(variables)
    assert np.abs(np.asarray(masks) - expected.numpy()).max() < 1e-5
    assert expected.numpy().std() > 0.05

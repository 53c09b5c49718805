"""One row of `benchmarks.attribution` by one library: an answer a call.

Each library is imported where it is used, so that a process holds one of them.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from tests.models import reproducible

STEPS = 50
NOISES = 25
NOISE = 0.15
MASKS = 1000
GRID = 7
KEPT = 0.5
PATCHES = 7  # in a row of an image

STAGES = (3, 4, 6, 3)
CLASSES = 1000
# The same for all channels, so that gradients of normalised pixels have the same
# greatest channel.
MEAN, STD = (0.5,) * 3, (0.25,) * 3


@dataclasses.dataclass(frozen=True)
class Task:
    """What is measured.

    Attributes:
      row: one of `ROWS`.
      images: in one call.
      image_size: their side.
      batch_size: how many images go through the network at once.
      device: "cpu" or "gpu".
    """

    row: str
    images: int
    image_size: int
    batch_size: int
    device: str

    @property
    def patch(self) -> int:
        """The side of what occlusion covers, and its stride."""
        return self.image_size // PATCHES

    def questions(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """New images in [0, 1] and classes without end, the same for each library."""
        random = np.random.default_rng(0)
        while True:
            shape = (self.images, self.image_size, self.image_size, 3)
            images = random.uniform(size=shape).astype(np.float32)
            yield images, random.integers(0, CLASSES, self.images)


Answer = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From images `[B, H, W, 3]` and classes to maps `[B, H, W]`."""

OPTIONS = {
    "gradient": {},
    "guided_backprop": {},
    "integrated_gradients": {"steps": STEPS},
    "smooth_grad": {"samples": NOISES, "sigma": NOISE},
    "grad_cam": {"layer": "tap_4"},
    "occlusion": {},
    "rise": {"masks": MASKS, "cells": GRID, "probability": KEPT},
}

ONE_PASS = ("gradient", "guided_backprop", "grad_cam")
"""Rows in which an image goes through the network once."""

ROWS = tuple(OPTIONS)


def saliency_jax(task: Task) -> Answer:
    """Our method of the row's name."""
    import jax
    import jax.numpy as jnp

    from saliency_jax import attribution
    from saliency_jax.models.classifier import Classifier
    from saliency_jax.models.create import create_backbone

    network = create_backbone("resnet50", CLASSES)
    variables = reproducible.variables(network, jnp.zeros((1, 32, 32, 3)))
    classifier = Classifier(variables, network, MEAN, STD)
    method = attribution.get(task.row)
    options = dict(OPTIONS[task.row])
    if task.row == "occlusion":
        options |= {"patch_size": task.patch, "stride": task.patch}

    def answer(images: np.ndarray, targets: np.ndarray) -> np.ndarray:
        maps = method(
            classifier,
            images,
            targets,
            key=jax.random.key(0),
            batch_size=task.batch_size,
            **options,
        )
        return np.asarray(maps)

    return answer


def captum(task: Task) -> Answer:
    """captum's method, and RISE as its author's code does it, of the same weights."""
    import torch

    from tests.models import torch_resnet

    network = torch_resnet.TorchResNet(STAGES, True, CLASSES).eval()
    arrays = reproducible.state_dict(torch_resnet.shapes_of(network))
    torch_resnet.load(network, arrays)
    device = torch.device("cuda" if task.device == "gpu" else "cpu")
    module = torch_resnet.Logits(network).to(device)
    attribute = rise(module, task) if task.row == "rise" else of_captum(module, task)

    def answer(images: np.ndarray, targets: np.ndarray) -> np.ndarray:
        normalised = (images - np.float32(MEAN)) / np.float32(STD)
        inputs = torch_resnet.to_torch(normalised).to(device).requires_grad_()
        maps = attribute(inputs, torch.from_numpy(targets).to(device))
        return maps.detach().cpu().numpy()

    return answer


def of_captum(module, task: Task) -> Callable:
    """From inputs and classes to maps `[B, H, W]`, with captum."""
    from captum import attr

    at_once = max(1, task.batch_size // task.images)
    largest = lambda values: values.abs().amax(dim=1)
    total = lambda values: values.sum(dim=1)
    size = (task.image_size, task.image_size)

    def grad_cam(inputs, targets):
        maps = attr.LayerGradCam(module, module.network.layer4).attribute(
            inputs, targets, relu_attributions=True
        )
        return attr.LayerAttribution.interpolate(maps, size, "bilinear")[:, 0]

    def smooth_grad(inputs, targets):
        gradients = attr.NoiseTunnel(attr.Saliency(module)).attribute(
            inputs,
            nt_type="smoothgrad",
            nt_samples=NOISES,
            nt_samples_batch_size=at_once,
            stdevs=NOISE / STD[0],
            target=targets,
            abs=False,
        )
        return largest(gradients)

    def occlusion(inputs, targets):
        window = (3, task.patch, task.patch)
        maps = attr.Occlusion(module).attribute(
            inputs.detach(),
            sliding_window_shapes=window,
            strides=window,
            target=targets,
            perturbations_per_eval=at_once,
        )
        return maps[:, 0]

    return {
        "gradient": lambda *asked: attr.Saliency(module).attribute(*asked).amax(dim=1),
        "guided_backprop": lambda *asked: largest(
            attr.GuidedBackprop(module).attribute(*asked)
        ),
        "integrated_gradients": lambda inputs, targets: total(
            attr.IntegratedGradients(module).attribute(
                inputs,
                target=targets,
                n_steps=STEPS,
                method="riemann_middle",
                internal_batch_size=task.batch_size,
            )
        ),
        "smooth_grad": smooth_grad,
        "grad_cam": grad_cam,
        "occlusion": occlusion,
    }[task.row]


def rise(module, task: Task) -> Callable:
    """RISE as its author's code does it.

    The masks are made once, before any image, and are all in memory; the probabilities
    of all classes weigh them in one product.
    """
    import torch
    from torch.nn import functional as F

    generator = torch.Generator().manual_seed(0)
    size = task.image_size
    cell = -(-size // GRID)
    grids = (torch.rand(MASKS, 1, GRID, GRID, generator=generator) < KEPT).float()
    masks = torch.empty(MASKS, 1, size, size)
    for mask, grid in zip(masks, grids, strict=True):
        large = F.interpolate(grid[None], (GRID + 1) * cell, None, "bilinear")[0]
        row, column = torch.randint(0, cell, (2,), generator=generator).tolist()
        mask.copy_(large[:, row : row + size, column : column + size])
    masks = masks.to(next(module.parameters()).device)

    @torch.no_grad()
    def attribute(inputs, targets):
        maps = []
        for image, target in zip(inputs, targets, strict=True):
            probabilities = torch.cat(
                [
                    module(image * some).softmax(dim=1)
                    for some in masks.split(task.batch_size)
                ]
            )
            by_class = probabilities.T @ masks.flatten(1) / (MASKS * KEPT)
            maps.append(by_class[target].reshape(size, size))
        return torch.stack(maps)

    return attribute


CONTESTANTS = {"saliency_jax": saliency_jax, "captum": captum}

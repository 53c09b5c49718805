"""The rows as PyTorch computes them, in one form or another."""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.versus_torch.contestant import Answer, Contestant
from benchmarks.versus_torch.problem import (
    ADAM,
    AREA_WEIGHT,
    MEAN,
    SAVE_EVERY,
    SGD,
    STD,
    Problem,
)
from benchmarks.versus_torch.torch_steps import CasmTrainer, Form, Network
from saliency_jax.models.resnet import DEPTHS
from tests.models import torch_resnet

PLAIN = Form("eager")


def best_forms(dtype: str, with_compiled: bool) -> list[Form]:
    """The forms of which the fastest is PyTorch's best."""
    name = "channels last" if dtype == "float32" else f"channels last, {dtype}"
    forms = [Form(name, True, dtype)]
    if with_compiled:
        forms.append(Form(f"{name}, compiled", True, dtype, True))
    return forms


def cannot_compile(device: str) -> str:
    """Why `torch.compile` does not work here; empty where it does."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(8, device=device))
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return ""


def labels_of(problem: Problem, device: str) -> np.ndarray:
    """Three in four images get the class that the classifier says, in training mode.

    So CASM's terms count some images and leave others out.
    """
    module = _classifier(problem).to(device).train()
    images = PLAIN.place_images(torch.from_numpy(problem.images()), device)
    network = _network(problem, module, PLAIN, device)
    with torch.no_grad():
        labels = network.classify(network.normalise(images))[0].argmax(1)
    labels[::4] = (labels[::4] + 1) % problem.classes
    return labels.cpu().numpy()


def forward(
    problem: Problem, labels: np.ndarray, form: Form, device: str
) -> Contestant:
    """The classifier's logits."""
    del labels
    network = _network(problem, _classifier(problem), form, device)
    network.module.eval()
    function = lambda images: network.classify(network.normalise(images))[0]
    return _inference(problem, form, device, function)


def masks(problem: Problem, labels: np.ndarray, form: Form, device: str) -> Contestant:
    """The masks."""
    del labels
    network = _network(problem, _classifier(problem), form, device)
    network.module.eval()
    masker = form.place(_masker(problem), device).eval()

    def function(images: Tensor) -> Tensor:
        _, taps = network.classify(network.normalise(images))
        with form.autocast(device):
            return masker(taps, images.shape[2:]).float()

    return _inference(problem, form, device, function)


def classifier_step(
    problem: Problem, labels: np.ndarray, form: Form, device: str
) -> Contestant:
    """A step of a classifier's training."""
    network = _network(problem, _classifier(problem), form, device)

    def step(images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        _, correct, loss = network.learn(images, labels)
        return {"loss": loss, "accuracy": correct.float().mean()}

    return _training(problem, labels, form, device, step, [()])


def start_casm(problem: Problem, form: Form, device: str) -> CasmTrainer:
    """The game at its start, with a full pool."""
    past = form.place(_classifier(problem, "past"), device).state_dict()
    return CasmTrainer(
        _network(problem, _classifier(problem), form, device),
        _masker(problem),
        [
            {name: tensor.clone() for name, tensor in past.items()}
            for _ in range(problem.slots)
        ],
        optimiser=functools.partial(
            torch.optim.Adam,
            lr=ADAM["learning_rate"],
            weight_decay=ADAM["weight_decay"],
        ),
        clip_norm=ADAM["clip_norm"],
        area_weight=AREA_WEIGHT,
        save_every=SAVE_EVERY,
    )


def casm_training(
    problem: Problem, labels: np.ndarray, form: Form, device: str
) -> Contestant:
    """CASM's step, in turn against the current classifier and a past one."""
    step = start_casm(problem, form, device).step
    return _training(problem, labels, form, device, step, [(False,), (True,)])


def _classifier(problem: Problem, weights: str = "classifier") -> nn.Module:
    depth = DEPTHS[problem.network]
    module = torch_resnet.TorchResNet(*depth, problem.classes, problem.width)
    return torch_resnet.load(module, problem.weights()[weights])


def _masker(problem: Problem) -> nn.Module:
    module = torch_resnet.TorchMasker(problem.channels, (0, 1, 2, 3, 4))
    return torch_resnet.load(module, problem.weights()["masker"])


def _network(problem: Problem, module: nn.Module, form: Form, device: str) -> Network:
    optimiser = functools.partial(
        torch.optim.SGD,
        lr=SGD["learning_rate"],
        momentum=SGD["momentum"],
        weight_decay=SGD["weight_decay"],
    )
    return Network(
        module, form=form, device=device, mean=MEAN, std=STD, optimiser=optimiser
    )


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _inference(
    problem: Problem, form: Form, device: str, function: Callable[[Tensor], Tensor]
) -> Contestant:
    images = form.place_images(torch.from_numpy(problem.images()), device)
    compiled = form.compile_inference(function, device)

    def first() -> Answer:
        with torch.inference_mode():
            return {"output": compiled(images).cpu().numpy()}

    def run(count: int) -> None:
        with torch.inference_mode():
            for _ in range(count):  # who asks waits for the answer
                compiled(images)
                _wait(device)

    return Contestant(form.name, form.dtype, first, run)


def _training(
    problem: Problem,
    labels: np.ndarray,
    form: Form,
    device: str,
    step: Callable[..., dict[str, Tensor]],
    forms: Sequence[tuple[bool, ...]],
) -> Contestant:
    """Takes the forms of a step in turn, on one batch."""
    images = form.place_images(torch.from_numpy(problem.images()), device)
    targets = torch.from_numpy(labels).to(device)

    def first() -> Answer:
        return {
            f"{name} of step {index}": value.cpu().numpy()
            for index, arguments in enumerate(forms)
            for name, value in step(images, targets, *arguments).items()
        }

    def run(count: int) -> None:
        for index in range(count):
            step(images, targets, *forms[index % len(forms)])
        _wait(device)

    return Contestant(form.name, form.dtype, first, run)

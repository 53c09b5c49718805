"""CASM's step, a classifier's step and masks in PyTorch, as PyTorch is best used.

By the author's rules, as `saliency_jax.training.casm_step` has them. Networks give
(logits, maps) for images `[B, 3, H, W]`; those of `tests.models.torch_resnet` do.
Gradients are asked for by `torch.autograd.grad`, so that of the critic's two backward
passes the masker's computes no gradient of a weight, and that a compiled function holds
forward and backward pass in one graph.
"""

import copy
import dataclasses
import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

Metrics = dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Form:
    """How PyTorch is asked to compute.

    Attributes:
      name: in the table.
      tuned: channels last, and fused optimisers.
      dtype: "float32", or "bfloat16" by autocast.
      compiled: by `torch.compile`.
    """

    name: str
    tuned: bool = False
    dtype: str = "float32"
    compiled: bool = False

    def place(self, module: nn.Module, device: str) -> nn.Module:
        """A network where and as it is computed with; changes it."""
        for layer in module.modules():
            if isinstance(layer, nn.ReLU):
                layer.inplace = True
        if self.tuned:
            return module.to(device, memory_format=torch.channels_last)
        return module.to(device)

    def place_images(self, images: Tensor, device: str) -> Tensor:
        """uint8 images `[B, H, W, 3]` as `[B, 3, H, W]`."""
        images = images.to(device).permute(0, 3, 1, 2)
        return images if self.tuned else images.contiguous()

    def compile(self, function: Callable) -> Callable:
        """A function that computes its own gradients, compiled where asked."""
        if not self.compiled:
            return function
        torch._dynamo.config.trace_autograd_ops = True
        return torch.compile(function, fullgraph=True, dynamic=False)

    def compile_inference(self, function: Callable, device: str) -> Callable:
        """A function of images alone: weights are constants, BatchNorm is folded.

        On a GPU its kernels are recorded, and started at once (a CUDA graph).
        """
        if not self.compiled:
            return function
        options = {"freezing": True, "triton.cudagraphs": device == "cuda"}
        return torch.compile(function, fullgraph=True, dynamic=False, options=options)

    def autocast(self, device: str) -> torch.autocast:
        """The context of forward passes."""
        return torch.autocast(device, torch.bfloat16, enabled=self.dtype == "bfloat16")


class Network:
    """A classifier with its optimiser, and what turns images into its input."""

    def __init__(
        self,
        module: nn.Module,
        *,
        form: Form,
        device: str,
        mean: Sequence[float],
        std: Sequence[float],
        optimiser: Callable[..., torch.optim.Optimizer],
    ) -> None:
        """Takes over a module.

        Args:
          module: the classifier.
          form: how it is computed.
          device: "cpu" or "cuda".
          mean: of each channel, for images in [0, 1].
          std: of each channel, for images in [0, 1].
          optimiser: of parameters and `fused`.
        """
        self.form, self.device = form, device
        self.module = form.place(module, device).train()
        self.parameters = list(self.module.parameters())
        self.optimiser = optimiser(self.parameters, fused=form.tuned or None)
        per_channel = lambda values: torch.tensor(values, device=device).view(3, 1, 1)
        self.scale = 1 / (255 * per_channel(std))
        self.shift = per_channel(mean) / per_channel(std)
        self._clean_pass = form.compile(self.clean_pass)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 images as the classifier's input."""
        return images * self.scale - self.shift

    def classify(self, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits in float32, and maps."""
        with self.form.autocast(self.device):
            logits, taps = self.module(inputs)
        return logits.float(), taps

    def clean_pass(self, images: Tensor, labels: Tensor) -> tuple:
        """Gradients, maps, which images are classified correctly, and the loss."""
        logits, taps = self.classify(self.normalise(images))
        loss = F.cross_entropy(logits, labels)
        gradients = torch.autograd.grad(loss, self.parameters)
        taps = [tap.detach() for tap in taps]
        return gradients, taps, logits.argmax(1) == labels, loss.detach()

    def learn(self, images: Tensor, labels: Tensor) -> tuple:
        """One update; returns the maps before it, which were correct, the loss."""
        gradients, *found = self._clean_pass(images, labels)
        descend(self.optimiser, self.parameters, gradients)
        return found


class CasmTrainer:
    """The classifier, the masker and the pool, and the step that changes them."""

    def __init__(
        self,
        classifier: Network,
        masker: nn.Module,
        pool: Sequence[dict[str, Tensor]],
        *,
        optimiser: Callable[..., torch.optim.Optimizer],
        clip_norm: float,
        area_weight: float,
        save_every: int,
    ) -> None:
        """Takes over modules.

        Args:
          classifier: with its optimiser.
          masker: from maps and the size of images to masks `[B, H, W]`.
          pool: the weights of past classifiers, in the form of a `state_dict`.
          optimiser: of the masker, as of `Network`.
          clip_norm: of the masker's gradient.
          area_weight: lambda.
          save_every: steps between classifiers that join the pool.
        """
        self.form, self.device = classifier.form, classifier.device
        self.classifier = classifier
        self.masker = self.form.place(masker, self.device).train()
        self.parameters = list(self.masker.parameters())
        self.optimiser = optimiser(self.parameters, fused=self.form.tuned or None)
        # A form without weights: those of the pool are put in its place, not copied.
        self.past = copy.deepcopy(classifier.module).eval().to("meta")
        self.pool = list(pool)
        self.random = random.Random(0)
        self.clip_norm, self.area_weight = clip_norm, area_weight
        self.save_every, self.updates = save_every, 0
        self._against_current = self.form.compile(self.against_current)
        self._against_past = self.form.compile(self.against_past)

    def step(self, images: Tensor, labels: Tensor, historic: bool) -> Metrics:
        """One step, against a past classifier or the current one."""
        taps, correct, clean_loss = self.classifier.learn(images, labels)
        self.store()
        if historic:
            entry = self.random.choice(self.pool)
            gradients, metrics = self._against_past(
                images, labels, taps, correct, entry
            )
        else:
            gradients, metrics, of_classifier = self._against_current(
                images, labels, taps, correct
            )
            network = self.classifier
            descend(network.optimiser, network.parameters, of_classifier)
        descend(self.optimiser, self.parameters, gradients, self.clip_norm)
        return metrics | {"clean_loss": clean_loss}

    def store(self) -> None:
        """Copies the classifier over a past one when it is time."""
        self.updates += 1
        if self.updates % self.save_every == 0:
            entry = self.random.choice(self.pool)
            new = self.classifier.module.state_dict()
            torch._foreach_copy_([entry[name] for name in new], list(new.values()))

    def against_current(
        self, images: Tensor, labels: Tensor, taps: list[Tensor], correct: Tensor
    ) -> tuple[Sequence[Tensor], Metrics, Sequence[Tensor]]:
        """The critic learns; one forward pass of it serves both gradients."""
        masks, hidden = self.hide(images, taps)
        logits, _ = self.classifier.classify(hidden)
        loss, metrics = self.objective(logits, masks, labels, correct)
        gradients = torch.autograd.grad(loss, self.parameters, retain_graph=True)
        masked_loss = F.cross_entropy(logits, labels)
        of_classifier = torch.autograd.grad(masked_loss, self.classifier.parameters)
        return gradients, metrics, of_classifier

    def against_past(
        self,
        images: Tensor,
        labels: Tensor,
        taps: list[Tensor],
        correct: Tensor,
        entry: dict[str, Tensor],
    ) -> tuple[Sequence[Tensor], Metrics]:
        """The critic is an entry of the pool, which does not change."""
        masks, hidden = self.hide(images, taps)
        with self.form.autocast(self.device):
            logits, _ = functional_call(self.past, entry, (hidden,))
        loss, metrics = self.objective(logits.float(), masks, labels, correct)
        return torch.autograd.grad(loss, self.parameters), metrics

    def hide(self, images: Tensor, taps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The masks, and what they leave of the classifier's input."""
        with self.form.autocast(self.device):
            masks = self.masker(taps, images.shape[2:])
        masks = masks.float()
        return masks, self.classifier.normalise(images) * (1 - masks[:, None])

    def objective(
        self, logits: Tensor, masks: Tensor, labels: Tensor, correct: Tensor
    ) -> tuple[Tensor, Metrics]:
        """The masker's loss and its parts."""
        logs = F.log_softmax(logits, 1)
        score = ((logs.exp() * logs).sum(1) * correct).mean()
        counted = (correct & (logits.argmax(1) != labels)).float()
        above = F.relu(counted - masks.mean((1, 2)))
        area = -self.area_weight * above.mean()
        loss = score + area
        metrics = {
            "masker_loss": loss,
            "masker_score": score,
            "masker_area_term": area,
            "masked_loss": F.nll_loss(logs, labels),
            "counted": counted.mean(),
            "mask_mean": masks.mean(),
        }
        return loss, {name: value.detach() for name, value in metrics.items()}


def descend(
    optimiser: torch.optim.Optimizer,
    parameters: Sequence[nn.Parameter],
    gradients: Sequence[Tensor],
    clip_norm: float = 0.0,
) -> None:
    """One update; a `clip_norm` of 0 clips nothing."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    if clip_norm:
        nn.utils.clip_grad_norm_(parameters, clip_norm)
    optimiser.step()
    optimiser.zero_grad()

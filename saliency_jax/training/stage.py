"""What the training loop needs to know of an experiment's stage."""

from collections.abc import Callable
from typing import Any, NamedTuple

from saliency_jax.models.classifier import Classifier
from saliency_jax.models.generator import Generator
from saliency_jax.saliency import Masker
from saliency_jax.training.state import TrainState


class Phase(NamedTuple):
    """A run of steps on batches of one size.

    Attributes:
      name: in figures and messages; "" where a run has one phase.
      steps: how many.
      batch_size: over all devices.
      is_judged: whether its networks are evaluated on held-out images.
    """

    name: str
    steps: int
    batch_size: int
    is_judged: bool = True


class Stage(NamedTuple):
    """The parts of a training run that differ from stage to stage.

    Attributes:
      initial: the variables that a new run starts from, by the networks' names; those
        that start fresh are missing. May raise `InputError`.
      init_state: `(key, initial) -> TrainState`, traced. A run that is then restored
        has no `initial`, and wants the shapes alone.
      step: `(state, batch, *form) -> (state, metrics)`, pure.
      form: the static arguments of `step` at a training step; each is compiled once.
      phases: in order.
      model: what a state's networks make: a classifier or a masker, to be evaluated, or
        a generator, to be looked at.
    """

    initial: Callable[[], dict[str, Any]]
    init_state: Callable[[Any, dict[str, Any]], TrainState]
    step: Callable[..., tuple[TrainState, dict[str, Any]]]
    form: Callable[[int], tuple[Any, ...]]
    phases: tuple[Phase, ...]
    model: Callable[[TrainState], Classifier | Masker | Generator]

    def phase_at(self, step: int) -> Phase:
        """The phase that a step belongs to; after the end, the last one."""
        for phase in self.phases:
            if step < phase.steps:
                return phase
            step -= phase.steps
        return self.phases[-1]

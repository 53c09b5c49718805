"""What training changes, as one pytree, and the two ways a network moves."""

from typing import Any, no_type_check

import flax
import optax
from jaxtyping import Array, Int

from saliency_jax.pool import ClassifierPool
from saliency_jax.training.optim import Optimiser
from saliency_jax.types import PyTree

NETWORKS = ("classifier", "masker", "generator", "discriminator")
"""The fields of a `TrainState` that are networks; a stage has some of them."""


@flax.struct.dataclass
class NetState:
    """One trainable network: everything its forward pass and its optimiser need."""

    params: PyTree
    batch_stats: PyTree
    opt_state: optax.OptState

    @property
    def variables(self) -> dict[str, PyTree]:
        return {"params": self.params, "batch_stats": self.batch_stats}


@no_type_check  # JAX fills it with shardings and shapes, too
@flax.struct.dataclass
class TrainState:
    """The whole run.

    `masker` is None in the classifier stage. `pool` is None there, and wherever no past
    classifier is ever the critic (thinning F and L). The stage generator has the last
    two networks and no other.
    """

    step: Int[Array, ""]
    classifier: NetState | None = None
    masker: NetState | None = None
    pool: ClassifierPool | None = None
    generator: NetState | None = None
    discriminator: NetState | None = None


def create_net(variables: PyTree, optimiser: Optimiser) -> NetState:
    """A network at the start of its training."""
    params = variables["params"]
    return NetState(
        params, variables.get("batch_stats", {}), optimiser.direction.init(params)
    )


def descend(
    net: NetState,
    gradients: PyTree,
    batch_stats: PyTree,
    optimiser: Optimiser,
    step: Any,
) -> NetState:
    """One optimiser step, taking over the batch statistics of the forward pass."""
    params, opt_state = optimiser.update(gradients, net.opt_state, net.params, step)
    return NetState(params, batch_stats, opt_state)

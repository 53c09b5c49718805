"""What training changes, as one pytree."""

import flax
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Int, Key

from saliency_jax import pool as pools
from saliency_jax import prng
from saliency_jax.models.classifier import normalise
from saliency_jax.models.masker import EncoderMasker
from saliency_jax.pool import ClassifierPool
from saliency_jax.training.optim import Optimiser
from saliency_jax.types import PyTree


@flax.struct.dataclass
class NetState:
    """One trainable network: everything its forward pass and its optimiser need."""

    params: PyTree
    batch_stats: PyTree
    opt_state: optax.OptState

    @property
    def variables(self) -> PyTree:
        return {"params": self.params, "batch_stats": self.batch_stats}


@flax.struct.dataclass
class TrainState:
    """The whole run. `masker` and `pool` are None in the classifier stage, and `pool`
    wherever no past classifier is ever the critic (thinning F and L)."""

    step: Int[Array, ""]
    classifier: NetState
    masker: NetState | None = None
    pool: ClassifierPool | None = None

    @property
    def networks(self) -> dict[str, PyTree]:
        """The variables alone: what `load_masker` reads and `best` keeps."""
        nets = {"classifier": self.classifier.variables}
        if self.masker is not None:
            nets["masker"] = self.masker.variables
        return nets

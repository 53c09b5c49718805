"""CASM's step of a network of any size, as the benchmarks take it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from benchmarks.adam import ADAM
from saliency_jax.models import create
from saliency_jax.objectives import casm
from saliency_jax.training import casm_step, sharding
from saliency_jax.training.optim import create_optimiser
from saliency_jax.training.state import TrainState, create_net

_MASKER = {
    "encoder": "shared",
    "taps": (0, 1, 2, 3, 4),
    "features": 64,
    "final_upsampling": "nearest",
}


def contestant(
    network: str,
    image_size: int,
    mesh: Mesh,
    *,
    classes: int = 100,
    slots: int = 30,
    pool_dtype: str = "float32",
    pool_memory: str = "device",
    pool_split: bool = False,
) -> tuple[Callable, Callable[[jax.Array], TrainState], TrainState]:
    """A jitted step, a jitted `key -> state`, and the state's shapes and shardings."""
    classifier = create.create_classifier(
        {"network": network, "num_classes": classes, "dtype": "float32"}
    )
    masker = create.create_masker(_MASKER, classifier)
    optimiser = create_optimiser(ADAM, 1000)
    options = casm_step.CasmOptions(
        thinning=casm.thinning("L100"),
        score="entropy",
        area_weight=1.0,
        variant="author",
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        seed=0,
    )

    def init(key: jax.Array) -> TrainState:
        networks = create.init_networks(classifier, masker, key, image_size)
        nets = [create_net(networks[n], optimiser) for n in ("classifier", "masker")]
        pool = casm_step.init_pool(nets[0], slots, options, pool_dtype)
        return TrainState(jnp.zeros((), jnp.int32), *nets, pool)

    shapes = jax.eval_shape(init, jax.random.key(0))
    placed = sharding.of_state(shapes, mesh, pool_memory, pool_split)
    shapes = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=place
        ),
        shapes,
        placed,
    )
    step = casm_step.make_casm_step(classifier, masker, optimiser, optimiser, options)
    jitted = jax.jit(
        step,
        donate_argnums=0,
        static_argnums=2,
        in_shardings=(placed, sharding.by_batch(mesh)),
        out_shardings=(placed, sharding.replicated(mesh)),
    )
    return jitted, jax.jit(init, out_shardings=placed), shapes

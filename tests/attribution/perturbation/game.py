"""A classifier whose logit is a function of which segments are shown.

Of an image of ones in 16 square segments, whose hidden segments are zeros.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from saliency_jax.models.classifier import Classifier

IMAGE = np.ones((1, 8, 8, 1), np.float32)


class Game(NamedTuple):
    """A value of how much of each player is shown, with interactions of all orders.

    Its arrays are arguments of compiled code, so different games share it.
    """

    constant: np.ndarray = np.float32(0)
    alone: np.ndarray = np.zeros(16, np.float32)
    pairs: np.ndarray = np.zeros((16, 16), np.float32)
    steep: np.ndarray = np.zeros(16, np.float32)
    triple: np.ndarray = np.float32(0)

    def __call__(self, shown):
        value = self.constant + shown @ self.alone + jnp.tanh(shown @ self.steep)
        value += jnp.einsum("bi,ij,bj->b", shown, self.pairs, shown)
        return value + self.triple * shown[:, 0] * shown[:, 1] * shown[:, 2]


def _logits(game, images):
    squares = images.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16)
    return game(squares)[:, None]


def classifier_of(game):
    """One class, whose logit is the game of the brightness of the 16 squares."""
    logits_fn = Partial(_logits, game)
    return Classifier.from_function(logits_fn, mean=(0.0,), std=(1.0,))


def segments_of(players):
    """The 16 squares, those from number `players` on in the last of them."""
    squares = np.arange(16).reshape(4, 4).repeat(2, axis=0).repeat(2, axis=1)
    return np.minimum(squares, players - 1)


LINEAR = Game(np.float32(0.7), np.linspace(-2, 3, 16, dtype=np.float32))


def quadratic():
    """Interactions of pairs alone."""
    random = np.random.default_rng(0)
    pairs = np.triu(random.normal(size=(16, 16)), 1).astype(np.float32)
    return Game(alone=random.normal(size=16).astype(np.float32), pairs=pairs)


def steep():
    """Interactions of any order."""
    random = np.random.default_rng(1)
    return Game(steep=random.normal(size=16).astype(np.float32), triple=np.float32(1))

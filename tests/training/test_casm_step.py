"""The CASM step against its twin in `casm_reference`, and on one and four devices."""

import jax
import numpy as np
import pytest

from tests.training import casm_reference, tiny

CASES = {
    "current critic": {},
    "historic critic": {"thinning": "L100", "historic": True},
    "fixed classifier": {"thinning": "F"},
    "classification": {"score": "classification"},
    "paper, current critic": {"thinning": "L100", "variant": "paper"},
    "paper, historic critic": {
        "thinning": "L100",
        "variant": "paper",
        "historic": True,
    },
    "own encoder": {"encoder": "own"},
}


def assert_close(actual, expected, tolerance):
    """All leaves within `tolerance`, relative to the largest of their array."""
    paths = jax.tree_util.tree_leaves_with_path(expected)
    for (path, want), got in zip(paths, jax.tree.leaves(actual), strict=True):
        want, got = np.asarray(want), np.asarray(got)
        scale = max(np.abs(want).max(), 0.1)
        error = np.abs(got - want).max() / scale
        assert error < tolerance, f"{jax.tree_util.keystr(path)}: {error}"


def plain(state):
    """A state as the reference gives it."""
    classifier, masker = state.classifier, state.masker
    return {
        "classifier": {
            "params": classifier.params,
            "batch_stats": classifier.batch_stats,
            "trace": classifier.opt_state[2].trace,
        },
        "masker": {
            "params": masker.params,
            "batch_stats": masker.batch_stats,
            "mu": masker.opt_state[2].mu,
            "nu": masker.opt_state[2].nu,
        },
    }


@pytest.mark.parametrize("case", CASES)
def test_a_step_equals_its_twin(case):
    chosen = dict(CASES[case])
    historic = chosen.pop("historic", False)
    encoder = chosen.get("encoder", "shared")
    pool = tiny.pool_of(1) if chosen.get("thinning") == "L100" else None
    before, batch = tiny.state(encoder, pool), tiny.batch()
    after, metrics = tiny.jitted_step(**chosen)(before, batch, historic=historic)
    critic = None
    if historic:
        past = tiny.networks(1)["classifier"]
        critic = past["params"], past["batch_stats"]
    expected = casm_reference.step(
        before,
        batch,
        critic,
        module=tiny.MASKERS[encoder],
        fixed=chosen.get("thinning") == "F",
        score=chosen.get("score", "entropy"),
        variant=chosen.get("variant", "author"),
        weight=tiny.options().area_weight,
    )
    nets = {name: expected[name] for name in ("classifier", "masker")}
    assert_close(plain(after), nets, 1e-5)
    assert float(metrics["counted"]) == pytest.approx(float(expected["counted"]))
    assert float(metrics["masker_area_term"]) == pytest.approx(
        float(expected["regulariser"]), rel=1e-5
    )
    assert float(metrics["clean_accuracy"]) == expected["clean_accuracy"] == 5 / 8
    assert float(metrics["historic"]) == historic
    assert int(after.step) == int(before.step) + 1
    # otherwise the case would show neither the gates nor that clipping comes first
    assert expected["counted"] > 0
    assert expected["norm"] > tiny.ADAM["clip_norm"]

"""The CASM step against its twin in `casm_reference`, and on one and four devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.messages import messages_of
from saliency_jax.errors import InputError
from saliency_jax.training import casm_step, sharding
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
    assert_close(plain(after), nets, 3e-5)
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


@pytest.mark.parametrize(
    ("chosen", "historic"),
    [({}, False), ({"thinning": "L100"}, True)],
    ids=["current", "historic"],
)
def test_four_devices_take_the_same_step_as_one(chosen, historic):
    """Batch split, state replicated and donated; BatchNorm over the whole batch."""
    batch = tiny.batch()
    state = tiny.state(pool=tiny.pool_of(1, 2) if historic else None)
    alone = tiny.jitted_step(**chosen)(state, batch, historic=historic)
    mesh = sharding.data_mesh()
    assert mesh.size == 4
    everywhere, split = sharding.replicated(mesh), sharding.by_batch(mesh)
    step = jax.jit(
        tiny.jitted_step(**chosen).__wrapped__,
        static_argnums=2,
        donate_argnums=0,
        in_shardings=(everywhere, split),
        out_shardings=(everywhere, everywhere),
    )
    given_away = jax.device_put(jax.tree.map(jnp.copy, state), everywhere)
    together = step(given_away, jax.device_put(batch, split), historic)
    assert_close(together[0], alone[0], 3e-5)
    assert_close(together[1], alone[1], 3e-5)
    # each device holds the same bits
    for leaf in jax.tree.leaves(together[0]):
        copies = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(copies) == 4
        assert all(np.array_equal(copies[0], copy) for copy in copies[1:])


def test_a_pool_that_is_split_costs_one_entry_of_traffic():
    """And what the networks tell each other stays the same."""
    mesh, told = sharding.data_mesh(), {}
    by_batch = sharding.by_batch(mesh)
    state = tiny.state(pool=tiny.pool_of(1, 2))
    for split in (False, True):
        placed = sharding.of_state(state, mesh, "device", split)
        step = jax.jit(
            tiny.jitted_step(thinning="L2").__wrapped__,
            static_argnums=2,
            in_shardings=(placed, by_batch),
            out_shardings=(placed, sharding.replicated(mesh)),
        )
        given = jax.device_put(state, placed), jax.device_put(tiny.batch(), by_batch)
        with jax.set_mesh(mesh):
            program = step.lower(*given, True).compile()
            told[split] = messages_of(program.as_text())
            after, _ = program(*given)
        if not split:
            expected = after
    assert_close(after, expected, 3e-5)
    gathered = told[True].pop("all-gather")
    assert told[True] == told[False]
    parts = jax.tree.leaves([placed.pool.params, placed.pool.batch_stats])
    stacks = jax.tree.leaves([state.pool.params, state.pool.batch_stats])
    slots = len(state.pool.saved_at)
    split_bytes = [
        stack.nbytes // slots
        for stack, part in zip(stacks, parts, strict=True)
        if not part.is_fully_replicated
    ]
    assert gathered == (len(split_bytes), sum(split_bytes)) and split_bytes


def two_steps(*seeds, dtype="float32", memory="device"):
    """Two steps against past critics of a pool of these, stored like that."""
    mesh = sharding.data_mesh(jax.devices()[:1])
    state = tiny.state(pool=tiny.pool_of(*seeds, dtype=dtype))
    state = jax.device_put(state, sharding.of_state(state, mesh, memory))
    step = tiny.jitted_step(thinning="L2")
    for _ in range(2):
        state, metrics = step(state, tiny.batch(), historic=True)
    for leaf in jax.tree.leaves(state.pool.params):
        assert leaf.dtype == dtype and leaf.sharding.memory_kind == memory
    return state, float(metrics["masker_loss"])


def largest_difference(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(np.abs(np.asarray(a) - np.asarray(b)).max() for a, b in pairs)


def test_a_pool_in_bfloat16_changes_roundings_only():
    exact, exact_loss = two_steps(1, 2)
    rounded, loss = two_steps(1, 2, dtype="bfloat16")
    other, other_loss = two_steps(3, 4)
    expected = jax.tree.map(lambda x: x.astype(jnp.bfloat16), exact.pool.params)
    assert largest_difference(rounded.pool.params, expected) == 0
    assert loss == pytest.approx(exact_loss, rel=1e-3)
    assert other_loss != pytest.approx(exact_loss, rel=1e-3)
    nets = [state.masker.params for state in (rounded, exact, other)]
    assert 0 < largest_difference(nets[0], nets[1]) < 5e-6
    assert largest_difference(nets[2], nets[1]) > 5e-6


def test_a_pool_in_the_hosts_memory_changes_nothing():
    expected, expected_loss = two_steps(1, 2)
    actual, loss = two_steps(1, 2, memory="pinned_host")
    assert loss == expected_loss
    assert largest_difference(actual, expected) == 0


def test_the_papers_first_iterate_is_stored_in_the_pools_type():
    net = tiny.state().classifier
    options = tiny.options("L100", variant="paper")
    pool = casm_step.init_pool(net, 3, options, "bfloat16")
    first = jax.tree.map(lambda stack: stack[0], pool.params)
    expected = jax.tree.map(lambda x: x.astype(jnp.bfloat16), net.params)
    assert largest_difference(first, expected) == 0
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(pool.params))


def test_the_order_of_a_batch_does_not_matter():
    order = jnp.array([3, 0, 7, 1, 6, 2, 5, 4])
    batch = tiny.batch()
    permuted = {name: values[order] for name, values in batch.items()}
    for chosen, historic in (({}, False), ({"thinning": "L100"}, True)):
        state = tiny.state(pool=tiny.pool_of(1) if historic else None)
        step = tiny.jitted_step(**chosen)
        one, _ = step(state, batch, historic=historic)
        other, _ = step(state, permuted, historic=historic)
        assert_close(other, one, 3e-5)


def test_which_past_classifier_is_drawn_changes_with_the_step_and_never_recompiles():
    step, batch = tiny.jitted_step(thinning="L100"), tiny.batch()
    pool = tiny.pool_of(1, 2, 3)
    seen, sizes = [], []
    for number in range(30):
        state = tiny.state(pool=pool, step=number)
        _, metrics = step(state, batch, historic=True)
        seen.append(float(metrics["masked_loss"]))
        sizes.append(step._cache_size())
    assert len(set(seen)) == 3
    assert sizes[0] == sizes[-1]
    again = step(tiny.state(pool=pool, step=4), batch, historic=True)[1]
    assert float(again["masked_loss"]) == seen[4]


def saved_at(thinning, steps, variant="author"):
    """What the pool holds after each step, from an empty or initial pool."""
    options = tiny.options(thinning, variant=variant)
    state = tiny.state(step=0)
    state = state.replace(
        pool=casm_step.init_pool(state.classifier, tiny.SLOTS, options)
    )
    step, batch = tiny.jitted_step(thinning=thinning, variant=variant), tiny.batch()
    held = [state.pool.saved_at.tolist()]
    for _ in range(steps):
        state, _ = step(state, batch, historic=True)
        held.append(state.pool.saved_at.tolist())
    return held, state


def test_the_author_stores_after_the_first_update_and_every_nth():
    held, state = saved_at("L3", 9)
    assert held[0] == [-1, -1, -1]
    # casme stores at i % n == n - 1, counting from 0, and into an empty pool
    assert held[1:4] == [[1, -1, -1], [1, -1, -1], [1, 3, -1]]
    assert held[6] == [1, 3, 6]
    assert sorted({*held[9]} - {1, 3, 6}) == [9]
    assert int(state.pool.count) == 3


def test_the_paper_holds_the_first_iterate_and_never_loses_it():
    held, state = saved_at("L1", 8, variant="paper")
    assert held[0] == [0, -1, -1]
    # a step's own classifier joins after its draw, the first one is there already
    assert held[1:4] == [[0, -1, -1], [0, 1, -1], [0, 1, 2]]
    assert all(slots[0] == 0 for slots in held)
    # names of stored classifiers are never the same for two of them
    assert all(len({*slots} - {-1}) == np.sum(np.array(slots) >= 0) for slots in held)
    first = jax.tree.map(lambda leaf: leaf[0], state.pool.params)
    initial = tiny.networks(0)["classifier"]["params"]
    assert_close(first, initial, 1e-9)


def test_first_and_last_needs_one_slot_and_the_last_none():
    net = tiny.state().classifier
    for variant in ("author", "paper"):
        pool = casm_step.init_pool(net, 30, tiny.options("FL", variant=variant))
        assert pool.saved_at.shape == (1,)
        for thinning in ("F", "L"):
            options = tiny.options(thinning, variant=variant)
            assert casm_step.init_pool(net, 30, options) is None
            assert not any(
                casm_step.critic_is_historic(options, 30, step) for step in range(50)
            )


def frequency(thinning, variant, steps, slots=30):
    options = tiny.options(thinning, variant=variant)
    coins = [casm_step.critic_is_historic(options, slots, step) for step in steps]
    return np.mean(coins), len(coins)


def test_the_coin_is_fair_and_a_function_of_seed_and_step():
    mean, count = frequency("L100", "author", range(2000))
    assert abs(mean - 0.5) < 5 * (0.25 / count) ** 0.5
    flips = [
        [casm_step.critic_is_historic(tiny.options("L100", seed=seed), 30, step)]
        for seed in (0, 0, 1)
        for step in range(64)
    ]
    assert flips[:64] == flips[64:128] != flips[128:]


@pytest.mark.parametrize(
    ("steps", "slots", "chance"),
    [
        (range(101), 30, 1 / 2),  # the first iterate and the current one
        (range(101, 201), 30, 2 / 3),
        (range(2900, 9000), 30, 30 / 31),  # full
        (range(2900, 9000), 3, 3 / 4),
    ],
)
def test_the_papers_draw_is_uniform_over_the_current_and_all_stored(
    steps, slots, chance
):
    mean, count = frequency("L100", "paper", steps, slots)
    assert abs(mean - chance) < 5 * (chance * (1 - chance) / count) ** 0.5


def test_the_papers_chance_counts_what_the_pool_holds(monkeypatch):
    """`critic_is_historic` must know the pool's filling without asking the device."""
    held, _ = saved_at("L1", 9, variant="paper")
    options, asked = tiny.options("L1", variant="paper"), []

    class Spy:
        def random(self):
            return self

        def __lt__(self, chance):
            asked.append(chance)
            return True

    monkeypatch.setattr(casm_step.prng, "host_generator", lambda *names: Spy())
    for step in range(9):
        casm_step.critic_is_historic(options, tiny.SLOTS, step)
    # a step draws before it stores
    stored = [np.sum(np.array(slots) >= 0) for slots in held[:-1]]
    np.testing.assert_allclose(asked, [n / (n + 1) for n in stored])


def test_both_forms_are_compiled_once():
    options, step = tiny.options("L100"), tiny.jitted_step(thinning="L100")
    state, batch = tiny.state(pool=tiny.pool_of(1, 2)), tiny.batch()
    for historic in (False, True):
        step(state, batch, historic=historic)
    before, flips = step._cache_size(), set()
    for number in range(90, 110):  # one of which stores a classifier
        historic = casm_step.critic_is_historic(options, 30, number)
        step(tiny.state(pool=state.pool, step=number), batch, historic=historic)
        flips.add(historic)
    assert flips == {False, True}
    assert step._cache_size() == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"score": "entropie"}, "score 'entropie'.*'entropy', 'classification'"),
        ({"variant": "authors"}, "variant 'authors'.*'author', 'paper'"),
    ],
)
def test_unknown_options_are_refused(changed, message):
    with pytest.raises(InputError, match=message):
        tiny.options(**changed)

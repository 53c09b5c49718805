r"""Trains a classifier, or CASM's classifier and masker against each other.

    python train.py --config configs/classifier_shapes.py \
        --workdir runs/classifier_shapes
    python train.py --config configs/casm_shapes.py --workdir runs/casm_shapes \
        --config.classifier.init=runs/classifier_shapes

Flags override any config value. A workdir that holds a checkpoint is resumed.
"""

import functools
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags
from tqdm import tqdm

from saliency_jax import prng, saliency
from saliency_jax.data import pipeline, sources
from saliency_jax.errors import InputError, run_command
from saliency_jax.models import create
from saliency_jax.models.classifier import Classifier
from saliency_jax.objectives import casm
from saliency_jax.report.figures import picture_strip
from saliency_jax.training import casm_step, evaluators, run_folder, sharding, start
from saliency_jax.training.checkpoints import Checkpoints, saved_steps
from saliency_jax.training.classifier_step import make_classifier_step
from saliency_jax.training.optim import create_optimiser
from saliency_jax.training.state import TrainState, create_net
from saliency_jax.training.writers import Writer

STRIP_IMAGES = 8

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The experiment, such as configs/casm_shapes.py:smoke."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise InputError(f"unexpected argument {argv[1]!r}: train.py takes flags")
    if CONFIG.value is None or not WORKDIR.value:
        raise InputError("train.py needs --config FILE and --workdir FOLDER")
    train(CONFIG.value, Path(WORKDIR.value))


def train(config: ConfigDict, workdir: Path) -> None:
    """Runs the experiment from the workdir's last checkpoint, or from its start."""

    ############################################################################
    # Set-up                                                                   #
    ############################################################################
    is_casm = config.stage == "casm"
    source = sources.open_source(config.data.name, config.data.data_dir, "train")
    run_folder.place_own_network(config)
    known = start.known_network(config, workdir)
    run_folder.resolve(config, source.num_classes, known)
    config.data.class_names = source.class_names
    config.data.num_train = len(source)
    mesh = sharding.data_mesh()
    sharding.check_batch_size(config.data.batch_size, mesh)
    pool_memory = config.casm.pool_memory if is_casm else "device"
    sharding.check_memory(pool_memory, mesh)
    replicated, by_batch = sharding.replicated(mesh), sharding.by_batch(mesh)
    # A resumed run holds its classifier, and does without the one it started from.
    is_new = not saved_steps(workdir, "last")
    initial = start.initial_classifier(config) if is_new else None
    run_folder.prepare(workdir, config)
    initial = jax.device_put(initial, replicated)

    ############################################################################
    # Data                                                                     #
    ############################################################################
    train_source, held_out = sources.split_holdout(
        source, config.data.holdout, config.seed
    )
    data = pipeline.make_train_iterator(
        train_source,
        batch_size=config.data.batch_size,
        image_size=config.data.image_size,
        seed=config.seed,
        min_area=config.data.min_area,
        flip=config.data.flip,
        erasing_probability=config.data.erasing_probability,
        num_threads=config.data.num_threads,
        num_workers=config.data.num_workers,
        sharding=by_batch,
    )
    if initial is not None:
        initial = start.with_live_batch_norm(initial, config, data)
    eval_batches = functools.partial(
        pipeline.eval_batches,
        batch_size=config.data.batch_size,
        image_size=config.data.image_size,
        num_threads=config.data.num_threads,
    )

    ############################################################################
    # Networks, optimisers, state                                              #
    ############################################################################
    mean, std = tuple(config.data.mean), tuple(config.data.std)
    classifier = create.create_classifier(config.classifier)
    masker = create.create_masker(config.masker, classifier) if is_casm else None
    classifier_optimiser = create_optimiser(
        config.classifier.optimiser, config.total_steps
    )
    if is_casm:
        masker_optimiser = create_optimiser(config.masker.optimiser, config.total_steps)
        options = casm_options(config)

    def init_state(key: jax.Array, initial: create.PyTree | None) -> TrainState:
        networks = create.init_networks(classifier, masker, key, config.data.image_size)
        classifier_variables = networks["classifier"] if initial is None else initial
        net = create_net(classifier_variables, classifier_optimiser)
        zero = jnp.zeros((), jnp.int32)
        if not is_casm:
            return TrainState(zero, net)
        masker_variables = networks["masker"]
        if config.masker.encoder == "own":
            masker_variables = create.with_encoder(
                masker_variables, classifier_variables
            )
        return TrainState(
            zero,
            net,
            create_net(masker_variables, masker_optimiser),
            casm_step.init_pool(
                net, config.casm.pool_slots, options, config.casm.pool_dtype
            ),
        )

    key = prng.stream_key(jax.random.key(config.seed), "init")
    placed = jax.eval_shape(init_state, key, initial)
    placed = sharding.of_state(placed, mesh, pool_memory)
    state = jax.jit(init_state, out_shardings=placed)(key, initial)

    ############################################################################
    # Jitted functions                                                         #
    ############################################################################
    if is_casm:
        step_fn = casm_step.make_casm_step(
            classifier, masker, classifier_optimiser, masker_optimiser, options
        )
    else:
        step_fn = make_classifier_step(
            classifier,
            classifier_optimiser,
            mean=mean,
            std=std,
            label_smoothing=config.classifier.label_smoothing,
        )
    train_step = jax.jit(
        step_fn,
        donate_argnums=0,
        static_argnums=2 if is_casm else (),  # historic: two forms, compiled once
        in_shardings=(placed, by_batch),
        out_shardings=(placed, replicated),
    )
    jitted_predict = jax.jit(lambda model, images: model.predict(images))
    jitted_classify = jax.jit(lambda model, images: model(images))

    def evaluate(state: TrainState, batches: Iterator) -> dict[str, float]:
        model = Classifier(state.classifier.variables, classifier, mean, std)
        if not is_casm:
            return evaluators.classification(
                lambda images: jitted_classify(model, jax.device_put(images, by_batch)),
                batches,
            )
        model = saliency.Masker(state.masker.variables, model, masker)
        return evaluators.localisation(
            lambda images: jitted_predict(model, jax.device_put(images, by_batch)),
            batches,
        )

    def picture(state: TrainState, images: np.ndarray) -> np.ndarray:
        model = Classifier(state.classifier.variables, classifier, mean, std)
        model = saliency.Masker(state.masker.variables, model, masker)
        return picture_strip(images, np.asarray(jitted_predict(model, images)[0]), mean)

    with (
        jax.set_mesh(mesh),
        Checkpoints(workdir, config.checkpoint.keep_last) as checkpoints,
        Writer(workdir, checkpoints.last_step or 0) as writer,
        tqdm(
            total=config.total_steps,
            initial=checkpoints.last_step or 0,
            disable=None,
            unit="step",
            smoothing=0.05,
        ) as bar,
    ):
        ########################################################################
        # Resume                                                               #
        ########################################################################
        if checkpoints.last_step is not None:
            state = checkpoints.restore(state, data)
            tqdm.write(f"resumed {workdir} at step {int(state.step)}")
        first_step, best_score = int(state.step), checkpoints.best_score()
        if not len(held_out):
            tqdm.write(
                f"{config.data.name}: no training image with boxes is held out, so no "
                "checkpoint is kept as best"
            )
        strip_source = held_out if len(held_out) else train_source
        strip_images = next(
            pipeline.eval_batches(
                strip_source, batch_size=STRIP_IMAGES, image_size=config.data.image_size
            )
        )["image"]

        ########################################################################
        # Loop: evaluate, save, next batch, step, log                          #
        ########################################################################
        # The order makes a resumed run the same run: the saved iterator points at the
        # batch that has not been consumed.
        pending, timed_steps, pause = [], 0, 0.0
        fetched_at, fetched_step, compiled = time.perf_counter(), first_step, set()
        for step in range(first_step, config.total_steps + 1):
            is_end, is_start = step == config.total_steps, step == first_step
            paused_at = time.perf_counter()
            if is_casm and not is_start and step % config.log.picture_every == 0:
                writer.picture(step, "strip", picture(state, strip_images))
            if not is_start and len(held_out):
                if is_end or step % config.log.evaluate_every == 0:
                    scores = evaluate(state, eval_batches(held_out))
                    writer.scalars(
                        step, {f"held_out/{k}": v for k, v in scores.items()}
                    )
                    tqdm.write(f"step {step} held out: {evaluators.one_line(scores)}")
                    score = evaluators.selection_score(scores)
                    if best_score is None or score > best_score:
                        checkpoints.save_best(state, best_score := score)
            if not is_start and (is_end or step % config.checkpoint.every == 0):
                tqdm.write(checkpoints.save(state, data))
            if is_end:
                break
            pause += time.perf_counter() - paused_at

            batch = next(data)
            batch = {name: batch[name] for name in ("image", "label")}
            # Which of the step's two compiled forms; the classifier stage has one.
            form = ()
            if is_casm:
                slots = config.casm.pool_slots
                form = (casm_step.critic_is_historic(options, slots, step),)
            started_at = time.perf_counter()
            state, metrics = train_step(state, batch, *form)
            if form in compiled:
                timed_steps += 1
            else:
                jax.block_until_ready(metrics)
                compiled.add(form)
                pause += time.perf_counter() - started_at

            pending.append(metrics)
            bar.update()
            # Before every evaluation and checkpoint too, so that no state is kept
            # whose losses nobody looked at.
            if step + 1 == config.total_steps or any(
                (step + 1) % every == 0
                for every in (
                    config.log.every,
                    config.log.evaluate_every,
                    config.checkpoint.every,
                )
            ):
                values = evaluators.mean_of(pending)
                if not all(math.isfinite(value) for value in values.values()):
                    raise InputError(
                        f"a loss is not finite between steps {fetched_step} and "
                        f"{step + 1}: {evaluators.one_line(values)}; lower the "
                        f"learning rate and start again in another workdir"
                    )
                seconds = time.perf_counter() - fetched_at - pause
                if timed_steps:
                    images = timed_steps * config.data.batch_size
                    values["images_per_second"] = images / seconds
                writer.scalars(step + 1, values)
                report_progress(bar, step + 1, config.total_steps, values)
                pending, timed_steps, pause = [], 0, 0.0
                fetched_at, fetched_step = time.perf_counter(), step + 1

    ############################################################################
    # The end                                                                  #
    ############################################################################
    data.close()
    if not is_casm:
        split = sources.find_evaluation_split(config.data.name, config.data.data_dir)
        if split is None:
            print(f"{config.data.name} has no split validation or test to be scored on")
        else:
            name, data_dir = config.data.name, config.data.data_dir
            validation = sources.open_source(name, data_dir, split)
            scores = evaluate(state, eval_batches(validation))
            print(f"{split} ({len(validation)} images): {evaluators.one_line(scores)}")
            run_folder.write_scores(workdir, scores)
    print(f"finished: {workdir}")


def casm_options(config: ConfigDict) -> casm_step.CasmOptions:
    """The step's options from a resolved config."""
    weight = config.casm.area_factor * casm.published_area_weight(
        config.casm.thinning, config.casm.score
    )
    return casm_step.CasmOptions(
        thinning=casm.thinning(config.casm.thinning),
        score=config.casm.score,
        area_weight=casm.scaled_area_weight(weight, config.classifier.num_classes),
        variant=config.casm.variant,
        mean=tuple(config.data.mean),
        std=tuple(config.data.std),
        seed=config.seed,
    )


def report_progress(
    bar: tqdm, step: int, total_steps: int, values: dict[str, float]
) -> None:
    """Shows the main losses on the bar, or as a line if the output is no terminal."""
    names = (
        "loss",
        "accuracy",
        "clean_loss",
        "masked_loss",
        "masker_loss",
        "mask_mean",
    )
    shown = {name: values[name] for name in names if name in values}
    line = evaluators.one_line(shown)
    if "images_per_second" in values:  # not while the steps are being compiled
        line += f", {values['images_per_second']:.0f} images/s"
    if bar.disable:
        print(f"step {step}/{total_steps}: {line}", flush=True)
    else:
        bar.set_postfix_str(line)


if __name__ == "__main__":
    run_command(main)

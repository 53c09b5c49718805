r"""Trains a classifier, CASM's two networks, a black box's masker, or a generator.

    python train.py --config configs/classifier_shapes.py \
        --workdir runs/classifier_shapes
    python train.py --config configs/casm_shapes.py --workdir runs/casm_shapes \
        --config.classifier.init=runs/classifier_shapes
    python train.py --config configs/black_box_shapes.py --workdir runs/black_box \
        --config.classifier.init=runs/classifier_shapes
    python train.py --config configs/generator_shapes.py --workdir runs/generator

Flags override any config value. A workdir that holds a checkpoint is resumed. Ctrl-C
and SIGTERM end a run after the step that it is in, with a checkpoint and exit code 130
or 143. On several machines the same command runs once on each (or once for each GPU),
with `--coordinator auto` under Slurm or Open MPI 4, and `--workdir` seen by all.
"""

import contextlib
import functools
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags
from tqdm import tqdm

from saliency_jax import prng
from saliency_jax.data import pipeline, sources
from saliency_jax.errors import InputError, run_command
from saliency_jax.report.figures import picture_strip
from saliency_jax.report.generated import image_sheet
from saliency_jax.training import (
    black_box_stage,
    casm_stage,
    classifier_stage,
    encoder,
    evaluators,
    finite,
    generator_stage,
    health,
    processes,
    run_folder,
    sharding,
    start,
    stopping,
)
from saliency_jax.training.checkpoints import Checkpoints, saved_steps
from saliency_jax.training.damaged import set_aside_damaged
from saliency_jax.training.known import NOTHING_KNOWN
from saliency_jax.training.state import TrainState
from saliency_jax.training.writers import Writer
from saliency_jax.types import Batch

STAGES = {
    "classifier": classifier_stage.create_stage,
    "casm": casm_stage.create_stage,
    "black_box": black_box_stage.create_stage,
    "generator": generator_stage.create_stage,
}
FIELDS = ("image", "label", "present")  # of a batch, that steps read
STRIP_IMAGES = 8
SAMPLES = 64  # of a generator, in a picture

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The experiment, such as configs/casm_shapes.py:smoke."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "HOST:PORT of process 0 where this is one process of several; `auto` where Slurm, "
    "Open MPI or Kubernetes tell it and the next two.",
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many there are.", 1)
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which this one is, from 0.", 0)


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise InputError(f"unexpected argument {argv[1]!r}: train.py takes flags")
    if CONFIG.value is None or not WORKDIR.value:
        raise InputError("train.py needs --config FILE and --workdir FOLDER")
    several = COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value
    with processes.joined(*several):
        stopped_by = train(CONFIG.value, Path(WORKDIR.value))
    if stopped_by:
        sys.exit(stopping.exit_code(stopped_by))


def train(config: ConfigDict, workdir: Path) -> signal.Signals | None:
    """Runs the experiment from the workdir's last checkpoint, or from its start.

    Returns:
      The signal that stopped the run before its end, None where it came to its end.
    """

    ############################################################################
    # Set-up                                                                   #
    ############################################################################
    source = sources.open_source(config.data.name, config.data.data_dir, "train")
    known = NOTHING_KNOWN
    if config.stage != "generator":  # which has no classifier
        run_folder.place_own_network(config)
        known = start.known_network(config, workdir)
    run_folder.resolve(config, source.num_classes, known)
    if config.stage == "black_box":
        encoder.resolve_encoder(config, workdir)
    config.data.class_names = source.class_names
    config.data.num_train = len(source)
    mesh = sharding.data_mesh()
    stage = STAGES[config.stage](config)
    sharding.check_batch_size(config.data.batch_size, mesh)
    for phase in stage.phases:
        section = phase.name or "data"
        sharding.check_batch_size(phase.batch_size, mesh, f"{section}.batch_size")
    pool_memory = config.casm.pool_memory if config.stage == "casm" else "device"
    sharding.check_memory(pool_memory, mesh)
    finite.check_memory(config.not_finite, pool_memory)
    replicated, by_batch = sharding.replicated(mesh), sharding.by_batch(mesh)
    for warning in processes.by_first(lambda: set_aside_damaged(workdir)):
        print(warning)
    # A resumed run holds its networks, and does without those it started from.
    steps_saved = saved_steps(workdir, "last")
    initial = {} if steps_saved else stage.initial()
    processes.by_first(lambda: run_folder.prepare(workdir, config))
    # By way of the host: one process's devices cannot give to another's.
    initial = jax.device_put(jax.device_get(initial), replicated)

    ############################################################################
    # Data                                                                     #
    ############################################################################
    train_source, held_out = sources.split_holdout(
        source, config.data.holdout, config.seed
    )
    make_data = functools.partial(
        pipeline.make_train_iterator,
        train_source,
        image_size=config.data.image_size,
        seed=config.seed,
        min_area=config.data.min_area,
        flip=config.data.flip,
        erasing_probability=config.data.erasing_probability,
        random_labels=config.data.random_labels,
        num_threads=config.data.num_threads,
        num_workers=config.data.num_workers,
        sharding=by_batch,
    )
    phase = stage.phase_at(steps_saved[-1] if steps_saved else 0)
    data = make_data(batch_size=phase.batch_size)
    if "classifier" in initial and config.stage != "black_box":
        initial["classifier"] = start.with_live_batch_norm(
            initial["classifier"], config, data
        )
    # Each process judges the networks on its share of the images, on its own devices.
    eval_batches = functools.partial(
        pipeline.eval_batches,
        batch_size=config.data.batch_size // jax.process_count(),
        image_size=config.data.image_size,
        num_threads=config.data.num_threads,
        shared=True,
    )
    own_mesh = sharding.data_mesh(jax.local_devices())
    own_by_batch = sharding.by_batch(own_mesh)

    ############################################################################
    # State                                                                    #
    ############################################################################
    key = prng.stream_key(jax.random.key(config.seed), "init")
    state = jax.eval_shape(stage.init_state, key, initial)
    pool_split = config.stage == "casm" and config.casm.pool_split
    placed = sharding.of_state(state, mesh, pool_memory, pool_split)
    # Of a state that is read the shapes are enough; a function is in no checkpoint.
    state = jax.tree.map(lambda leaf, place: leaf.update(sharding=place), state, placed)
    is_function = config.stage == "black_box" and config.classifier.function
    if is_function or not steps_saved:
        state = jax.jit(stage.init_state, out_shardings=placed)(key, initial)

    ############################################################################
    # Jitted functions                                                         #
    ############################################################################
    is_classifier = config.stage == "classifier"
    is_generator = config.stage == "generator"
    skip = config.not_finite == "skip"
    train_step = jax.jit(
        finite.watched(stage.step, skip),
        donate_argnums=0,
        # The forms of a step, such as a phase's: compiled once each.
        static_argnums=tuple(range(2, 2 + len(stage.form(0)))),
        in_shardings=(placed, by_batch),
        out_shardings=(placed, replicated),
    )
    jitted_predict = jax.jit(lambda model, *batch: model.predict(*batch))
    jitted_classify = jax.jit(lambda model, images: model(images))
    jitted_samples = jax.jit(lambda model, key: model.samples(key, SAMPLES))

    def evaluate(state: TrainState, batches: Iterator) -> dict[str, float]:
        model = sharding.of_this_process(stage.model(state))

        def answers(function: Callable, *batch: np.ndarray) -> Any:
            with jax.set_mesh(own_mesh):
                return function(model, *jax.device_put(batch, own_by_batch))

        if is_classifier:
            classify = functools.partial(answers, jitted_classify)
            several_labels = model.output == "sigmoid"
            return evaluators.classification(classify, batches, several_labels)
        predict = functools.partial(answers, jitted_predict)
        return evaluators.localisation(predict, batches)

    def picture(state: TrainState, batch: Batch) -> np.ndarray:
        model = sharding.of_this_process(stage.model(state))
        with jax.set_mesh(own_mesh):
            if is_generator:  # of the same latent points each time
                key = prng.stream_key(jax.random.key(config.seed), "samples")
                return image_sheet(np.asarray(jitted_samples(model, key)))
            images, labels = batch["image"], batch["label"]
            masks, _ = jitted_predict(model, images, labels)
            return picture_strip(images, np.asarray(masks), tuple(config.data.mean))

    with (
        stopping.stop_signals() as received,
        jax.set_mesh(mesh),
        Checkpoints(workdir, config.checkpoint.keep_last) as checkpoints,
        Writer(
            workdir, checkpoints.last_step or 0, checkpoints.owes_evaluation()
        ) as writer,
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
        owes_evaluation = checkpoints.owes_evaluation()
        if not len(held_out):
            tqdm.write(
                f"{config.data.name}: no training image with boxes is held out, so no "
                "checkpoint is kept as best"
            )
        warnings = health.watch(config)
        if config.stage == "casm" and (outlook := health.pool_outlook(config)):
            tqdm.write(outlook)
        strip_source = held_out if len(held_out) else train_source
        strip = next(
            pipeline.eval_batches(
                strip_source, batch_size=STRIP_IMAGES, image_size=config.data.image_size
            )
        )

        ########################################################################
        # Loop: evaluate, save, next batch, step, log                          #
        ########################################################################
        # The order makes a resumed run the same run: the saved iterator points at the
        # batch that has not been consumed. Where a phase ends, it is the next one's.
        pending, timed_steps, pause = [], 0, 0.0
        stop_signal = processes.agreed(mesh, received)
        fetched_at, fetched_step, compiled = time.perf_counter(), first_step, set()
        stopped_by, fetched_data, left_out = stop_signal(), data.get_state(), 0
        for step in range(first_step, config.total_steps + 1):
            is_end, is_start = step == config.total_steps, step == first_step
            paused_at = time.perf_counter()
            judged = phase.is_judged and (owes_evaluation or not is_start)
            if judged and not is_classifier and step % config.log.picture_every == 0:
                name = "samples" if is_generator else "strip"
                writer.picture(step, name, functools.partial(picture, state, strip))
            at_interval = is_end or step % config.log.evaluate_every == 0
            owes_evaluation = judged and at_interval and len(held_out) > 0
            if owes_evaluation and not stopped_by:
                batches = stopping.until(received, eval_batches(held_out))
                scores = evaluate(state, batches)
                stopped_by = processes.any_signal(received())
                owes_evaluation = stopped_by is not None
                if not owes_evaluation:
                    named = {f"held_out/{k}": v for k, v in scores.items()}
                    writer.scalars(step, named)
                    tqdm.write(f"step {step} held out: {evaluators.one_line(scores)}")
                    score = evaluators.selection_score(scores)
                    if best_score is None or score > best_score:
                        checkpoints.save_best(state, best_score := score)
            if stage.phase_at(step) != phase:
                phase = stage.phase_at(step)
                tqdm.write(f"step {step}: the phase {phase.name} begins")
                data.close()
                data = make_data(batch_size=phase.batch_size)
                fetched_data = data.get_state()
            is_due = is_end or stopped_by or step % config.checkpoint.every == 0
            if is_due and not is_start:
                tqdm.write(checkpoints.save(state, data, owes_evaluation))
            if is_end or stopped_by:
                break
            pause += time.perf_counter() - paused_at

            batch = next(data)
            batch = {name: batch[name] for name in FIELDS if name in batch}
            form = stage.form(step)
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
            stopped_by = stop_signal()
            ends = phase != stage.phase_at(step + 1) or step + 1 == config.total_steps
            if (
                ends
                or stopped_by
                or any(
                    (step + 1) % every == 0
                    for every in (
                        config.log.every,
                        config.log.evaluate_every,
                        config.checkpoint.every,
                    )
                )
            ):
                fetched = jax.device_get(pending)
                good = finite.figures(fetched)
                left_out = finite.in_a_row(fetched, left_out)
                allowed = finite.PATIENCE if skip else 0
                if len(good) < len(fetched) and left_out >= allowed:
                    again = make_data(batch_size=phase.batch_size, sharding=None)
                    again.set_state(fetched_data)
                    with contextlib.closing(again):
                        raise finite.error(workdir, fetched_step, fetched, again, skip)
                values = evaluators.mean_of(good) if good else {}
                values["finite"] = len(good) / len(fetched)
                seconds = time.perf_counter() - fetched_at - pause
                if timed_steps:
                    images = timed_steps * phase.batch_size
                    values["images_per_second"] = images / seconds
                writer.scalars(step + 1, values)
                for words in warnings(values):
                    tqdm.write(f"warning at step {step + 1}: {words}")
                report_progress(bar, step + 1, config.total_steps, values)
                pending, timed_steps, pause = [], 0, 0.0
                fetched_at, fetched_step = time.perf_counter(), step + 1
                fetched_data = data.get_state()

    ############################################################################
    # The end                                                                  #
    ############################################################################
    data.close()
    if stopped_by and (owes_evaluation or not is_end):
        print(f"stopped by {stopped_by.name}: the same command goes on from here")
        return stopped_by
    if is_classifier:
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
    return None


def report_progress(
    bar: tqdm, step: int, total_steps: int, values: dict[str, float]
) -> None:
    """Shows the main losses on the bar, or as a line if the output is no terminal."""
    names = (
        "loss accuracy clean_loss masked_loss masker_loss presence_accuracy "
        "kept_accuracy removed_accuracy mask_mean discriminator_loss generator_loss "
        "real_probability fake_probability"
    )
    shown = {name: values[name] for name in names.split() if name in values}
    line = evaluators.one_line(shown)
    if "images_per_second" in values:  # not while the steps are being compiled
        line += f", {values['images_per_second']:.0f} images/s"
    if bar.disable:
        print(f"step {step}/{total_steps}: {line}", flush=True)
    else:
        bar.set_postfix_str(line)


if __name__ == "__main__":
    run_command(main)

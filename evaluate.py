r"""Evaluates a trained run: localisation by CASM's rules, mask statistics, pictures.

    python evaluate.py --workdir runs/casm_shapes

Prints a table and writes it, with everything needed to believe it, to `results.json`
in `--out`, beside grids of pictures. The naive baselines stand in the same table,
measured on the same images with the run's own classifier.
"""

import contextlib
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np
from absl import flags
from jaxtyping import Bool, Float, Int, Num
from tqdm import tqdm

from saliency_jax.data import pipeline, sources
from saliency_jax.errors import InputError, run_command
from saliency_jax.metrics import rows
from saliency_jax.metrics.intervals import wilson_interval
from saliency_jax.metrics.localisation import (
    binarise_quantile,
    boxes_after_resize_and_crop,
    is_filed,
    predicted_boxes,
)
from saliency_jax.report.figures import localisation_grid, save_png
from saliency_jax.report.results import describe, write_results
from saliency_jax.run_config import read_run_config
from saliency_jax.saliency import Masker, load_masker
from saliency_jax.training import run_folder, sharding
from saliency_jax.training.checkpoints import saved_steps
from saliency_jax.training.evaluators import top_hits
from saliency_jax.types import Batch

GRIDS = 4
COLUMNS = 7
IMAGES_PER_TASK = 8  # of the metric part: a few MB at 224 pixels, near the cores
BATCH_FIELDS = ("image", "label", "boxes_pixels", "original_size")

RULE = (
    "CASM's scorer: shorter side resized to the image size and centre crop; mask "
    "binarised at the quantile of its mean; box of the largest 4-connected component; "
    "hit if intersection over union > 0.5 with any filed box, whose cropped-away part "
    "counts as missed; om also needs the run's own classifier to be right; f1 on the "
    "soft mask, best box of an image; f1a its mean over boxes; images without a box "
    "left out; intervals of 95 %: Wilson's for shares, Student's t for means"
)


class Shown(NamedTuple):
    """An image that was picked for the pictures."""

    image: Num[np.ndarray, "S S 3"]
    mask: Float[np.ndarray, "S S"]
    boxes: Int[np.ndarray, "_ 4"]
    label: int


class Outcome(NamedTuple):
    """What a pass over the images gave."""

    measured: dict[str, rows.Measured]
    top_hits: Bool[np.ndarray, "B 5"]
    shown: list[Shown]
    seconds: dict[str, float]


def define_flags() -> None:
    """Defines the flags; a program with flags of the same names may import the rest."""
    flags.DEFINE_string("workdir", None, "Folder of a run of stage casm.")
    flags.DEFINE_string("data", None, "Data set; by default the run's own.")
    flags.DEFINE_string(
        "data_dir", None, "Folder of prepared data sets; by default the run's own."
    )
    flags.DEFINE_string(
        "split", None, "Split of the data set; by default validation, or else test."
    )
    flags.DEFINE_string("out", None, "Where to write; by default WORKDIR/evaluation.")
    flags.DEFINE_integer(
        "batch_size", None, "Images in a batch; the run's own if None.", lower_bound=1
    )
    flags.DEFINE_integer(
        "limit", None, "Evaluate only the first so many images.", lower_bound=1
    )
    flags.DEFINE_string("checkpoint", "last", "last, best, or a kept step.")


def main(argv: Sequence[str]) -> None:
    values = flags.FLAGS
    if len(argv) > 1:
        raise InputError(f"unexpected argument {argv[1]!r}: evaluate.py takes flags")
    if values.workdir is None:
        raise InputError("evaluate.py needs --workdir FOLDER, of a run of train.py")
    evaluate(
        values.workdir,
        data=values.data,
        data_dir=values.data_dir,
        split=values.split,
        out=values.out,
        batch_size=values.batch_size,
        limit=values.limit,
        checkpoint=values.checkpoint,
    )


def evaluate(
    workdir: str | Path,
    *,
    data: str | None = None,
    data_dir: str | None = None,
    split: str | None = None,
    out: str | Path | None = None,
    batch_size: int | None = None,
    limit: int | None = None,
    checkpoint: str = "last",
) -> None:
    """Evaluates a run, prints the table and writes it and the pictures.

    Args:
      workdir: of a run of stage casm.
      data: name of the data set; the run's own if None.
      data_dir: folder of prepared data sets; the run's own if None.
      split: of the data set; "validation", or else "test", if None.
      out: where to write; `<workdir>/evaluation` if None.
      batch_size: images in a batch; the run's own if None.
      limit: evaluate only the first so many images.
      checkpoint: "last", "best", or the step of a kept one.

    Raises:
      InputError: if any of these does not exist or does not fit the others.
    """
    workdir = Path(workdir)
    out = workdir / "evaluation" if out is None else Path(out)
    config = read_run_config(workdir)
    masker, step = load(workdir, checkpoint)
    data = data or config["data"]["name"]
    data_dir = data_dir or config["data"]["data_dir"]
    split = split or sources.evaluation_split(data, data_dir)
    source = sources.open_source(data, data_dir, split)
    check_classes(config, source)
    make_writable(out)

    size = config["data"]["image_size"]
    batch_size = batch_size or config["data"]["batch_size"]
    count = min(limit or len(source), len(source))
    batches = pipeline.eval_batches(
        source, batch_size=batch_size, image_size=size, limit=count
    )
    outcome = run(masker, batches, count, batch_size)
    pictures = draw(outcome.shown, source.class_names, masker.classifier.mean, out)

    table = summarise(outcome)
    scored = int(outcome.measured["casm"].scores.scored.sum())
    how = {
        **run_folder.environment(),
        "opencv": cv2.__version__,
        "workdir": str(workdir),
        "checkpoint": step,
        "trained_on": config["data"]["name"],
        "casm": config["casm"],
        "data": source.name,
        "split": source.split,
        "images": count,
        "images_without_box": count - scored,
        "image_size": size,
        "batch_size": batch_size,
        "rule": RULE,
        "pictures": [path.name for path in pictures],
        **outcome.seconds,
    }
    write_results(out / "results.json", table, how)
    print(describe(table, how))
    print("\n".join(map(str, [out / "results.json", *pictures])))


def load(workdir: Path, checkpoint: str) -> tuple[Masker, int]:
    """Loads the masker of a checkpoint and says of which step it is.

    Raises:
      InputError: when there is no such run or checkpoint.
    """
    if checkpoint in ("last", "best"):
        steps = saved_steps(workdir, checkpoint)
        if checkpoint == "last" and steps:
            # By its number, for a run that goes on may save another meanwhile.
            return load_masker(workdir, steps[-1]), steps[-1]
        return load_masker(workdir, checkpoint), steps[-1]
    if not checkpoint.isdecimal():
        raise InputError(
            f"--checkpoint={checkpoint}: expected last, best or the step of a kept "
            "checkpoint"
        )
    return load_masker(workdir, int(checkpoint)), int(checkpoint)


def check_classes(config: dict[str, Any], source: sources.Source) -> None:
    """Checks that the run's classifier knows the classes of the data.

    Raises:
      InputError: when the classes differ.
    """
    expected = tuple(config["data"]["class_names"])
    if expected != source.class_names:
        raise InputError(
            f"the run was trained on {config['data']['name']} with {len(expected)} "
            f"classes, {source.name} has {source.num_classes}, and they are not the "
            "same: OM and accuracy would mean nothing; evaluate on data of the same "
            "classes"
        )


def run(
    masker: Masker, batches: Iterable[Batch], count: int, batch_size: int
) -> Outcome:
    """Passes all images through the networks, and the masks through the metrics.

    Threads measure one batch while the device computes the next.

    Args:
      masker: of the run.
      batches: finite, in order; padding is ignored.
      count: how many images there are.
      batch_size: of each batch.

    Raises:
      InputError: when a mask is not finite.
    """
    devices = jax.devices()
    if batch_size % len(devices):
        devices = devices[:1]
    mesh = sharding.data_mesh(devices)
    masker = jax.device_put(masker, sharding.replicated(mesh))
    predict = jax.jit(lambda masker, images: masker.predict(images))

    cv2.setNumThreads(1)  # the pool's threads are enough
    threads = os.cpu_count() or 1
    picked = np.random.default_rng(0).permutation(count)[: GRIDS * COLUMNS]
    seconds = dict.fromkeys(("compile", "network", "wait"), 0.0)
    compiled, hits, shown, tasks, first = None, [], [], [], 0
    start = time.perf_counter()
    with (
        ThreadPoolExecutor(threads) as pool,
        tqdm(total=count, disable=None, unit="image") as bar,
    ):
        pending: list[Future] = []
        for batch in batches:
            images = jax.device_put(batch["image"], sharding.by_batch(mesh))
            if compiled is None:
                with timed(seconds, "compile"):
                    compiled = predict.lower(masker, images).compile()
            with timed(seconds, "network"):
                masks, logits = jax.device_get(compiled(masker, images))

            valid = np.asarray(batch["valid"])
            batch = {name: np.asarray(batch[name])[valid] for name in BATCH_FIELDS}
            masks, logits = masks[valid], logits[valid]
            if not np.isfinite(masks).all():
                raise InputError(
                    "the run's masks are not finite: its training diverged; train "
                    "again with a lower learning rate"
                )
            with timed(seconds, "wait"):  # bounds the masks that are kept
                wait(pending)
            pending = [
                pool.submit(
                    measure_timed,
                    masks[part : part + IMAGES_PER_TASK],
                    batch["boxes_pixels"][part : part + IMAGES_PER_TASK],
                    batch["original_size"][part : part + IMAGES_PER_TASK],
                )
                for part in range(0, len(masks), IMAGES_PER_TASK)
            ]
            tasks += pending
            hits.append(top_hits(logits, batch["label"]))
            shown += [
                show(batch, masks, index - first)
                for index in picked
                if first <= index < first + len(masks)
            ]
            first += len(masks)
            bar.update(len(masks))
        parts = [task.result() for task in tasks]
    names = parts[0][0].keys()
    return Outcome(
        {name: rows.join([measured[name] for measured, _ in parts]) for name in names},
        np.concatenate(hits),
        shown,
        {
            "network_seconds": seconds["network"],
            "metric_seconds": sum(busy for _, busy in parts),
            "metric_threads": threads,
            "network_waited_for_metric_seconds": seconds["wait"],
            "compile_seconds": seconds["compile"],
            "wall_seconds": time.perf_counter() - start,
        },
    )


@contextlib.contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Adds the wall time of a block to `seconds[name]`."""
    start = time.perf_counter()
    yield
    seconds[name] += time.perf_counter() - start


def measure_timed(
    masks: Float[np.ndarray, "B S S"],
    boxes_pixels: Int[np.ndarray, "B N 4"],
    original_size: Int[np.ndarray, "B 2"],
) -> tuple[dict[str, rows.Measured], float]:
    """Measures some images; also returns the processor seconds that it took."""
    start = time.thread_time()
    measured = rows.measure(masks, boxes_pixels, original_size)
    return measured, time.thread_time() - start


def show(batch: Batch, masks: Float[np.ndarray, "B S S"], index: int) -> Shown:
    """Keeps what the pictures need of one image of a batch."""
    pixels = batch["boxes_pixels"][index]
    return Shown(
        batch["image"][index],
        masks[index],
        boxes_after_resize_and_crop(
            pixels[is_filed(pixels)], batch["original_size"][index], masks.shape[1]
        ),
        int(batch["label"][index]),
    )


def summarise(outcome: Outcome) -> dict[str, rows.Row]:
    """Returns the rows of the table; without any box there is CASM's alone."""
    table = {}
    for name, measured in outcome.measured.items():
        if name == "casm" or measured.scores.scored.any():
            table[name] = rows.summarise(measured, outcome.top_hits[:, 0])
    for name, right in (
        ("accuracy", outcome.top_hits[:, 0]),
        ("top5_accuracy", outcome.top_hits.any(axis=1)),
    ):
        table["casm"][name] = float(right.mean())
        interval = wilson_interval(int(right.sum()), len(right))
        table["casm"][f"{name}_interval"] = interval
    return table


def draw(
    shown: Sequence[Shown],
    class_names: Sequence[str],
    mean: Sequence[float],
    out: Path,
) -> list[Path]:
    """Writes the grids of pictures and returns their paths."""
    paths = []
    for first in range(0, len(shown), COLUMNS):
        group = shown[first : first + COLUMNS]
        masks = np.stack([one.mask for one in group])
        picture = localisation_grid(
            np.stack([one.image for one in group]),
            binarise_quantile(masks),
            predicted_boxes(masks),
            [one.boxes for one in group],
            [class_names[one.label] for one in group],
            mean,
        )
        paths.append(out / f"grid_{first // COLUMNS}.png")
        save_png(paths[-1], picture)
    return paths


def make_writable(out: Path) -> None:
    """Makes the output folder before the work begins.

    Raises:
      InputError: when it cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise InputError(
            f"{out} cannot be written ({error.strerror}): name another folder as --out"
        ) from error


if __name__ == "__main__":
    define_flags()
    run_command(main)

"""evaluate.py on a few images in memory that tell their own masks and classes."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.evaluation import one_run, runs
from saliency_jax.models.classifier import Classifier
from tests.painted import SIZE, paint, painted_masker, source_of

BOX = [2, 4, 10, 12]  # xmin, ymin, xmax, ymax


@pytest.fixture
def masker():
    return painted_masker()


RECORDS = [
    paint(BOX, predicted=3, label=3, boxes=[BOX]),  # found, right
    paint(BOX, predicted=4, label=3, boxes=[BOX]),  # found, wrong
    paint([2, 4, 10, 8], predicted=3, label=3, boxes=[BOX]),  # half of it: a miss
    paint(BOX, predicted=1, label=1, boxes=[[0, 0, 3, 3], BOX]),  # the second
    paint([0, 0, 4, 4], predicted=1, label=1, boxes=[]),  # not scored
]


def make_run(workdir, stage="casm", image_size=SIZE):
    """Makes a folder that looks like a run on RECORDS."""
    config = {
        "stage": stage,
        "data": {
            "name": "painted",
            "class_names": [f"class {i}" for i in range(10)],
            "data_dir": "nowhere",
            "image_size": image_size,
            "batch_size": 2,
            "mean": [0.5, 0.5, 0.5],
            "num_threads": 1,
        },
        "classifier": {"num_classes": 10, "function": "gone:logits"},
        stage: {"thinning": "L100"},
        "seed": 3,
    }
    workdir.mkdir(parents=True)
    (workdir / "config.json").write_text(json.dumps(config))
    return workdir


def set_data(monkeypatch, records, trained_on=None):
    """Lets every split be these images, but the training split perhaps others."""
    trained_on = records if trained_on is None else trained_on

    def open_source(name, data_dir, split):
        return source_of(trained_on if split == "train" else records)

    monkeypatch.setattr(one_run.sources, "open_source", open_source)


ALL_CLASSES = [paint(BOX, predicted=0, label=label, boxes=[]) for label in range(10)]


@pytest.fixture
def painted_run(tmp_path, monkeypatch, masker):
    """A folder that looks like a run on RECORDS, trained on all classes."""
    workdir = make_run(tmp_path / "run")
    monkeypatch.setattr(runs, "load_checkpoint", lambda *names: (masker, 7))
    set_data(monkeypatch, RECORDS, ALL_CLASSES)
    monkeypatch.setattr(
        one_run.sources, "evaluation_split", lambda *names: "validation"
    )
    return workdir


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


def test_figures_table_and_pictures(painted_run, capsys):
    one_run.evaluate(painted_run)
    out = painted_run / "evaluation"
    results = results_of(out)
    casm = results["rows"]["casm"]
    # of the four with boxes the third misses, and the second has the wrong class
    assert casm["le"] == pytest.approx(1 / 4)
    assert casm["om"] == pytest.approx(2 / 4)
    # the third has recall 1/2, and the fourth a box without any overlap
    assert casm["f1"] == pytest.approx((3 + 2 / 3) / 4, abs=1e-5)
    assert casm["f1a"] == pytest.approx((2 + 2 / 3 + 1 / 2) / 4, abs=1e-5)
    assert casm["accuracy"] == pytest.approx(4 / 5)
    assert casm["mask_mean"] == pytest.approx((64 + 64 + 32 + 64) / 4 / SIZE**2)
    assert casm["mask_entropy"] == pytest.approx(0, abs=1e-6)
    low, high = casm["le_interval"]
    assert low < 0.25 < high

    truth = results["rows"]["ground_truth_box"]
    assert truth["le"] == 0 and truth["om"] == pytest.approx(1 / 4)
    whole = results["rows"]["whole_image"]
    assert whole["le"] == 1 and whole["mask_mean"] == 1
    # [2, 14) against a box of 64 pixels: 8 * 8 / 144 is a miss
    assert results["rows"]["center_box"]["le"] == 1

    # areas of a quarter and once an eighth; p is e / (e + 9) or once 1 / (e + 9)
    log_area = (3 * math.log(1 / 4) + math.log(1 / 8)) / 4
    log_p = 3 / 4 - math.log(math.e + 9)
    assert casm["sm_log_area"] == pytest.approx(log_area)
    assert casm["sm_log_probability"] == pytest.approx(log_p)
    assert casm["sm"] == pytest.approx(log_area - log_p)
    assert casm["sm_accuracy"] == 3 / 4
    assert whole["sm"] == pytest.approx(-log_p)
    assert results["rows"]["center_box"]["sm_log_area"] == pytest.approx(
        math.log(144 / 256)
    )
    assert truth["sm"] == pytest.approx(math.log(1 / 4) - log_p)

    how = results["how"]
    assert (how["images"], how["images_without_box"]) == (5, 1)
    assert (how["checkpoint"], how["data"], how["split"]) == (
        7,
        "painted",
        "validation",
    )
    assert how["stage"] == "casm" and how["casm"]["thinning"] == "L100"
    assert how["crop_classifier"]["path"] == str(painted_run)
    assert how["training_classes"] == 10 and how["images_by_class"] == {"rows": 5}
    assert (
        results.keys() == {"rows", "judges", "selectivity", "how"}
        and how["beside"] == {}
    )
    assert how["pictures"] == ["grid_0.png", "best_0.png", "worst_0.png"]
    assert how["network_seconds"] > 0 and how["metric_seconds"] > 0

    printed = capsys.readouterr().out
    assert "25.0 [" in printed and "1 without a box" in printed
    for path in (out / "results.json", out / "grid_0.png"):
        assert path.is_file() and str(path) in printed
    assert not list(out.glob("*.partial"))


def test_figures_do_not_depend_on_the_batch_size(painted_run, tmp_path):
    rows = []
    for size in (1, 3, 4, 8):
        one_run.evaluate(painted_run, batch_size=size, out=tmp_path / f"out{size}")
        rows.append(results_of(tmp_path / f"out{size}")["rows"])
    assert rows[0] == rows[1] == rows[2] == rows[3]


def test_the_follow_ups_box_misses_what_the_authors_hits(painted_run, monkeypatch):
    # five of the box's eight rows; less a row and a column, 28 of 64 pixels
    records = [paint([2, 4, 10, 9], predicted=3, label=3, boxes=[BOX])]
    set_data(monkeypatch, records)
    errors = {}
    for variant in ("author", "follow_up"):
        one_run.evaluate(painted_run, variant=variant)
        results = results_of(painted_run / "evaluation")
        assert results["how"]["variant"] == variant and results["judges"] == {}
        errors[variant] = results["rows"]["casm"]["le"]
    assert errors == {"author": 0, "follow_up": 1}
    assert "less its last row and column" in results["how"]["rule"]


def test_real_times_box_spans_every_kept_pixel(painted_run, monkeypatch):
    # half of the box: a hit at last; with a pixel far away: a miss
    half = paint([2, 4, 10, 8], predicted=3, label=3, boxes=[BOX])
    apart = paint([2, 4, 10, 12], predicted=3, label=3, boxes=[BOX], also=(15, 0))
    set_data(monkeypatch, [half, apart])
    hits = {}
    for variant in ("author", "real_time"):
        one_run.evaluate(painted_run, variant=variant, limit=2)
        results = results_of(painted_run / "evaluation")
        hits[variant] = results["rows"]["casm"]["le"], results["how"]["rule"]
    assert hits["author"][0] == hits["real_time"][0] == 1 / 2
    out = painted_run / "first"
    one_run.evaluate(painted_run, variant="real_time", limit=1, out=out)
    assert results_of(out)["rows"]["casm"]["le"] == 0
    assert "one half" in hits["real_time"][1] and ">= 0.5" in hits["real_time"][1]
    assert ">= 0.5" not in hits["author"][1]


def test_a_run_of_another_stage_has_its_own_row(tmp_path, painted_run, capsys):
    black_box = make_run(tmp_path / "other", "black_box")
    one_run.evaluate(black_box)
    results = results_of(black_box / "evaluation")
    one_run.evaluate(painted_run)
    rows = results_of(painted_run / "evaluation")["rows"]
    assert results["rows"]["black_box"] == rows["casm"]
    assert results["how"]["stage"] == "black_box" and "casm" not in str(results)
    assert "black-box masker" in capsys.readouterr().out


def test_runs_beside_have_rows_of_their_own_size(tmp_path, painted_run, capsys):
    casm = make_run(tmp_path / "casm", "black_box")
    double = make_run(tmp_path / "double", image_size=2 * SIZE)
    first = make_run(tmp_path / "a" / "same")
    second = make_run(tmp_path / "b" / "same")
    beside = [casm, double, first, second]
    one_run.evaluate(painted_run, beside=[str(run) for run in beside])
    results = results_of(painted_run / "evaluation")
    rows, others = results["rows"], results["how"]["beside"]
    # "casm" is the name of a row, and two folders have one name
    names = [str(casm), "double", str(first), str(second)]
    baselines = ["whole_image", "center_box", "ground_truth_box"]
    assert list(rows) == ["casm", *names, *baselines] and list(others) == names
    for name in (names[0], *names[2:]):
        assert rows[name] == rows["casm"]
    assert [other["stage"] for other in others.values()] == ["black_box", *3 * ["casm"]]
    assert others["double"]["image_size"] == 2 * SIZE
    assert others["double"]["network_seconds"] > 0
    # half of the box is still a miss, and a quarter of the image a quarter
    for figure in ("le", "om", "accuracy", "sm_accuracy"):
        assert rows["double"][figure] == rows["casm"][figure]
    for figure in ("sm", "mask_mean"):
        assert rows["double"][figure] == pytest.approx(rows["casm"][figure], rel=0.05)
    assert rows["double"]["mask_entropy"] > 0  # the painted edge is soft there
    assert "classifier of double: top-1 accuracy" in capsys.readouterr().out


def test_what_cannot_stand_beside_is_named(tmp_path, painted_run):
    def message(*beside):
        with pytest.raises(InputError) as caught:
            one_run.evaluate(painted_run, beside=[str(run) for run in beside])
        assert not (painted_run / "evaluation").exists()
        return str(caught.value)

    other = make_run(tmp_path / "other")
    assert "other is named twice" in message(other, other)
    assert "nowhere is not a run" in message(tmp_path / "nowhere")
    config = json.loads((other / "config.json").read_text())
    config["data"]["class_names"].reverse()
    (other / "config.json").write_text(json.dumps(config))
    assert "class 0 is 'class 9' there" in message(other)


@pytest.fixture
def bright_run(painted_run, monkeypatch, masker):
    """A run whose classifier has a gradient: of each class, how bright its strip is."""
    strips = np.eye(10, dtype=np.float32).repeat(2, axis=0)[:SIZE]

    def logits(images):
        return 20 * jnp.einsum("bhwc,hk->bk", images, strips) / SIZE

    bright = masker.replace(classifier=Classifier.from_function(logits))
    monkeypatch.setattr(runs, "load_checkpoint", lambda *names: (bright, 7))
    return painted_run


def test_a_row_of_masks_without_a_masker(bright_run, tmp_path, capsys):
    one_run.evaluate(bright_run, out=tmp_path / "without")
    assert "iterative" not in capsys.readouterr().out
    beside = str(make_run(tmp_path / "iterative"))
    one_run.evaluate(bright_run, iterations=3, beside=[beside])
    without = results_of(tmp_path / "without")
    results = results_of(bright_run / "evaluation")
    rows, how = results["rows"], results["how"]
    # the folder has the name of the row
    baselines = ["whole_image", "center_box", "ground_truth_box"]
    assert list(rows) == ["casm", beside, "iterative", *baselines]
    assert all(rows[name] == without["rows"][name] for name in ("casm", *baselines))
    assert rows["iterative"].keys() == rows["casm"].keys()
    assert rows["iterative"]["accuracy"] == rows["casm"]["accuracy"]
    assert 0 < rows["iterative"]["mask_mean"] < 1

    assert list(how["beside"]) == [beside] and "iterative" not in without["how"]
    row = how["iterative"]
    assert (row["iterations"], row["seed"], row["mask_size"]) == (3, 3, 32)
    assert row["objective"]["area_weight"] == 11
    assert row["removal"]["removal"] == "alternative"
    assert row["network_seconds"] > 0 and "optimised by itself" in row["rule"]
    assert "\niterative mask " in capsys.readouterr().out


def test_no_iteration_is_refused_before_the_work(bright_run):
    with pytest.raises(InputError, match="iterations is 0: it must be at least 1"):
        one_run.evaluate(bright_run, iterations=0)
    assert not (bright_run / "evaluation").exists()


def test_a_masker_whose_black_box_is_gone_is_refused(painted_run, monkeypatch, masker):
    alone = masker.replace(classifier=None)
    monkeypatch.setattr(runs, "load_checkpoint", lambda *names: (alone, 7))
    with pytest.raises(InputError, match="run has no classifier at hand"):
        one_run.evaluate(painted_run)


def test_seen_and_unseen_classes_apart(painted_run, monkeypatch, capsys):
    set_data(monkeypatch, RECORDS, [ALL_CLASSES[1], ALL_CLASSES[8]])
    one_run.evaluate(painted_run)
    results = results_of(painted_run / "evaluation")
    assert results["how"]["training_classes"] == 2
    counts = {"rows": 5, "seen": 2, "unseen": 3}
    assert results["how"]["images_by_class"] == counts
    seen, unseen = results["seen"], results["unseen"]
    # the fourth image and the fifth, which has no box; the first three
    assert seen["casm"]["le"] == 0 and unseen["casm"]["le"] == pytest.approx(1 / 3)
    assert seen["casm"]["accuracy"] == 1
    assert unseen["casm"]["accuracy"] == pytest.approx(2 / 3)
    assert unseen["casm"]["om"] == pytest.approx(2 / 3)
    assert unseen["ground_truth_box"]["om"] == pytest.approx(1 / 3)
    assert unseen["casm"]["sm_accuracy"] == pytest.approx(2 / 3)
    assert results["rows"]["casm"]["le"] == 1 / 4
    printed = capsys.readouterr().out
    assert "2 images of the 2 classes that the run's training data" in printed
    assert "3 images of none of the 2 classes" in printed

    set_data(monkeypatch, RECORDS, [ALL_CLASSES[8]])
    one_run.evaluate(painted_run)
    results = results_of(painted_run / "evaluation")
    assert "seen" not in results and results["unseen"] == results["rows"]
    assert "1 class that the run's training data have: all" in capsys.readouterr().out


def test_training_data_that_are_gone_tell_nothing(painted_run, monkeypatch):
    def open_source(name, data_dir, split):
        if split == "train":
            raise InputError("it is not there")
        return source_of(RECORDS)

    monkeypatch.setattr(one_run.sources, "open_source", open_source)
    one_run.evaluate(painted_run)
    results = results_of(painted_run / "evaluation")
    assert results["how"]["training_classes"] is None
    assert results.keys() == {"rows", "judges", "selectivity", "how"}


def test_another_classifier_answers_to_the_crops(painted_run, classifier_run, tmp_path):
    config = json.loads((classifier_run / "config.json").read_text())
    names = config["data"]["class_names"]
    assert len(names) == 10
    own = json.loads((painted_run / "config.json").read_text())
    own["data"]["class_names"] = names
    (painted_run / "config.json").write_text(json.dumps(own))
    source = source_of(RECORDS, tuple(names))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one_run.sources, "open_source", lambda *names: source)
        for crops, out in ((None, "own"), (str(classifier_run), "other")):
            one_run.evaluate(painted_run, crop_classifier=crops, out=tmp_path / out)
        with pytest.raises(
            InputError, match="--crop_classifier nowhere does not exist"
        ):
            one_run.evaluate(painted_run, crop_classifier="nowhere")
    own, other = results_of(tmp_path / "own"), results_of(tmp_path / "other")
    assert other["how"]["crop_classifier"] == {
        "path": str(classifier_run),
        "step": config["total_steps"],
        "image_size": 32,
    }
    for row, figures in own["rows"].items():
        changed = {
            name for name in figures if figures[name] != other["rows"][row][name]
        }
        assert "sm" in changed and all(name.startswith("sm") for name in changed)
        assert "sm_log_area" not in changed


def test_limit_takes_the_first_images(painted_run):
    one_run.evaluate(painted_run, limit=2)
    results = results_of(painted_run / "evaluation")
    assert results["how"]["images"] == 2
    assert results["rows"]["casm"]["le"] == 0
    assert results["rows"]["casm"]["accuracy"] == 0.5


def test_data_without_boxes_gives_accuracy_and_masks_only(painted_run, monkeypatch):
    source = source_of(RECORDS[-1:] * 3, max_boxes=0)
    monkeypatch.setattr(one_run.sources, "open_source", lambda *names: source)
    one_run.evaluate(painted_run)
    rows = results_of(painted_run / "evaluation")["rows"]
    assert list(rows) == ["casm"]
    assert "le" not in rows["casm"] and rows["casm"]["accuracy"] == 1
    assert rows["casm"]["mask_mean"] == pytest.approx(16 / SIZE**2)


def test_diverged_masks_are_refused(painted_run, monkeypatch, masker):
    diverged = masker.replace(variables=jnp.array(jnp.nan))
    monkeypatch.setattr(runs, "load_checkpoint", lambda *names: (diverged, 7))
    with pytest.raises(InputError, match="not finite"):
        one_run.evaluate(painted_run)


def test_other_classes_are_refused(painted_run, monkeypatch):
    source = source_of(RECORDS, tuple(map(str, range(100))))
    monkeypatch.setattr(one_run.sources, "open_source", lambda *names: source)
    with pytest.raises(InputError, match="10 classes.* painted has 100"):
        one_run.evaluate(painted_run)


def test_a_wrong_judge_is_named_before_the_work(painted_run, tmp_path):
    with pytest.raises(InputError, match="--judges nowhere does not exist"):
        one_run.evaluate(painted_run, judges=["nowhere"], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_way_of_the_folder_is_named(painted_run, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="taken cannot be written .*--out"):
        one_run.evaluate(painted_run, out=tmp_path / "taken")

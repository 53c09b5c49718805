"""The conductor on painted images, whose figures follow from what was painted."""

from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.evaluation.comparison import (
    catalogue,
    compare,
    contestants,
    judged_pass,
    localisation_pass,
    passes,
)
from saliency_jax.evaluation.comparison.box_regressor import supervised
from saliency_jax.evaluation.comparison.compare import Plan
from saliency_jax.evaluation.comparison.localisation_pass import BoxRule
from saliency_jax.evaluation.comparison.passes import Setting
from saliency_jax.evaluation.judges import Judge
from saliency_jax.models.classifier import Classifier
from saliency_jax.report.comparison import from_json, to_json
from tests.painted import SIZE, paint, source_of

BOX = [2, 4, 10, 12]  # xmin, ymin, xmax, ymax
RECORDS = [
    paint(BOX, predicted=3, label=3, boxes=[BOX]),  # found, right
    paint(BOX, predicted=4, label=3, boxes=[BOX]),  # found, wrong
    paint([0, 0, 4, 4], predicted=1, label=1, boxes=[[8, 8, 16, 16]]),  # missed
    paint(BOX, predicted=1, label=1, boxes=[[0, 0, 3, 3], BOX]),  # the second
    paint(BOX, predicted=1, label=1, boxes=[]),  # not scored
]


def logits(images):
    """The painted class first, by as much as the painted mask is large."""
    painted = jnp.round(255 * images[:, 0, 0, 2]).astype(jnp.int32)
    size = 1 + images[..., 0].sum((1, 2))
    return jax.nn.one_hot(painted, 10) * size[:, None]


def red_channel(classifier, batch, targets, key):
    return np.asarray(batch["image"][..., 0], np.float32) - 100


RED = contestants.Contestant("red", "method", red_channel, SIZE)


def plan_of(out, metrics=("localisation", "maps"), rule="value", **changed):
    classifier = Classifier.from_function(logits)
    setting = Setting(classifier, SIZE, source_of(RECORDS), 5, 2, 1, 0, {})
    chosen = catalogue.chosen(metrics)
    given = {
        "setting": setting,
        "classifier": ("painted", "1"),
        "metrics": chosen,
        "rule": BoxRule(rule, "inclusive", "max_box_acc" in chosen),
        "asked": 4,
        "crop_judge": Judge(Path("painted"), classifier, SIZE),
        "judges": {},
        "memoriser": (None, ()),
        "out": out,
    }
    return Plan(**given | changed)


def figures_of(compared, row):
    figures = compared.rows[row].figures
    return {name: figure.value for name, figure in figures.items()}


def test_figures_of_a_map_that_is_the_painted_mask(tmp_path):
    rows = {"red": RED, **contestants.trivial(SIZE, 0)}
    plan = plan_of(tmp_path, ("localisation", "contours", "maps"))
    compared, gallery = compare.compare(plan, rows, {"seed": 0})
    red = figures_of(compared, "red")
    # Of the four with boxes the third misses, the second's class is wrong.
    assert red["gt_known"] == 1 / 4
    assert red["top1"] == 2 / 4
    assert red["top5"] == 1 / 4  # among ten equal logits the true one is not beaten
    assert red["max_box_acc"] == 3 / 4
    # The greatest value, first in raster order, is the corner of each painted mask; the
    # third is 5.7 pixels from its box, well within fifteen.
    assert red["pointing"] == 1
    assert red["energy_pointing"] == pytest.approx(3 / 4)
    assert red["box_area"] == pytest.approx((3 * 64 + 16) / 4 / SIZE**2)
    truth = figures_of(compared, "ground_truth_box")
    assert truth["gt_known"] == 0
    assert truth["iou"] == pytest.approx((3 + 64 / 81) / 4)  # the third sticks out
    assert not compared.rows["ground_truth_box"].competes
    assert figures_of(compared, "whole_image")["gt_known"] == 1
    assert compared.rows["red"].figures["gt_known"].images == 4
    assert "by the other half of the images; hit at IoU >= 0.5" in (
        compared.rows["red"].note
    )
    assert from_json(to_json(compared)) == compared

    assert set(gallery.maps) == {"red", "centre_gaussian", "edges", "random"}
    worst = gallery.worst["red"][0]
    assert gallery.scores["red"][worst] == 0
    assert gallery.captions[worst] == "class 1"
    assert "class 3 (taken for class 4)" in gallery.captions


def test_a_row_that_fails_keeps_its_place_and_the_others_go_on(tmp_path, capsys):
    def fails(*asked):
        raise InputError("no convolution in the classifier")

    rows = {"broken": RED._replace(title="broken", explain=fails), "red": RED}
    compared, _ = compare.compare(plan_of(tmp_path), rows, {})
    assert compared.rows["broken"].error == "no convolution in the classifier"
    assert not compared.rows["broken"].figures
    assert figures_of(compared, "red")["gt_known"] == 1 / 4
    assert "broken has no figures: no convolution" in capsys.readouterr().err
    with pytest.raises(InputError, match="no row has figures"):
        compare.compare(plan_of(tmp_path / "out"), {"broken": rows["broken"]}, {})


def test_a_stopped_comparison_goes_on_where_it_was(tmp_path):
    asked = []

    def counted(classifier, batch, targets, key):
        asked.append(len(batch["label"]))
        if stop_after and len(asked) > stop_after:
            raise KeyboardInterrupt
        return red_channel(classifier, batch, targets, key)

    def row(name):
        return RED._replace(title=name, explain=counted)

    rows = {"one": row("one"), "two": row("two")}
    stop_after = 4  # three batches of the first row, and one of the second
    with pytest.raises(KeyboardInterrupt):
        compare.compare(plan_of(tmp_path), rows, {})
    stop_after = 0
    asked.clear()
    compared, _ = compare.compare(plan_of(tmp_path), rows, {})
    assert len(asked) == 3  # the second row's batches alone
    one, two = (figures_of(compared, name) for name in rows)
    measured = one.keys() - catalogue.COSTS
    assert {name: one[name] for name in measured} == {n: two[n] for n in measured}
    # Another rule for boxes is another measurement; the same again is none.
    compare.compare(plan_of(tmp_path, rule="mean"), rows, {})
    assert len(asked) == 9
    compare.compare(plan_of(tmp_path, rule="mean"), rows, {})
    assert len(asked) == 9


def test_metrics_that_ask_again_see_the_predicted_class(tmp_path):
    classes = []

    def noted(classifier, batch, targets, key):
        classes.append(np.asarray(targets).tolist())
        return red_channel(classifier, batch, targets, key)

    rows = {"red": RED._replace(explain=noted), **contestants.trivial(SIZE, 0)}
    plan = plan_of(tmp_path, ("insertion", "deletion", "average_drop", "agreement"))
    compared, _ = compare.compare(plan, rows, {})
    assert classes == [[3, 3], [1, 1], [1, 1], [3, 4], [1, 1]]  # true, then predicted
    red = figures_of(compared, "red")
    assert red["insertion"] > figures_of(compared, "random")["insertion"]
    assert red["deletion"] < figures_of(compared, "random")["deletion"]
    # The first pixel tells the class, and only the third image's mask keeps it.
    assert red["average_drop"] == pytest.approx(3 / 4)
    assert "insertion_normalised" not in red
    assert compared.rows["red"].figures["insertion"].images == 4
    assert "insertion" not in figures_of(compared, "ground_truth_box")
    curve = compared.curves["red"]["insertion"]
    assert curve[-1] > curve[0] and len(curve) == 27  # 256 pixels, ten at a time
    names, matrix = compared.agreement
    assert names[0] == "red" and np.allclose(np.diag(matrix)[[0, -1]], 1)
    assert red["agreement"] == pytest.approx(np.mean(matrix[0][1:]))


def test_a_metric_that_fails_leaves_the_row_the_others(tmp_path, capsys):
    """Layers of a function are not known, so none can be drawn anew."""
    plan = plan_of(tmp_path, ("localisation", "all_layers_random"))
    compared, _ = compare.compare(plan, {"red": RED}, {})
    assert "gt_known" in figures_of(compared, "red")
    assert "no cascading: this classifier is a function" in compared.rows["red"].note
    assert "red, cascading: this classifier is a function" in capsys.readouterr().err


def test_data_without_boxes_leave_what_needs_none(tmp_path):
    records = [paint(BOX, predicted=3, label=3, boxes=[]) for _ in range(3)]
    plan = plan_of(tmp_path)
    setting = plan.setting._replace(source=source_of(records), count=3)
    compared, _ = compare.compare(plan._replace(setting=setting), {"red": RED}, {})
    assert set(figures_of(compared, "red")) >= {"sparseness", "complexity"}
    assert not {"gt_known", "box_area"} & compared.metrics.keys()  # no empty columns
    assert "no image has a box to be scored by" in compared.rows["red"].note
    assert "alpha" not in compared.rows["red"].note


def test_a_regressor_that_cannot_be_taught_loses_no_other_row(tmp_path):
    plan = plan_of(tmp_path)
    setting = plan.setting._replace(source=source_of(RECORDS[:3]), count=3)
    rows = {"red": RED, "regressor": supervised(setting)}
    compared, _ = compare.compare(plan._replace(setting=setting), rows, {})
    assert "gt_known" in figures_of(compared, "red")
    reason = compared.rows["regressor"].error
    assert "box regressor" in reason and "leave --supervised out" in reason


def test_of_equal_logits_the_first_is_the_prediction():
    logits = jnp.array([[1.0, 1.0, 0.0]] * 3)
    classifier = Classifier.from_function(lambda images: logits)
    images = np.zeros((3, 2, 2, 3), np.float32)
    answers = passes._answers(classifier, images, np.array([0, 1, 2]), None)
    assert answers["rank"].tolist() == [0, 1, 2]
    assert answers["predicted"].tolist() == [0, 0, 0]


def test_other_judges_see_what_a_map_keeps(tmp_path):
    plan = plan_of(tmp_path)
    plan = plan._replace(judges={"stranger": plan.crop_judge})
    plan = plan._replace(metrics=plan.metrics | judged_pass.metrics(plan.judges))
    compared, _ = compare.compare(plan, {"red": RED}, {})
    red = figures_of(compared, "red")
    # The painted class is in the first pixel, which no painted mask but the third's
    # keeps; the second's is wrong.
    assert red["stranger masked_out"] == pytest.approx(2 / 4)
    assert red["stranger masked_in"] == pytest.approx(1 / 4)
    assert red["mask_area"] < 0.3


@pytest.mark.parametrize("cut", ["graph_cut", "grabcut"])
def test_a_cut_has_no_threshold(tmp_path, cut):
    plan = plan_of(tmp_path, ("gt_known",), cut)
    red = compare.compare(plan, {"red": RED}, {})[0].rows["red"]
    assert red.figures["gt_known"].value == 1 / 4 and red.note.startswith(f"{cut}; hit")


def test_metrics_by_name_and_by_group():
    assert set(catalogue.chosen(["pointing"])) == {"pointing", *catalogue.COSTS}
    assert set(catalogue.chosen([])) >= {"gt_known", "saliency_metric", "sparseness"}
    assert "insertion" not in catalogue.chosen([])
    with pytest.raises(
        InputError, match=r"no metric 'pointin' \(did you mean pointing"
    ):
        catalogue.chosen(["pointin"])


def test_alphas_never_see_the_boxes_that_they_score(tmp_path):
    """Whatever one half's boxes are, it is scored by the same alpha."""
    plan = compare.with_answers(plan_of(tmp_path))
    arrays = localisation_pass.measure(RED, plan.setting, plan.rule)
    scored = np.flatnonzero(arrays["scored"])
    _, chosen = localisation_pass.chosen_boxes(arrays)
    for half in (scored[::2], scored[1::2]):
        changed = dict(arrays, hit=arrays["hit"].copy())
        changed["hit"][half] = np.arange(arrays["hit"].shape[1]) == 3
        _, again = localisation_pass.chosen_boxes(changed)
        assert np.array_equal(again[half], chosen[half])
        other = np.setdiff1d(scored, half)
        assert (again[other] == 3).all()


def test_all_that_ask_again_with_the_baselines(tmp_path):
    """What does not look at an image cannot be praised for its constant maps."""
    rows = {"red": RED, **contestants.trivial(SIZE, 0)}
    plan = plan_of(tmp_path, ("faithfulness",))
    compared, _ = compare.compare(plan, rows, {})
    measured = [name for name in plan.metrics if name not in catalogue.COSTS]
    red = compared.rows["red"]
    assert [name for name in red.figures if name in measured] == measured, red.note
    with_maps = {n for n, r in compared.rows.items() if "max_sensitivity" in r.figures}
    assert with_maps == {"red", "edges"}
    assert "road" in compared.rows["whole_image"].figures
    assert to_json(compared)


def test_a_fault_in_a_method_costs_its_row_alone(tmp_path, capsys):
    def fails(*asked):
        raise ValueError("shapes do not fit")

    rows = {"broken": RED._replace(title="broken", explain=fails), "red": RED}
    compared, _ = compare.compare(plan_of(tmp_path), rows, {})
    assert compared.rows["broken"].error == "ValueError: shapes do not fit"
    assert "Traceback" in capsys.readouterr().err
    assert figures_of(compared, "red")["gt_known"] == 1 / 4


def test_maps_that_fail_for_the_predicted_class_leave_the_rest(tmp_path):
    asked = []

    def fails_later(classifier, batch, targets, key):
        asked.append(targets)
        maps = red_channel(classifier, batch, targets, key)
        return maps * (np.nan if len(asked) > 3 else 1)

    plan = plan_of(tmp_path, ("localisation", "insertion"))
    rows = {"red": RED._replace(explain=fails_later)}
    compared, _ = compare.compare(plan, rows, {})
    assert figures_of(compared, "red")["gt_known"] == 1 / 4
    assert "no maps: the maps of red are not finite" in compared.rows["red"].note


def test_answers_that_are_not_finite_leave_the_rest(tmp_path):
    """A classifier that has no answer to the mean colour."""

    def breaks(images):
        painted = logits(images)
        return jnp.where(images.std((1, 2, 3))[:, None] < 1e-6, jnp.nan, painted)

    plan = plan_of(tmp_path, ("localisation", "insertion", "deletion"))
    classifier = Classifier.from_function(breaks)
    plan = plan._replace(setting=plan.setting._replace(classifier=classifier))
    compared, _ = compare.compare(plan, {"red": RED}, {})
    red = figures_of(compared, "red")
    assert "insertion" in red and "deletion" not in red
    assert "no deletion: not finite" in compared.rows["red"].note
    assert "deletion" not in compared.curves["red"]
    assert to_json(compared)


def test_other_data_of_the_same_name_are_measured_again(tmp_path):
    compare.compare(plan_of(tmp_path), {"red": RED}, {})
    plan = plan_of(tmp_path)
    records = [paint([0, 0, 4, 4], 1, 1, [[8, 8, 16, 16]]) for _ in RECORDS]
    setting = plan.setting._replace(source=source_of(records))
    compared, _ = compare.compare(plan._replace(setting=setting), {"red": RED}, {})
    assert figures_of(compared, "red")["gt_known"] == 1


def test_a_row_says_which_code_measured_it(tmp_path):
    compare.compare(plan_of(tmp_path, commit="0123456789"), {"red": RED}, {})
    again, _ = compare.compare(plan_of(tmp_path, commit="abc"), {"red": RED}, {})
    assert "localisation measured at commit 0123456" in again.rows["red"].note


def test_padding_takes_its_time_and_one_batch_has_no_pace(tmp_path):
    compared, _ = compare.compare(plan_of(tmp_path), {"red": RED}, {})
    # Five images in batches of two: the first is left out, the sixth is padding.
    assert compared.rows["red"].figures["images_per_second"].images == 4
    plan = plan_of(tmp_path / "one")
    plan = plan._replace(setting=plan.setting._replace(batch_size=5))
    compared, _ = compare.compare(plan, {"red": RED}, {})
    assert "images_per_second" not in compared.rows["red"].figures
    assert "no images/s: one batch" in compared.rows["red"].note


def test_exact_masks_have_a_curve_and_an_overlap(tmp_path):
    records = []
    for record, (x0, y0, x1, y1) in zip(
        RECORDS[:2], ((2, 4, 10, 12), (2, 4, 10, 8)), strict=True
    ):
        mask = np.zeros((SIZE, SIZE), np.uint8)
        mask[y0:y1, x0:x1] = 255
        encoded = cv2.imencode(".png", mask)[1].tobytes()
        records.append(record | {"object_mask": encoded})
    plan = plan_of(tmp_path)
    setting = plan.setting._replace(source=source_of(records), count=2)
    compared, _ = compare.compare(plan._replace(setting=setting), {"red": RED}, {})
    red = figures_of(compared, "red")
    assert red["mask_iou"] == pytest.approx((1 + 1 / 2) / 2)
    # Of 128 pixels in the two maps 96 are of the objects.
    assert red["pxap"] == pytest.approx(96 / 128)


def test_the_report_shows_some_images_whatever_the_rows(tmp_path):
    rows = {f"red {i}": RED._replace(title=f"red {i}") for i in range(3)}
    plan = plan_of(tmp_path)
    records = [RECORDS[i % 5] for i in range(70)]
    setting = plan.setting._replace(source=source_of(records), count=70, batch_size=35)
    _, gallery = compare.compare(plan._replace(setting=setting), rows, {})
    assert len(gallery.images) == 50
    for name in rows:
        assert 0 < len(gallery.best[name]) <= 2 and 0 < len(gallery.worst[name]) <= 2
    without = [i for i, caption in enumerate(gallery.captions) if caption == "class 1"]
    boxed = np.isfinite(gallery.scores["red 0"])
    assert not boxed.all() and set(np.flatnonzero(~boxed)) <= set(without)


def test_maps_under_attack(tmp_path):
    """The attack moves the classifier; a map of the image's red barely follows."""
    turned = RED._replace(
        title="turned",
        explain=lambda classifier, batch, targets, key: (
            # As unlike as can be, as soon as an image is no longer in bytes.
            red_channel(classifier, batch, targets, key)
            * (1 if np.asarray(batch["image"]).dtype == np.uint8 else -1)
        ),
    )
    rows = {"red": RED, "turned": turned, **contestants.trivial(SIZE, 0)}
    plan = plan_of(tmp_path, ("robustness",))
    weights = jax.random.normal(jax.random.key(0), (SIZE * SIZE * 3, 10))
    weak = Classifier.from_function(lambda x: x.reshape(len(x), -1) @ weights)
    plan = plan._replace(setting=plan.setting._replace(classifier=weak))
    compared, _ = compare.compare(plan, rows, {"seed": 0})
    assert compared.how == {"seed": 0, "attack_success": 1.0}
    red, opposite = figures_of(compared, "red"), figures_of(compared, "turned")
    assert red["attacked_rank"] > 0.3 and opposite["attacked_rank"] < -0.3
    assert red["attacked_ssim"] > opposite["attacked_ssim"]
    found = {n for n, row in compared.rows.items() if "attacked_rank" in row.figures}
    assert found == {"red", "turned", "edges"}

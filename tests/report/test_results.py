from saliency_jax.report.results import describe, describe_judges


def figures(accuracy, cross_entropy, entropy):
    return {
        "accuracy": accuracy,
        "accuracy_interval": (accuracy - 0.1, accuracy + 0.1),
        "cross_entropy": cross_entropy,
        "entropy": entropy,
    }


def judge(shares_origin, *clean):
    inpainted = {**figures(0.25, 3.0, 2.5), "mask_area": 0.375}
    pictures = {"image": {"clean": figures(*clean)}, "casm": {"inpainted": inpainted}}
    return {"pictures": pictures, "shares_origin": shares_origin}


HOW = {
    "variant": "author",
    "judging_seconds": 1.25,
    "inpainting_seconds": 0.5,
    "judging_waited_for_inpainting_seconds": 0.0,
}


def test_a_table_of_each_figure_with_a_column_for_each_judge():
    judges = {"first": judge(False, 0.5, 1.2345, 0.5), "own": judge(True, 0.7, 1, 0.25)}
    accuracy, cross_entropy, entropy, notes = describe_judges(judges, HOW).split("\n\n")
    assert accuracy.splitlines() == [
        "accuracy %                  mask area %              first               own*",
        "--------------------------  -----------  -----------------  -----------------",
        "image, clean                          -  50.0 [40.0, 60.0]  70.0 [60.0, 80.0]",
        "CASM, masked-out inpainted         37.5  25.0 [15.0, 35.0]  25.0 [15.0, 35.0]",
    ]
    assert cross_entropy.splitlines()[2].split()[-2:] == ["1.234", "1.000"]
    assert entropy.splitlines()[2].split()[-2:] == ["0.500", "0.250"]
    assert "variant author" in notes and "goes back to the same" in notes
    alone = describe_judges({"first": judges["first"]}, HOW)
    assert "goes back" not in alone


ROW = {
    "le": 0.25,
    "le_interval": (0.2, 0.3),
    "mask_mean": 0.5,
    "sm": 0.3184,
    "sm_interval": (-0.25, 0.5),
    "sm_log_probability": -1.0,
    "sm_accuracy": 0.75,
}
TABLE = {
    "black_box": ROW | {"accuracy": 0.5, "top5_accuracy": 0.875},
    "other": ROW | {"accuracy": 0.625, "top5_accuracy": 1.0},
    "whole_image": ROW,
}
EVALUATED = {
    "workdir": "run",
    "checkpoint": 7,
    "data": "pets",
    "split": "test",
    "images": 5,
    "images_without_box": 0,
    "images_by_class": {"rows": 5},
    "training_classes": 3,
    "image_size": 64,
    "crop_classifier": {"path": "judge", "image_size": 96},
    "crop_seconds": 1.5,
    "network_seconds": 1.0,
    "metric_seconds": 1.0,
    "metric_threads": 2,
    "compile_seconds": 1.0,
    "wall_seconds": 2.0,
}


def test_the_saliency_metric_is_in_nats_and_shares_in_per_cent():
    what, scores, _, saliency, classifiers, notes = describe(
        {"rows": TABLE}, EVALUATED
    ).split("\n\n")
    assert what == "run, checkpoint 7, on 5 images of pets test at 64 pixels"
    assert scores.splitlines()[2].split() == [
        *("black-box", "masker", "25.0", "[20.0,", "30.0]", "-", "-", "-")
    ]
    assert saliency.splitlines()[3].split() == [
        *("other", "0.318", "[-0.250,", "0.500]", "-", "-1.000", "75.0")
    ]
    assert classifiers.splitlines() == [
        "classifier of black-box masker: top-1 accuracy 50.0 %, top-5 87.5 %",
        "classifier of other: top-1 accuracy 62.5 %, top-5 100.0 %",
    ]
    assert "crops answered by judge at 96 pixels" in notes
    assert "iterative" not in notes


def test_the_time_that_a_masker_saves():
    rows, seconds = TABLE | {"iterative": ROW}, {"network_seconds": 80.0}
    how = EVALUATED | {"iterative": {"iterations": 200, **seconds}}
    text = describe({"rows": rows}, how)
    assert "\niterative mask    25.0 [20.0, 30.0]" in text
    assert text.endswith(
        "iterative masks, 200 iterations each: 0.0625 a second; the masker's 5"
    )


def test_unseen_classes_have_tables_of_their_own():
    tables = {"rows": TABLE, "seen": TABLE, "unseen": TABLE}
    how = EVALUATED | {"images_by_class": {"rows": 5, "seen": 2, "unseen": 3}}
    text = describe(tables, how)
    assert text.count("saliency metric") == 3
    first = text.index("2 images of the 3 classes that the run's training data have")
    assert first < text.index("3 images of none of the 3 classes")
    how = EVALUATED | {"images_by_class": {"rows": 5, "unseen": 5}}
    alone = describe({"rows": TABLE, "unseen": TABLE}, how)
    assert alone.count("saliency metric") == 1
    assert "5 images of none of the 3 classes that the run's training" in alone

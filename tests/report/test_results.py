from saliency_jax.report.results import describe_judges


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

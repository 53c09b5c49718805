"""The README's example does what it says."""

import re
from pathlib import Path

import jax

from saliency_jax.models.create import create_backbone
from tests.weights_files import write_weights

README = Path(__file__).parent.parent / "README.md"


def examples_with(word):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    examples = [block for block in blocks if word in block]
    assert examples
    return examples


def test_the_examples_run(casm_run, black_box_run, tmp_path, monkeypatch):
    examples = examples_with("saliency_fn")
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    (tmp_path / "runs" / "demo" / "casm").symlink_to(casm_run)
    (tmp_path / "runs" / "black_box").symlink_to(black_box_run)
    monkeypatch.chdir(tmp_path)
    for example in examples:
        names = {}
        exec(compile(example, "README.md", "exec"), names)
        masks = names["masks"]
        assert masks.shape == names["images"].shape[:-1]
        assert jax.numpy.all((masks >= 0) & (masks <= 1))


def test_the_example_of_the_methods_runs(tmp_path, monkeypatch):
    """With fewer pixels and masks than a reader would take."""
    write_weights(
        tmp_path / "mobilenet_v2_tf.safetensors", create_backbone("mobilenet_v2", 1000)
    )
    monkeypatch.chdir(tmp_path)
    (example,) = examples_with("attribution.grad_cam")
    for many, few in (("224", "32"), ("masks=1000", "masks=4")):
        assert many in example
        example = example.replace(many, few)
    names = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["maps"].shape == names["inside"].shape == (4, 32, 32)


def test_the_example_of_the_synthesis_runs(tmp_path, monkeypatch):
    """With smaller images and fewer steps."""
    write_weights(
        tmp_path / "mobilenet_v2_tf.safetensors", create_backbone("mobilenet_v2", 1000)
    )
    monkeypatch.chdir(tmp_path)
    (example,) = examples_with("class_image")
    assert example.count("**LEGIBLE") == 1
    names = {}
    few = example.replace("**LEGIBLE", "image_size=32, steps=2")
    exec(compile(few, "README.md", "exec"), names)
    assert names["images"].shape == names["attacked"].shape == (1, 32, 32, 3)

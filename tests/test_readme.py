"""The README's example does what it says."""

import re
from pathlib import Path

import jax

README = Path(__file__).parent.parent / "README.md"


def test_the_examples_run(casm_run, black_box_run, tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    examples = [block for block in blocks if "saliency_fn" in block]
    assert examples
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

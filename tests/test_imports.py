"""What importing a part of the library brings with it, in a fresh process."""

import subprocess
import sys

import pytest

DATA = {"tensorflow_datasets", "grain", "array_record"}
CHECKPOINTS = {"orbax", "tensorstore"}
PICTURES = {"cv2", "PIL", "matplotlib"}
TRAINING = {"tensorboardX", "torch"}
ALL = {"jax", "flax", "scipy", *DATA, *CHECKPOINTS, *PICTURES, *TRAINING}


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import saliency_jax", ALL),
        ("from saliency_jax import saliency_fn, load_masker", ALL - {"jax", "flax"}),
        ("from saliency_jax import load_classifier", ALL - {"jax", "flax"}),
        ("import saliency_jax.attribution, saliency_jax.metrics", DATA | CHECKPOINTS),
        (
            "import saliency_jax.explain.__main__",
            DATA | CHECKPOINTS | TRAINING | {"scipy", "matplotlib"},
        ),
        ("import evaluate", {"matplotlib", *TRAINING}),
        ("import train", {"matplotlib", "torch"}),
    ],
)
def test_what_is_slow_to_import_comes_when_it_is_used(statement, absent):
    program = f"import sys; {statement}; print(*sys.modules)"
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert not absent.intersection(found.split())


def test_pytorch_can_be_imported_after_tensorboard():
    pytest.importorskip("torch")
    program = "import saliency_jax.training.tensorboard, torch; torch.ones(1)"
    subprocess.run([sys.executable, "-c", program], check=True)

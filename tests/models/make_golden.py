"""Writes tests/golden/resnet_taps.npz from the PyTorch reference.

python -m tests.models.make_golden        # needs torch; written with 2.13
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.models import reproducible
from tests.models.cases import CASES, Case

PATH = Path(__file__).parent.parent / "golden" / "resnet_taps.npz"


def reference(case: Case) -> tuple[dict, dict[str, np.ndarray], Any]:
    """PyTorch's outputs, its weights before the forward pass, and its module."""
    import torch

    from tests.models import torch_resnet

    module = torch_resnet.TorchResNet(*case[:4])
    arrays = reproducible.state_dict(torch_resnet.shapes_of(module))
    torch_resnet.load(module, arrays)
    images = torch_resnet.to_torch(reproducible.images(case.images))
    forward = lambda: module(images)
    outputs = {}
    with torch.no_grad():
        if case.train:
            (logits, taps), variances = torch_resnet.biased_running_variances(
                module, forward
            )
            state = module.state_dict()
            means = {n: state[n].numpy() for n in state if n.endswith("running_mean")}
            outputs["running"] = flat_by_name(variances | means)
        else:
            logits, taps = module.eval()(images)
    outputs["logits"] = logits.numpy()
    for index, tap in enumerate(taps):
        outputs[f"tap{index}"] = torch_resnet.from_torch(tap)
    return outputs, arrays, module


def flat_by_name(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """All values in one row, in the order of the names."""
    return np.concatenate([np.ravel(arrays[name]) for name in sorted(arrays)])


def main() -> None:
    golden = {}
    for name, case in CASES.items():
        outputs, arrays, _ = reference(case)
        shapes = {key: array.shape for key, array in arrays.items()}
        golden[f"{name}/shapes"] = np.array(json.dumps(shapes))
        for key, value in outputs.items():
            golden[f"{name}/{key}"] = reproducible.sample(value)
            print(name, key, value.shape, "std", value.std(), "max", abs(value).max())
    np.savez_compressed(PATH, **golden)
    print(PATH, PATH.stat().st_size, "bytes")


if __name__ == "__main__":
    main()

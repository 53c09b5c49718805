"""What a start does about checkpoints that are no longer what was written."""

import shutil
from pathlib import Path

from saliency_jax.errors import InputError
from saliency_jax.training import checksums
from saliency_jax.training.checkpoints import checkpoint_folder, saved_steps


def set_aside_damaged(workdir: Path) -> list[str]:
    """Moves checkpoints away that fail their checksums, so that the latest is whole.

    Returns:
      A warning for each.

    Raises:
      InputError: no checkpoint of the run is whole. Nothing is moved then.
    """
    aside, warnings = checkpoint_folder(workdir, "damaged"), []
    for kind in ("last", "best"):
        moved, steps = [], saved_steps(workdir, kind)
        while steps:
            folder = checkpoint_folder(workdir, kind) / str(steps[-1])
            wrong = checksums.damage(folder)
            if wrong is None:
                break
            moved.append((steps.pop(), folder, wrong))
        if kind == "last" and moved and not steps:
            raise InputError(
                f"every checkpoint of {workdir} is damaged ({moved[0][2]}): put a copy "
                "of it back, or start in another workdir"
            )
        for step, folder, wrong in moved:
            to = aside / f"{kind}_{step}"
            shutil.rmtree(to, ignore_errors=True)
            to.parent.mkdir(exist_ok=True)
            folder.rename(to)
            instead = f"step {steps[-1]} is used" if steps else "there is no other"
            warnings.append(
                f"warning: checkpoint {kind}/{step} is damaged ({wrong}) and moved to "
                f"{to}: {instead}"
            )
    return warnings

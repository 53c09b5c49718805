"""Makes images: of classes, that fool classifiers, and that keep their class.

    python -m saliency_jax.synthesis class_images --help
    python -m saliency_jax.synthesis attack --help
    python -m saliency_jax.synthesis variations --help

Each of the commands has flags of its own.
"""

import sys
from collections.abc import Sequence

from absl import flags

from saliency_jax.errors import InputError, run_command
from saliency_jax.synthesis import (
    attack_command,
    class_images_command,
    variations_command,
)

# A command is a module with `define_flags()` and `main(argv)`.
COMMANDS = {
    "class_images": class_images_command,
    "attack": attack_command,
    "variations": variations_command,
}


def main(argv: Sequence[str]) -> None:
    """Runs the command that the first argument names."""
    if len(argv) < 2 or argv[1] not in COMMANDS:
        raise InputError(
            "usage: python -m saliency_jax.synthesis COMMAND --flags; COMMAND comes "
            f"first and is one of {', '.join(COMMANDS)}"
        )
    COMMANDS[argv[1]].main([argv[0], *argv[2:]])


if __name__ == "__main__":
    # absl's --help tells of the main module only.
    named = sys.argv[1] if len(sys.argv) > 1 else ""
    if named in COMMANDS:
        __doc__ = COMMANDS[named].__doc__
        COMMANDS[named].define_flags()
        flags.adopt_module_key_flags(COMMANDS[named])
    run_command(main)

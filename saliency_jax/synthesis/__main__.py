"""`python -m saliency_jax.synthesis COMMAND --flags`."""

import sys
from collections.abc import Sequence

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
    # Each command has flags of its own.
    named = sys.argv[1] if len(sys.argv) > 1 else ""
    if named in COMMANDS:
        COMMANDS[named].define_flags()
    run_command(main)

"""The one exception for mistakes that a user can mend, and the wrapper of commands."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging


class InputError(ValueError):
    """Something from outside (file, flag, label, box, checkpoint) is not usable.

    The message is one line: it names the thing, says what was expected and what to
    do. Commands print it without a traceback and exit with code 2.
    """


def _report_unraisable(unraisable: Any) -> None:
    """Is silent about orbax's threads that outlive an error of one of them."""
    if "Event loop is closed" not in str(unraisable.exc_value):
        sys.__unraisablehook__(unraisable)


def run_command(main: Callable[[Sequence[str]], None]) -> None:
    """Runs `main` as an absl command; an `InputError` is one line and exit code 2."""

    def guarded(argv: Sequence[str]) -> None:
        # Orbax reports every file that it touches, and absl starts at INFO.
        logging.set_verbosity(logging.WARNING)
        sys.unraisablehook = _report_unraisable
        try:
            main(argv)
        except InputError as error:
            message = " ".join(str(error).split())
            print(f"error: {message}", file=sys.stderr)
            sys.exit(2)

    def parse(argv: Sequence[str]) -> Sequence[str]:
        try:
            return flags.FLAGS(argv)
        except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
            message = " ".join(str(error).split())
            print(f"error: {message} (see --help)", file=sys.stderr)
            sys.exit(2)

    app.run(guarded, flags_parser=parse)

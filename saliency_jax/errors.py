"""The one exception for mistakes that a user can mend, and the wrapper of commands."""

import contextlib
import difflib
import errno
import logging as standard_logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from absl import app, flags, logging

_MANY = 60  # names that nobody reads to the end
_CLOSEST = 5
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class InputError(ValueError):
    """Something from outside (file, flag, label, box, checkpoint) is not usable.

    The message is one line: it names the thing, says what was expected and what to
    do. Commands print it without a traceback and exit with code 2.
    """

    def __init__(self, message: str):
        # It may quote a file, and a file may have line breaks anywhere.
        super().__init__(" ".join(message.split()))


def report(error: InputError) -> None:
    """Prints the one line that a command says of a mistake."""
    print(f"error: {error}", file=sys.stderr)


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Returns the message for a name that is none of the known ones.

    Args:
      kind: what it names, such as "method".
      name: as it was given.
      known: all names, in the order to list them; of many only the closest are.
    """
    known = tuple(dict.fromkeys(known))
    if len(known) > _MANY:
        near = difflib.get_close_matches(name, known, _CLOSEST, cutoff=0.0)
        return f"no {kind} {name!r}: the closest of {len(known)} are {', '.join(near)}"
    near = difflib.get_close_matches(name, known, n=1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    return f"no {kind} {name!r}{meant}: use one of {', '.join(known)}"


def shortened(text: str) -> str:
    """What a file holds, for a message: cut where it is long."""
    return text if len(text) <= 80 else f"{text[:77]}..."


@contextlib.contextmanager
def unwritable_told() -> Iterator[None]:
    """Makes an `InputError` of what a full or read-only disk leads to, in any thread.

    Raises:
      InputError: names the file.
    """
    try:
        yield
    except InputError:  # which tells more
        raise
    except Exception as error:
        if message := _unwritable(error):
            raise InputError(message) from error
        raise


def _unwritable(error: BaseException | None) -> str | None:
    """What to say of the first error of a chain that is a disk's; None without one."""
    while error is not None:
        reason, path = None, None
        if isinstance(error, OSError) and error.errno in _UNWRITABLE:
            reason, path = os.strerror(error.errno), error.filename
        elif found := re.search(
            r'"([^"]*)".*?(No space left|quota|Read-only)', str(error)
        ):
            # Of tensorstore, which has no class for it.
            path, reason = found[1], found[2]
        if reason:
            return (
                f"{path or 'a file'} cannot be written ({reason}): make room, or "
                "choose another folder; what was saved before is whole, and the same "
                "command goes on from there"
            )
        error = error.__cause__ or error.__context__
    return None


def _report_unraisable(unraisable: Any) -> None:
    """Is silent about orbax's threads that outlive an error of one of them."""
    if "Event loop is closed" not in str(unraisable.exc_value):
        sys.__unraisablehook__(unraisable)


def _one_line(error: Exception) -> str:
    """What a person needs to know of an error of the command line.

    Of an `InputError` on the way to it, its message alone: absl and ml_collections wrap
    what a config file raises, the traceback within the message.
    """
    link, cause = error, error
    while link is not None:
        cause = link if isinstance(link, InputError) else cause
        link = link.__cause__ or link.__context__
    text = str(cause)
    wrapped = re.findall(r"^saliency_jax\.errors\.InputError: (.*)", text, re.MULTILINE)
    if wrapped:
        return wrapped[-1]
    if isinstance(cause, InputError):
        return " ".join(text.split())
    # Both are all that ml_collections says; the second is of a field that Python keeps
    # for itself, such as `lambda`.
    if name := re.fullmatch(r"\W*(\w+)\W*", text) or re.match(
        r"Could not parse '([\w.]+)'", text
    ):
        return f"the config has no field {name[1]!r} (see --help)"
    lines = text.strip().splitlines() or [type(error).__name__]
    if "Traceback (most recent call last):" in lines:
        return f"{lines[0]} {lines[-1]}"
    return f"{lines[-1].strip()} (see --help)"


def run_command(main: Callable[[Sequence[str]], None]) -> None:
    """Runs `main` as an absl command; an `InputError` is one line and exit code 2.

    So is whatever keeps the flags, or a config file that they name, from being read.
    After Ctrl-C the exit code is 130. What JAX compiles is kept for the next command
    (`compilation_cache`).
    """

    def guarded(argv: Sequence[str]) -> None:
        # Orbax reports every file that it touches, and absl starts at INFO. Of an error
        # each of its tasks logs a traceback, and one of them raises it.
        logging.set_verbosity(logging.WARNING)
        logging.get_absl_handler().addFilter(
            lambda record: "orbax" not in record.pathname
        )
        standard_logging.getLogger("asyncio").setLevel(standard_logging.CRITICAL)
        sys.unraisablehook = _report_unraisable
        if "jax" in sys.modules:  # which some commands do without
            from saliency_jax.compilation_cache import use_compilation_cache

            use_compilation_cache()
        try:
            with unwritable_told():
                main(argv)
        except InputError as error:
            report(error)
            sys.exit(2)
        except KeyboardInterrupt:
            print(
                "stopped by Ctrl-C: the same command goes on from what is saved",
                file=sys.stderr,
            )
            sys.exit(130)

    def parse(argv: Sequence[str]) -> Sequence[str]:
        try:
            rest = flags.FLAGS(argv)
            for name in flags.FLAGS:
                # ml_collections puts off the error of a file that it cannot open until
                # the config is touched.
                getattr(flags.FLAGS[name].value, "touched", None)
        except (
            flags.Error,
            AttributeError,
            ImportError,
            KeyError,
            OSError,
            SyntaxError,
            TypeError,
            ValueError,
        ) as error:
            print(f"error: {_one_line(error)}", file=sys.stderr)
            sys.exit(2)
        return rest

    app.run(guarded, flags_parser=parse)

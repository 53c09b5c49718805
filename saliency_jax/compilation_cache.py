"""What JAX compiles, kept from one command to the next."""

import hashlib
import os
import platform
import stat
from pathlib import Path

import jax


def use_compilation_cache() -> None:
    """Has JAX keep compiled programs in the user's folder of caches.

    That is `$XDG_CACHE_HOME/saliency_jax/<processor>`, by default in `~/.cache`. JAX's
    own settings come first: `JAX_COMPILATION_CACHE_DIR` names another folder,
    `JAX_ENABLE_COMPILATION_CACHE=false` does without. So does a folder that cannot be
    made, or that others may write to: what is in it is run. Nothing is ever deleted;
    anyone may, at any time. JAX says so of an entry that a kill has cut off, and
    compiles. Several processes of one run (`training.processes`) keep nothing.
    """
    if jax.config.jax_compilation_cache_dir:
        return
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = caches / "saliency_jax" / _processor()
        str(folder).encode()  # JAX's configuration takes no other bytes
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except (OSError, RuntimeError, UnicodeError):  # the second without a home
        return
    others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if found.st_uid == os.getuid() and not others_write:
        jax.config.update("jax_compilation_cache_dir", str(folder))


def _processor() -> str:
    """A name that machines share which can run each other's programs.

    A home folder may be that of a whole cluster, and a program for processors has all
    the instructions of the one it was compiled on.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [f"model name {platform.processor()}"]
    told = {line for line in lines if line.startswith(("model name", "flags", "Feat"))}
    digest = hashlib.sha256("\n".join(sorted(told)).encode()).hexdigest()
    return f"{platform.machine()}-{digest[:12]}"

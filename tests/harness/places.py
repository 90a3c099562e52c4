"""Where scripts find what was built, and leave what they make."""

import os
import pathlib
import shutil

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").resolve()
# For what is downloaded.
CACHE = pathlib.Path(os.environ.get("CDE_CI_CACHE") or TARGET).resolve()


def empty(folder):
    """Makes it, with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def resolved(path):
    """As a type of arguments: programs are started in other folders than the one where this was written."""
    return pathlib.Path(path).resolve()

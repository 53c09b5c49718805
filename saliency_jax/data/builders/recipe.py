"""What a builder hands to the preparation: the list of examples and how one is made."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from saliency_jax.errors import InputError


class UnreadableImage(InputError):
    """An image file that cannot be decoded; it is skipped unless `--strict` is given.

    Every other `InputError` of a builder (a wrong box, an unknown class) stops the
    preparation.
    """


class Task(NamedTuple):
    """One example to make; small, and of JSON's types only."""

    split: str
    key: str
    """Unique within the split; the order of the records is that of its hash."""
    label: int
    path: str
    """Of the image, relative to the source; of a rendered scene its index."""
    detail: Any = None
    """What else the builder needs to make the example."""
    size: int = 0
    """Of the image file in bytes; 0 where there is none."""
    stamp: int = 0
    """When the image file changed last, in nanoseconds."""


class FiledRow(NamedTuple):
    """A row of an annotation file that speaks of one image of many."""

    path: str
    """Of the image, as `Task.path`."""
    line: int
    """In the annotation file, from 1."""
    values: Any
    """Of JSON's types only."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A data set to be written; picklable, so that worker processes can make examples.

    `list_tasks` counts, in the counter that it is given, files that it leaves out, by
    their suffix. `list_rows` yields the rows of an annotation file; those of a task's
    image replace its `detail`, in the order of the file.
    """

    name: str
    config: str | None
    """Names the folder between those of the data set and of the version."""
    module: str
    """The builder's."""
    description: str
    splits: tuple[str, ...]
    class_names: tuple[str, ...]
    image_format: str | None
    """"jpeg", "png", or None where images are of any format."""
    object_masks: bool
    """Whether each example carries the mask of its object."""
    upright: bool
    """Whether images are turned as their EXIF orientation says when decoded."""
    list_tasks: Callable[[Counter[str]], Iterator[Task]]
    make_example: Callable[[Task], dict[str, Any]]
    """Returns the features of an example and, under "kinds", what to count it as."""
    other_objects: bool = False
    """Whether each example carries the class and the mask of another object."""
    other_labels: bool = False
    """Whether each example carries the classes that it shows besides its label."""
    source: str = ""
    """The folder of the raw files, where there is one."""
    follow_links: bool = False
    """Whether symbolic links may lead to images outside `source`."""
    if_empty: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Why a split may lack images, and what to do about it."""
    rows_file: str = ""
    list_rows: Callable[[], Iterator[FiledRow]] | None = None

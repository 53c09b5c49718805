"""What the features of a prepared data set may name."""

from typing import Any

_FEATURES = "tensorflow_datasets.core.features."


def check_features(content: Any) -> None:
    """Refuses features of other code: TFDS imports the module that each of them names.

    Raises:
      ValueError: which names it.
    """
    if isinstance(content, list):
        for part in content:
            check_features(part)
    elif isinstance(content, dict):
        for key, part in content.items():
            named = key in ("pythonClassName", "python_class_name", "type")
            if named and isinstance(part, str) and not part.startswith(_FEATURES):
                raise ValueError(f"{part:.99} is none of TFDS's features")
            check_features(part)

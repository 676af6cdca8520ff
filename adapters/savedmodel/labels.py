"""Which version a label stands for, decided without a clock and without TensorFlow.

Belongs here: one pure rule. Source: TensorFlow Serving's version labels. A label may be given only
to a version that serves at that moment, so a server that starts cold refuses labels; where that is
allowed, a label that is new may go to any version, and one that is in use may move only to a
version that serves.
"""

from collections.abc import Callable, Iterable, Mapping

from adapters.savedmodel.status import Code, ServingError
from adapters.savedmodel.watch import ModelSource

Labels = Mapping[str, Mapping[str, int]]
"""Versions by model and label."""


def assign(
    sources: Iterable[ModelSource],
    before: Labels,
    serves: Callable[[str, int], bool],
    early: bool,
) -> Labels:
    """The labels of a new configuration.

    Args:
        sources: the models with their labels.
        before: the labels until now.
        serves: True where a model's version is AVAILABLE.
        early: labels may be given before the version serves, if they are new.

    Raises:
        ServingError: FAILED_PRECONDITION where a label may not be given; nothing is changed then.
    """
    labels: dict[str, dict[str, int]] = {}
    for source in sources:
        known = before.get(source.name, {})
        for label, version in source.labels.items():
            is_free = early and known.get(label, version) == version
            if not is_free and not serves(source.name, version):
                raise ServingError(
                    Code.FAILED_PRECONDITION,
                    f"Request to assign label to version {version} of model {source.name}, which "
                    "is not currently available for inference",
                )
            labels.setdefault(source.name, {})[label] = version
    return labels

"""Why a model is not served, or a registry cannot do what it is asked."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a model was refused: a label of `nowgraph_model_swaps_total`."""

    # The registry, or a version of it, cannot be read just now.
    UNAVAILABLE = "unavailable"
    # A file is missing, truncated or altered, or a weight is not finite.
    CORRUPT = "corrupt"
    # Whole, but of another task, schema, kind or sampling plan than what it is to serve.
    MISMATCH = "mismatch"
    # It answers its golden requests otherwise than it did when it was pushed.
    GOLDEN = "golden"
    # Its first answer on the live graph failed or is no number.
    WARM_UP = "warm_up"


class ModelRefused(Exception):
    """A model that must not answer; what was served before goes on."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class RegistryError(Exception):
    """A registry has no such task, version or channel, or must not be changed so."""

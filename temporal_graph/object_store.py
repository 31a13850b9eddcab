"""What the libraries of object stores raise, in words for whoever has to mend it.

Each has errors of its own (botocore's are no OSError), so that a place behind a URL can fail with any Exception: who
uses one catches them all, and says the place itself.
"""

from __future__ import annotations


def why(error: Exception) -> str:
    """Return what failed, and where it is none of the machine's own errors, what to look at."""
    text = str(error).strip() or type(error).__name__
    if isinstance(error, ImportError):
        return f"{text} (the library of this kind of place is not installed)"
    if isinstance(error, OSError | ValueError) and not isinstance(
        error, PermissionError | ConnectionError | TimeoutError
    ):
        return text
    return f"{type(error).__name__}: {text} (look at the place's name, the credentials its library finds, the network)"

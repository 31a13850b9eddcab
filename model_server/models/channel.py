"""What a channel says: which version is live, which one has a share of the keys, which ones only watch.

All of it is one small file, so that one replacement changes it: promoting a canary leaves no moment with both or none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Self

from model_server.config import SHADOWS_LIMIT
from model_server.models.errors import RegistryError

FORMAT = 1
# Earlier live versions that are remembered: more than anybody rolls back, and a file of a few kilobytes.
HISTORY_LIMIT = 50


@dataclass(frozen=True, slots=True)
class Canary:
    """A version that answers a share of the keys: 0 to 1, neither of them.

    A server promotes it by itself once the canary was asked `promote_after` times there, and ends it as soon as it has
    failed more than the share `failures_max` of them; 0 leaves both to a command.
    """

    version: str
    share: float
    promote_after: int = 0
    failures_max: float = 0.0

    @property
    def failures_limit(self) -> int:
        """How often it may fail before it is ended."""
        return int(self.promote_after * self.failures_max)


@dataclass(frozen=True, slots=True)
class Live:
    """A version, and from when on it was live (ISO 8601, UTC)."""

    version: str
    since: str


@dataclass(frozen=True, slots=True)
class Channel:
    """The models of a task as of one revision; `history` are those that were live before, the newest last."""

    revision: int
    live: Live
    canary: Canary | None = None
    shadows: tuple[str, ...] = ()
    history: tuple[Live, ...] = ()

    @classmethod
    def first(cls, version: str) -> Self:
        """The first revision of a channel."""
        return cls(1, Live(version, _now()))

    @property
    def version(self) -> str:
        """The version that is live."""
        return self.live.version

    @property
    def versions(self) -> tuple[str, ...]:
        """Every version that the channel needs, the live one first."""
        canary = () if self.canary is None else (self.canary.version,)
        return tuple(dict.fromkeys((self.version, *canary, *self.shadows)))

    def promote(self, version: str | None = None) -> Self:
        """Makes a version live, by default the canary; it is neither canary nor shadow from then on.

        Raises RegistryError where there is no canary, or the version is live already.
        """
        if version is None:
            if self.canary is None:
                raise RegistryError("there is no canary to promote: name a version")
            version = self.canary.version
        if version == self.version:
            raise RegistryError(f"{version} is live already")
        history = (*self.history, self.live)[-HISTORY_LIMIT:]
        return self._next(version, history)

    def rollback(self) -> Self:
        """Makes the version live that was so before, and takes the canary's share from it.

        Raises RegistryError where no version was live before.
        """
        if not self.history:
            raise RegistryError(f"no version was live before {self.version}")
        return replace(self._next(self.history[-1].version, self.history[:-1]), canary=None)

    def with_canary(self, canary: Canary | None) -> Self:
        """Gives a version a share of the keys, or none to any. Raises RegistryError for the live version."""
        if canary is not None and canary.version == self.version:
            raise RegistryError(f"{canary.version} is live already")
        if canary is not None and not 0.0 < canary.share < 1.0:
            raise RegistryError(f"share: expected more than 0 and less than 1, found {canary.share}")
        if canary is not None and not (canary.promote_after >= 0 and 0.0 <= canary.failures_max < 1.0):
            raise RegistryError("promote_after: expected 0 or more, and failures_max from 0 to less than 1")
        return replace(self, revision=self.revision + 1, canary=canary)

    def with_shadows(self, versions: Sequence[str]) -> Self:
        """Lets versions watch. Raises RegistryError for the live version or more than `SHADOWS_LIMIT`."""
        shadows = tuple(dict.fromkeys(versions))
        if self.version in shadows:
            raise RegistryError(f"{self.version} is live: it cannot be its own shadow")
        if len(shadows) > SHADOWS_LIMIT:
            raise RegistryError(f"at most {SHADOWS_LIMIT} shadows, found {len(shadows)}")
        return replace(self, revision=self.revision + 1, shadows=shadows)

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps(
            {
                "format": FORMAT,
                "revision": self.revision,
                "version": self.version,
                "since": self.live.since,
                "canary": None if self.canary is None else asdict(self.canary),
                "shadows": list(self.shadows),
                "history": [{"version": one.version, "since": one.since} for one in self.history],
            },
            indent=1,
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Reads a file's text. Raises RegistryError for what is none."""
        try:
            found: Mapping[str, Any] = json.loads(text)
            if found["format"] != FORMAT:
                raise RegistryError(f"a channel of format {found['format']}, this program reads format {FORMAT}")
            canary = found["canary"]
            return cls(
                revision=int(found["revision"]),
                live=Live(str(found["version"]), str(found["since"])),
                canary=None if canary is None else Canary(**canary),
                shadows=tuple(map(str, found["shadows"])),
                history=tuple(Live(str(one["version"]), str(one["since"])) for one in found["history"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise RegistryError(f"this is no channel: {error!r}") from None

    def _next(self, version: str, history: tuple[Live, ...]) -> Self:
        canary = None if self.canary is not None and self.canary.version == version else self.canary
        shadows = tuple(shadow for shadow in self.shadows if shadow != version)
        return replace(
            self,
            revision=self.revision + 1,
            live=Live(version, _now()),
            canary=canary,
            shadows=shadows,
            history=history,
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

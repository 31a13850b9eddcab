from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from model_server.models.channel import Canary, Channel
from model_server.models.errors import ModelRefused, Reason, RegistryError
from model_server.models.pushing import push
from model_server.models.registry import CACHE_LIMIT, MANIFEST_NAME, Registry

WEIGHTS = "weights.safetensors"


@pytest.fixture(params=["local", "memory"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    """A registry in a folder, and one behind a URL with a cache on this machine."""
    if request.param == "local":
        return Registry(tmp_path / "registry")
    return Registry(f"memory://registry-{tmp_path.name}", cache=tmp_path / "cache")


def put(registry: Registry, path: str, content: bytes) -> None:
    """Spoils a file of a registry."""
    filesystem, root = fsspec.core.url_to_fs(registry.url)
    filesystem.pipe_file(f"{root}/{path}", content)


def get(registry: Registry, path: str) -> bytes:
    """The bytes of a file of a registry."""
    filesystem, root = fsspec.core.url_to_fs(registry.url)
    content: bytes = filesystem.cat_file(f"{root}/{path}")
    return content


def test_a_version_is_fetched_as_it_was_pushed(registry: Registry, world: Any) -> None:
    """The same bytes under the checkpoint's own version, with golden requests; pushing again changes nothing."""
    manifest, added = push(registry, world.checkpoint, world.graph.view(), count=8)
    assert added
    assert (manifest.task, manifest.golden, manifest.kind) == ("fraud", 8, "binary")
    folder, found = registry.fetch("fraud", manifest.version)
    assert found == manifest
    assert (folder / WEIGHTS).read_bytes() == (world.checkpoint / WEIGHTS).read_bytes()
    assert push(registry, world.checkpoint, None)[1] is False
    assert registry.versions("fraud") == [manifest]
    assert registry.tasks() == ["fraud"]


@pytest.mark.parametrize("spoil", ["truncated", "altered", "missing"])
def test_a_spoiled_file_is_refused(registry: Registry, world: Any, spoil: str) -> None:
    """Whatever became of a file in the registry, it is not loaded, and the reason names it."""
    version = push(registry, world.checkpoint, None)[0].version
    path = f"fraud/{version}/{WEIGHTS}"
    content = get(registry, path)
    if spoil == "missing":
        filesystem, root = fsspec.core.url_to_fs(registry.url)
        filesystem.rm_file(f"{root}/{path}")
    else:
        put(registry, path, content[:-5] if spoil == "truncated" else content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ModelRefused, match=WEIGHTS) as caught:
        registry.fetch("fraud", version)
    assert caught.value.reason is Reason.CORRUPT


def test_half_a_push_is_no_version(registry: Registry, world: Any) -> None:
    """The manifest comes last: without it there is nothing to list, promote or load; pushing again completes it."""
    version = push(registry, world.checkpoint, None)[0].version
    filesystem, root = fsspec.core.url_to_fs(registry.url)
    filesystem.rm_file(f"{root}/fraud/{version}/{MANIFEST_NAME}")
    assert registry.versions("fraud") == []
    with pytest.raises(ModelRefused, match="has no version"):
        registry.change("fraud", "live", lambda _: Channel.first(version))
    assert push(registry, world.checkpoint, None)[1] is True
    assert len(registry.versions("fraud")) == 1


def test_a_version_never_changes(registry: Registry, world: Any) -> None:
    """Other weights under a name that is taken are refused when they are pushed."""
    manifest, _ = push(registry, world.checkpoint, None)
    path = f"fraud/{manifest.version}/{MANIFEST_NAME}"
    document = json.loads(get(registry, path))
    document["files"][WEIGHTS]["sha256"] = "0" * 64
    put(registry, path, json.dumps(document).encode())
    with pytest.raises(RegistryError, match="is there with other files"):
        push(registry, world.checkpoint, None)


def test_channels_point_to_versions_that_are_there(registry: Registry, world: Any) -> None:
    """A channel is read as it was written; a version that is not in the registry, or no channel, is refused."""
    version = push(registry, world.checkpoint, None)[0].version
    assert not registry.has_channel("fraud")
    with pytest.raises(RegistryError, match=r"has no channel 'live'.*promote"):
        registry.channel("fraud")
    made = registry.change("fraud", "live", lambda _: Channel.first(version))
    assert registry.channel("fraud") == made
    for step in (
        lambda channel: channel.promote("f" * 16),
        lambda channel: channel.with_canary(Canary("f" * 16, 0.1)),
        lambda channel: channel.with_shadows(["f" * 16]),
    ):
        with pytest.raises(ModelRefused, match="has no version ffffffffffffffff"):
            registry.change("fraud", "live", step)
    assert registry.channel("fraud") == made


@pytest.mark.parametrize("name", ["../fraud", "a/b", ".hidden", ""])
def test_names_stay_in_their_folder(registry: Registry, name: str) -> None:
    """A task, version or channel names a folder of the registry, and none outside."""
    with pytest.raises(RegistryError, match="expected a name"):
        registry.manifest(name, "aa")
    with pytest.raises(RegistryError, match="expected a name"):
        registry.channel("fraud", name)


def test_a_manifest_names_no_file_elsewhere(registry: Registry, world: Any) -> None:
    """A file outside of the version's folder is neither read nor written for a manifest that asks for it."""
    version = push(registry, world.checkpoint, None)[0].version
    path = f"fraud/{version}/{MANIFEST_NAME}"
    document = json.loads(get(registry, path))
    document["files"]["../../escape"] = document["files"][WEIGHTS]
    put(registry, path, json.dumps(document).encode())
    with pytest.raises(RegistryError, match="escape"):
        registry.fetch("fraud", version)


def test_the_cache_heals_itself_and_stays_small(world: Any, tmp_path: Path) -> None:
    """A spoiled copy on this machine is fetched again; old versions make room, the newest stay."""
    registry = Registry(f"memory://cached-{tmp_path.name}", cache=tmp_path / "cache")
    version = push(registry, world.checkpoint, None)[0].version
    folder, _ = registry.fetch("fraud", version)
    (folder / WEIGHTS).write_bytes(b"")
    assert (registry.fetch("fraud", version)[0] / WEIGHTS).stat().st_size > 0
    for number in range(CACHE_LIMIT + 3):
        (folder.parent / f"old{number}").mkdir()
    (folder.parent / "old0").touch()
    registry.fetch("fraud", version)
    kept = {one.name for one in folder.parent.iterdir()}
    assert len(kept) == CACHE_LIMIT
    assert version in kept


def test_what_this_machine_has_needs_no_registry(world: Any, tmp_path: Path) -> None:
    """A version that was fetched once is loaded again while the registry is away: a new graph needs its model."""
    registry = Registry(f"memory://away-{tmp_path.name}", cache=tmp_path / "cache")
    manifest, _ = push(registry, world.checkpoint, world.graph.view(), count=4)
    fetched = registry.fetch("fraud", manifest.version)
    filesystem, root = fsspec.core.url_to_fs(registry.url)
    filesystem.rm(root, recursive=True)
    assert registry.fetch("fraud", manifest.version) == fetched
    (fetched[0] / WEIGHTS).write_bytes(b"")
    with pytest.raises(ModelRefused) as caught:
        registry.fetch("fraud", manifest.version)
    assert caught.value.reason is Reason.UNAVAILABLE


def test_an_unknown_protocol_says_so() -> None:
    """A URL that nothing here can read is refused when it is given, by name."""
    with pytest.raises(RegistryError, match="nosuch://x"):
        Registry("nosuch://x")


class _CloudError(Exception):
    """As an object store's library raises: no OSError."""


@pytest.mark.parametrize("call", ["ls", "exists", "cat_file", "get_file", "put_file", "pipe_file"])
def test_errors_of_an_object_store_are_ours(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Whatever its library raises is said with the place and what to look at; nothing is there by half."""
    registry = Registry(f"memory://registry-{tmp_path.name}", cache=tmp_path / "cache")
    other = Registry(f"memory://other-{tmp_path.name}", cache=tmp_path / "cache")
    manifest, _ = push(registry, world.checkpoint, None)

    def refuse(*_: Any, **__: Any) -> None:
        raise _CloudError("no credentials")

    def ask() -> None:
        if call in ("put_file", "pipe_file"):
            push(other, world.checkpoint, None)
        elif call in ("ls", "exists"):
            registry.versions(manifest.task)
        else:
            registry.fetch(manifest.task, manifest.version)

    with monkeypatch.context() as failing:
        for each in (registry, other):
            failing.setattr(each._fs, call, refuse)
        with pytest.raises((RegistryError, ModelRefused), match=r"no credentials \(look at") as caught:
            ask()
    assert tmp_path.name in str(caught.value)
    assert registry.versions(manifest.task) == [manifest]
    assert other.versions(manifest.task) == []


@pytest.mark.parametrize("spoil", [lambda text: text[:-20], lambda text: text.replace('"format": 1', '"format": 7')])
def test_a_spoiled_manifest_is_refused(registry: Registry, world: Any, spoil: Callable[[str], str]) -> None:
    """A manifest that is half or of another format is no version to load."""
    version = push(registry, world.checkpoint, None)[0].version
    path = f"fraud/{version}/{MANIFEST_NAME}"
    put(registry, path, spoil(get(registry, path).decode()).encode())
    with pytest.raises(ModelRefused):
        registry.fetch("fraud", version)


def test_a_version_is_named_by_how_it_begins(registry: Registry, world: Any) -> None:
    """As with commits: enough of it to tell it apart; else what there is stands in the error."""
    version = push(registry, world.checkpoint, None)[0].version
    assert registry.named("fraud", version[:4]) == version
    with pytest.raises(RegistryError, match=f"no version.*begins with 'zz'.*{version}"):
        registry.named("fraud", "zz")
    with pytest.raises(RegistryError, match="there are: none"):
        registry.named("churn", "")

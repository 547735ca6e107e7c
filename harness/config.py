"""Names and overrides → one resolved, validated config. Hydra composes; errors come back as one line.

Listing what there is (:func:`available`) reads folder names only and imports neither Hydra nor anything heavy.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import importlib.resources
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import RequestError, did_you_mean

Config = dict[str, Any]

KEPT = 500
"""Compositions kept in the user's cache folder, some six kilobytes each."""


def config_dirs(extra: Sequence[Path] = ()) -> list[Path]:
    """The project's own ``configs`` and the folders a user adds, whose names win.

    Raises:
        RequestError: A folder that is not there.
    """
    for folder in extra:
        if not folder.is_dir():
            remedy = "give a folder that holds task/, baseline/ or sweep/"
            raise RequestError(f"no such folder: {folder}", where="--config-dir", remedy=remedy)
    return [*(folder.resolve() for folder in extra), Path(str(importlib.resources.files("configs")))]


def use(extra: Sequence[Path]) -> None:
    """Let a user's own tasks and baselines be imported: from the folder one is in and from those of ``--config-dir``."""
    for folder in [Path.cwd(), *(folder.resolve() for folder in extra)]:
        if str(folder) not in sys.path:
            sys.path.append(str(folder))


def available(group: str, extra: Sequence[Path] = ()) -> dict[str, str]:
    """Names of a config group with the one-line description at the top of each file, in alphabetical order."""
    found: dict[str, str] = {}
    for folder in reversed(config_dirs(extra)):
        for file in sorted((folder / group).glob("*.yaml")):
            head = file.read_text(encoding="utf-8", errors="replace").splitlines()[:3]
            comments = [line[1:].strip() for line in head if line.startswith("#")]
            found[file.stem] = next((line for line in comments if not line.startswith("@package")), "")
    return dict(sorted(found.items()))


def groups(extra: Sequence[Path] = ()) -> list[str]:
    """The config groups there are, in alphabetical order."""
    return sorted({file.parent.name for folder in config_dirs(extra) for file in folder.glob("*/*.yaml")})


def compose(overrides: Iterable[str] = (), extra: Sequence[Path] = ()) -> Config:
    """One config from the defaults and ``key=value`` overrides, resolved to plain dicts and lists.

    A composition is a fifth of a second of Hydra's time, and a sweep composes each of its arms; so what was composed before of
    the very same files and overrides is taken from the user's cache folder (``XDG_CACHE_HOME``).

    Raises:
        RequestError: An unknown key or name, or a value that cannot be; the remedy names the closest one.
    """
    overrides = list(overrides)
    kept = _kept(overrides, config_dirs(extra))
    if kept is not None:
        try:
            known: Config = json.loads(kept.read_text(encoding="utf-8"))
            return known
        except (OSError, ValueError):
            pass
    composed = _compose(overrides, extra)
    if kept is not None:
        _keep(kept, composed)
    return composed


def _compose(overrides: Sequence[str], extra: Sequence[Path]) -> Config:
    import yaml
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    *users, own = config_dirs(extra)
    search = [f"hydra.searchpath=[{','.join(map(_quoted, users))}]"] if users else []
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(own), version_base="1.3"):
            composed = hydra_compose("config", overrides=[*search, *overrides])
        resolved = OmegaConf.to_container(composed, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise _explain(error, overrides, extra) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RequestError(f"a YAML file cannot be used: {error}", where=" ".join(overrides) or "config.yaml") from None
    if not isinstance(resolved, dict):
        raise RequestError("the config is not a mapping", where="config.yaml")
    return {str(key): value for key, value in resolved.items()}


def _kept(overrides: Sequence[str], folders: Sequence[Path]) -> Path | None:
    """Where this composition is kept: by the content of every YAML it could read. None where one of them asks the environment."""
    digest = hashlib.sha256(json.dumps([sys.version, overrides]).encode())
    try:
        for file in sorted(path for folder in folders for path in folder.rglob("*.yaml")):
            text = file.read_bytes()
            if b"${" in text or any("${" in item for item in overrides):  # an interpolation may read the environment, or the clock
                return None
            digest.update(f"{file}\0{len(text)}\0".encode("utf-8", "surrogateescape") + text)
    except OSError:
        return None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "harness" / "configs" / f"{digest.hexdigest()[:32]}.json"


def _keep(path: Path, composed: Config) -> None:
    """Keep a composition where JSON says the same; where that cannot be written, it is composed again next time."""
    text = json.dumps(composed)
    if json.loads(text) != composed:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for old in sorted(path.parent.glob("*.json"), key=lambda file: file.stat().st_mtime)[:-KEPT]:
            old.unlink(missing_ok=True)
        partial = path.with_name(f".{path.stem}.{os.getpid()}")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError:
        pass


def place(config: Config, key: str, value: Any) -> None:
    """Set a dotted key that is already there.

    Raises:
        RequestError: No such key.
    """
    *path, last = key.split(".")
    node: Any = config
    for depth, part in enumerate(path):
        if not isinstance(node, dict) or part not in node:
            raise _no_such_key(".".join(path[: depth + 1]), key, node)
        node = node[part]
    if not isinstance(node, dict) or last not in node:
        raise _no_such_key(key, key, node)
    node[last] = value


def instantiate(node: Mapping[str, Any], **more: Any) -> Any:
    """What the ``_target_`` of a node makes of its other keys.

    Raises:
        RequestError: The target cannot be imported, or refuses its arguments.
    """
    from hydra.utils import get_class, get_method

    target = node.get("_target_")
    if not isinstance(target, str):
        raise RequestError("a config without _target_", where=str(dict(node))[:80])
    try:
        make = get_class(target) if target.rsplit(".", 1)[-1][:1].isupper() else get_method(target)
    except Exception as error:
        raise RequestError(f"cannot import {target}: {_first_line(error)}", where="_target_", remedy="is its file on the path?") from error
    arguments = {key: value for key, value in node.items() if key != "_target_"} | more
    try:
        return make(**arguments)
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is None:  # the call itself, not what it does
            raise RequestError(f"{target}: {_first_line(error)}", where="its YAML") from error
        raise


def dotted_keys(config: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Every key that can be set, with dots."""
    keys: list[str] = []
    for name, value in config.items():
        keys.append(prefix + name)
        if isinstance(value, Mapping):
            keys += dotted_keys(value, f"{prefix}{name}.")
    return keys


def leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is no mapping, by its dotted key.

    >>> list(leaves({"a": {"b": 1, "c": {}}, "d": [2]}))
    [('a.b', 1), ('d', [2])]
    """
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def at(tree: Mapping[str, Any], dotted: str) -> Any:
    """What stands at a dotted key; None where nothing does."""
    node: Any = tree
    for part in dotted.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def has(tree: Mapping[str, Any], dotted: str) -> bool:
    """Whether a dotted key is there, whatever stands at it."""
    path, _, last = dotted.rpartition(".")
    node = at(tree, path) if path else tree
    return isinstance(node, Mapping) and last in node


def changed(tree: Config, values: Mapping[str, Any]) -> Config:
    """The same config with other values at some dotted keys that it has."""
    other = copy.deepcopy(tree)
    for key, value in values.items():
        place(other, key, value)
    return other


def _quoted(folder: Path) -> str:
    """A folder as Hydra's grammar reads it, whatever characters its name has."""
    text = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    return f"'file://{text}'"


def _no_such_key(part: str, key: str, node: Any) -> RequestError:
    options = list(node) if isinstance(node, dict) else []
    return RequestError(f"no such key: {part}", where=key, remedy=did_you_mean(part.rsplit(".", 1)[-1], options) if options else None)


def _explain(error: Exception, overrides: Sequence[str], extra: Sequence[Path]) -> RequestError:
    text = str(error)
    if missing := re.search(r"Could not find '(\w+)/([^']*)'", text):
        group, name = missing.groups()
        return RequestError(f"no {group} is called {name!r}", where=f"{group}={name}", remedy=did_you_mean(name, available(group, extra)))
    if missing := re.search(r"In '([^']+)': Could not find '([^']+)'", text):
        return RequestError(f"{missing[1]}.yaml needs {missing[2]}, which is not there", where="defaults")
    if missing := re.search(r"Could not override '([^']+)'", text):
        key = missing[1]
        known = dotted_keys(compose([o for o in overrides if o.split("=")[0].strip("+~") in groups(extra)], extra))
        given = next((o for o in overrides if o.split("=")[0].strip("+~") == key), key)
        return RequestError(f"no such key: {key}", where=given, remedy=_closest_key(key, known))
    if missing := re.search(r"Ambiguous value for argument '([^']+)'", text):
        return RequestError("one value is wanted", where=missing[1], remedy="several are for the axes of a sweep; a list is written [a,b]")
    from hydra.errors import OverrideParseException

    if isinstance(error, OverrideParseException):
        what = f"{error.override!r} is no override: {_first_line(error)}"
        return RequestError(what, where="command line", remedy="write it as key=value")
    given = next((o for o in overrides if o.split("=")[0] in text), " ".join(overrides) or "config.yaml")
    return RequestError(_first_line(error if text.strip() else error.__cause__ or error.__context__ or error), where=given)


def _closest_key(key: str, known: Sequence[str]) -> str:
    """What to write for a dotted key that is not there: one that looks alike or is called so elsewhere, or what stands beside it."""
    parts = key.split(".")
    depth = max(end for end in range(len(parts)) if not end or ".".join(parts[:end]) in known)
    parent = ".".join(parts[:depth])
    beside = [name.rpartition(".")[2] for name in known if name.rpartition(".")[0] == parent]
    alike = difflib.get_close_matches(parts[depth], beside, n=1)
    elsewhere = [name for name in known if name.rpartition(".")[2] == parts[-1]]
    for name in [*(".".join([*parts[:depth], part, *parts[depth + 1 :]]) for part in alike), *elsewhere]:
        return f"did you mean '{name}'?"
    return f"choose from: {', '.join(sorted(beside))}" if beside else f"{parent} holds a value and no keys"


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)

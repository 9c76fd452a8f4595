"""The plugins that are installed and sound, and why the others are set aside.

Discovery happens on first use, over the entry points of group "inference_models". A
plugin that fails to import, misspells a hook or returns something else than classes is
set aside with its reason; the others work. The order of installation never matters.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import attrs
import pluggy

from inference_models import hookspecs
from inference_models.errors import did_you_mean
from inference_models.interfaces import Architecture, Backend, WeightsProvider

log = logging.getLogger("inference_models")

C = TypeVar("C", type[Backend], type[Architecture[Any]])
R = TypeVar("R")

API = 1
"""Value of `inference_models_api` that a plugin module may state."""

HOOKS: dict[str, type[Any]] = {
    "backends": Backend,
    "architectures": Architecture,
    "weights_providers": WeightsProvider,
}
"""The hooks, each with the class of what it returns."""


@attrs.frozen
class Plugin:
    """An entry point: its name, the distribution it came from, and how to load it."""

    name: str
    distribution: str
    version: str
    load: Any = attrs.field(repr=False, eq=False)
    module: str = ""


@attrs.frozen
class SetAside:
    """A plugin, or one class of it, that is not used, and why."""

    name: str
    distribution: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.distribution}): {self.reason}"

    @property
    def complaint(self) -> str:
        """The same as a line of its own."""
        return f"plugin set aside: {self}"


@attrs.frozen
class Registry:
    """Classes by name, one mapping a kind, and what was set aside."""

    backends: Mapping[str, type[Backend]]
    architectures: Mapping[str, type[Architecture[Any]]]
    weights_providers: Mapping[str, type[WeightsProvider]]
    plugins: tuple[Plugin, ...]
    set_aside: tuple[SetAside, ...]

    @property
    def complaints(self) -> list[str]:
        """A line for each plugin that was set aside, for errors that it may explain."""
        return [plugin.complaint for plugin in self.set_aside]

    def excused(self, sentence: str) -> str:
        """What is said of something that is missing, with what was set aside."""
        return "\n  ".join([sentence, *self.complaints])

    def backend(self, name: str) -> type[Backend] | None:
        """The backend of this name or alias."""
        return _by_name(self.backends, name)

    def architecture(self, name: str) -> type[Architecture[Any]] | None:
        """The architecture of this name or alias."""
        return _by_name(self.architectures, name)


def returned(value: Any, kind: type[R], asked: str) -> R:
    """What a plugin returned, if it is of the kind that core goes on with."""
    if not isinstance(value, kind):
        raise TypeError(f"{asked} returned {value!r:.80}, no {kind.__name__}")
    return value


def _by_name(classes: Mapping[str, C], name: str) -> C | None:
    if name in classes:
        return classes[name]
    aliased = (c for c in classes.values() if name in c.aliases)
    return next(aliased, None)


def installed() -> Registry:
    """The registry of this environment, made once for each list of disabled plugins."""
    return _installed(os.environ.get("INFERENCE_MODELS_DISABLED_PLUGINS", ""))


def refresh() -> None:
    """Look for plugins anew, for those installed since the first use."""
    _installed.cache_clear()


@functools.cache
def _installed(disabled: str) -> Registry:
    return build(entry_points(), disabled.replace(",", " ").split())


def entry_points() -> list[Plugin]:
    """Every plugin that installed distributions declare, not yet imported."""
    import importlib_metadata

    plugins: dict[str, list[Plugin]] = {}
    for distribution in importlib_metadata.distributions():
        found = _declared(distribution)
        if found:  # of two copies of a distribution, the first on the path counts
            plugins.setdefault(found[0].distribution, found)
    return [plugin for found in plugins.values() for plugin in found]


def _declared(distribution: Any) -> list[Plugin]:
    try:
        points = distribution.entry_points.select(group="inference_models")
    except Exception as error:  # noqa: BLE001 - one damaged file must not hide the rest
        log.warning("the entry points of an installed package are damaged: %s", error)
        return []
    if not points:
        return []
    try:
        name, version = _normal(distribution.name), distribution.version
    except Exception:  # noqa: BLE001 - an installation that was cut short
        name, version = "unknown", ""
    return [
        Plugin(point.name, name, version, point.load, point.value.partition(":")[0])
        for point in points
    ]


def build(plugins: Iterable[Plugin], disabled: Iterable[str] = ()) -> Registry:
    """Load plugins and sort their classes by kind and name."""
    aside: list[SetAside] = []
    allowed = _without_disabled(plugins, set(disabled), aside)
    kinds: dict[str, dict[str, Any]] = {kind: {} for kind in HOOKS}
    sound = []
    for plugin in _without_doubles(allowed, aside):
        try:
            classes = _classes(plugin)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a stranger raises
            aside.append(_set_aside(plugin, _sentence(error)))
            continue
        sound.append(plugin)
        for kind, found in classes.items():
            _add(kinds[kind], found, plugin, aside)
    by_name = {
        kind: {name: found[name][0] for name in sorted(found)}
        for kind, found in kinds.items()
    }
    return Registry(**by_name, plugins=tuple(sound), set_aside=tuple(aside))


def _without_disabled(
    plugins: Iterable[Plugin], disabled: set[str], aside: list[SetAside]
) -> list[Plugin]:
    names = {_normal(name) for name in disabled}
    plugins = list(plugins)
    known = {name for plugin in plugins for name in _names(plugin)}
    variable = "INFERENCE_MODELS_DISABLED_PLUGINS"
    warn_of_misspelt(variable, "plugin", sorted(names - known), known)
    allowed = []
    for plugin in plugins:
        if not names.isdisjoint(_names(plugin)):
            reason = "disabled by INFERENCE_MODELS_DISABLED_PLUGINS"
            aside.append(_set_aside(plugin, reason))
        else:
            allowed.append(plugin)
    return allowed


def _names(plugin: Plugin) -> tuple[str, str]:
    """What it can be disabled by."""
    return plugin.distribution, _normal(plugin.name)


def warn_of_misspelt(
    variable: str, what: str, unknown: Iterable[str], known: Iterable[str]
) -> None:
    """Warn of names that are like known ones; others may only be missing here."""
    for name in unknown:
        near = did_you_mean(name, known)
        if near:
            log.warning("%s names no %s %r%s", variable, what, name, near)


def _without_doubles(plugins: Iterable[Plugin], aside: list[SetAside]) -> list[Plugin]:
    """One plugin a name, first-party ones first, then by distribution."""
    chosen: dict[str, Plugin] = {}
    for plugin in sorted(plugins, key=_precedence):
        other = chosen.setdefault(plugin.name, plugin)
        if other is not plugin:
            aside.append(_set_aside(plugin, _taken(f"name {plugin.name!r}", other)))
    return list(chosen.values())


def _precedence(plugin: Plugin) -> tuple[bool, str, str]:
    first_party = plugin.distribution == f"inference-models-{_normal(plugin.name)}"
    return not first_party, plugin.distribution, plugin.name


def _taken(what: str, other: Plugin) -> str:
    return (
        f"the {what} is taken by {other.distribution}; to use this one instead, set "
        f"INFERENCE_MODELS_DISABLED_PLUGINS={other.distribution}"
    )


def _classes(plugin: Plugin) -> dict[str, list[type[Any]]]:
    """What the hooks of one plugin return; raises for whatever is wrong with it."""
    module = plugin.load()
    stated = getattr(module, "inference_models_api", API)
    if stated != API:
        raise TypeError(f"made for plugin API {stated!r}, and this is {API}")
    manager = pluggy.PluginManager("inference_models")
    manager.add_hookspecs(hookspecs)
    manager.register(module, plugin.name)
    _check_known(manager)
    _check_marked(module, manager)
    if not manager.get_hookcallers(module):
        raise TypeError(f"implements none of the hooks {', '.join(sorted(HOOKS))}")
    return {kind: _checked(kind, getattr(manager.hook, kind)()) for kind in HOOKS}


def _check_known(manager: pluggy.PluginManager) -> None:
    """Raise for a hook that there is not, with the one that may be meant."""
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        name = re.search(r"unknown hook '(\w+)'", str(error))
        if name is None:
            raise
        near = did_you_mean(name[1], HOOKS)
        raise TypeError(f"unknown hook {name[1]!r}{near}") from error


def _check_marked(module: Any, manager: pluggy.PluginManager) -> None:
    """Raise for a function that is called like a hook, and that pluggy passes over."""
    for name in sorted(HOOKS):
        is_there = callable(getattr(module, name, None))
        if is_there and manager.parse_hookimpl_opts(module, name) is None:
            raise TypeError(
                f"{name}() is no hook yet; write @inference_models.hookimpl above it"
            )


def _checked(kind: str, results: list[Any]) -> list[type[Any]]:
    """All classes in what the functions of a hook returned."""
    for result in results:
        if not isinstance(result, (list, tuple)):
            raise TypeError(f"{kind}() returned {result!r}, not a list of classes")
    classes = [found for result in results for found in result]
    for found in classes:
        _check_class(kind, found)
    return classes


def _check_class(kind: str, found: Any) -> None:
    wanted = HOOKS[kind]
    if not (isinstance(found, type) and issubclass(found, wanted)):
        raise TypeError(f"{kind}() returned {found!r}, no class of {wanted.__name__}")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
        raise TypeError(f"{found.__name__} does not implement {missing}")
    for attribute, is_right, wanted_form in _FORMS[kind]:
        value = getattr(found, attribute, None)
        if not is_right(value):
            raise TypeError(
                f"{found.__name__}.{attribute} is {value!r}, not {wanted_form}"
            )
    if kind != "architectures":
        found()  # whoever cannot be made without arguments must not be asked later


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_lower_text(value: Any) -> bool:
    return _is_text(value) and value == value.lower()


def _are_texts(value: Any) -> bool:
    return isinstance(value, tuple) and all(map(_is_text, value))


def _are_some_texts(value: Any) -> bool:
    return _are_texts(value) and value != ()


def _are_suffixes(value: Any) -> bool:
    written = re.compile(r"\.[^./A-Z]+")
    return _are_texts(value) and all(map(written.fullmatch, value))


def _are_two_texts(value: Any) -> bool:
    return _are_texts(value) and len(value) == 2


def _is_number(value: Any) -> bool:
    return isinstance(value, int)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


_NAME = ("name", _is_text, "a text")
_ALIASES = ("aliases", _are_texts, "a tuple of texts")
_RANK = ("rank", _is_number, "a whole number")
_FORMS: dict[str, list[tuple[str, Callable[[Any], bool], str]]] = {
    "backends": [
        ("name", _is_lower_text, "a text in lower case, as it is looked for"),
        _ALIASES,
        _RANK,
        ("formats", _are_some_texts, "a tuple of texts"),
        ("suffixes", _are_suffixes, "a tuple of texts such as '.npz', in lower case"),
        ("derives", _is_mapping, "a mapping of formats"),
        ("lends", _are_texts, "a tuple of texts"),
        ("own_precisions", _are_texts, "a tuple of texts"),
    ],
    "architectures": [
        _NAME,
        _ALIASES,
        _RANK,
        ("Options", attrs.has, "an attrs class"),
        ("elsewhere", _is_mapping, "a mapping of ids"),
        ("reads", _are_texts, "a tuple of texts"),
        ("tasks", _are_texts, "a tuple of texts"),
        ("outputs", _are_texts, "a tuple of texts"),
        ("fp32_modules", _are_texts, "a tuple of texts"),
        ("image_input", _are_two_texts, "a pair of texts: a graph and its tensor"),
    ],
    "weights_providers": [_NAME, ("order", _is_number, "a whole number")],
}
"""What core relies on in a class before it makes one: attribute, check, words."""


def _add(
    known: dict[str, tuple[type[Any], Plugin]],
    classes: list[type[Any]],
    plugin: Plugin,
    aside: list[SetAside],
) -> None:
    for found in classes:
        other, owner = known.setdefault(found.name, (found, plugin))
        if owner is not plugin:
            reason = _taken(f"name {found.name!r} of {found.__name__}", owner)
            aside.append(_set_aside(plugin, reason))
        elif other is not found:
            reason = f"{found.__name__} has the name {found.name!r} of {other.__name__}"
            aside.append(_set_aside(plugin, reason))


def _set_aside(plugin: Plugin, reason: str) -> SetAside:
    return SetAside(plugin.name, plugin.distribution, reason)


def _sentence(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {'; '.join(lines[:3])}".rstrip(": ")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()

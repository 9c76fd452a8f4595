"""Plugins made on the spot: classes of each kind, and a registry of them."""

from __future__ import annotations

from types import SimpleNamespace

from inference_models import Architecture, Backend, WeightsProvider, hookimpl
from inference_models.registry import Plugin

HOOKS = {
    Backend: "backends",
    Architecture: "architectures",
    WeightsProvider: "weights_providers",
}


def backend(name, **attributes):
    def devices(self):
        return ["cpu"]

    def open_(self, bundle, architecture, plan):
        return {}

    body = {"name": name, "formats": ("acme",), "devices": devices, "open": open_}
    return type(f"Backend_{name}", (Backend,), body | attributes)


def architecture(name, **attributes):
    def postprocess(self, outputs, frames, options, ops):
        return []

    body = {"name": name, "postprocess": postprocess}
    return type(f"Architecture_{name}", (Architecture,), body | attributes)


def provider(name, **attributes):
    def find(self, model_id, access):
        return None

    return type(
        f"Provider_{name}",
        (WeightsProvider,),
        {"name": name, "find": find} | attributes,
    )


def module(*classes, **attributes):
    """What importing a plugin gives: hooks that return these classes."""
    members = dict(attributes)
    for kind, hook in HOOKS.items():
        found = [cls for cls in classes if issubclass(cls, kind)]
        if found:
            members[hook] = hookimpl(returning(found), specname=hook)
    return SimpleNamespace(**members)


def returning(value):
    return lambda: value


def plugin(name, *classes, distribution=None, **attributes):
    loaded = module(*classes, **attributes)
    return Plugin(name, distribution or f"{name}-plugin", "1.0", lambda: loaded)

"""A third party's plugin: a backend that compiles acme's files before it runs them."""

from __future__ import annotations

import json

from acme_vision import AcmeBackend

from inference_models import Artifact, File, hookimpl

derived: list[str] = []
"""The model of each derivation."""


class AcmeCompiler(AcmeBackend):
    """The most preferred, once its files are built; an `error` spoils them."""

    name, formats, rank = "acme-compiled", ("acme-compiled",), 400
    aliases = ()
    derives = {"acme": "acme-compiled"}  # noqa: RUF012 - as plugins write it
    error = 0.0

    def derive(self, source, architecture, plan, folder, report):
        derived.append(source.card.id)
        report("compiling", 0.5)
        gain = json.loads(source.path().read_text("utf-8"))["gain"]
        text = json.dumps({"gain": [value + self.error for value in gain]})
        if self.error == float("inf"):
            (folder / "half.json").write_text("{", "utf-8")
            raise MemoryError("no room to compile")
        (folder / "compiled.json").write_text(text, "utf-8")
        return Artifact(
            "acme-compiled",
            {"main": "compiled.json"},
            [File("compiled.json", size=len(text))],
            precision=plan.precision,
        )

    def inspect(self, path):
        return None


@hookimpl
def backends():
    return [AcmeCompiler]

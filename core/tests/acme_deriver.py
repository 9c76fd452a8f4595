"""A third party's plugin: a backend that compiles acme's files before it runs them."""

from __future__ import annotations

import hashlib
import json

from acme_vision import AcmeBackend

from inference_models import Artifact, File, hookimpl

derived: list[str] = []
"""The model of each derivation."""


class AcmeCompiler(AcmeBackend):
    """The most preferred, once its files are built; an `error` spoils them.

    `version` is that of its runtime, and `written` what its files say that they need.
    Without `describes` it names its files alone.
    """

    name, formats, rank = "acme-compiled", ("acme-compiled",), 400
    aliases = ()
    derives = {"acme": "acme-compiled"}  # noqa: RUF012 - as plugins write it
    error, half_error = 0.0, None
    file = "compiled.json"
    version, written, describes = "1", None, True

    def refuse(self, card, artifact, plan):
        wanted = artifact.needs.get("version", self.version)
        if wanted != self.version:
            return f"compiled for version {wanted}, and here is {self.version}"
        return super().refuse(card, artifact, plan)

    def derive(self, source, architecture, plan, folder, report):
        derived.append(source.card.id)
        report("compiling", 0.5)
        gain = json.loads(source.path().read_text("utf-8"))["gain"]
        halved = plan.precision == "fp16" and self.half_error is not None
        error = self.half_error if halved else self.error
        text = json.dumps({"gain": [value + error for value in gain]})
        if self.error == float("inf"):
            (folder / "half.json").write_text("{", "utf-8")
            raise MemoryError("no room to compile")
        (folder / self.file).write_text(text, "utf-8")
        digest = hashlib.sha256(text.encode()).hexdigest()
        described = File(self.file, size=len(text), sha256=digest)
        return Artifact(
            "acme-compiled",
            {"main": self.file},
            [described if self.describes else File(self.file)],
            precision=plan.precision,
            batch=plan.batch,
            needs={"version": self.written or self.version},
        )

    def inspect(self, path):
        return None


@hookimpl
def backends():
    return [AcmeCompiler]

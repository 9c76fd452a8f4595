"""Roboflow's weights API on this machine: pages, statuses, addresses that expire."""

from __future__ import annotations

import hashlib
import json
from urllib.parse import parse_qs, urlsplit

from .server import Server

PATH = "/models/v1/external/weights"
KEY = "sesame-open-42"
SIGNATURE = "X-Signature=signed-and-secret"


def package(package_id="abc123", files=("weights.onnx",), **fields):
    """One package's entry; its files get addresses when the server answers."""
    manifest = {
        "type": "onnx-model-package-v1",
        "backendType": "onnx",
        "dynamicBatchSize": True,
        "staticBatchSize": None,
        "quantization": "fp32",
        "opset": 17,
        "incompatibleProviders": None,
    }
    return {
        "type": "external-model-package-v1",
        "packageId": package_id,
        "trustedSource": True,
        "modelFeatures": None,
        "recommendedParameters": None,
        "packageFiles": list(files),
        "packageManifest": manifest | fields.pop("manifest", {}),
    } | fields


class RoboflowServer(Server):
    """Serves models by id; `faults` are answered first, one each request.

    So are `file_faults`, which are statuses of files.
    """

    def __init__(self):
        super().__init__()
        self.models = {}
        self.contents = {}
        self.faults = []
        self.file_faults = []
        self.key = KEY
        self.page_size = 100
        self.signed = 0
        self.fetched = []
        self.answers[PATH] = self._answer
        self.answers["/proxy"] = self._proxy

    @property
    def host(self):
        return self.url("")

    @property
    def asked(self):
        """Queries of the API so far."""
        return [
            parse_qs(urlsplit(path).query)
            for path, _ in self.requests
            if path.startswith(PATH)
        ]

    def adds(self, model_id, *packages, contents=None, aliases=(), **fields):
        """A model with these packages; `contents` are its files' bytes by name."""
        self.contents |= contents or {}
        for name in contents or {}:
            self.answers[f"/files/{name}"] = self._file
        model = {
            "type": "external-model-metadata-v1",
            "modelId": model_id,
            "modelArchitecture": "acme-colors",
            "modelVariant": None,
            "taskType": "classification",
            "modelDependencies": None,
            "recommendedParameters": None,
            "modelPackages": list(packages),
        } | fields
        for name in (model_id, *aliases):
            self.models[name] = model

    def _proxy(self, handler):
        inner = urlsplit(parse_qs(urlsplit(handler.path).query)["url"][0])
        handler.path = f"{inner.path}?{inner.query}"
        self.answers[inner.path](handler)

    def _answer(self, handler):
        if self.faults:
            fault = self.faults.pop(0)
            return fault(handler) if callable(fault) else answer(handler, *fault)
        if self.key and handler.headers.get("Authorization") != f"Bearer {self.key}":
            return answer(handler, 401)
        query = parse_qs(urlsplit(handler.path).query)
        model = self.models.get(query["modelId"][0])
        if model is None:
            return answer(handler, 404)
        start = int(query.get("startAfter", ["0"])[0])
        return answer(handler, 200, self._page(model, start))

    def _page(self, model, start):
        packages, end = model["modelPackages"], start + self.page_size
        page = [self._signed(each) for each in packages[start:end]]
        more = {"nextPage": str(end)} if end < len(packages) else {"nextPage": None}
        return {"modelMetadata": model | {"modelPackages": page} | more}

    def _signed(self, entry):
        if not isinstance(entry, dict) or not isinstance(
            entry.get("packageFiles"), list
        ):
            return entry
        files = [
            self._file_entry(f) if isinstance(f, str) else f
            for f in entry["packageFiles"]
        ]
        return entry | {"packageFiles": files}

    def _file_entry(self, name):
        """Each answer signs anew, which ends all addresses that were signed before."""
        self.signed += 1
        url = self.url(f"/files/{name}?{SIGNATURE}&serial={self.signed}")
        content = self.contents.get(name, b"")
        digest = hashlib.md5(content).hexdigest()
        return {"fileHandle": name, "downloadUrl": url, "md5Hash": digest}

    def _file(self, handler):
        parts = urlsplit(handler.path)
        self.fetched.append(handler.path)
        if self.file_faults:
            return answer(handler, self.file_faults.pop(0))
        fresh = int(parse_qs(parts.query)["serial"][0]) > self.signed - len(
            self.contents
        )
        if SIGNATURE not in parts.query or not fresh:
            return answer(handler, 403)
        name = parts.path.removeprefix("/files/")
        return answer(handler, 200, self.contents[name])


def answer(handler, status, content=b"", headers=()):
    """Send bytes, or JSON."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    handler.send_response(status)
    for name, value in dict(headers).items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)

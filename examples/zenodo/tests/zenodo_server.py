"""Zenodo on this machine: records by number, their files, and one token."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

TOKEN = "zenodo-sesame-42"


class ZenodoServer:
    """Answers as `GET /api/records/:id` and `/api/records/:id/files/:key/content` do.

    `restricted` records show their files to whoever has the token, `concepts` map the
    number of all versions to the latest one's, and `damage` holds other bytes that are
    sent for a name. `algorithm` is what checksums are said to be, `changes` are laid
    over what is said of a record, and `faults` are statuses, each given once before
    anything else.
    """

    def __init__(self):
        self.records = {}
        self.licenses = {}
        self.algorithm = "md5"
        self.changes = {}
        self.restricted = set()
        self.concepts = {}
        self.damage = {}
        self.faults = []
        self.requests = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests.append((self.path, dict(self.headers)))
                outer._route(self, unquote(self.path).strip("/").split("/", 5))

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.host = f"http://127.0.0.1:{self._server.server_address[1]}"

    def adds(self, number, files, license_id="cc-by-4.0"):
        self.records[number] = files
        self.licenses[number] = license_id

    def _route(self, handler, parts):
        number = int(parts[2])
        if self.faults:
            return refuse(handler, self.faults.pop(0), "there is a fault")
        if number in self.concepts:
            to = f"{self.host}/api/records/{self.concepts[number]}"
            return answer(handler, 302, b"", Location=to)
        if number not in self.records:
            return refuse(handler, 404, "The persistent identifier does not exist.")
        open_to = number not in self.restricted
        sent = handler.headers.get("Authorization") == f"Bearer {TOKEN}"
        if parts[3:4] != ["files"]:
            return answer(handler, 200, json.dumps(self._record(number, open_to, sent)))
        if not open_to and not sent:
            return refuse(handler, 403, "Permission denied.")
        name = "/".join(parts[4:]).removesuffix("/content")
        content = self.damage.get(name, self.records[number][name])
        return answer(handler, 200, content)

    def _record(self, number, open_to, sent):
        base = f"{self.host}/api/records/{number}/files"
        files = [
            {
                "id": hashlib.sha256(name.encode()).hexdigest()[:36],
                "key": name,
                "size": len(content),
                "checksum": f"{self.algorithm}:{hashlib.md5(content).hexdigest()}",
                "links": {"self": f"{base}/{name}/content"},
            }
            for name, content in self.records[number].items()
        ]
        metadata = {"title": "A model", "access_right": "open"}
        metadata |= {} if open_to else {"access_right": "restricted"}
        if self.licenses[number]:
            metadata["license"] = {"id": self.licenses[number]}
        return {
            "id": number,
            "recid": str(number),
            "conceptrecid": str(number - 1),
            "doi": f"10.5281/zenodo.{number}",
            "metadata": metadata,
            "files": files if open_to or sent else [],
            "status": "published",
            "submitted": True,
        } | self.changes

    def __enter__(self):
        serve = self._server.serve_forever
        threading.Thread(target=serve, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


def answer(handler, status, content, **headers):
    body = content.encode() if isinstance(content, str) else content
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def refuse(handler, status, message):
    answer(handler, status, json.dumps({"status": status, "message": message}))

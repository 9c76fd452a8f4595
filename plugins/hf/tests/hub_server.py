"""The Hub on this machine: repositories by commit, tokens, a CDN for large files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_sesame-open-42"
SIGNATURE = "X-Signature=signed-and-secret"
LARGE = (".safetensors", ".onnx", ".pth", ".pt", ".ckpt", ".bin", ".h5")


def git_sha1(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


class Repository:
    """Files of each commit, and who may read them."""

    def __init__(self, **facts):
        self.commits = {}
        self.branches = {}
        self.facts = {"private": False, "gated": False, "disabled": False} | facts

    def commit(self, files, branch="main"):
        """Lay down these files, whatever was there before; the commit's id."""
        listed = json.dumps([[n, sha256(c)] for n, c in sorted(files.items())])
        history = f"{self.branches.get(branch)}{listed}"
        commit = hashlib.sha1(history.encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.branches[branch] = commit
        return commit

    def at(self, revision):
        found = self.branches.get(revision, revision)
        return found if found in self.commits else None


class HubServer:
    """Speaks what huggingface_hub asks of the Hub.

    `faults` are answered first by the API, one each request, and `file_faults` by what
    resolves files; each is called with the handler. `damage` holds other bytes that are
    sent for a path. `cdn` is where large files are redirected to, `/cdn` here if None.
    """

    def __init__(self, prefix=""):
        self.prefix = prefix
        self.repositories = {}
        self.moved = {}
        self.faults = []
        self.file_faults = []
        self.damage = {}
        self.accepted = set()
        self.cdn = None
        self.requests = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests.append((self.path, dict(self.headers)))
                with contextlib.suppress(ConnectionError):
                    outer._route(self)

            do_HEAD = do_GET  # noqa: N815 - http.server's name

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.never = threading.Event()
        self.port = self._server.server_address[1]

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}{self.prefix}"

    def adds(self, repo, files, **facts):
        """A repository with these files on its main branch; the commit's id."""
        self.repositories[repo] = Repository(**facts)
        return self.repositories[repo].commit(files)

    def asked(self, part):
        """The paths asked for so far that hold this."""
        paths = [urlsplit(path).path for path, _ in self.requests]
        return [path for path in paths if part in path]

    @property
    def fetched(self):
        """Names of the files that were sent so far."""
        return [unquote(p.split("/resolve/")[1].partition("/")[2]) for p in self.files]

    @property
    def files(self):
        return self.asked("/resolve/")

    def _route(self, handler):
        path = urlsplit(handler.path).path.removeprefix(self.prefix)
        if path.startswith("/api/models/"):
            return self._api(handler, path.removeprefix("/api/models/"))
        if path.startswith("/cdn/"):
            return self._cdn(handler, path.removeprefix("/cdn/"))
        repo, _, rest = path.removeprefix("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        return self._resolve(handler, repo, unquote(revision), unquote(name))

    def _api(self, handler, path):
        if self.faults:
            return self.faults.pop(0)(handler)
        repo, _, revision = path.partition("/revision/")
        if repo in self.moved:
            target = self.endpoint + f"/api/models/{self.moved[repo]}"
            target += f"?{urlsplit(handler.path).query}"
            return answer(handler, 307, headers={"Location": target})
        if not self._sees(handler, repo):
            return None
        known = self.repositories[repo]
        commit = known.at(unquote(revision) if revision else "main")
        if commit is None:
            return refuse(handler, 404, "RevisionNotFound", "Invalid rev id")
        blobs = "blobs" in parse_qs(urlsplit(handler.path).query)
        return answer(handler, 200, self.metadata(repo, commit, blobs))

    def metadata(self, repo, commit, blobs=True):
        """What the API says of a repository at a commit."""
        known = self.repositories[repo]
        files = known.commits[commit]
        facts = {"_id": "621ffdc0", "id": repo, "modelId": repo, "sha": commit}
        facts |= {"author": repo.partition("/")[0], "tags": ["onnx", "region:us"]}
        facts |= {
            "downloads": 7,
            "likes": 1,
            "lastModified": "2026-01-02T03:04:05.000Z",
        }
        siblings = [self._sibling(*item, blobs) for item in sorted(files.items())]
        return facts | known.facts | {"siblings": siblings}

    def _sibling(self, name, content, blobs):
        if not blobs:
            return {"rfilename": name}
        facts = {"rfilename": name, "size": len(content)}
        if not name.endswith(LARGE):
            return facts | {"blobId": git_sha1(content)}
        pointer = f"oid sha256:{sha256(content)}\nsize {len(content)}\n".encode()
        lfs = {"sha256": sha256(content), "size": len(content), "pointerSize": 134}
        return facts | {"blobId": git_sha1(pointer), "lfs": lfs}

    def _sees(self, handler, repo, content=False):
        """Whether a repository may be seen, or its content; it is answered if not."""
        sent = handler.headers.get("Authorization")
        known = self.repositories.get(repo)
        if sent not in (None, f"Bearer {TOKEN}"):
            refuse(handler, 401, None, "Invalid credentials in Authorization header")
        elif known is None or (known.facts["private"] and sent is None):
            status = 401 if sent is None else 404
            refuse(handler, status, "RepoNotFound", "Repository not found")
        elif (
            content and known.facts["gated"] and (not sent or repo not in self.accepted)
        ):
            status = 401 if sent is None else 403
            refuse(
                handler, status, "GatedRepo", f"Access to model {repo} is restricted"
            )
        else:
            return True
        return False

    def _resolve(self, handler, repo, revision, name):
        if self.file_faults:
            return self.file_faults.pop(0)(handler)
        if not self._sees(handler, repo, content=True):
            return None
        known = self.repositories[repo]
        commit = known.at(revision)
        if commit is None:
            return refuse(handler, 404, "RevisionNotFound", "Invalid rev id")
        content = known.commits[commit].get(name)
        if content is None:
            return refuse(handler, 404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": commit}
        if not name.endswith(LARGE):
            headers["ETag"] = f'"{git_sha1(content)}"'
            return answer(handler, 200, self.damage.get(name, content), headers)
        headers["X-Linked-Etag"] = f'"{sha256(content)}"'
        headers["X-Linked-Size"] = str(len(content))
        base = self.cdn or f"{self.endpoint}/cdn".replace("127.0.0.1", "localhost")
        headers["Location"] = f"{base}/{sha256(content)}/{name}?{SIGNATURE}"
        return answer(handler, 302, headers=headers)

    def _cdn(self, handler, path):
        digest, _, name = path.partition("/")
        known = [c for r in self.repositories.values() for c in r.commits.values()]
        content = {sha256(c): c for files in known for c in files.values()}[digest]
        content = self.damage.get(unquote(name), content)
        return answer(handler, 200, content, {"ETag": f'"{digest}"'})

    def __enter__(self):
        serve = self._server.serve_forever
        threading.Thread(target=serve, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.never.set()
        self._server.shutdown()
        self._server.server_close()


def answer(handler, status, content=b"", headers=()):
    """Send bytes, or JSON."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    handler.send_response(status)
    for name, value in dict(headers).items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


def refuse(handler, status, code, message):
    """Say no as the Hub does."""
    headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    answer(handler, status, {"error": message}, headers)


def hang_up(handler):
    handler.close_connection = True
    handler.connection.close()


def says(status, content=b"", **headers):
    """A fault: this status, and these bytes or JSON."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: answer(handler, status, content, named)


def redirects(target, status=302):
    return says(status, Location=target)

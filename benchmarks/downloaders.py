"""Three downloaders under the same faults, judged by the same rules: one page.

    python benchmarks/downloaders.py --peer PYTHON [--output docs/downloaders.md]

`PYTHON` is that of an environment with `inference-models` of the public index, which
has the import name of this library: `pip install inference-models==0.39.6`. Run it from
an environment that has this library, huggingface_hub and pytest, with openssl at hand.
Each download is a process of its own, one at a time, with a new folder for each case.
`--only WORDS` runs the cases whose title has one of these words.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import re
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from downloader_cases import CASES, FILE, Case, Scene, in_turn, serves
from downloader_runs import (
    LIMIT,
    PASSES,
    SIGNATURE,
    SILENCE,
    TOKEN,
    Ended,
    Library,
    Watch,
    download,
    hub,
)


@dataclass(frozen=True)
class Verdict:
    """What a cell of the table says, and what is counted besides."""

    outcome: str
    error: str
    reason: str
    shows_token: bool
    shows_signature: bool
    logs_either: bool
    sends_token_on: bool
    leaves: bool
    is_blocked: bool

    def __str__(self) -> str:
        marks = {
            "next attempt blocked": self.is_blocked,
            "token shown": self.shows_token,
            "signature shown": self.shows_signature,
            "token sent on": self.sends_token_on,
            "connection tried": self.leaves,
        }
        named = f" (`{self.error}`)" if self.error else ""
        words = [self.outcome + named, self.reason, *(m for m in marks if marks[m])]
        return ", ".join(filter(None, words))


WHOLE, TYPED, BARE = "whole", "typed error", "bare error"
WRONG, LATE = "wrong file kept", "not over"
IN_CAUSE, UNSAID = "reason in its cause", "reason not named"
Rows = dict[str, list[Verdict]]


def main() -> None:
    """Run every case with every library, and write one page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", required=True, help="a Python that has it")
    parser.add_argument("--only", nargs="+", default=[""])
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    compared = libraries(options.peer)
    rows = {}
    for case in CASES:
        if any(word in case.title for word in options.only):
            rows[case.title] = [judged(case, library) for library in compared]
            print(row(case.title, rows[case.title]), flush=True)
    page = [*header(compared), *table(compared, rows), *counts(compared, rows)]
    if options.output:
        options.output.write_text("\n".join(page) + "\n", "utf-8")
    else:
        print("\n".join(page))


def libraries(peer: str) -> list[Library]:
    """Those that are compared."""
    ours, hub = "inference-models-core", "huggingface_hub"
    own, theirs = "inference_models", "inference-models"
    blobs, snapshots = "*/blobs/{sha256}", "*/snapshots/*/model.bin"
    bundles = ("blobs/{sha256}", "bundles/*/model.bin")
    return [
        Library("ours", "this library", ours, own, sys.executable, bundles),
        Library("hub", hub, hub, hub, sys.executable, (blobs, snapshots)),
        Library("peer", theirs, theirs, own, peer, ("model.bin",), takes_token=False),
    ]


# One case


def judged(case: Case, library: Library) -> Verdict:
    """The download that meets the fault, and then one that meets none."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        scene = Scene(case.content, Path(name), stack)
        url = case.set_up(scene)
        endpoint = scene.files.url("") if case.direct else hub(scene, url)
        with Watch(scene, library.places) as watch:
            ended = download(library, scene, url, endpoint)
        note(case, library, ended)
        asked = endpoint if library.name == "hub" else url
        shown, logged = ended.shown(), ended.logged()
        return Verdict(
            *outcome(case, library, ended, watch.has_found_others),
            shows_token=TOKEN in shown,
            shows_signature=SIGNATURE in shown,
            logs_either=any(secret in shown + logged for secret in (TOKEN, SIGNATURE)),
            sends_token_on=is_token_sent_on(scene, urlsplit(asked).port),
            leaves=bool(ended.of("connects")),
            is_blocked=is_blocked(library, scene),
        )


def is_blocked(library: Library, scene: Scene) -> bool:
    """Whether the file cannot be had in the same folder from a server in order."""
    in_order = scene.server()
    url = in_order.gives(FILE, in_turn(scene.content, serves(scene.content)))
    ended = download(library, scene, url, hub(scene, url))
    return not ended.returned(scene.content)


def outcome(
    case: Case, library: Library, ended: Ended, has_others: bool
) -> tuple[str, str, str]:
    """The word for it, the error's class if it is a foreign one, and its reason."""
    error = ended.error
    if has_others or (ended.of("returned") and not ended.returned(case.content)):
        return WRONG, "", ""
    if not ended.is_over:
        return LATE, "", ""
    if error is None:
        return WHOLE, "", ""
    is_own = error["module"].partition(".")[0] == library.module
    name = "" if is_own else error["name"]
    return (TYPED if is_own else BARE), name, reason(case, error)


def reason(case: Case, error: dict[str, Any]) -> str:
    """Where the error names its reason, if not in its own text."""
    if re.search(case.words, error["text"], re.IGNORECASE):
        return ""
    in_cause = re.search(case.words, error["causes"], re.IGNORECASE)
    return IN_CAUSE if in_cause else UNSAID


def is_token_sent_on(scene: Scene, port: int | None) -> bool:
    """Whether a server got it that is not the one it is for."""
    others = [server for server in scene.servers if server.port != port]
    headers = (asked.headers for server in others for asked in server.requests)
    return any(TOKEN in str(found) for found in headers)


def note(case: Case, library: Library, ended: Ended) -> None:
    """What an error said, for whoever wants to know more than the page says."""
    if ended.error:
        text = " ".join(ended.error["text"].split())[:300]
        print(f"{case.title} / {library.title}: {text}", file=sys.stderr, flush=True)


# The page


def header(compared: list[Library]) -> list[str]:
    """What was measured, with what, and how."""
    ours, hub, peer = (library.versions() for library in compared)
    today = datetime.datetime.now(datetime.timezone.utc).date()
    about = (
        "How three downloaders behave when something goes wrong between them and a "
        f"server. The comparison was run on {today} on {platform.system()} "
        f"{platform.machine()} by "
        "[benchmarks/downloaders.py](../benchmarks/downloaders.py): this library's "
        f"store ({ours}), `hf_hub_download` of huggingface_hub ({hub}), and "
        "`download_files_to_directory` of PyPI's inference-models "
        f"({peer}), another distribution with the same import name. The faults are "
        "those of this library's own tests, so it was written with them in mind. All "
        "answers come from scripted servers on the same machine."
    )
    return ["# Downloaders under faults", "", about, "", *METHOD.splitlines()]


METHOD = f"""\
## How

Each library downloads one file through its own API and protocol, and is given all the
facts about it that it accepts: this library gets size and sha256, inference-models the
md5. huggingface_hub asks a Hub, which answers HEAD with sha256 and size
(`X-Linked-ETag`, `X-Linked-Size`) and with a signed URL on another server, which stores
the large file. A HEAD is always answered correctly: the faults are in the answers to
GET. Unless a case says "once" or "twice", every GET meets the fault, and ranges are not
supported. The file has 300 kB. Where ranges matter it has 36 MB: inference-models asks
for it in parts from the start, and the others ask for the second half after they lost
the connection.

All settings are the library's defaults, except for waits that its users can shorten:

| | this library | huggingface_hub | inference-models |
| --- | --- | --- | --- |
| silence | `Limits(connect={SILENCE}, idle={SILENCE})`, by default 15 and 60 s | \
`HF_HUB_DOWNLOAD_TIMEOUT={SILENCE}`, by default 10 s | \
`API_CALLS_TIMEOUT={SILENCE}`, by default 5 s |
| until the body begins | `Limits(answer=20)`, by default 120 s | not offered | \
not offered |
| slower than 10 kB/s | `Limits(grace=5)`, by default 300 s | not offered | \
not offered |
| tries for each part | | | `CHUNK_DOWNLOAD_MAX_ATTEMPTS={PASSES}`, by default 60 |
| extra headers from the user | yes | yes | not offered |

Where the Hub offers huggingface_hub's other protocol, Xet, it replaces the plain
download; Xet is not tested here. Each download runs in a process of its own. The
download that meets the fault has a new cache folder. A second download, from a server
without faults, follows in the same folder. All libraries are judged by the same rules:

- **whole**: the returned path holds the file, byte for byte.
- **typed error**: an error of a class of the library's own. Words that name its reason
  are looked for in the error's text, and then in the text of its causes.
- **bare error**: an error of another class, which is named.
- **wrong file kept**: bytes other than the file's were at its final path, which is
  checked every 50 ms and at the end.
- **not over**: neither a file nor an error after {LIMIT:.0f} s, not counting imports.
- **next attempt blocked**: the second download does not return the file, byte for byte.
- **token shown**, **signature shown**: the value of the `Authorization` header, or of
  the URL's query, appears in the error or its causes, in the output, or in a warning.
- **token sent on**: a server that the token is not for got the `Authorization` header.
  Another port or another name of this machine counts as another server.
- **connection tried**: the library tried to connect to an address outside this machine;
  all such connections are blocked.

## Cases
"""


def table(compared: list[Library], rows: Rows) -> list[str]:
    """A row for each case."""
    titles = [library.title for library in compared]
    lines = [row(title, verdicts) for title, verdicts in rows.items()]
    return [
        "",
        f"| | {' | '.join(titles)} |",
        "| --- |" + " --- |" * len(titles),
        *lines,
    ]


def row(title: str, cells: Iterable[object]) -> str:
    """One line of a table."""
    return f"| {title} | {' | '.join(map(str, cells))} |"


def counts(compared: list[Library], rows: Rows) -> list[str]:
    """How often each library did what."""
    columns = [list(column) for column in zip(*rows.values(), strict=True)]
    lines = [
        row(title, [sum(map(holds, column)) for column in columns])
        for title, holds in COUNTED.items()
    ]
    sent = [
        sum(verdict.sends_token_on for verdict in column)
        if library.takes_token
        else "not offered"
        for library, column in zip(compared, columns, strict=True)
    ]
    titles = [library.title for library in compared]
    head = [
        f"| of {len(rows)} cases | {' | '.join(titles)} |",
        "| --- |" + " --- |" * 3,
    ]
    return ["", "## Counts", "", *head, *lines, row("token sent on", sent)]


COUNTED: dict[str, Callable[[Verdict], bool]] = {
    "whole": lambda verdict: verdict.outcome == WHOLE,
    "typed error that names its reason": lambda verdict: (
        verdict.outcome == TYPED and not verdict.reason
    ),
    "typed error, its reason in its cause or not named": lambda verdict: (
        verdict.outcome == TYPED and bool(verdict.reason)
    ),
    "bare error": lambda verdict: verdict.outcome == BARE,
    "wrong file kept": lambda verdict: verdict.outcome == WRONG,
    "not over": lambda verdict: verdict.outcome == LATE,
    "next attempt blocked": lambda verdict: verdict.is_blocked,
    "signature shown": lambda verdict: verdict.shows_signature,
    "token shown": lambda verdict: verdict.shows_token,
    "either shown, or in a log of any level": lambda verdict: verdict.logs_either,
    "connection tried": lambda verdict: verdict.leaves,
}


if __name__ == "__main__":
    main()

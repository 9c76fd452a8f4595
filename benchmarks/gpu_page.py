"""The page on a GPU: its summary, its tables and what did not run."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from inference_models.model import DEFAULT_BATCH

Row = dict[str, Any]
Records = Sequence[tuple[str, Row]]

OURS = ("ours, torch", "ours, onnx", "ours, hf")
CALLS = {
    "ours, torch": "ours, torch",
    "ours, onnx": "ours, onnx",
    "ours, hf": "ours, hf",
    "network": "network",
    "by hand, fp32": "by hand",
}
NETWORKS = ("graph", "graph, channels last", "eager")
STEPS = ("pre_process", "forward", "post_process", "call")
CONDITIONS = (
    "Random weights in the files' real formats, of real sizes; pictures are NumPy "
    "arrays of uint8 on the host. Medians of rounds in which the columns of a row take "
    "turns, after up to three that are not counted; as many rounds as fit, 5 to 100. "
    "Milliseconds for all pictures of a row, unless said. What ends with results on "
    "the host is timed by the wall clock; the network alone by CUDA events around up "
    "to 20 runs."
)
ABOUT_CALLS = (
    "`ours` are calls of this library from pictures to results, at most "
    f"{DEFAULT_BATCH} of them at a time. `network` is the same "
    'module in the precision of "ours, torch", replayed from a CUDA graph in the '
    "faster of two layouts, on a batch of all pictures that is there already. `by "
    "hand` is eager torch in float32: upload, antialiased resize, normalise, module, "
    "outputs to the host, and nothing after that. `overhead` is the fastest of ours "
    "to `network`; `gain` is `by hand` to the fastest of ours."
)
ABOUT_STEPS = (
    "One picture of 1080p. Each step waits for the device; `call` is the whole call, "
    "whose steps do not wait for each other."
)
ABOUT_HOST = (
    "Milliseconds that the host is in each function, in whole calls on torch that wait "
    "for nothing on the way; one within another counts in both. `host` and `hosts` "
    "wait until the device is done."
)
ABOUT_UPLOADS = (
    "One picture from the user's memory to the device, and what that consists of, each "
    "alone: copies to pinned memory by so many threads, taking pinned memory, crossing "
    "the bus from there, and the driver's own way from memory that is not pinned. "
    "Whole uploads are in pieces: one is copied while another is on its way."
)
ABOUT_RESIDENT = (
    "All inputs are on the device, and outputs stay there but for the call's. "
    '`compiled` is `torch.compile` of the same module, with mode "reduce-overhead" '
    "and fixed shapes; `forward` is `model.forward` on prepared pixels; `call` takes a "
    "uint8 batch of the network's size. `share` is the images a second of `forward` "
    "to those of `compiled`."
)
ABOUT_MEMORY = (
    "MiB at the peak of loading (no images) or of calls, beyond what was held before: "
    "for `graph`, its module and capture, too. What ONNX Runtime takes is seen from "
    "outside, and after loading alone."
)


def page(records: Records, options: argparse.Namespace) -> str:
    """All of it as Markdown."""

    def of(table: str) -> list[Row]:
        return [row for name, row in records if name == table]

    machine = of("machine")
    name = machine[0]["name"] if machine else options.device
    parts = [
        [f"# What calls cost on a GPU: {name}"],
        [machine[0]["text"] if machine else "The device could not be described."],
        [f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}. {CONDITIONS}"],
        tests(of("tests")),
        summary(of("calls"), of("resident")),
        limits(of("limits")),
        calls(of("calls")),
        network(of("network")),
        steps(of("steps")),
        timings("What the host does", ABOUT_HOST, of("host")),
        timings("Uploads", ABOUT_UPLOADS, of("uploads")),
        resident(of("resident")),
        beside("Transformers' pipeline", "pipeline", of("pipeline")),
        beside("The official package", "the official package", of("official")),
        florence(of("florence2")),
        memory(of("memory")),
        failures(of("failures")),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """Lines of a table."""
    yield f"| {' | '.join(columns)} |"
    yield "| --- " * len(columns) + "|"
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |"


def tests(rows: list[Row]) -> list[str]:
    """What pytest said."""
    return [f"Tests that need a GPU (`pytest -m gpu`): {row['line']}." for row in rows]


def fastest(row: Row) -> float | None:
    """The fastest of ours."""
    return min((row[name] for name in OURS if name in row), default=None)


def ratio(above: float | None, below: float | None, digits: int = 2) -> str:
    """A quotient, or a dash."""
    return f"{above / below:.{digits}f}" if above and below else "–"


def number(row: Row, name: str) -> str:
    """Milliseconds with three digits that count."""
    if name not in row:
        return "–"
    value = row[name]
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def summary(found: list[Row], held: list[Row]) -> list[str]:
    """The ratios that matter most."""
    one = [row for row in found if row["row"][1:] == (1, "1080p")]
    if not one:
        return []
    lines = ["## Summary", "", "One picture of 1080p, from the array to results:", ""]
    rows = (
        [
            row["row"][0],
            f"{fastest(row):.2f}" if fastest(row) else "–",
            number(row, "network"),
            ratio(fastest(row), row.get("network")),
            ratio(row.get("by hand, fp32"), fastest(row)),
        ]
        for row in one
    )
    lines += table(("model", "ours", "network", "overhead", "gain"), rows)
    for row in held:
        share = ratio(row.get("compiled"), row.get("ours, forward"))
        if share != "–":
            name, count = row["row"]
            text = f"{name}, batch {count}: `model.forward` reaches {share} of the"
            lines += ["", f"{text} images a second of `torch.compile`."]
    return lines


def limits(rows: list[Row]) -> list[str]:
    """Bandwidths and the rate of products."""
    text = (
        "Upload from pinned memory: {upload:.1f} GB/s. Copy on the device (read and "
        "written): {copy:.0f} GB/s. Matrix product: {product:.1f} TFLOP/s. ({sizes})"
    )
    lines = [text.format(**row) for row in rows]
    return ["## Limits", "", *lines] if rows else []


def calls(rows: list[Row]) -> list[str]:
    """Pictures to results."""
    if not rows:
        return []
    names = [name for name in CALLS if any(name in row for row in rows)]
    head = ("model", "images", "picture", *(CALLS[name] for name in names))
    head = (*head, "overhead", "gain", "images/s", "rounds")

    def cells(row: Row) -> Iterator[Any]:
        yield from row["row"]
        for name in names:
            kind = row["kinds"].get(name, "")
            yield f"{number(row, name)} {kind if name in row else ''}".strip()
        best = fastest(row)
        yield ratio(best, row.get("network"))
        yield ratio(row.get("by hand, fp32"), best)
        yield ratio(row["row"][1] * 1e3, best, 0)
        yield row["rounds"]

    return ["## Calls", "", ABOUT_CALLS, "", *table(head, map(list, map(cells, rows)))]


def network(rows: list[Row]) -> list[str]:
    """The modules alone."""
    if not rows:
        return []
    head = ("model", "images", "precision", *NETWORKS)
    cells = (
        [*row["row"], row["precision"], *(number(row, name) for name in NETWORKS)]
        for row in rows
    )
    return ["## The network alone", "", *table(head, cells)]


def steps(rows: list[Row]) -> list[str]:
    """Where the time goes."""
    if not rows:
        return []
    cells = (
        [
            row["model"],
            *(number(row, name) for name in STEPS[:3]),
            f"{sum(row.get(name, 0) for name in STEPS[:3]):.3f}",
            number(row, "call"),
        ]
        for row in rows
    )
    head = ("model", *(f"`{name}`" for name in STEPS[:3]), "sum", "call")
    return ["## Where the time goes", "", ABOUT_STEPS, "", *table(head, cells)]


def timings(title: str, about: str, rows: list[Row]) -> list[str]:
    """Whatever was timed of a model or picture, in a column each."""
    if not rows:
        return []
    names = dict.fromkeys(name for row in rows for name in row)
    names = [name for name in names if name not in ("row", "rounds")]
    first = ("model", "images", "picture")[-len(rows[0]["row"]) :]
    head = (*first, *names)
    cells = ([*row["row"], *(number(row, name) for name in names)] for row in rows)
    return [f"## {title}", "", about, "", *table(head, cells)]


def resident(rows: list[Row]) -> list[str]:
    """Beside torch.compile: of each model and batch the row with most in it."""
    fullest: dict[Any, Row] = {}
    for row in rows:
        if len(row) >= len(fullest.get(row["row"], ())):
            fullest[row["row"]] = row
    if not fullest:
        return []
    names = ("compiled", "graph", "graph, channels last", "eager")
    names = (*names, "ours, forward", "ours, call on uint8")
    head = ("model", "images", "precision", *names, "images/s", "share")
    cells = (
        [
            *row["row"],
            row["precision"],
            *(number(row, name) for name in names),
            ratio(row["row"][1] * 1e3, row.get("ours, forward"), 0),
            ratio(row.get("compiled"), row.get("ours, forward")),
        ]
        for row in fullest.values()
    )
    title = "## Beside torch.compile, on the device"
    return [title, "", ABOUT_RESIDENT, "", *table(head, cells)]


def beside(title: str, reference: str, rows: list[Row]) -> list[str]:
    """A library beside ours, on pictures of 1080p; in brackets the gain."""
    if not rows:
        return []
    names = [name for name in OURS if any(name in row for row in rows)]

    def cell(row: Row, name: str) -> str:
        gain = ratio(row.get(reference), row.get(name))
        return f"{number(row, name)} ({gain}×)"

    cells = (
        [*row["row"], number(row, reference), *(cell(row, name) for name in names)]
        for row in rows
    )
    head = ("model", "images", reference, *names)
    text = "Pictures of 1080p; in brackets how many times as fast ours is."
    return [f"## {title}", "", text, "", *table(head, cells)]


def florence(rows: list[Row]) -> list[str]:
    """Florence-2's table as its own script makes it."""
    lines = [line for row in rows for line in row.get("header", [row.get("line")])]
    text = "Seconds for 20 tokens a text, greedily; 640×427, as in florence2-cpu.md."
    return ["## Florence-2, beside transformers", "", text, "", *lines] if rows else []


def memory(rows: list[Row]) -> list[str]:
    """What loading and calling take at their peak."""
    if not rows:
        return []
    names = list(dict.fromkeys(row["what"] for row in rows))
    found: dict[Any, dict[str, float]] = {}
    for row in rows:
        found.setdefault((row["model"], row["images"]), {})[row["what"]] = row["MiB"]
    cells = (
        [*key, *(f"{own[name]:.0f}" if name in own else "–" for name in names)]
        for key, own in found.items()
    )
    head = ("model", "images", *names)
    return ["## Memory", "", ABOUT_MEMORY, "", *table(head, cells)]


def failures(rows: list[Row]) -> list[str]:
    """What is not in the tables, and why."""
    if not rows:
        return []
    cells = ([row["what"], row["why"].replace("|", "\\|")] for row in rows)
    return ["## What did not run", "", *table(("what", "why"), cells)]

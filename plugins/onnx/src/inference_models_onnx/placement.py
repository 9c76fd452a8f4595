"""What ONNX Runtime put on the CPU of a graph that was asked for on a GPU."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

log = logging.getLogger("inference_models")

# Has ONNX Runtime write down where each node went; those before 1.24 ignore it. To
# forbid the CPU (session.disable_cpu_ep_fallback) would tell no more than that there is
# one, at the price of opening the file twice.
RECORD = "session.record_ep_graph_assignment_info"

CPU = "CPUExecutionProvider"
"""The one execution provider that every ONNX Runtime has."""

# ONNX Runtime keeps on the CPU, on purpose, what computes sizes from sizes.
_OF_SIZES = frozenset(
    (
        *("Add", "Cast", "Concat", "ConstantOfShape", "Div", "Equal", "Gather", "Mul"),
        *("Range", "ReduceProd", "Shape", "Size", "Slice", "Squeeze", "Sub"),
        *("Unsqueeze", "Where"),
    )
)


def report_placement(session: Any, path: Path) -> None:
    """Log how many nodes of which operators are on the CPU, if ONNX Runtime tells."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return
    nodes = [
        (part.ep_name, node.op_type)
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    ]
    on_cpu = Counter(operator for provider, operator in nodes if provider == CPU)
    if on_cpu:
        level = logging.INFO if on_cpu.keys() <= _OF_SIZES else logging.WARNING
        log.log(level, "%s", _sentence(path, len(nodes), on_cpu.most_common()))


def _sentence(path: Path, total: int, on_cpu: Sequence[tuple[str, int]]) -> str:
    kinds = ", ".join(f"{count} {operator}" for operator, count in on_cpu)
    count = sum(count for _, count in on_cpu)
    return (
        f"ONNX Runtime's record of where nodes run has {count} of {total} of '{path}' "
        f"on the CPU: {kinds}"
    )

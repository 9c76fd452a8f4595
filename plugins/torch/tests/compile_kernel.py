"""Compiles the kernel for GPUs of the compute capabilities given, and prints a JSON."""

import itertools
import json
import re
import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from inference_models_torch.fused import _mix

POINTERS = {"source": "*u8", "rows": "*fp32", "columns": "*fp32", "affine": "*fp32"}
FIXED = {"none": -16, "block": 128}


def source(dtype, turned, gray, stepwise):
    """The kernel as it is called to write a dtype."""
    fixed = {**FIXED, "turned": turned, "gray": gray, "stepwise": stepwise}
    types = dict.fromkeys(_mix.arg_names, "i32") | POINTERS
    types |= {"target": f"*{dtype}", "padding": "fp32"}
    types |= dict.fromkeys(fixed, "constexpr")
    places = {(_mix.arg_names.index(name),): value for name, value in fixed.items()}
    return ASTSource(_mix, types, constexprs=places)


def compiled(capability, dtype):
    """The GPU that the code is for, by the code itself, with each branch of it."""
    target = GPUTarget("cuda", capability, 32)
    ways = [(True, False, True), (False, True, False)]
    made = [triton.compile(source(dtype, *way), target=target) for way in ways]
    (name,) = {re.search(r"\.target (\w+)", each.asm["ptx"])[1] for each in made}
    return name if all(each.asm["cubin"] for each in made) else "nothing"


cases = itertools.product(sys.argv[1:], ["fp32", "fp16", "bf16", "u8"])
print(json.dumps({f"{c} {dtype}": compiled(int(c), dtype) for c, dtype in cases}))

"""Running the load generator in a process of its own, from the program that compares."""

import json
import os
import subprocess
from dataclasses import asdict, replace

from tools.bench.load import DRAIN_SECONDS, Outcome, Plan
from tools.bench.processes import LOAD_CORE, ROOT, BenchmarkError, python

BUILD_SECONDS = 60.0
"""Patience for building the requests."""


def load_core() -> int | None:
    """Give the core of the load generator; None on a machine with one core."""
    return LOAD_CORE if (os.cpu_count() or 1) > LOAD_CORE else None


def begin(plan: Plan) -> "subprocess.Popen[str]":
    """Start the load generator."""
    child = subprocess.Popen(
        python("tools.bench.load"),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    if child.stdin is not None:
        json.dump(asdict(replace(plan, core=load_core())), child.stdin)
        child.stdin.close()
        child.stdin = None
    return child


def end(child: "subprocess.Popen[str]", plan: Plan) -> Outcome:
    """Wait for what came of it; BenchmarkError where nothing came."""
    patience = plan.warm_up + plan.seconds + DRAIN_SECONDS + BUILD_SECONDS
    try:
        written, _ = child.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        raise BenchmarkError("the load generator did not end") from None
    if child.returncode:
        raise BenchmarkError(f"the load generator failed with {child.returncode}")
    return Outcome(**json.loads(written))


def run(plan: Plan) -> Outcome:
    """Load a server, and give what came of it."""
    return end(begin(plan), plan)

"""The names of benchmarks. A new one is one function ``(data root) -> Benchmark`` under
``@BENCHMARKS.register("name")``, whose docstring is its line in ``unpg evaluate --list``. What it returns is a
dataclass, which ``<folder>:<name>`` gives that longer name.
"""

from collections.abc import Callable
from pathlib import Path

from unpg.evaluate.benchmark import Benchmark
from unpg.registry import Registry

__all__ = ["BENCHMARKS"]

BENCHMARKS: Registry[Callable[[Path], Benchmark]] = Registry("benchmark")

"""Run all benchmarks, or those named: ``python -m benchmarks [module ...]``."""

from __future__ import annotations

import sys
from importlib import import_module
from pkgutil import iter_modules

import benchmarks

for name in sys.argv[1:] or sorted(module.name for module in iter_modules(benchmarks.__path__)):
    if name != "__main__":
        import_module(f"benchmarks.{name}").main()

"""`python -m frameworks.versions`: with what the tests here run, in one line."""

from __future__ import annotations

import importlib.metadata

NAMES = ("torch", "transformers", "accelerate", "lightning")

if __name__ == "__main__":
    print("test-frameworks:", ", ".join(f"{name} {importlib.metadata.version(name)}" for name in NAMES), flush=True)

"""The Common Expression Language, as far as rules of CRDs use it: `x-kubernetes-validations` means here what it means
to Kubernetes.

    rule = compiled("self.minWorkers <= self.maxWorkers")       # CelSyntaxError, CelUnsupported
    rule.value({"self": node})                                  # CelError: no such key, no such overload, ...

Operators, `has`, the macros (all, exists, exists_one, filter, map), indexing, and the functions in `values.py`. Types
are judged when an expression is evaluated, not before. What else CEL has (timestamps, quantities, ...) is refused when
the CRD is created, so that no rule passes because nobody understood it.
"""

from __future__ import annotations

from drivetrain_local.apiserver.cel.parse import Rule, compiled
from drivetrain_local.apiserver.cel.values import CelError, CelSyntaxError, CelUnsupported

__all__ = ["CelError", "CelSyntaxError", "CelUnsupported", "Rule", "compiled"]

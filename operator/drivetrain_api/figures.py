"""Numbers in sentences and tables that people read: never in the manner of 1.2e+02."""

from __future__ import annotations


def short(value: float) -> str:
    """About three digits that matter, in columns: with its zeros."""
    size = abs(value)
    digits = 0 if size >= 100 or not size else 1 if size >= 10 else 2 if size >= 1 else 4
    return f"{value:.{digits}f}"


def plain(value: float, digits: int) -> str:
    """So many digits that matter, without zeros at the end: `%g`, but written out. Below a millionth it is 0."""
    text = f"{float(f'{value:.{digits}g}'):.6f}"
    return text.rstrip("0").rstrip(".") if "." in text else text  # inf and nan have none


__all__ = ["plain", "short"]

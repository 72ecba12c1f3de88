"""Studies: many small runs with equal budgets, their paired comparison, and a page that says what came out."""

from __future__ import annotations

__all__: list[str] = []

"""Questions and what is right: every format that they come in, as examples of one form."""

from __future__ import annotations

from ragweave.evaluation.data.example import Example
from ragweave.evaluation.data.gold import check_gold
from ragweave.evaluation.data.reading import FORMATS, read_examples
from ragweave.evaluation.data.recipes import RECIPES, Recipe, find_recipe
from ragweave.evaluation.data.writing import write_examples

__all__ = [
    "FORMATS",
    "RECIPES",
    "Example",
    "Recipe",
    "check_gold",
    "find_recipe",
    "read_examples",
    "write_examples",
]

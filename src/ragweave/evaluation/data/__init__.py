"""Questions and gold answers from every supported format, as examples."""

from __future__ import annotations

from ragweave.evaluation.data.examples import FORMATS, check_gold, lacking_gold, read_examples, write_examples
from ragweave.evaluation.data.mapping import Columns
from ragweave.evaluation.data.recipes import RECIPES, Recipe, find_recipe
from ragweave.types import Example, GivenPassage

__all__ = [
    "FORMATS",
    "RECIPES",
    "Columns",
    "Example",
    "GivenPassage",
    "Recipe",
    "check_gold",
    "find_recipe",
    "lacking_gold",
    "read_examples",
    "write_examples",
]

"""Questions and what is right: every format that they come in, as examples of one form."""

from __future__ import annotations

from ragweave.evaluation.data.columns import Columns
from ragweave.evaluation.data.formats import FORMATS
from ragweave.evaluation.data.gold import check_gold, lacking_gold
from ragweave.evaluation.data.reading import read_examples
from ragweave.evaluation.data.recipes import RECIPES, Recipe, find_recipe
from ragweave.evaluation.data.writing import write_examples
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

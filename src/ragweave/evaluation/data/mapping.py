"""From records, whatever they were read from, to examples."""

from __future__ import annotations

from dataclasses import dataclass

from ragweave.errors import ConfigurationError, DataError
from ragweave.evaluation.data.columns import Columns, lacks
from ragweave.evaluation.data.dpr import is_dpr, of_dpr
from ragweave.evaluation.data.kilt import is_kilt, of_kilt
from ragweave.evaluation.data.ms_marco import is_ms_marco, of_ms_marco
from ragweave.evaluation.data.recipes import Recipe
from ragweave.evaluation.data.record import Record
from ragweave.evaluation.data.texts import answers_of, contexts_of, passages_of, text_of
from ragweave.types import Example


@dataclass(frozen=True, slots=True)
class Mapper:
    """What makes examples of records.

    Attributes:
        columns: Under which names they have what.
        recipe: The recipe of their task, if any.
        tidied: Whether the recipe's tidying is for them.
        contexts: Whether to keep the passages that the data gives.
    """

    columns: Columns
    recipe: Recipe | None = None
    tidied: bool = False
    contexts: bool = False

    def example(self, record: Record, number: int) -> Example | None:
        """Make an example.

        Args:
            record: A record in the fields of ours.
            number: Its number, which is its id if it has none.

        Returns:
            The example; ``None`` where the recipe leaves it out.

        Raises:
            DataError: The record lacks something, or has it in another form.
        """
        columns, where = self.columns, record.where
        question = self._question(record)
        passages = passages_of(record, columns.value(record, "passages"))
        answers = self._answers(record, needed=not passages)
        if not answers and self.recipe is not None and self.recipe.left_out:
            return None
        if not answers and not passages:
            raise DataError(f"The {where} has no answers: give at least one, or leave the question out.")
        name = columns.value(record, "id")
        given = columns.value(record, "contexts") if self.contexts else None
        return Example(
            id=str(number) if name in (None, "") else text_of(record, name, "id"),
            question=question,
            answers=tuple(self._written(answer, where) for answer in answers),
            gold_passages=passages,
            where=where,
            contexts=contexts_of(record, given),
            label=self._label(record, answers),
        )

    def _question(self, record: Record) -> str:
        found = self.columns.value(record, "question")
        if found is None and not self.columns.has("question") and "question" not in record.fields:
            raise lacks(record, "question")
        if not isinstance(found, str) or not found.strip():
            raise DataError(
                f"The {record.where} has no question: write one, or name its column with --columns."
            )
        return self._tidy(text_of(record, found, "question"), record.where)

    def _answers(self, record: Record, *, needed: bool) -> tuple[str, ...]:
        """Answers as the data has them."""
        left_out = self.recipe.left_out if self.recipe is not None else frozenset()
        found, single = self.columns.value(record, "answers"), False
        if found is None and not self.columns.has("answers"):
            found, single = self.columns.value(record, "answer"), True
        if found is None:
            named = self.columns.has("answers") or self.columns.has("answer")
            if needed and not named and not {"answers", "answer"} & record.fields.keys():
                raise lacks(record, "answers")
            return ()
        return answers_of(record, found, single=single, left_out=left_out)

    def _written(self, answer: str, where: str) -> str:
        """What the model is to write for an answer."""
        recipe = self.recipe
        if recipe is None:
            return answer
        if recipe.labels:
            if answer not in recipe.labels and answer not in recipe.labels.values():
                raise DataError(
                    f"The {where} has the class {answer!r}: {recipe.name} knows {', '.join(recipe.labels)}."
                )
            return recipe.labels.get(answer, answer)
        if recipe.patterns:
            _check_pattern(answer, where)
        return self._tidy(answer, where)

    def _tidy(self, text: str, where: str) -> str:
        if not self.tidied or self.recipe is None or self.recipe.tidy is None:
            return text
        tidy = self.recipe.tidy(text)
        if not tidy:
            raise DataError(f"The {where} has no text in {text[:60]!r}: mend it, or leave the question out.")
        return tidy

    def _label(self, record: Record, answers: tuple[str, ...]) -> str | None:
        """The class as the data writes it."""
        found = self.columns.value(record, "label")
        if self.columns.has("label"):
            return None if found is None else text_of(record, found, "label")
        if isinstance(found, str) and found.strip():
            return text_of(record, found, "label")
        if self.recipe is None or self.recipe.task != "classification" or not answers:
            return None
        classes = {written: name for name, written in self.recipe.labels.items()}
        return classes.get(answers[0], answers[0])


def in_our_fields(record: Record, columns: Columns) -> Record:
    """A record of KILT, DPR or MS-MARCO with the fields of ours; any other as it is.

    Raises:
        DataError: Its fields are not as those have them.
    """
    if is_kilt(record.fields) and not columns.has("question"):
        return of_kilt(record)
    if is_dpr(record.fields):
        return of_dpr(record)
    return of_ms_marco(record) if is_ms_marco(record.fields) else record


def _check_pattern(answer: str, where: str) -> None:
    from ragweave.evaluation.metrics.patterns import compile_pattern

    try:
        compile_pattern(answer)
    except ConfigurationError as error:
        raise DataError(f"The {where}: {error}") from error

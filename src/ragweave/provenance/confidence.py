"""How likely an answer is to be right: a logistic model over signals of the marginalisation.

Posteriors show which passage an answer comes from. They do not show whether any passage answers the question;
p(null|x), the likelihood of the null answer, does for generators that have learned one. `CalibratedConfidence`
combines it with p(y|x), the retriever's scores, and the number of passages that contain the answer. `ragweave eval
--calibrate` fits it on questions with and without answers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ragweave.errors import ConfigurationError, DataError, require_extra
from ragweave.knowledge.store import replacing
from ragweave.matching import has_answer
from ragweave.provenance.answers import NO_ANSWER, Answer

FILE_NAME = "confidence.json"
"""The file in a model's folder that holds its `CalibratedConfidence`."""

_LEAST_LOG = -20.0
_MOST_BYTES = 2**20


def signals(answer: Answer) -> dict[str, float]:
    """Finite numbers that indicate whether an answer is right.

    Returns:
        ``likelihood``: the log-odds of p(y|x). ``null``: those of p(null|x), and ``best_null``: those of
        p(null | x, z) for the passage with the largest posterior; both only of generators with a null answer.
        ``prior`` and ``doc_score`` of that passage. ``agreement``: the prior mass of the passages with the answer.
    """
    best = answer.passages[0] if answer.passages else None
    values = {"likelihood": _log_odds(math.exp(min(answer.score, 0.0)))}
    if answer.null_score is not None:
        values["null"] = _log_odds(math.exp(min(answer.null_score, 0.0)))
    if best is None:
        return values
    if best.null is not None:
        values["best_null"] = _log_odds(best.null)
    containing = (p.prior for p in answer.passages if answer.answer and has_answer(p.text, [answer.answer]))
    return {**values, "prior": best.prior, "doc_score": best.doc_score, "agreement": math.fsum(containing)}


@dataclass(frozen=True, slots=True)
class CalibratedConfidence:
    """A logistic model of whether an answer is right, and the lowest confidence at which to give it.

    Attributes:
        weights: Weights of the `signals`; signals without a weight are ignored.
        bias: The log-odds where all signals are 0.
        threshold: Answers below this confidence are withheld, unless a pipeline says otherwise.
        questions: How many questions it was fitted on; 0 for none.
    """

    weights: Mapping[str, float]
    bias: float = 0.0
    threshold: float = 0.0
    questions: int = 0

    def __call__(self, answer: Answer) -> float:
        """The probability that an answer is right, in [0, 1]; see `probability`."""
        return self.probability(signals(answer))

    def probability(self, values: Mapping[str, float]) -> float:
        """The probability that the answer with these `signals` is right, in [0, 1].

        Raises:
            ConfigurationError: A signal that has a weight is missing.
        """
        if missing := [name for name in self.weights if name not in values]:
            raise ConfigurationError(
                f"The calibration weighs {', '.join(missing)}, which this model's answers do not have: fit another "
                "one with 'ragweave eval --calibrate'."
            )
        log_odds = self.bias + math.fsum(weight * values[name] for name, weight in self.weights.items())
        return 0.5 * (1.0 + math.tanh(0.5 * log_odds))

    def save(self, path: Path) -> None:
        """Write it as JSON, atomically."""
        content = json.dumps({**asdict(self), "weights": dict(self.weights)}, indent=2)
        with replacing(path) as file:
            file.write(f"{content}\n".encode())

    @classmethod
    def load(cls, path: Path) -> CalibratedConfidence:
        """Read it; `DataError` if the file is missing or not a calibration."""
        try:
            if path.stat().st_size > _MOST_BYTES:
                raise ValueError("it is too large")
            content = json.loads(path.read_text(encoding="utf-8"))
            weights = {str(name): float(weight) for name, weight in content["weights"].items()}
            model = cls(
                weights, float(content["bias"]), float(content["threshold"]), int(content["questions"])
            )
            if not all(map(math.isfinite, (*weights.values(), model.bias, model.threshold))):
                raise ValueError("it holds numbers that are not finite")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path} is not a calibration ({error!r}): write one with 'ragweave eval --calibrate'."
            ) from error
        return model


UNCALIBRATED = CalibratedConfidence({"likelihood": 1.0})
"""For models without a calibration: the confidence is p(y|x), which ranks answers but is not calibrated."""


def fit_confidence(
    rows: Sequence[Mapping[str, float]], correct: Sequence[bool], *, most_withheld: float = 0.05
) -> CalibratedConfidence:
    """Fit a logistic regression (scikit-learn) that predicts which answers are right.

    Args:
        rows: The `signals` of answers of one pipeline.
        correct: Whether each answer is right; any answer to an unanswerable question is wrong.
        most_withheld: The share of right answers that the threshold may withhold.

    Raises:
        ConfigurationError: All answers are right, or all are wrong.
        MissingExtraError: The extra ``eval`` is not installed.
    """
    require_extra("sklearn", "eval")
    from sklearn.linear_model import LogisticRegression

    outcomes = np.asarray(correct, dtype=bool)
    if outcomes.all() or not outcomes.any():
        raise ConfigurationError(
            f"All {len(outcomes)} answers are {'right' if outcomes.any() else 'wrong'}: calibrate on questions with "
            "and without answers."
        )
    names = [name for name in rows[0] if all(name in row for row in rows)]
    values = np.array([[row[name] for name in names] for row in rows])  # (N, signals)
    scale = np.where(values.std(0) > 0, values.std(0), 1.0)
    regression = LogisticRegression().fit(values / scale, outcomes)
    weights = dict(zip(names, (regression.coef_[0] / scale).tolist(), strict=True))
    model = CalibratedConfidence(weights, float(regression.intercept_[0]), questions=len(outcomes))
    right = [model.probability(row) for row, is_right in zip(rows, outcomes, strict=True) if is_right]
    return replace(model, threshold=float(np.quantile(right, most_withheld, method="lower")))


def judged(answer: Answer, confidence: CalibratedConfidence, threshold: float) -> Answer:
    """An answer with its confidence; below the threshold, it becomes `NO_ANSWER`."""
    value = confidence(answer)
    if value >= threshold:
        return replace(answer, confidence=value)
    return replace(
        answer, answer=NO_ANSWER, tokens=(), confidence=value, answered=False, best_guess=answer.answer
    )


def nothing_found(answer: Answer) -> Answer:
    """The answer, `NO_ANSWER`, to a question for which no passage was found."""
    return replace(answer, answer=NO_ANSWER, passages=(), tokens=(), confidence=0.0, answered=False)


def _log_odds(probability: float) -> float:
    smallest = math.exp(_LEAST_LOG)
    bounded = min(max(probability, smallest), 1 - smallest)
    return math.log(bounded) - math.log1p(-bounded)

"""The page of results says what the runs say."""

from __future__ import annotations

from dataclasses import asdict, replace

from experiments.results.configurations import CONFIGURATIONS
from experiments.results.page import page

from ragweave.evaluation.metric_values import summarize
from ragweave.evaluation.run_folder import Prediction, RunFolder, write_json, write_predictions


def test_every_row_has_the_figures_of_its_run_and_stars_for_differences(tmp_path):
    for configuration, right in zip(CONFIGURATIONS[:3], (40, 39, 10), strict=True):
        folder = RunFolder(tmp_path / "factbook" / configuration.name)
        folder.root.mkdir(parents=True)
        predictions = [
            Prediction(str(n), f"{n}?", ("yes",), (), "yes" if n < right else "no", -0.1, (), ())
            for n in range(50)
        ]
        write_predictions(folder.predictions, predictions)
        write_json(folder.description, {"settings": asdict(configuration.settings)})
        write_json(folder.metrics, {**summarize(predictions, configuration.settings), "seconds": 25.0})
    lines = page({"factbook": RunFolder(tmp_path / "factbook")}).splitlines()
    assert "50 generated questions" in next(line for line in lines if line.startswith("50"))
    rows = {line.split(" | ")[0]: line for line in lines if line.startswith("| ")}
    base, second, third = (rows[f"| {configuration.label}"] for configuration in CONFIGURATIONS[:3])
    assert "| 0.800 [" in base
    assert "| 0.780 [" in second
    assert r"| 0.200\*\* [" in third
    assert not any(f"| {configuration.label}" in rows for configuration in CONFIGURATIONS[3:])


def test_configurations_differ_from_the_first_in_what_they_say():
    base, *others = CONFIGURATIONS
    assert len({configuration.name for configuration in CONFIGURATIONS}) == len(CONFIGURATIONS)
    for configuration in others:
        assert (configuration.model, configuration.settings) != (base.model, base.settings)
        assert replace(configuration.settings, n_docs=5, mode="e2e").depth == base.settings.depth

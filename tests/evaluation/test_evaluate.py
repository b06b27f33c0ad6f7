"""Evaluation from a file of questions to a report, including resuming, recalculating and comparing runs."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from ragweave import RagPipeline
from ragweave.cli import app
from ragweave.errors import ConfigurationError, DataError
from ragweave.evaluation.compare import compare
from ragweave.evaluation.data import Example, read_examples, write_examples
from ragweave.evaluation.evaluate import ModelSettings, evaluate
from ragweave.evaluation.metric_values import metric_values
from ragweave.evaluation.metrics import area_under_risk_coverage, auroc, bleu_1
from ragweave.evaluation.run_folder import RunFolder, RunSettings, read_predictions
from ragweave.evaluation.runner import recalculate
from ragweave.provenance.confidence import CalibratedConfidence
from tests.support.pipelines import build_knowledge_base, save_rag_model

EXAMPLES = [
    Example("a", "Where is Lima?", ("Peru", "the Peru"), ("peru.txt",)),
    Example("b", "What is the capital of Kenya?", ("Nairobi",), ("kenya.txt#0",)),
    Example("c", "Is Chile long? <script>alert(1)</script>", ("yes",), ()),
]
SETTINGS = RunSettings(n_docs=2, depth=3, max_new_tokens=4, batch_size=2)


@pytest.fixture(scope="module")
def kb(tmp_path_factory, tiny_encoder_path):
    return build_knowledge_base(tmp_path_factory.mktemp("base"), tiny_encoder_path)


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_encoder_path):
    return ModelSettings(
        model=str(save_rag_model(tmp_path_factory.mktemp("model"), tiny_encoder_path)), dtype="float32"
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory, kb, model):
    folder = tmp_path_factory.mktemp("runs") / "base"
    return evaluate(EXAMPLES, folder, knowledge_base=kb, model=model, settings=SETTINGS)


def summary(folder):
    return json.loads(folder.metrics.read_text())


def test_predictions_are_what_the_pipeline_answers(finished, kb, model):
    pipeline = RagPipeline.from_pretrained(model.model, knowledge_base=kb, dtype="float32")
    answers = pipeline([example.question for example in EXAMPLES], n_docs=2, max_new_tokens=4)
    predictions = read_predictions(finished.predictions)
    assert [prediction.id for prediction in predictions] == ["a", "b", "c"]
    for prediction, answer in zip(predictions, answers, strict=True):
        assert (prediction.question, prediction.answer) == (answer.question, answer.answer)
        assert prediction.score == pytest.approx(answer.score, abs=1e-5)
        assert [passage.id for passage in prediction.passages] == [passage.id for passage in answer.passages]
        assert sum(passage.posterior for passage in prediction.passages) == pytest.approx(1, abs=1e-5)
        assert len(prediction.retrieved) == 3


def test_metrics_are_means_with_intervals_beside_them(finished):
    means = summary(finished)
    values = metric_values(read_predictions(finished.predictions), SETTINGS)
    assert means["questions"] == 3
    assert means["seconds"] > 0
    for name in (
        "exact_match",
        "f1",
        "recall@1",
        "recall@2",
        "recall@3",
        "recall@5",
        "mrr",
        "answer_recall@1",
    ):
        applicable = [value for value in values[name] if not math.isnan(value)]
        assert means[name] == pytest.approx(sum(applicable) / len(applicable))
        low, high = means["intervals"][name]
        assert low <= means[name] <= high
    assert means["recall@3"] == 1.0  # all three passages are retrieved
    assert means["counted"]["mrr"] == 2  # one question has no gold passage


def test_documents_and_passages_may_be_gold(finished):
    first, second, third = read_predictions(finished.predictions)
    values = metric_values([first, second, third], SETTINGS)
    ranks = [[passage.document_id for passage in one.retrieved] for one in (first, second)]
    assert values["mrr"][:2] == [1 / (1 + ranks[0].index("peru.txt")), 1 / (1 + ranks[1].index("kenya.txt"))]
    assert math.isnan(values["mrr"][2])


def test_metrics_of_all_answers_together(tmp_path, kb, model):
    settings = replace(SETTINGS, metrics=("q_bleu_1", "bleu_1", "distinct_3", "rouge_l"))
    folder = evaluate(EXAMPLES, tmp_path / "run", knowledge_base=kb, model=model, settings=settings)
    answers = [prediction.answer for prediction in read_predictions(folder.predictions)]
    means = summary(folder)
    assert means["bleu_1"] == pytest.approx(bleu_1(answers, [list(example.answers) for example in EXAMPLES]))
    assert "bleu_1" not in means["intervals"]
    assert 0 <= means["distinct_3"] <= 1
    assert "q_bleu_1" in means["intervals"]
    assert "ece" not in means  # none of these says whether an answer is right


def test_kilt_counts_answers_whose_passages_were_found_first(finished):
    values = metric_values(read_predictions(finished.predictions), SETTINGS)
    for position in range(2):
        complete = values["r_precision"][position] == 1
        assert values["kilt_f1"][position] == values["f1"][position] * complete


class StopError(Exception):
    pass


def interrupted(folder, kb, model, *, after):
    done = []

    def progress(_, total, steps, means):
        done.append(steps)
        if sum(done) >= after:
            raise StopError

    with pytest.raises(StopError):
        evaluate(EXAMPLES, folder, knowledge_base=kb, model=model, settings=SETTINGS, progress=progress)


def test_an_interrupted_run_goes_on(tmp_path, kb, model, finished):
    folder = RunFolder(tmp_path / "run")
    interrupted(folder.root, kb, model, after=2)
    lines = folder.predictions.read_bytes()
    assert lines.count(b"\n") == 2
    folder.predictions.write_bytes(lines + b'{"id": "c", "ques')  # killed in the middle of a line
    seen = []
    evaluate(
        EXAMPLES,
        folder.root,
        knowledge_base=kb,
        model=model,
        settings=SETTINGS,
        progress=lambda name, total, steps, means: seen.append((total, steps)),
    )
    assert seen == [(3, 2), (3, 1)]
    assert read_predictions(folder.predictions) == read_predictions(finished.predictions)
    assert {**summary(folder), "seconds": 0} == {**summary(finished), "seconds": 0}
    assert sorted(path.name for path in folder.root.iterdir()) == [
        "metrics.json",
        "predictions.jsonl",
        "report.html",
        "run.json",
    ]


def test_a_folder_with_another_run_is_left_alone(tmp_path, kb, model):
    interrupted(tmp_path / "run", kb, model, after=2)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}

    def again(examples=EXAMPLES, settings=SETTINGS, **more):
        return evaluate(examples, tmp_path / "run", knowledge_base=kb, model=model, settings=settings, **more)

    with pytest.raises(
        DataError, match=r"different settings\.n_docs: choose another --output, or add --overwrite"
    ):
        again(settings=replace(SETTINGS, n_docs=3))
    with pytest.raises(DataError, match=r"different data\.questions, data\.sha256"):
        again(examples=EXAMPLES[:2])
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    again(settings=replace(SETTINGS, n_docs=1), overwrite=True)
    assert summary(RunFolder(tmp_path / "run"))["questions"] == 3


def test_other_folders_are_never_written_to(tmp_path, kb, model):
    (tmp_path / "mine.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(DataError, match="choose another --output"):
            evaluate(
                EXAMPLES, tmp_path, knowledge_base=kb, model=model, settings=SETTINGS, overwrite=overwrite
            )
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_predictions_of_other_questions(tmp_path, kb, model):
    interrupted(tmp_path / "run", kb, model, after=2)
    path = tmp_path / "run" / "predictions.jsonl"
    path.write_text(path.read_text().replace("Lima", "Rome"))
    with pytest.raises(
        DataError,
        match=r"Prediction 1 of .* the question 'Where is Rome\?' .id 'a'., which is not in the data",
    ):
        evaluate(EXAMPLES, tmp_path / "run", knowledge_base=kb, model=model, settings=SETTINGS)


@pytest.mark.parametrize(
    "change", [{"golds": ["elsewhere"]}, {"gold_passages": ["x"]}, {"unanswerable": True}]
)
def test_predictions_with_other_gold_answers(tmp_path, kb, model, change):
    interrupted(tmp_path / "run", kb, model, after=2)
    path = tmp_path / "run" / "predictions.jsonl"
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps(json.loads(first) | change), *rest]) + "\n")
    with pytest.raises(DataError, match=r"prediction for 'a' .* other gold answers"):
        evaluate(EXAMPLES, tmp_path / "run", knowledge_base=kb, model=model, settings=SETTINGS)


@pytest.mark.parametrize("line", ["{", "[]", '{"id": 1}', "null"])
def test_damaged_predictions(tmp_path, finished, line):
    path = tmp_path / "predictions.jsonl"
    path.write_text(finished.predictions.read_text() + line + "\n")
    with pytest.raises(DataError, match=r"Line 4 of .* is not a prediction"):
        read_predictions(path)


def test_retrieval_alone(tmp_path, kb, model, finished):
    folder = evaluate(
        EXAMPLES,
        tmp_path / "run",
        knowledge_base=kb,
        model=model,
        settings=replace(SETTINGS, mode="retrieval"),
    )
    means, e2e_means = summary(folder), summary(finished)
    assert "exact_match" not in means
    assert {name: means[name] for name in means if "@" in name} == {
        name: e2e_means[name] for name in e2e_means if "@" in name
    }
    assert all(prediction.answer is None for prediction in read_predictions(folder.predictions))


def test_closed_book(tmp_path, model):
    folder = evaluate(
        EXAMPLES,
        tmp_path / "run",
        knowledge_base=None,
        model=model,
        settings=replace(SETTINGS, mode="closed-book"),
    )
    assert "exact_match" in summary(folder)
    assert not any("recall" in name for name in summary(folder))
    assert all(prediction.passages == () for prediction in read_predictions(folder.predictions))


def test_gold_passages_in_place_of_those_found(tmp_path, kb, model):
    settings = replace(SETTINGS, gold=True, n_docs=1)
    folder = evaluate(EXAMPLES[:2], tmp_path / "run", knowledge_base=kb, model=model, settings=settings)
    predictions = read_predictions(folder.predictions)
    assert [[passage.id for passage in one.passages] for one in predictions] == [
        ["peru.txt#0"],
        ["kenya.txt#0"],
    ]
    assert summary(folder)["gold_mass"] == pytest.approx(1)
    with pytest.raises(DataError, match="'c' has no gold passage"):
        evaluate(EXAMPLES, tmp_path / "other", knowledge_base=kb, model=model, settings=settings)
    assert not (tmp_path / "other").exists()


def test_settings_that_contradict_each_other(tmp_path, kb, model):
    for wrong, base in (
        (replace(SETTINGS, gold=True, mode="retrieval"), kb),
        (SETTINGS, None),
        (replace(SETTINGS, metrics=("blue",)), kb),
    ):
        with pytest.raises(ConfigurationError):
            evaluate(EXAMPLES, tmp_path / "run", knowledge_base=base, model=model, settings=wrong)
    assert not (tmp_path / "run").exists()


def test_recalculate_needs_no_model(finished):
    before = summary(finished)
    finished.metrics.write_text(json.dumps({"seconds": before["seconds"]}))
    assert recalculate(finished) == before
    assert summary(finished) == before


def test_the_report_begins_with_what_the_run_shows(finished):
    page = " ".join(finished.report.read_text().split())
    metrics = summary(finished)
    assert f"<p>{metrics['questions']} questions. {100 * metrics['exact_match']:.0f} % of the answers" in page
    main, rest = page.split("All metrics")
    assert re.findall(r"<tr><td>([\w@]+)", main)[0] == "exact_match"
    assert "<td>seconds" not in main
    assert "<td>seconds" in rest


def test_the_report_escapes_what_it_shows(finished):
    page = finished.report.read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert page.count("<svg") >= 3
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )


def test_compare(tmp_path, kb, model, finished):
    other = evaluate(
        EXAMPLES,
        tmp_path / "one",
        knowledge_base=kb,
        model=model,
        settings=replace(SETTINGS, n_docs=1),
        curve=(2,),
    )
    assert (other.root / "k2" / "metrics.json").exists()
    assert other.report.read_text().count("<svg") == 1 + finished.report.read_text().count("<svg")
    comparison = compare([finished.root, other.root, other.root / "k2"])
    assert comparison.names == ("base", "one", "k2")
    assert comparison.settings["settings.n_docs"] == ["2", "1", "2"]
    assert comparison.means["f1"] == summary(finished)["f1"]
    one, two = comparison.others["f1"]
    assert one.mean == pytest.approx(summary(other)["f1"])
    assert two.difference == 0
    assert two.p_value == 1
    few = evaluate(EXAMPLES[:2], tmp_path / "few", knowledge_base=kb, model=model, settings=SETTINGS)
    with pytest.raises(DataError, match="differ in 1 questions"):
        compare([finished.root, few.root])
    with pytest.raises(DataError, match="at least two"):
        compare([finished.root])


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command(tmp_path, kb, model, finished):
    write_examples(tmp_path / "dev.jsonl", EXAMPLES)
    options = ["--kb", kb, "--data", tmp_path / "dev.jsonl", "--model", model.model, "--dtype", "float32"]
    options += ["--n-docs", 2, "--depth", 3, "--max-new-tokens", 4, "--batch-size", 2]
    done = run("eval", *options, "--output", tmp_path / "run", "--json")
    assert done.exit_code == 0, done.output
    assert {**json.loads(done.stdout), "seconds": 0} == {**summary(finished), "seconds": 0}
    again = run("eval", "--output", tmp_path / "run", "--recalculate")
    assert "exact_match" in again.stdout
    assert "report.html" in again.stdout
    hybrid = run("eval", *options, "--output", tmp_path / "hybrid", "--retrieval", "hybrid", "--limit", 3)
    assert hybrid.exit_code == 0, hybrid.output
    compared = run("eval", "compare", tmp_path / "run", tmp_path / "hybrid")
    assert compared.exit_code == 0, compared.output
    assert re.search(r"^model.search.kind +dense +hybrid$", compared.stdout, re.MULTILINE)
    number, interval = r"[+-]?\d\.\d{3}", r"[+-]?\d\.\d{3} to [+-]?\d\.\d{3}"
    assert re.search(rf"^recall@3 +run +{number} +{interval} *$", compared.stdout, re.MULTILINE)
    assert re.search(rf"^ +hybrid +{number} +{number} +{interval} +{number}$", compared.stdout, re.MULTILINE)
    shown = run("eval", "compare", tmp_path / "run", tmp_path / "hybrid", "--json")
    assert json.loads(shown.stdout)["settings"]["model.search.kind"] == ["dense", "hybrid"]


def test_unanswerable_questions(tmp_path, kb, model):
    """Abstaining is right for them, and a calibration is fitted on a run and used by another."""
    questions = [
        *EXAMPLES[:2],
        Example("d", "What is the capital of Japan?", (), unanswerable=True),
        Example("e", "Who rules Chile?", (), unanswerable=True),
    ]
    guesses = RagPipeline.from_pretrained(model.model, knowledge_base=kb, dtype="float32")(
        [example.question for example in questions], n_docs=2, max_new_tokens=4
    )
    # The tiny model knows nothing, so what it says is what is right.
    questions[0] = replace(questions[0], answers=(guesses[0].answer,))
    write_examples(tmp_path / "dev.jsonl", questions)
    assert read_examples(tmp_path / "dev.jsonl")[2:] == questions[2:]
    options = ["--kb", kb, "--data", tmp_path / "dev.jsonl", "--model", model.model, "--dtype", "float32"]
    options += ["--n-docs", 2, "--depth", 3, "--max-new-tokens", 4, "--json"]
    calibration = tmp_path / "confidence.json"
    fitted = run("eval", *options, "--output", tmp_path / "fit", "--calibrate", calibration)
    assert fitted.exit_code == 0, fitted.output
    assert "fitted on 4 answers" in fitted.stderr
    metrics = json.loads(fitted.stdout)
    assert (metrics["exact_match"], metrics["counted"]["exact_match"]) == (0.5, 2)
    assert (metrics["answer_rate"], metrics["refused_unanswerable"]) == (1, 0)
    assert metrics["squad2_exact_match"] == 0.25
    predictions = read_predictions(RunFolder(tmp_path / "fit").predictions)
    pairs = [(item.confidence, item.id == "a") for item in predictions]
    assert metrics["auroc"] == auroc(*zip(*pairs, strict=True))
    assert metrics["aurc"] == area_under_risk_coverage(*zip(*pairs, strict=True))
    best = max(
        (
            sum(
                right if score >= limit else item.unanswerable
                for (score, right), item in zip(pairs, predictions, strict=True)
            )
            / 4
        )
        for limit in [*(score for score, _ in pairs), 2.0]
    )
    assert metrics["squad2_best_exact_match"] == best

    nothing = run("eval", *options, "--output", tmp_path / "nothing", "--min-confidence", 1)
    metrics = json.loads(nothing.stdout)
    assert (metrics["answer_rate"], metrics["refused_unanswerable"], metrics["refused_right"]) == (0, 1, 1)
    assert metrics["exact_match"] == 0.5  # of the best guesses
    assert metrics["squad2_exact_match"] == metrics["squad2_f1"] == 0.5
    assert "answered_exact_match" not in metrics

    used = run("eval", *options, "--output", tmp_path / "used", "--calibration", calibration)
    assert used.exit_code == 0, used.output
    model_of = CalibratedConfidence.load(calibration)
    for item in read_predictions(RunFolder(tmp_path / "used").predictions):
        assert item.confidence == pytest.approx(model_of.probability(item.signals))
        assert item.answered == (item.confidence >= model_of.threshold)
    assert json.loads(used.stdout)["refused_right"] == 0
    report = RunFolder(tmp_path / "used").report.read_text()
    assert "Wrong answers by share of questions answered" in report


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give the folder of the run with --output"),
        (["--output", "{}/run"], "Give the questions with --data"),
        (["--output", "{}/run", "--data", "{}/no.jsonl"], "There is no file"),
        (["--output", "{}/run", "--data", "{}/dev.jsonl"], "Name a knowledge base"),
        (["--output", "{}/run", "--data", "{}/dev.jsonl", "--columns", "a"], "Write NAME=COLUMN"),
        (["--output", "{}/run", "--data", "{}/dev.jsonl", "--curve", "0"], "Write numbers of passages"),
        (["--output", "{}/run", "--recalculate"], "give the folder of a run"),
        (["compare", "{}/run", "{}/other"], "give the folder of a run"),
    ],
)
def test_mistakes_are_told_before_anything_is_loaded_or_written(tmp_path, arguments, message):
    write_examples(tmp_path / "dev.jsonl", EXAMPLES)
    failed = run("eval", *(argument.format(tmp_path) for argument in arguments))
    assert failed.exit_code == 1
    assert message in " ".join(failed.stderr.split())
    assert not (tmp_path / "run").exists()

"""Console output: results on standard output, everything else on standard error."""

from __future__ import annotations

import gc
import json
import logging
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.segment import Segment

import ragweave
from ragweave.errors import SourceWarning
from ragweave.types import SourceFile

# Control characters (escapes can write to the clipboard), direction marks, and lone surrogates.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """Replace each character that could control a terminal with \ufffd."""
    return _CONTROL.sub("\ufffd", text)


class _SafeConsole(Console):
    """A console that shows texts literally: control characters, markup and emoji names have no effect."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Render an object; see `rich.console.Console.render`."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


def stdout() -> Console:
    """The console for results."""
    return _SafeConsole()


def stderr() -> Console:
    """The console for everything else."""
    return _SafeConsole(stderr=True)


def print_text(text: str) -> None:
    """Print a result as it is: without markup and without line breaks."""
    stdout().print(text, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print a result as one line of JSON."""
    line = json.dumps(value, ensure_ascii=False)
    sys.stdout.write(_CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", line) + "\n")
    sys.stdout.flush()


def warn(message: str) -> None:
    """Show a warning."""
    stderr().print(f"warning: {message}", style="yellow", soft_wrap=True)


@contextmanager
def source_warnings() -> Iterator[None]:
    """Show warnings about sources as warnings of the command, without a line of code."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SourceWarning)
        yield
    for warning in caught:
        if issubclass(warning.category, SourceWarning):
            warn(str(warning.message))
        else:
            show_warning(warning.message, warning.category, warning.filename, warning.lineno)


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a library's warning; replaces `warnings.showwarning`."""
    sys.stderr.write(visible(warnings.formatwarning(message, category, filename, lineno)))


class LogHandler(logging.StreamHandler[Any]):
    """Writes log records to standard error; text in a message cannot pass for a separate line."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, followed by the traceback if there is one."""
        line, traceback = record.getMessage().replace("\n", "\ufffd"), self.formatter or logging.Formatter()
        return visible(line + (f"\n{traceback.formatException(record.exc_info)}" if record.exc_info else ""))


def note(message: str) -> None:
    """Show a note on standard error."""
    stderr().print(message, soft_wrap=True)


def print_change(
    base: ragweave.KnowledgeBase,
    *,
    as_json: bool,
    previous: str | None = None,
    files: Sequence[SourceFile] = (),
    verbose: bool = False,
) -> None:
    """Print what a change did to a knowledge base, and warn of the sources that it skipped.

    Args:
        base: The knowledge base after the change.
        as_json: Print one JSON object.
        previous: The version before the change. If it is still current, nothing has changed.
        files: The files of the sources, of which some were ignored.
        verbose: Name each file that was ignored.
    """
    ignored = [file for file in files if file.ignored]
    if ignored:
        kinds = Counter(file.ignored for file in ignored).most_common()
        listed = ", ".join(f"{count} {kind}" for kind, count in kinds)
        note(f"{len(ignored)} ignored: {listed}." + ("" if verbose else " Add --verbose to see their names."))
    for file in ignored if verbose else ():
        note(f"ignored ({file.ignored}): {file.source}")
    manifest = base.manifest
    change, changed = manifest.change, base.version != previous
    for sentence in change.skipped if changed else ():
        warn(f"skipped: {sentence}")
    if as_json:
        print_json(base.info())
        return
    counts = (
        (change.added, "passage", " added"),
        (change.deleted, "", "deleted"),
        (change.kept, "", "kept for other sources"),
        (change.duplicates, "duplicate", " left out"),
        (change.read, "source", " read"),
        (change.without_text, "", "without text"),
        (change.removed, "source", " removed"),
        (change.unchanged, "source", " unchanged"),
        (len(change.skipped), "source", " skipped"),
    )
    summary = ", ".join(f"{count_of(count, noun)}{action}" for count, noun, action in counts if count)
    if not changed:
        summary = "nothing has changed"
    recall = "" if set(manifest.recall.values()) == {1} else f" Recall {recall_of(manifest.recall)}."
    size = f"{count_of(manifest.passages, 'passage')} from {count_of(manifest.documents, 'document')}"
    print_text(
        f"{base.path}: {size}, version {base.version}, embedded by {manifest.encoder.name}"
        f"{f' ({summary})' if summary else ''}.{recall}"
    )


def recall_of(recall: dict[str, float]) -> str:
    """The recall of indexes against comparing all vectors, such as ``"0.998@5, 0.991@50, 0.985@100"``."""
    return ", ".join(f"{share:.3f}@{k}" for k, share in recall.items()) or "not measured"


def note_compaction(base: ragweave.KnowledgeBase) -> None:
    """Suggest compacting a knowledge base if many of its rows are deleted."""
    if base.manifest.needs_compaction:
        share = f"{base.manifest.deleted_share:.0%}"
        note(f"{share} of the rows are deleted. 'ragweave compact {base.path}' frees their space.")


def count_of(count: int, noun: str) -> str:
    """A number with its noun, such as ``"1 source"`` or ``"2 sources"``."""
    return f"{count} {noun}{'s' if noun and count != 1 else ''}"


def quiet_libraries() -> None:
    """Turn off the progress bars and the log messages of transformers and huggingface_hub."""
    from huggingface_hub.utils import logging as hub_logging
    from huggingface_hub.utils.tqdm import disable_progress_bars
    from transformers.utils import logging

    warnings.simplefilter("ignore", FutureWarning)  # addressed to developers, not to users
    hub_logging.set_verbosity_error()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Show on a terminal what is being loaded, without messages of the libraries."""
    console = stderr()
    gc.disable()  # imports create a million permanent objects, which each collection would scan
    try:
        with console.status(f"Loading {what}") if console.is_terminal else nullcontext():
            quiet_libraries()
            yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def progress_bar(
    description: str, *, total: int | None, hidden: bool = False
) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on standard error if that is a terminal.

    Args:
        description: Label of the bar.
        total: Number of steps; ``None`` if it is unknown.
        hidden: Show nothing.

    Yields:
        A function that advances the bar by a number of steps.
    """
    with _bars(hidden=hidden) as bars:
        task = bars.add_task(description, total=total)
        yield lambda steps: bars.advance(task, steps)


class StageBars:
    """Shows the stages of a long job as successive progress bars; see `stage_bars`.

    Args:
        bars: Draws the bars.
    """

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._task = bars.add_task("Starting", total=None)

    def start(self, stage: str, total: int | None) -> None:
        """End the current stage and start one."""
        completed = self._bars.tasks[-1].completed
        if completed:
            # A stage of unknown length would pulse forever.
            self._bars.update(self._task, total=completed)
        else:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(stage, total=total)

    def advance(self, steps: int) -> None:
        """Advance the current stage by a number of steps."""
        self._bars.advance(self._task, steps)


@contextmanager
def stage_bars(*, hidden: bool = False) -> Iterator[StageBars]:
    """Show the stages of a job on standard error if that is a terminal."""
    with _bars(hidden=hidden) as bars:
        yield StageBars(bars)


@contextmanager
def job_bars() -> Iterator[Callable[[str, int, int, str], None]]:
    """Show a progress bar for each of several named jobs, with a note beside it.

    Yields:
        A function that takes the job's name, its number of steps, the completed steps, and the note.
    """
    with bars_with_notes() as bars:
        tasks: dict[str, TaskID] = {}
        loading = bars.add_task("Loading the model", total=None, note="")

        def advance(name: str, total: int, steps: int, note: str) -> None:
            bars.update(loading, visible=False)
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total, note="")
            bars.update(tasks[name], advance=steps, note=note)

        yield advance


def bars_with_notes() -> Progress:
    """Progress bars whose tasks have a field ``note``, shown beside the bar."""
    bars = _bars()
    bars.columns = (*bars.columns, TextColumn("{task.fields[note]}", markup=False))
    return bars


def _bars(*, hidden: bool = False) -> Progress:
    console = stderr()
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
        disable=hidden or not console.is_terminal,
    )

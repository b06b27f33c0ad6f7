"""What all commands show things with: results on standard output, all else on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


def stdout() -> Console:
    """The console for results."""
    from rich.console import Console

    return Console(highlight=False)


def stderr() -> Console:
    """The console for everything that is not a result."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def warn(message: str) -> None:
    """Show a sentence that does not keep the command from going on."""
    stderr().print(f"warning: {message}", markup=False, style="yellow", soft_wrap=True)


def quiet_libraries() -> None:
    """Keep the progress bars and the chatter of transformers and the hub out of a command's output."""
    import warnings

    from huggingface_hub.utils import logging as hub_logging
    from huggingface_hub.utils.tqdm import disable_progress_bars
    from transformers.utils import logging

    warnings.simplefilter("ignore", FutureWarning)  # what libraries will rename is no news for a user
    hub_logging.set_verbosity_error()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()


@contextmanager
def progress_bar(
    description: str, *, total: int | None, hidden: bool = False
) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on standard error, where that is a terminal.

    Args:
        description: What is going on.
        total: How many steps there are; ``None`` if nobody knows.
        hidden: Show nothing.

    Yields:
        A function that goes on by so many steps.
    """
    with _bars(hidden=hidden) as bars:
        task = bars.add_task(description, total=total)
        yield lambda steps: bars.advance(task, steps)


class StageBars:
    """Shows the stages of a long job as one progress bar after the other; see `stage_bars`.

    Args:
        bars: What draws them.
    """

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._task = bars.add_task("Starting", total=None)

    def start(self, stage: str, total: int | None) -> None:
        """End the stage before, and begin one."""
        self._finish()
        self._task = self._bars.add_task(stage, total=total)

    def advance(self, steps: int) -> None:
        """Go on by so many steps."""
        self._bars.advance(self._task, steps)

    def _finish(self) -> None:
        # What was done, and not a bar that pulses on: a stage without a total ends where it stands.
        done = self._bars.tasks[-1].completed
        if done:
            self._bars.update(self._task, total=done)
        else:
            self._bars.remove_task(self._task)


@contextmanager
def stage_bars(*, hidden: bool = False) -> Iterator[StageBars]:
    """Show the progress of a job with stages on standard error, where that is a terminal."""
    with _bars(hidden=hidden) as bars:
        yield StageBars(bars)


@contextmanager
def noted_bars() -> Iterator[Callable[[str, int, int, str], None]]:
    """Show a progress bar for each job by its name, with a note beside it.

    Yields:
        A function of the job's name, how many steps it has, how many more are done, and the note.
    """
    with bars_with_notes() as bars:
        tasks: dict[str, TaskID] = {}

        def advance(name: str, total: int, steps: int, note: str) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total, note="")
            bars.update(tasks[name], advance=steps, note=note)

        yield advance


def bars_with_notes() -> Progress:
    """Bars of tasks that have a field ``note``, shown beside them."""
    from rich.progress import TextColumn

    bars = _bars(hidden=False)
    bars.columns = (*bars.columns, TextColumn("{task.fields[note]}"))
    return bars


def _bars(*, hidden: bool) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = stderr()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
        disable=hidden or not console.is_terminal,
    )

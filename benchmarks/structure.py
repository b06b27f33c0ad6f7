"""Structure of the code: sizes, imports, import circles, and how much code a command runs.

python benchmarks/structure.py [--src src/ragweave] [--json] [--no-runs] [--list ask]

--src measures any commit, for example a git worktree. The static part reads the files and imports nothing. The
runs need ragweave's dependencies; each runs in a subprocess and imports the package from --src.

Definitions:

- Executed file: at least one function or method of it was called. Importing it, or defining a class, is not enough.
  The rows "with class bodies" also count the classes that were defined.
- Function: a code object, including lambdas, comprehensions and generator expressions. Function name: the same,
  where those of one name in one file are one.
- Switch: two successive calls in one thread whose functions are in different files of the package. Decoding
  repeats them for every token, so distinct switches (ordered pairs of files) compare better.
- Import circle: modules that import each other, directly or not. Imports inside functions count; imports for type
  checking and imports by name (``import_module``) do not. ``ragweave`` itself and ``__main__`` are exempt.
- Arrow up: a module that imports a module of a higher layer, counted once per pair of modules.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import os
import runpy
import statistics
import subprocess
import sys
import tempfile
import threading
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

LONGEST_FILE = 450
MARKERS = ("# noqa", "# type:")

# From top to bottom; imports point down. The modules of one row share a layer.
LAYERS = (
    ("cli",),
    ("serving",),
    ("training",),
    ("evaluation",),
    ("pipeline",),
    ("provenance",),
    ("tf",),
    ("knowledge",),
    ("modeling",),
    ("retrieval",),
    ("encoders",),
    ("marginalization", "matching"),
    ("configuration", "tokenization", "outputs"),
    ("model_files",),
    ("types",),
    ("errors",),
)
LAYER_OF = {room: depth for depth, rooms in enumerate(LAYERS) for room in rooms}
EXEMPT = ("", "__main__")

DOCUMENT = """# Lighthouses

## Alder Point

The lighthouse of Alder Point was built in 1874 by Ida Marsh. Its lamp is 31 metres above the sea.

## Cape Fenn

The lighthouse of Cape Fenn was built in 1902 by Otto Berg. Its lamp turns once in twelve seconds.

## Gull Rock

The lighthouse of Gull Rock was closed in 1961. Today it is a museum with 4,000 visitors a year.
"""
EXAMPLES = (
    ("Who built the lighthouse of Alder Point?", "Ida Marsh"),
    ("When was the lighthouse of Cape Fenn built?", "1902"),
    ("What is the lighthouse of Gull Rock today?", "a museum"),
)
# In this order: ask and train read the knowledge base that index writes. The three examples are one batch, so
# one epoch is one training step.
RUNS = {
    "index": ["index", "lighthouses.md", "--output", "kb"],
    "ask": ["ask", "--kb", "kb", EXAMPLES[0][0]],
    "train": [
        *("train", "--kb", "kb", "--data", "train.jsonl", "--output", "model", "--lora"),
        *("--epochs", "1", "--batch-size", "3", "--n-docs", "2"),
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(__file__).parent.parent / "src" / "ragweave"
    parser.add_argument("--src", type=Path, default=default, help="the package's folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--no-runs", action="store_true", help="skip the commands, read the files only")
    parser.add_argument("--list", choices=RUNS, help="print the files that one command executes")
    args = parser.parse_args()
    src = args.src.resolve()
    if not (src / "__init__.py").is_file():
        parser.error(f"{args.src} is not a package: __init__.py is missing")

    if args.list:
        run = measure_runs(src, args.list)[args.list]
        for path in run["with_classes"]["executed"]:
            print(path if path in run["executed"] else f"{path} (only class bodies)")
        return
    report = measure_files(src)
    if not args.no_runs:
        report["runs"] = measure_runs(src)
    print(json.dumps(report, indent=2) if args.json else table(report))


# --- The static part ---


@dataclass(slots=True)
class Module:
    """What one file contributes to the report."""

    name: str
    path: str
    is_package: bool
    lines: int
    comments: int
    type_checking: bool = False
    local_imports: int = 0
    imports: list[tuple[str, str]] = field(default_factory=list)
    type_imports: list[tuple[str, str]] = field(default_factory=list)

    @property
    def room(self) -> str:
        """First part of the name below the package; empty for the package itself."""
        return self.name.partition(".")[2].partition(".")[0]

    def collect(self, node: ast.AST, *, in_function: bool = False, for_types: bool = False) -> None:
        """Collect the imports below a node of the syntax tree."""
        if isinstance(node, ast.Import | ast.ImportFrom):
            self.local_imports += in_function
            (self.type_imports if for_types else self.imports).extend(self.targets(node))
            return
        in_function = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        guarded: list[ast.stmt] = []
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            self.type_checking = True
            guarded = node.body
        for child in ast.iter_child_nodes(node):
            self.collect(child, in_function=in_function, for_types=for_types or child in guarded)

    def targets(self, node: ast.Import | ast.ImportFrom) -> list[tuple[str, str]]:
        """The absolute names that a statement imports, as pairs of a module and a name in it."""
        if isinstance(node, ast.Import):
            return [(alias.name, "") for alias in node.names]
        base = node.module or ""
        if node.level:
            parts = self.name.split(".")
            parts = parts[: len(parts) - node.level + self.is_package]
            base = ".".join([*parts, base] if base else parts)
        return [(base, alias.name) for alias in node.names]


def read_modules(src: Path) -> dict[str, Module]:
    """Read every file of a package, by the name of its module."""
    modules = {}
    for path in sorted(src.rglob("*.py")):
        relative = path.relative_to(src)
        parts = relative.with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join((src.name, *(parts[:-1] if is_package else parts)))
        text = path.read_text(encoding="utf-8")
        module = Module(
            name, relative.as_posix(), is_package, len(text.splitlines()), sum(1 for _ in comment_lines(text))
        )
        module.collect(ast.parse(text))
        modules[name] = module
    return modules


def comment_lines(text: str) -> Iterator[str]:
    """Yield the comments that have a line to themselves."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        alone = token.type == tokenize.COMMENT and token.line.lstrip().startswith("#")
        if alone and not token.string.startswith(MARKERS):
            yield token.string


def import_graph(modules: dict[str, Module], *, for_types: bool = False) -> dict[str, set[str]]:
    """Map each module to the modules of the package that it imports, without the exempt ones.

    Args:
        modules: The modules by name.
        for_types: Count imports for type checking as well.
    """
    modules = {name: module for name, module in modules.items() if module.room not in EXEMPT}
    graph: dict[str, set[str]] = {}
    for module in modules.values():
        targets = set()
        for base, name in module.imports + (module.type_imports if for_types else []):
            submodule = f"{base}.{name}"
            if submodule in modules:
                targets.add(submodule)
            elif base in modules:
                targets.add(base)
        graph[module.name] = targets - {module.name}
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Find the strongly connected components of more than one module (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    components = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(graph[node]):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            start = stack.index(node)
            component = sorted(stack[start:])
            del stack[start:]
            if len(component) > 1:
                components.append(component)

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return sorted(components)


def arrows_up(modules: dict[str, Module], graph: dict[str, set[str]]) -> list[str]:
    """List the imports of a higher layer. Modules outside the layers are skipped."""
    arrows = []
    for name, targets in sorted(graph.items()):
        layer = LAYER_OF.get(modules[name].room)
        for target in sorted(targets):
            above = LAYER_OF.get(modules[target].room)
            if layer is not None and above is not None and above < layer:
                arrows.append(f"{name} -> {target}")
    return arrows


def measure_files(src: Path) -> dict[str, Any]:
    """Measure everything that can be read from the files."""
    modules = read_modules(src)
    graph = import_graph(modules)
    type_graph = import_graph(modules, for_types=True)
    by_length = sorted(modules.values(), key=lambda module: -module.lines)
    lines = sum(module.lines for module in modules.values())
    local_imports = sum(module.local_imports for module in modules.values())
    rooms: dict[str, Counter[str]] = {}
    for module in modules.values():
        counts = rooms.setdefault(module.room or "__init__", Counter())
        counts.update(files=1, lines=module.lines, local_imports=module.local_imports)
    return {
        "files": len(modules),
        "lines": lines,
        "median_lines": statistics.median(module.lines for module in modules.values()),
        "longest": [by_length[0].path, by_length[0].lines],
        "too_long": [[module.path, module.lines] for module in by_length if module.lines > LONGEST_FILE],
        "local_imports": local_imports,
        "local_imports_per_1000_lines": round(1000 * local_imports / lines, 1),
        "type_checking_files": sum(module.type_checking for module in modules.values()),
        "comment_lines": sum(module.comments for module in modules.values()),
        "circles": circles(graph),
        "arrows_up": arrows_up(modules, graph),
        "circles_with_types": circles(type_graph),
        "arrows_up_with_types": arrows_up(modules, type_graph),
        "outside_layers": sorted({m.room for m in modules.values()} - LAYER_OF.keys() - set(EXEMPT)),
        "rooms": {room: dict(counts) for room, counts in sorted(rooms.items())},
    }


# --- The runs ---


class Trail:
    """The files that calls go through."""

    def __init__(self) -> None:
        self.functions: dict[CodeType, str] = {}
        self.calls = 0
        self.switches: Counter[tuple[str, str]] = Counter()
        self.thread = threading.local()

    def add(self, code: CodeType, path: str) -> None:
        """Note one call."""
        self.functions[code] = path
        self.calls += 1
        previous = getattr(self.thread, "path", path)
        if path != previous:
            self.switches[previous, path] += 1
        self.thread.path = path

    def report(self) -> dict[str, Any]:
        """Return the executed files, and the counts."""
        return {
            "executed": sorted(set(self.functions.values())),
            "functions": len(self.functions),
            "function_names": len({(path, code.co_name) for code, path in self.functions.items()}),
            "switches": self.switches.total(),
            "distinct_switches": len(self.switches),
            "calls": self.calls,
        }


class CallProfile:
    """Follows the calls of functions whose files are below a folder; see ``sys.setprofile``."""

    def __init__(self, src: Path) -> None:
        self.prefix = f"{src}{os.sep}"
        self.path_of: dict[CodeType, str | None] = {}
        self.trail = Trail()
        self.trail_with_classes = Trail()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Receive one event of the interpreter."""
        if event != "call":
            return
        code = frame.f_code
        try:
            path = self.path_of[code]
        except KeyError:
            ours = code.co_filename.startswith(self.prefix) and code.co_name != "<module>"
            path = self.path_of[code] = code.co_filename[len(self.prefix) :] if ours else None
        if path is None:
            return
        self.trail_with_classes.add(code, path)
        if code.co_flags & CO_OPTIMIZED:  # the body of a class is not
            self.trail.add(code, path)


def profile_command(src: Path, output: Path, arguments: list[str]) -> None:
    """Run one command of ragweave in this process and write its profile."""
    spec = find_spec("ragweave")
    if spec is None or Path(spec.origin or "").parent != src:
        raise SystemExit(f"Python does not find ragweave in {src}.")
    profile = CallProfile(src)
    sys.argv = ["ragweave", *arguments]
    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        runpy.run_module("ragweave", run_name="__main__")
    finally:
        sys.setprofile(None)
        profile.prefix = "\0"  # threads that still run are no longer followed
        report = {**profile.trail.report(), "with_classes": profile.trail_with_classes.report()}
        output.write_text(json.dumps(report), encoding="utf-8")


def measure_runs(src: Path, last: str | None = None) -> dict[str, dict[str, Any]]:
    """Profile the commands, each in its own process, and stop after ``last``."""
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "lighthouses.md").write_text(DOCUMENT, encoding="utf-8")
        rows = [json.dumps({"question": question, "answers": [answer]}) for question, answer in EXAMPLES]
        (folder / "train.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": str(src.parent)}
        for run, arguments in RUNS.items():
            output = folder / f"{run}.json"
            # -P keeps this folder off the path: its files have names such as memory and serving.
            done = subprocess.run(  # noqa: S603
                [sys.executable, "-P", __file__, "--profile", str(src), str(output), *arguments],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
            )
            if done.returncode:
                raise SystemExit(f"ragweave {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
            result = json.loads(output.read_text(encoding="utf-8"))
            for trail in (result, result["with_classes"]):
                executed = [(src / path).read_text(encoding="utf-8") for path in trail["executed"]]
                trail["files"] = len(executed)
                trail["lines"] = sum(len(text.splitlines()) for text in executed)
            results[run] = result
            if run == last:
                break
    return results


# --- Output ---


def table(report: dict[str, Any]) -> str:
    """Format a report as Markdown."""
    rows: list[tuple[str, Any]] = [
        ("files", report["files"]),
        ("lines", f"{report['lines']:,}"),
        ("lines of the median file", report["median_lines"]),
        ("longest file", " ".join(map(str, report["longest"]))),
        (f"files over {LONGEST_FILE} lines", len(report["too_long"])),
        ("imports in functions", report["local_imports"]),
        ("imports in functions, per 1,000 lines", report["local_imports_per_1000_lines"]),
        ("files with a TYPE_CHECKING block", report["type_checking_files"]),
        ("comment lines", report["comment_lines"]),
        ("import circles", len(report["circles"])),
        ("modules in import circles", sum(map(len, report["circles"]))),
        ("imports of a higher layer", len(report["arrows_up"])),
        ("import circles, with imports for type checking", len(report["circles_with_types"])),
        ("imports of a higher layer, with those for type checking", len(report["arrows_up_with_types"])),
    ]
    parts = ["| | |\n|-|-|", *(f"| {name} | {value} |" for name, value in rows)]
    if "runs" in report:
        keys = ("files", "lines", "functions", "function_names", "switches", "distinct_switches", "calls")
        parts.append(f"\n| run | {' | '.join(keys).replace('_', ' ')} |\n|-|{'-|' * len(keys)}")
        for name, run in report["runs"].items():
            for title, trail in ((name, run), (f"{name}, with class bodies", run["with_classes"])):
                parts.append(f"| {title} | {' | '.join(f'{trail[key]:,}' for key in keys)} |")
    parts.append("\n| room | files | lines | imports in functions | per 1,000 lines |\n|-|-|-|-|-|")
    for room, counts in report["rooms"].items():
        share = 1000 * counts["local_imports"] / max(counts["lines"], 1)
        parts.append(
            f"| {room} | {counts['files']} | {counts['lines']:,} | {counts['local_imports']} | {share:.1f} |"
        )
    lists = {
        f"Files over {LONGEST_FILE} lines": [f"{path} {lines}" for path, lines in report["too_long"]],
        "Import circles": [", ".join(circle) for circle in report["circles"]],
        "Imports of a higher layer": report["arrows_up"],
        "Imports of a higher layer for type checking": [
            arrow for arrow in report["arrows_up_with_types"] if arrow not in report["arrows_up"]
        ],
        "Modules outside the layers": report["outside_layers"],
    }
    for title, entries in lists.items():
        if entries:
            parts.append(f"\n{title}:\n" + "\n".join(f"- {entry}" for entry in entries))
    return "\n".join(parts)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--profile"]:
        profile_command(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
    else:
        main()

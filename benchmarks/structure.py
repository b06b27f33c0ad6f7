"""Structure of the code: sizes, imports, import circles, and how much code a command runs.

python benchmarks/structure.py [--src src/ragweave] [--json] [--no-runs] [--list ask]

--src measures any commit, for example a git worktree. The static part reads the files and imports nothing. The
runs need ragweave's dependencies; each runs in a subprocess and imports the package from --src.

Definitions:

- Executed file: at least one function or method of it was called. Importing it, or defining a class, is not enough.
- Function: a code object with a call, including lambdas, comprehensions and generator expressions.
- Switch: two successive calls in one thread whose functions are in different files of the package.
- Import circle: modules that import each other, directly or not. Imports inside functions count; imports for type
  checking and imports by name (``import_module``) do not.
- Arrow up: a module that imports a module of a higher layer, counted once per pair of modules.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
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
        print("\n".join(measure_runs(src, args.list)[args.list]["executed"]))
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

    @property
    def room(self) -> str:
        """First part of the name below the package; empty for the package itself."""
        return self.name.partition(".")[2].partition(".")[0]


class ImportVisitor(ast.NodeVisitor):
    """Collects the imports of one module."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.depth = 0

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.depth += 1
        self.generic_visit(node)
        self.depth -= 1

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) not in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            self.generic_visit(node)
            return
        self.module.type_checking = True
        for child in node.orelse:
            self.visit(child)

    def visit_Import(self, node: ast.Import) -> None:
        self.module.local_imports += self.depth > 0
        self.module.imports += [(alias.name, "") for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self.module.local_imports += self.depth > 0
        base = node.module or ""
        if node.level:
            parts = self.module.name.split(".")
            parts = parts[: len(parts) - node.level + self.module.is_package]
            base = ".".join([*parts, base] if base else parts)
        self.module.imports += [(base, alias.name) for alias in node.names]


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
        ImportVisitor(module).visit(ast.parse(text))
        modules[name] = module
    return modules


def comment_lines(text: str) -> Iterator[str]:
    """Yield the comments that have a line to themselves."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        alone = token.type == tokenize.COMMENT and token.line.lstrip().startswith("#")
        if alone and not token.string.startswith(MARKERS):
            yield token.string


def import_graph(modules: dict[str, Module]) -> dict[str, set[str]]:
    """Map each module to the modules of the package that it imports."""
    graph: dict[str, set[str]] = {}
    for module in modules.values():
        targets = set()
        for base, name in module.imports:
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
        "outside_layers": sorted({m.room for m in modules.values()} - LAYER_OF.keys() - set(EXEMPT)),
        "rooms": {room: dict(counts) for room, counts in sorted(rooms.items())},
    }


# --- The runs ---


class CallProfile:
    """Counts the calls of functions whose files are below a folder."""

    def __init__(self, src: Path) -> None:
        self.prefix = f"{src}{os.sep}"
        self.path_of: dict[CodeType, str | None] = {}
        self.switches = 0
        self.calls = 0
        self.local = threading.local()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Receive one event of the interpreter; see ``sys.setprofile``."""
        if event != "call":
            return
        code = frame.f_code
        try:
            path = self.path_of[code]
        except KeyError:
            path = self.path_of[code] = self.path(code)
        if path is None:
            return
        self.calls += 1
        previous = getattr(self.local, "path", path)
        self.switches += path != previous
        self.local.path = path

    def path(self, code: CodeType) -> str | None:
        """The file of a function, or ``None`` if it is not ours; bodies of modules and classes are no functions."""
        if not code.co_flags & CO_OPTIMIZED or not code.co_filename.startswith(self.prefix):
            return None
        return code.co_filename[len(self.prefix) :]

    def report(self) -> dict[str, Any]:
        """Return the executed files, and the counts."""
        # More events can come from other threads.
        functions = {code: path for code, path in list(self.path_of.items()) if path is not None}
        return {
            "executed": sorted(set(functions.values())),
            "functions": len(functions),
            "switches": self.switches,
            "calls": self.calls,
        }


def profile_command(src: Path, output: Path, arguments: list[str]) -> None:
    """Run one command of ragweave in this process and write its profile."""
    profile = CallProfile(src)
    sys.argv = ["ragweave", *arguments]
    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        runpy.run_module("ragweave", run_name="__main__")
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
        if not (sys.modules["ragweave"].__file__ or "").startswith(profile.prefix):
            raise RuntimeError(f"ragweave was imported from another place than {src}")
        output.write_text(json.dumps(profile.report()), encoding="utf-8")


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
            command = [sys.executable, "-P", __file__, "--profile", str(src), str(output), *arguments]
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"ragweave {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
            result = json.loads(output.read_text(encoding="utf-8"))
            executed = [(src / path).read_text(encoding="utf-8") for path in result["executed"]]
            result["files"] = len(executed)
            result["lines"] = sum(len(text.splitlines()) for text in executed)
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
    ]
    parts = ["| | |\n|-|-|", *(f"| {name} | {value} |" for name, value in rows)]
    if "runs" in report:
        parts.append("\n| run | files | their lines | functions | switches | calls |\n|-|-|-|-|-|-|")
        for name, run in report["runs"].items():
            counts = (f"{run[key]:,}" for key in ("files", "lines", "functions", "switches", "calls"))
            parts.append(f"| {name} | {' | '.join(counts)} |")
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
        "Modules outside the layers": report["outside_layers"],
    }
    for title, entries in lists.items():
        if entries:
            parts.append(f"\n{title}:\n" + "\n".join(f"- {entry}" for entry in entries))
    return "\n".join(parts)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--profile"]:
        with contextlib.suppress(BrokenPipeError):
            profile_command(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
    else:
        main()

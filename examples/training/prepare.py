"""Write documents, 200 training questions and 60 development questions from the World Factbook.

    python -m examples.training.prepare FOLDER

FOLDER gets ``documents/`` (one text file for each section of 59 countries), ``train.jsonl`` and ``dev.jsonl``
(question, answers). No country has questions in both files, and the embedded model was not trained on questions
about any of them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from examples.world_factbook.documents import country_documents, country_name, load_countries
from experiments.embedded.factbook_questions import LEFT_OUT, Question, all_questions, split_of

TRAIN, DEV = 200, 60
"""How many questions."""

PER_COUNTRY = 10
"""At most so many about one country."""


def prepare(folder: Path) -> None:
    """Write documents and questions.

    Args:
        folder: Where to; made if it is not there.
    """
    countries = load_countries()
    documents = folder / "documents"
    documents.mkdir(parents=True, exist_ok=True)
    for code, country in countries.items():
        name = country_name(code, country)
        if name in LEFT_OUT or split_of(name) == "train":
            continue
        for document in country_documents(code, country):
            path = documents / f"{document['id'].replace('/', '-')}.txt"
            path.write_text(f"{document['title']}\n\n{document['text']}\n", encoding="utf-8")
    splits = all_questions(countries, PER_COUNTRY)
    _write(folder / "train.jsonl", splits["dev"][:TRAIN])
    _write(folder / "dev.jsonl", splits["test"][:DEV])


def _write(path: Path, questions: list[Question]) -> None:
    lines = [
        json.dumps({key: question[key] for key in ("id", "question", "answers")}, ensure_ascii=False)
        for question in questions
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    prepare(parser.parse_args().folder)


if __name__ == "__main__":
    main()

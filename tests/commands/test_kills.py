"""Commands that are killed at drawn points and started again: nothing is lost, and nothing is left behind."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kills import Commands

from optical_hf import OpticalStudent

ENGLISH = ["the", "a", "who", "wrote", "it", "rains", "today", "book", "this", "she"]
OTHERS = ["nani", "aliandika", "hicho", "kitabu", "leo", "mvua", "inanyesha", "habari", "!", "?"]


def sentence(words: list[int], language: str) -> str:
    """The same words in another order of the vocabulary for each language but English."""
    if language == "en":
        return " ".join(ENGLISH[word] for word in words)
    return " ".join(OTHERS[(word + ord(language[0])) % 10] for word in words)


@pytest.fixture(scope="module")
def data(tmp_path_factory, tiny_encoder) -> Path:
    """Bitext of two languages, twelve passages, eight questions to them, and a study of it all."""
    folder = tmp_path_factory.mktemp("kills")
    chance = random.Random(0)
    drawn = {tuple(chance.sample(range(10), chance.randint(3, 6))): None for _ in range(60)}
    sentences = [list(words) for words in drawn]
    pairs, texts = sentences[:24], sentences[24:36]
    for language in ("sw", "yo"):
        lines = [f"{sentence(words, 'en')}\t{sentence(words, language)}\n" for words in pairs]
        (folder / f"{language}.tsv").write_text("".join(lines))
    for language in ("en", "sw", "yo"):
        lines = [json.dumps({"docid": f"d{i}", "text": sentence(words, language)}) for i, words in enumerate(texts)]
        (folder / f"passages.{language}.jsonl").write_text("\n".join(lines) + "\n")
        topics = [f"q{i}\t{sentence(words[:-1], language)}\n" for i, words in enumerate(texts[:8])]
        (folder / f"topics.{language}.tsv").write_text("".join(topics))
    (folder / "qrels.tsv").write_text("".join(f"q{i} 0 d{i} 1\n" for i in range(8)))
    study = {
        "teacher": str(tiny_encoder),
        "pairs": 16,
        "bitext": {"sw": "sw.tsv", "yo": "yo.tsv"},
        "rotations": {"first": {"seen": ["sw"], "unseen": ["yo"]}, "second": {"seen": ["yo"], "unseen": ["sw"]}},
        "seeds": [1],
        "training": {
            **{"max_steps": 4, "per_device_train_batch_size": 8, "logging_steps": 1, "learning_rate": 1e-3},
            **{"save_strategy": "steps", "save_steps": 1, "save_total_limit": 2, "use_cpu": True},
        },
        "methods": {"ot": {"loss": "ot"}},
        "levers": {"both_sides": {"base": "ot", "passages": "student", "rotations": ["first"]}},
        "evaluation": {
            "english": {
                "passages": {"en": "passages.en.jsonl"},
                "topics": {language: f"topics.{language}.tsv" for language in ("sw", "yo")},
                "english_topics": {language: "topics.en.tsv" for language in ("sw", "yo")},
                "qrels": "qrels.tsv",
            },
        },
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return folder


def words_of(command: str, data: Path, encoder: Path, out: Path) -> list[str]:
    """The command line, which writes into `out` only."""
    if command.startswith("distill"):
        options: dict[str, Any] = {
            "teacher": encoder,
            "bitext": f"sw={data}/sw.tsv",
            "held_out": 4,
            "passages": f"{data}/passages.en.jsonl",
            "topics": f"sw={data}/topics.sw.tsv",
            "english_topics": f"sw={data}/topics.en.tsv",
            "qrels": f"sw={data}/qrels.tsv",
            "passage_cache": out / "cache",
            "output_dir": out / "student",
            "max_steps": 6,
            "per_device_train_batch_size": 4,
            "save_strategy": "steps",
            "save_steps": 2,
            "save_total_limit": 2,
            "logging_steps": 1,
            "use_cpu": "true",
            "report_to": "none",
        }
        if command == "distill best":
            options |= {"eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": "true"}
            options |= {"metric_for_best_model": "eval_loss", "learning_rate": 0.03, "save_total_limit": 1}
        if command == "distill pushed":
            options |= {"push_to_hub": "true", "hub_model_id": f"writer/{out.name}", "hub_strategy": "every_save"}
            options |= {"hub_always_push": "true"}
        return ["distill", *(str(word) for name, value in options.items() for word in (f"--{name}", value))]
    if command == "study":
        return ["study", f"--config={data}/study.yaml", f"--output_dir={out}/study"]
    if command == "push":
        return ["push", f"{out}/student", f"writer/{out.name}"]
    passages = f"--passages={data}/passages.en.jsonl"
    index = [f"--model={encoder}", f"--index_dir={out}/index", "--shard_size=2", "--dim=16", "--dtype=int8", passages]
    if command == "index":
        return ["index", *index]
    files = [f"--topics={data}/topics.en.tsv", f"--qrels={data}/qrels.tsv", f"--output_dir={out}/measured"]
    return ["evaluate", *index, *files, "--first_stage=bm25", "--query_language=en", "--depth=5"]


# What says when or how long, or how often it was stopped; `digest` is of a record with these in it.
TIMES = re.compile(
    r"date|(training_|evaluation_|total_)?seconds|resumed_from|digest|eval_runtime|eval_\w+_per_second"
    r"|trainer_state\.json"  # a checksum, of a file with times in it
)


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_times(each) for name, each in value.items() if not TIMES.fullmatch(name)}
    return [without_times(each) for each in value] if isinstance(value, list) else value


def content(name: str, stored: bytes) -> Any:
    """What a file holds, without times: those of the model card and of a study's report are in tables."""
    if name.endswith(".json"):
        return without_times(json.loads(stored))
    if name.endswith("README.md"):
        return re.sub(rb"\| time \|.*", b"", stored)
    return stored


def state(out: Path, hub: Any) -> dict[str, Any]:
    """All files and folders with their content, hidden ones too, and the repositories on the Hub."""
    there: dict[str, Any] = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        there[name] = content(name, path.read_bytes().replace(str(out).encode(), b"OUT")) if path.is_file() else None
    for (_, repository), stored in hub.repositories.items():
        there |= {f"{repository}/{name}": content(name, file) for name, file in stored.files.items()}
    return there


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [
        name for name in sorted(one.keys() | other.keys()) if one.get(name, "missing") != other.get(name, "missing")
    ]


class Lives:
    """One command in folders of its own: undisturbed, and killed again and again until it has come to its end."""

    def __init__(self, command: str, data: Path, encoder: Path, folder: Path, hub: Any) -> None:
        self.command, self.data, self.encoder, self.folder, self.hub = command, data, encoder, folder, hub
        self.commands = Commands(command.split()[0], HF_HOME=str(folder / "hf-home"))
        self.expected, self.changes, self.seconds = dict[str, Any](), 0, 0.0
        self.kills, self.starts, self.count = 0, 0, 0

    def begin(self) -> Path:
        self.count += 1
        out = self.folder / f"life-{self.count}" / "x"
        out.mkdir(parents=True)
        self.hub.repositories.clear()
        if self.command == "push":
            OpticalStudent.from_checkpoint(self.encoder).save_pretrained(out / "student")
        return out

    def undisturbed(self) -> None:
        out = self.begin()
        words = words_of(self.command, self.data, self.encoder, out)
        code, self.changes, self.seconds, said = self.commands.run(words, out)
        assert code == 0, said
        self.expected = state(out, self.hub)
        assert not list((out / "tmp").iterdir()) and not [name for name in self.expected if ".partial" in name]

    def start(self, out: Path, first: bool, **kill: Any) -> bool:
        """Start it as a user would, and tell whether it was killed."""
        words = words_of(self.command, self.data, self.encoder, out)
        resumes = self.command.startswith("distill") and not first
        code, _, _, said = self.commands.run(
            [*words, "--resume_from_checkpoint=true"] if resumes else words, out, **kill
        )
        if code == 1 and "holds no whole checkpoint" in said:
            code, _, _, said = self.commands.run(words, out, **kill)
        assert code == 0 or (kill and code == -9), f"{self.command}, {out}: ended by {code}\n{said[-4000:]}"
        self.starts, self.kills = self.starts + 1, self.kills + (code != 0)
        return code != 0

    def live(self, kills: list[dict[str, Any]]) -> None:
        """Kill it as often as told, or until it comes to its end before that, and let it come to its end."""
        out, killed = self.begin(), True
        for number, kill in enumerate([*kills, {}]):
            killed = killed and self.start(out, number == 0, **kill)
        differing = differences(state(out, self.hub), self.expected)
        assert not differing, f"{self.command}, {out}, killed at {kills}: {differing}"


@pytest.fixture
def lives(data, tiny_encoder, tmp_path, hub) -> Iterator[Any]:
    """`Lives` of a command."""
    made: list[Lives] = []

    def make(command: str) -> Lives:
        made.append(Lives(command, data, tiny_encoder, tmp_path, hub))
        made[-1].undisturbed()
        return made[-1]

    yield make
    for each in made:
        each.commands.close()


def test_an_index_whose_building_is_killed_three_times(lives):
    index = lives("index")
    index.live([{"event": event} for event in (20, 40, 60)])
    assert index.kills == 3


# Sixty in all.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "kills"),
    [
        *(("distill", 10), ("distill best", 9), ("distill pushed", 7), ("study", 12)),
        *(("evaluate", 9), ("push", 6), ("index", 7)),
    ],
)
def test_killed_at_any_point_and_started_again(lives, command, kills):
    killed, chance = lives(command), random.Random(os.environ.get("OPTICAL_HF_KILLS", "0") + command)
    longest = killed.seconds if command == "push" else 0.05  # a push waits for the Hub more than it changes files
    while killed.kills < kills:
        drawn = [
            {"event": chance.randint(1, killed.changes), "delay": chance.choice([0.0, chance.uniform(0, longest)])}
            for _ in range(chance.randint(1, 3))
        ]
        killed.live(drawn[: kills - killed.kills])
    print(
        f"{command}: {killed.kills} kills, {killed.count - 1} lives, {killed.starts} starts, {killed.changes} changes"
    )

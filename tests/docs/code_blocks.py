"""The code blocks of the README, CONTRIBUTING and docs/, and how they are run: in one process, beside a loopback Hub.

    python tests/docs/code_blocks.py FOLDER

runs every block that is not marked, in the order in which a reader meets it, and writes `FOLDER/results.jsonl`. The
Hub serves a small encoder with random weights as `intfloat/multilingual-e5-small`, and a few rows of the data sets
that the pages name, so the commands are those of the pages, word for word.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
GUIDES = (
    "distil",
    "recipe",
    "evaluate",
    "index-and-serve",
    "train-a-retriever",
    "rerank-and-fuse",
    "your-loss",
    "gpus",
)
FIRST = [ROOT / "docs" / "index.md", *(ROOT / "docs" / "guides" / f"{name}.md" for name in GUIDES)]
RUN, SHOWN = ("bash", "python"), ("text", "bibtex", "yaml")
FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"^<!-- not run:([^\n]*)-->\n\Z", re.MULTILINE)
E5, LANGUAGES = "intfloat/multilingual-e5-small", ("yo", "sw", "ha", "ig", "te", "fi")
MTEB_REVISION = "d7d94fa4b946cec4a27c84653aa0cf6b33f74a3c"  # the one that MTEB's task asks for


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, its code, and why it is not run, if it is marked."""

    page: str
    line: int
    language: str
    code: str
    reason: str | None

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """The README, then docs/ in the order of the guides: a page may use what an earlier one made."""
    others = sorted(path for path in (ROOT / "docs").rglob("*.md") if path not in FIRST)
    return [README, ROOT / "CONTRIBUTING.md", *FIRST, *others]


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for fence in FENCE.finditer(text):
        mark = MARK.search(text[: fence.start()])
        line = text.count("\n", 0, fence.start()) + 1
        yield Block(str(page.relative_to(ROOT)), line, fence[1], fence[2], mark[1].strip() if mark else None)


def all_blocks() -> list[Block]:
    return [block for page in pages() for block in blocks(page)]


# What the pages find


def write_encoder(folder: Path) -> None:
    """Save a BERT of one layer with random weights that knows the words of the sample, for sentence-transformers."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from optical_hf.quickstart import SAMPLE

    split = pre_tokenizers.Whitespace()
    texts = ["query: passage: Ta ni ó kọ ìwé yìí?", *(path.read_text() for path in sorted(SAMPLE.iterdir()))]
    words = sorted({word for text in texts for word, _ in split.pre_tokenize_str(text)})
    ids = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = split
    ends = [(word, ids[word]) for word in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **special).save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(ids), initializer_range=0.2, **sizes)).save_pretrained(folder)
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n\nA small encoder.\n")


def write_data(folder: Path) -> None:
    """Write the files that the pages name, from the first rows of the package's sample."""
    text = sample()
    for language in LANGUAGES:
        for place in ("", "mafand/", "ntrex/"):
            write(folder / f"{place}bitext.en-{language}.tsv", text["bitext"])
        pool = {"dev.topics.tsv": "topics.yo", "dev.qrels.tsv": "qrels", "passages.jsonl": "passages"}
        for name, source in pool.items():
            write(folder / "miracl_mini" / f"{language}.{name}", text[source])
        write(folder / f"topics.{language}.tsv", text["topics.yo"])
        write(folder / f"topics.{language}.english.tsv", text["topics.en"])
        write(folder / f"qrels.{language}.tsv", text["qrels"])
    write(folder / "passages.en.jsonl", text["passages"])
    (folder / "examples").symlink_to(ROOT / "examples")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def sample() -> dict[str, str]:
    """Return 120 pairs, 12 questions in Yoruba and English, their judgements, and the passages they find relevant."""
    from optical_hf.quickstart import SAMPLE

    def head(name: str, count: int) -> list[str]:
        return (SAMPLE / name).read_text(encoding="utf-8").splitlines(keepends=True)[:count]

    files = {"bitext": head("bitext.en-yo.tsv", 120), "qrels": head("qrels.tsv", 12)}
    files |= {f"topics.{language}": head(f"topics.{language}.tsv", 12) for language in ("yo", "en")}
    relevant = {line.split()[2] for line in files["qrels"]}
    passages = head("passages.en.jsonl", 1000)
    files["passages"] = [line for line in passages if json.loads(line)["docid"] in relevant]
    return {name: "".join(rows) for name, rows in files.items()}


def hub_files() -> dict[str, dict[str, str | bytes]]:
    """The data sets of the Hub that the pages name: their files, by repository."""
    text = sample()
    pairs = [line.rstrip("\n").split("\t") for line in text["bitext"].splitlines()]
    topics = [line.split("\t") for line in text["topics.yo"].splitlines()]
    judged = [line.split("\t") for line in text["qrels"].splitlines()]
    passages = [json.loads(line) for line in text["passages"].splitlines()]
    topic_files = {
        f"miracl-v1.0-{language}/{kind}/{kind}.miracl-v1.0-{language}-dev.tsv": text[source]
        for language in ("sw", "yo")
        for kind, source in (("topics", "topics.yo"), ("qrels", "qrels"))
    }
    shard = gzip.compress(text["passages"].encode())
    opus = {"en-ha": [{"translation": {"en": english, "ha": f"{other} fa"}} for english, other in pairs]}
    hard_negatives = {
        "yo-corpus": [{"_id": row["docid"], "title": row["title"], "text": row["text"]} for row in passages],
        "yo-queries": [{"_id": qid, "text": query} for qid, query in topics],
        "yo-qrels": [{"query-id": qid, "corpus-id": docid, "score": int(score)} for qid, _, docid, score in judged],
    }
    return {
        "miracl/miracl": dict(topic_files),
        "miracl/miracl-corpus": {f"miracl-corpus-v1.0-{language}/docs-0.jsonl.gz": shard for language in ("sw", "yo")},
        "Helsinki-NLP/opus-100": dataset_files("train", opus),
        "mteb/MIRACLRetrievalHardNegatives": dataset_files("dev", hard_negatives),
    }


def dataset_files(split: str, tables: Mapping[str, list[dict[str, Any]]]) -> dict[str, str | bytes]:
    """Write a dataset of one split, with a card that names its configurations."""
    configs = [
        {"config_name": name, "data_files": [{"split": split, "path": f"{name}/rows.jsonl"}]} for name in tables
    ]
    rows = {name: "".join(json.dumps(row) + "\n" for row in table) for name, table in tables.items()}
    card = f"---\n{json.dumps({'configs': configs})}\n---\n"
    return {"README.md": card, **{f"{name}/rows.jsonl": text for name, text in rows.items()}}


def start_hub() -> Any:
    """Start the Hub, log in as `me`, and tell this process and its children where it is."""
    import hub_server

    hub_server.TOKENS[hub_server.WRITE_TOKEN] = "me"
    server = hub_server.HubServer()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    os.environ |= {"HF_ENDPOINT": server.url, "HF_TOKEN": hub_server.WRITE_TOKEN, "HF_HUB_DISABLE_XET": "1"}
    return server


def fill_hub(server: Any, encoder: Path) -> None:
    from hub_server import Repository, Stored

    stored = {str(path.relative_to(encoder)): path.read_bytes() for path in encoder.rglob("*") if path.is_file()}
    contents: dict[tuple[str, str], Mapping[str, str | bytes]] = {("models", E5): stored}
    contents |= {("datasets", name): files for name, files in hub_files().items()}
    for (kind, name), files in contents.items():
        repository = server.repositories[kind, name] = Repository(private=False, sdk=None)
        encoded = {path: text.encode() if isinstance(text, str) else text for path, text in files.items()}
        repository.add("main", "files", {path: Stored(content, lfs=False) for path, content in encoded.items()})
        repository.branches[MTEB_REVISION] = list(repository.branches["main"])


# Running


def run_bash(code: str) -> None:
    """Run a block in this process if it is one command of ours, and by a shell otherwise."""
    words = shlex.split(code.replace("\\\n", " "))
    example = re.match(r"(?:accelerate launch|python) (examples/\w+\.py)", code)
    if words[0] == "optical-hf" and "<<" not in code:
        from optical_hf.commands.__main__ import main

        sys.argv = words
        main()
    elif example:
        sys.argv = words[words.index(example[1]) :]
        runpy.run_path(example[1], run_name="__main__")
    else:
        python = shlex.quote(sys.executable)
        commands = f'optical-hf() {{ {python} -m optical_hf.commands "$@"; }}\n'
        commands += f'accelerate() {{ {python} -m accelerate.commands.accelerate_cli "$@"; }}\n'
        done = subprocess.run(
            ["bash", "-c", f"set -euo pipefail\n{commands}{code}"], capture_output=True, text=True, timeout=300
        )
        print(done.stdout)
        if done.returncode:
            raise RuntimeError(f"exit code {done.returncode}\n{done.stderr[-6000:]}")


def run(block: Block, names: dict[str, Any]) -> str | None:
    """Run a block, and return what went wrong. A command that leaves by exit code 0 is right."""
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            if block.language == "python":
                exec(compile(block.code, block.name, "exec"), names)
            else:
                run_bash(block.code)
    except SystemExit as error:
        return None if error.code in (None, 0) else f"exit: {error.code}\n{output.getvalue()[-2000:]}"
    except Exception:
        return f"{traceback.format_exc()}\n{output.getvalue()[-2000:]}"
    return None


def main(folder: Path) -> None:
    """Prepare the folders and the Hub, and run the blocks; the README starts in a folder of its own."""
    sys.path.insert(0, str(ROOT / "tests"))
    sys.path.insert(0, str(ROOT / "examples"))
    os.environ["HF_HOME"] = os.environ["HOME"] = str(folder / "home")
    os.environ["OMP_NUM_THREADS"] = "1"  # the model is too small for two
    os.environ |= {"OPTICAL_HF_CACHE": str(folder / "cache"), "MTEB_CACHE": str(folder / "mteb"), "MPLBACKEND": "Agg"}
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HF_MODULES_CACHE"):
        os.environ.pop(name, None)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    server = start_hub()
    from optical_hf.quickstart.model import MODEL_NAME

    encoder = folder / "cache" / MODEL_NAME
    write_encoder(encoder)
    fill_hub(server, encoder)
    with (folder / "results.jsonl").open("w") as results:
        for page in pages():
            here = folder / ("readme" if page == README else "docs")
            if not here.exists():
                write_data(here)
            os.chdir(here)
            names: dict[str, Any] = {"__name__": "__main__"}
            for block in blocks(page):
                if block.reason is None and block.language in RUN:
                    started = time.monotonic()
                    error = run(block, names)
                    row = {"name": block.name, "error": error, "seconds": round(time.monotonic() - started, 1)}
                    results.write(json.dumps(row) + "\n")
                    results.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())

"""What must not stand in a file that is pushed: secrets of this environment, tokens, and paths of this machine.

The forms of tokens are an own list. The scanners that are well kept (gitleaks, TruffleHog) are programs, not packages
of Python; detect-secrets, which is one, has had no release since 2024 and knows no token of Hugging Face, Anthropic or
W&B, and its guesses by entropy take hashes and vocabularies for secrets. Listed is what comes with a prefix of its own
or in another form that no ordinary text has.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from huggingface_hub import get_token

from .files import VOCABULARY

# Of whom, the beginning, and what follows.
_FORMS = [
    ("Hugging Face", "hf_", r"[A-Za-z0-9]{30,}"),
    ("Hugging Face", "api_org_", r"[A-Za-z0-9]{30,}"),
    ("OpenAI", "sk-", r"[A-Za-z0-9]{32,}"),
    ("OpenAI", "sk-", r"(?:proj|svcacct|admin|None)-[\w-]{32,}"),
    ("Anthropic", "sk-ant-", r"[\w-]{32,}"),
    ("OpenRouter", "sk-or-v1-", r"[0-9a-f]{32,}"),
    ("Groq", "gsk_", r"[A-Za-z0-9]{32,}"),
    ("xAI", "xai-", r"[A-Za-z0-9]{32,}"),
    ("Perplexity", "pplx-", r"[A-Za-z0-9]{32,}"),
    ("NVIDIA", "nvapi-", r"[\w-]{32,}"),
    ("Replicate", "r8_", r"[A-Za-z0-9]{32,}"),
    ("Pinecone", "pcsk_", r"\w{32,}"),
    ("LangSmith", "lsv2_", r"(?:pt|sk)_[0-9a-f]{32}"),
    ("W&B", "wandb_v1_", r"\w{32,}"),
    ("GitHub", "gh", r"[pousr]_[A-Za-z0-9]{36,}"),
    ("GitHub", "github_pat_", r"\w{36,}"),
    ("GitLab", "gl", r"(?:pat|oas|dt|rt|cbt|ptt|ft|imt|agent|soat|ffct)-[\w-]{20,}"),
    ("PyPI", "pypi-", r"AgE[\w-]{50,}"),
    ("npm", "npm_", r"[A-Za-z0-9]{36,}"),
    ("Docker", "dckr_", r"(?:pat|oat)_[\w-]{20,}"),
    ("AWS", "AKIA", r"[A-Z0-9]{16}(?![A-Za-z0-9])"),
    ("AWS", "ASIA", r"[A-Z0-9]{16}(?![A-Za-z0-9])"),
    ("Google", "AIza", r"[\w-]{35}"),
    ("Google", "GOCSPX-", r"[\w-]{24,}"),
    ("Google", "ya29.", r"[\w-]{30,}"),
    ("Azure", "AccountKey=", r"[A-Za-z0-9+/]{40,}"),
    ("Azure", "SharedAccessSignature", r"[^\n]{0,200}sig=[\w%+/-]{30,}"),
    ("Databricks", "dapi", r"[0-9a-f]{32}"),
    ("DigitalOcean", "do", r"[opr]_v1_[0-9a-f]{64}"),
    ("HashiCorp Vault", "hvs.", r"[\w-]{24,}"),
    ("Slack", "xox", r"[abceoprs]-[\w-]{20,}"),
    ("Slack", "xapp-", r"\d-[\w-]{20,}"),
    ("Slack", "hooks.slack.com/", r"(?:services|workflows|triggers)/[\w/]{20,}"),
    ("Discord", "/api/webhooks/", r"\d{10,}/[\w-]{30,}"),
    ("Stripe", "sk_", r"(?:live|test)_[A-Za-z0-9]{16,}"),
    ("Stripe", "rk_", r"(?:live|test)_[A-Za-z0-9]{16,}"),
    ("SendGrid", "SG.", r"[\w-]{20,}\.[\w-]{40,}"),
    ("Notion", "ntn_", r"[A-Za-z0-9]{40,}"),
    ("Linear", "lin_api_", r"[A-Za-z0-9]{32,}"),
    ("Grafana", "glsa_", r"[A-Za-z0-9]{32}_[0-9a-fA-F]{8}"),
    ("Sentry", "sntry", r"[su]_[\w+/=]{40,}"),
]
_TOKENS = [
    *((f"a token of {service}", start, re.compile(re.escape(start) + rest)) for service, start, rest in _FORMS),
    ("a private key", "PRIVATE KEY", re.compile(r"PRIVATE KEY(?: BLOCK)?-----")),
    ("a private key", "AGE-SECRET-KEY-", re.compile(r"AGE-SECRET-KEY-1[A-Z0-9]{50,}")),
    ("a JSON Web Token", "eyJ", re.compile(r"eyJ[\w-]{12,}\.eyJ[\w-]{12,}\.[\w-]{16,}")),
    ("an address with a password", "://", re.compile(r"://[^\s/:@\"'`<>]*:[^\s/:@\"'`<>{}$*]{3,}@")),
    ("a token of Telegram", ":AA", re.compile(r"(?<!\d)\d{8,10}:AA[\w-]{33}")),
    ("a secret key of AWS", "", re.compile(r"[Ss](?i:ecret_?access_?key)\W{1,5}[A-Za-z0-9/+]{40}(?![\w/+])")),
]

# TOKENIZERS_PARALLELISM is none.
_SECRET_NAMES = re.compile(
    r"TOKEN(?!IZ)|SECRET|PASSW(?:OR)?D|PASSPHRASE|CREDENTIAL|KEYS?$|(?:^|_)PAT$|_(?:PASS|PWD|AUTH|DSN)$", re.IGNORECASE
)
# The password of an address, a token in its place, or one among the parameters.
_IN_ADDRESSES = re.compile(
    r"://[^\s/:@?#]*:([^\s/@?#]+)@|://([^\s/:@?#]{20,})@|(?:password|pwd|token|secret|key|sig)=([^\s&;'\"]+)",
    re.IGNORECASE,
)
# Such values are in every text. Shorter ones as well, and in a vocabulary all that are as short as its words.
_COMMON = re.compile(r"[a-z]{0,15}|[A-Z]{0,15}|[A-Z][a-z]{0,14}|\d{0,11}")
_SHORTEST, _SHORTEST_IN_VOCABULARY = 8, 16

_ESCAPE = re.compile(
    r"\\(?:u([0-9a-fA-F]{4})|U00((?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))", re.DOTALL
)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "\n": ""}
# At least two parts; behind a word, a colon or a slash it belongs to an address or a name on the Hub.
_PATH = re.compile(r"(?<![\w.:/<>~-])(?:/[^\s/\"'`<>|,;:()\[\]{}]+){2,}")


def check_private(folder: str | os.PathLike[str], files: Iterable[str], token: str | None = None) -> None:
    """Raise an error if a file holds a secret of the environment, a token of some service, or a path of this machine.

    Names of files are looked at as well, and of weights the metadata and the names of the tensors. Of the environment,
    secrets are the values of variables with a name such as `HF_TOKEN`, `db_password`, `DEPLOY_KEY`, `GH_PAT`, and the
    passwords within addresses, such as `DATABASE_URL`. JSON's, YAML's and Python's escapes are undone.

    Args:
        folder (`str` or `Path`): the folder.
        files (`Iterable[str]`): paths in it.
        token (`str`, *optional*): the token that is used, beside that of the login and those in the environment.

    Raises:
        ValueError: naming file and place, not the secret.
    """
    secrets = _secrets(token)
    for name in files:
        path = Path(folder) / name
        vocabulary = any(fnmatch(path.name, pattern) for pattern in VOCABULARY)
        text = _read(path)
        if held := _find_secret(name, secrets, _SHORTEST):
            raise ValueError(
                f"The name of a file in {folder}, *{path.suffix}, holds {held}. It was not pushed: rename it."
            )
        if held := _find_secret(text, secrets, _SHORTEST_IN_VOCABULARY if vocabulary else _SHORTEST):
            raise ValueError(f"{path} holds {held}. It was not pushed: take it out first.")
        for where, part in () if vocabulary else _parts(path, text):
            for named in (*([part] if os.path.isabs(part) else []), *_PATH.findall(part)):
                if _is_of_this_machine(named):
                    raise ValueError(
                        f"{path}, {where}, names {named}, a path of this machine. It was not pushed: write the last "
                        "part of the path or, in config.json, load the student and save it again."
                    )


def _secrets(token: str | None) -> dict[str, str]:
    """What would be given away, by each value."""
    secrets = {token or "": "the token", get_token() or "": "the Hub token of your login"}
    for name, value in os.environ.items():
        held = [part for parts in _IN_ADDRESSES.findall(value) for part in parts]
        held += [value] if _SECRET_NAMES.search(name) else []
        secrets |= {form: f"the value of ${name}" for part in held for form in (part.strip(), unquote(part.strip()))}
    return {value: what for value, what in secrets.items() if not _COMMON.fullmatch(value)}


def _find_secret(text: str, secrets: dict[str, str], shortest: int) -> str | None:
    contents = [text]
    if "\\" in text:  # UTF-16 joins the halves in which JSON writes rare characters
        contents.append(_ESCAPE.sub(_unescape, text).encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    for content in contents:
        for value, what in secrets.items():
            if len(value) >= shortest and value in content:
                return what
        for what, start, form in _TOKENS:
            # `in` is many times as quick as a pattern, and most beginnings are in no file.
            for match in form.finditer(content) if start in content else ():
                if not (start[:1].isalnum() and content[match.start() - 1 : match.start()].isalnum()):
                    return what
    return None


def _unescape(escape: re.Match[str]) -> str:
    code = escape[1] or escape[2] or escape[3]
    return chr(int(code, 16)) if code else _ESCAPED.get(escape[4], escape[4])


def _is_of_this_machine(path: str) -> bool:
    homes = [os.path.expanduser("~"), os.getcwd(), tempfile.gettempdir()]
    below = any(path == home or path.startswith(home + os.sep) for home in homes if len(home) > 1)
    return below or (len(Path(path).parts) > 2 and os.path.exists(path))


def _read(path: Path) -> str:
    with path.open("rb") as file:
        # Of weights the header: its length in 8 bytes, and JSON, which safetensors reads up to that size.
        size = min(int.from_bytes(file.read(8), "little"), 100_000_000) if path.suffix == ".safetensors" else -1
        return file.read(size).decode("utf-8", errors="replace")


def _parts(path: Path, text: str) -> Iterator[tuple[str, str]]:
    if path.suffix in (".json", ".safetensors"):
        try:
            yield from _strings("", json.loads(text))
            return
        except ValueError:
            pass  # [`check_whole`] says so; until then, it is a text
    yield from ((f"line {number}", line) for number, line in enumerate(text.splitlines(), 1))


def _strings(where: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield where.lstrip("."), value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from ((where.lstrip("."), key), *_strings(f"{where}.{key}", inner))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _strings(f"{where}[{index}]", inner)

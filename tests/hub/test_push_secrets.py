"""Secrets and paths of this machine: found wherever they stand in what is pushed, and nothing else taken for one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub_server import WRITE_TOKEN
from safetensors.torch import load_file, save_file

from optical_hf import OpticalStudent, push_student
from optical_hf.hub.files import pushed_files
from optical_hf.hub.secrets import check_private

ROOT = Path(__file__).parents[2]
LETTERS, DIGITS = "AbCdEfGhIjKlMnOpQrStUvWxYz" * 4, "0123456789abcdef" * 8
TOKENS = {
    "Hugging Face": "hf_" + LETTERS[:34],
    "OpenAI": "sk-proj-" + LETTERS[:40] + "-_T3BlbkFJ",
    "Anthropic": "sk-ant-api03-" + LETTERS[:80],
    "OpenRouter": "sk-or-v1-" + DIGITS[:64],
    "Groq": "gsk_" + LETTERS[:52],
    "xAI": "xai-" + LETTERS[:80],
    "Perplexity": "pplx-" + LETTERS[:48],
    "NVIDIA": "nvapi-" + LETTERS[:64],
    "Replicate": "r8_" + LETTERS[:37],
    "Pinecone": "pcsk_" + LETTERS[:60],
    "LangSmith": "lsv2_pt_" + DIGITS[:32] + "_" + DIGITS[:10],
    "W&B": "wandb_v1_" + LETTERS[:77],
    "GitHub": "ghp_" + LETTERS[:36],
    "GitLab": "glpat-" + LETTERS[:20],
    "PyPI": "pypi-AgEIcHlwaS5vcmc" + LETTERS[:80],
    "npm": "npm_" + LETTERS[:36],
    "Docker": "dckr_pat_" + LETTERS[:27],
    "AWS": "AKIA" + "ABCDEFGH23456712",
    "Google": "AIza" + LETTERS[:35],
    "Azure": "AccountName=me;AccountKey=" + LETTERS[:86] + "==",
    "Databricks": "dapi" + DIGITS[:32],
    "DigitalOcean": "dop_v1_" + DIGITS[:64],
    "HashiCorp Vault": "hvs." + LETTERS[:90],
    "Slack": "xoxb-" + "123456789012-123456789012-" + LETTERS[:24],
    "Discord": "https://discord.com/api/webhooks/123456789012345678/" + LETTERS[:68],
    "Stripe": "sk_live_" + LETTERS[:24],
    "SendGrid": "SG." + LETTERS[:22] + "." + LETTERS[:43],
    "Notion": "ntn_" + LETTERS[:46],
    "Linear": "lin_api_" + LETTERS[:40],
    "Grafana": "glsa_" + LETTERS[:32] + "_" + DIGITS[:8],
    "Sentry": "sntryu_" + DIGITS[:64],
    "a private key": "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n",
    "a JSON Web Token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0." + LETTERS[:43],
    "an address with a password": "postgres://me:Tr0ub4dor&3@db.example.org/runs",
    "Telegram": "123456789:AA" + LETTERS[:33],
    "a secret key of AWS": 'aws_secret_access_key = "' + LETTERS[:38] + '/+"',
}


@pytest.fixture(scope="module")
def saved(tiny_encoder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "student"
    OpticalStudent.from_checkpoint(tiny_encoder).save_pretrained(folder)
    (folder / "README.md").write_text("# A student\n")
    return folder


@pytest.fixture
def student(saved, tmp_path, monkeypatch) -> Path:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return shutil.copytree(saved, tmp_path / "student")


def refusal(folder: Path, token: str | None = None) -> str:
    with pytest.raises(ValueError) as error:
        check_private(folder, pushed_files(folder), token)
    return str(error.value)


def put(folder: Path, value: object) -> None:
    (folder / "results.json").write_text(json.dumps({"arguments": {"deep": ["", value]}}))


@pytest.mark.parametrize(
    ("value", "held"),
    [
        (WRITE_TOKEN, "holds the value of \\$HF_TOKEN"),
        ("hf_" + "AbCdEfGhIj" * 4, "holds a token of Hugging Face"),
        ("key-of-some-service", "holds the value of \\$WANDB_API_KEY"),
        (str(Path.home() / "data.tsv"), "arguments.deep\\[1\\], names"),
        ("trained on /etc/passwd and more", "names /etc/passwd, a path of this machine"),
    ],
)
def test_secrets_and_paths_are_refused_before_anything_is_sent(student, hub, monkeypatch, value, held):
    monkeypatch.setenv("WANDB_API_KEY", "key-of-some-service")
    put(student, value)
    with pytest.raises(ValueError, match=f"results.json.*{held}") as error:
        push_student(student, "writer/student")
    assert "/" in value or value not in str(error.value)
    assert hub.requests == []


@pytest.mark.parametrize("service", TOKENS)
def test_tokens_are_known_by_their_form(student, service):
    (student / "README.md").write_text(f"Made with {TOKENS[service]}, see below.\n")
    held = service if service.startswith("a") else f"a token of {service}"
    message = refusal(student)
    assert message == f"{student}/README.md holds {held}. It was not pushed: take it out first."
    assert TOKENS[service][8:] not in message


def spellings(value: str) -> Iterator[tuple[str, str]]:
    """Files in which a value stands so that it is not seen as it is."""
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in value)
    yield "results.json", f'{{"note": "{escaped}"}}'
    yield "results.json", f'{{"note": "{escaped}", "note": ""}}'  # the reader of JSON keeps the last
    yield "results.json", json.dumps({value: 1})
    yield "config_sentence_transformers.json", json.dumps({"prompts": {"query": value}})
    yield ".eval_results/mine.yaml", f'note: "{escaped}"\n'
    yield "README.md", '---\nnote: "' + "".join(f"\\x{ord(letter):02x}" for letter in value) + '"\n---\n'
    yield "processing_optical.py", f'KEY = "{escaped}"\n'


@pytest.mark.parametrize("spelling", range(7))
def test_values_behind_escapes_are_seen(student, monkeypatch, spelling):
    value = "s3cr3t/of-ours"
    monkeypatch.setenv("MY_SECRET", value)
    for content in (value, TOKENS["OpenAI"]):
        name, text = list(spellings(content))[spelling]
        (student / name).parent.mkdir(exist_ok=True)
        (student / name).write_text(text)
        held = "the value of $MY_SECRET" if content == value else "a token of OpenAI"
        assert refusal(student) == f"{student}/{name} holds {held}. It was not pushed: take it out first."


def test_values_that_json_escapes_are_seen(student, monkeypatch):
    for value in ('quote"and\\stroke', "gehe1m-ọ́-\U0001f511", "line\nbreak-7"):
        monkeypatch.setenv("MY_SECRET", value)
        put(student, f"before {value} behind")
        assert "results.json holds the value of $MY_SECRET" in refusal(student)


def test_values_in_names_of_files_are_seen_and_not_repeated(student, monkeypatch):
    monkeypatch.setenv("GH_PAT", "Value7of7pat")
    (student / "Value7of7pat.model").write_text("")
    message = refusal(student)
    assert f"a file in {student}, *.model, holds the value of $GH_PAT" in message and "Value7" not in message


def test_secrets_and_paths_in_the_metadata_of_weights_are_seen(student, monkeypatch):
    path = student / "model.safetensors"
    weights = load_file(path)
    save_file(weights, path, {"format": "pt", "note": TOKENS["GitHub"]})
    assert "model.safetensors holds a token of GitHub" in refusal(student)
    save_file(weights, path, {"format": "pt", "from": f"{Path.home()}/run"})
    assert f"model.safetensors, __metadata__.from, names {Path.home()}/run" in refusal(student)
    monkeypatch.setenv("DEPLOY_KEY", "k3y-of-deploy")
    save_file({**weights, "k3y-of-deploy": torch.ones(1)}, path, {"format": "pt"})
    assert "model.safetensors holds the value of $DEPLOY_KEY" in refusal(student)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("db_password", "xK9-lower-case"),
        ("MY_PASSPHRASE", "Correct horse 7"),
        ("GITHUB_PAT", "abc123def456"),
        ("PAT", "abc123def456"),
        ("ENCRYPTION_KEY", "0123456789abcdef"),
        ("mysql_pwd", "pa55word!"),
        ("SMTP_PASS", "pa55word!"),
        ("AZURE_CREDENTIALS", "id-and-secret-1"),
        ("HF_TOKENS", "first-t0ken"),
        ("MY_TOKEN", "  padded-t0ken\n"),
    ],
)
def test_names_of_the_environment_that_hold_secrets(student, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    put(student, f"<{value.strip()}>")
    assert f"results.json holds the value of ${name}" in refusal(student)


@pytest.mark.parametrize(
    ("address", "secret"),
    [
        ("postgres://me:Tr0ub4dor3@db.example.org/runs", "Tr0ub4dor3"),
        ("redis://:Tr0ub4dor3@cache:6379", "Tr0ub4dor3"),
        ("https://me:p%40ss%2Fw0rd@index.example.org/simple", "p@ss/w0rd"),
        ("https://0123456789abcdef0123@git.example.org", "0123456789abcdef0123"),
        ("https://example.org/hook?user=me&token=Tr0ub4dor3&x=1", "Tr0ub4dor3"),
        ("host=db user=me password=Tr0ub4dor3", "Tr0ub4dor3"),
    ],
)
def test_passwords_within_addresses_of_the_environment(student, monkeypatch, address, secret):
    monkeypatch.setenv("RUNS_URL", address)
    put(student, f"connects with {secret}")
    message = refusal(student)
    assert "results.json holds the value of $RUNS_URL" in message and secret not in message


def test_the_token_that_is_used_and_that_of_the_login(student, monkeypatch):
    put(student, "given-t0ken")
    assert "results.json holds the token." in refusal(student, token="given-t0ken")
    monkeypatch.setattr("optical_hf.hub.secrets.get_token", lambda: "stored-t0ken")
    put(student, "stored-t0ken")
    assert "results.json holds the Hub token of your login." in refusal(student)


@pytest.mark.parametrize(
    "value",
    [
        "intfloat/multilingual-e5-small",
        "https://huggingface.co/etc/passwd",
        "en/yo/ha",
        "</s> / 1/2",
        "a//b",
        "/",
        3.5,
        "sk-or-parallel.tsv and sk-en-wikipedia-2019-corpus-of-sentences-v1",  # Slovak
        "d41d8cd98f00b204e9800998ecf8427e da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "blake2b:5dfec67ecce29a24e79d20d00218c9fa",
        "see https://user@example.org:8080/a:b@c and ghp_short",
    ],
)
def test_names_addresses_and_hashes_are_neither_paths_nor_secrets(student, value):
    put(student, value)
    check_private(student, pushed_files(student))


def test_common_values_of_the_environment_are_no_secrets(student, monkeypatch):
    environment = {"TOKENIZERS_PARALLELISM": "Student-1", "TOKENIZER_NAME": "Student-1", "PASSWORD": "multilingual"}
    environment |= {"API_KEY": "TRUE", "PIN_KEY": "20261127", "MY_TOKEN": "Swahili", "MY_PATH": "Student-1"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    (student / "README.md").write_text("Student-1 is multilingual: Swahili. TRUE since 20261127\n")
    check_private(student, pushed_files(student))
    monkeypatch.setenv("WORD_KEY", "aliandika-7")  # a short value in a vocabulary is chance
    tokenizer = (student / "tokenizer.json").read_text()
    (student / "tokenizer.json").write_text(tokenizer.replace('"aliandika"', '"aliandika-7"'))
    check_private(student, pushed_files(student))
    (student / "tokenizer.json").write_text(tokenizer.replace('"aliandika"', f'"{TOKENS["npm"]}"'))
    assert "tokenizer.json holds a token of npm" in refusal(student)


def test_cards_of_the_repository_hold_nothing(monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    check_private(ROOT / "model_cards", ["yoruba-student.md", "student.md"])

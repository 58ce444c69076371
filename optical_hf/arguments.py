"""The arguments of every command: dataclasses, read from a command line, from a `--config` file, or from a mapping."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from transformers import HfArgumentParser

from .yaml_files import read_yaml

_SWITCH = ("yes", "no", "true", "false", "y", "n", "t", "f", "1", "0")  # values of a switch, which needs none


class ArgumentReader(HfArgumentParser):
    """Reads dataclasses of arguments, and says what is wrong by a `ValueError` instead of ending the process.

    `--help` lists the arguments by dataclass, each under the first line of its docstring. What a dataclass inherits,
    such as the hundred arguments of `TrainingArguments`, comes last.

    Args:
        classes: the dataclasses, which may not share a name.
        prog (`str`, *optional*): how the command is called, for `--help`.
        description (`str`, *optional*): what it does, likewise.
        positionals (`Sequence[str]`, *optional*): arguments that may stand without their name, in this order.

    Example:

    ```python
    >>> reader = ArgumentReader(ScriptArguments, OpticalTrainingArguments, prog="optical-hf distill")
    >>> script, training = reader.read(sys.argv[1:])
    ```
    """

    def __init__(
        self, *classes: Any, prog: str | None = None, description: str | None = None, positionals: Sequence[str] = ()
    ) -> None:
        super().__init__(classes, prog=prog, description=description, formatter_class=_Formatter, allow_abbrev=False)
        self.positionals = positionals
        # A study's `--config` is its own file.
        self.has_config = "config" not in {action.dest for action in self._actions}
        if self.has_config:
            self.add_argument("--config", help="YAML file of arguments; those of the command line replace them.")

    def read(self, words: Sequence[str], defaults: Mapping[str, Any] | None = None, without: str = "") -> list[Any]:
        """Read a command line over `--config`, and both over `defaults`.

        Args:
            words (`Sequence[str]`):
                The command line, without the command.
            defaults (`Mapping[str, Any]`, *optional*):
                Values by name.
            without (`str`, *optional*):
                `defaults` are taken only if this argument is given neither on the command line nor in the file.

        Returns:
            `list`: an instance of each dataclass.

        Raises:
            ValueError: naming the argument that is unknown, missing, of the wrong type, or given twice.
            FileNotFoundError: if there is no `--config` file.
        """
        words = list(words)
        if "--help" in words or "-h" in words:
            self.print_help()
            raise SystemExit
        given = self._given(self._with_names(words))
        if self.has_config and (path := given.pop("config", None)) is not None:
            given = self.values(read_yaml(path), where=f"{path}: ") | given
        if defaults is not None and without not in given:
            given = self.values(defaults) | given
        return self.make(given)

    def _with_names(self, words: list[str]) -> list[str]:
        """Write out the names of the arguments that stand without theirs, before, between or behind the others."""
        left = [name for name in self.positionals if not any(re.match(rf"--{name}(=|$)", word) for word in words)]
        named, takes = [], ""  # how many words the last argument takes
        for word in words:
            if word.startswith("--"):
                action = self._option_string_actions.get(word)
                takes = "" if action is None or action.nargs == 0 else str(action.nargs or 1)
            elif left and (not takes or takes == "?" and word.lower() not in _SWITCH):
                word, takes = f"--{left.pop(0)}={word}", ""
            elif takes != "+":
                takes = ""
            named.append(word)
        return named

    def values(self, settings: Mapping[str, Any], where: str = "") -> dict[str, Any]:
        """Check the names and types of a mapping, such as a YAML file's, by the rules of the command line.

        A mapping under a name that takes several values, such as `bitext`, is one of languages to files. `None` stands
        for "not given", an empty string for itself.
        """
        words: list[str] = []
        for name, value in settings.items():
            if value is None:
                continue
            action = self._option_string_actions.get(f"--{name}")
            if isinstance(value, Mapping) and action is not None and action.nargs == "+":
                pairs = [(key, many if isinstance(many, list) else [many]) for key, many in value.items()]
                value = [f"{key}={each}" for key, many in pairs for each in many]
            if isinstance(value, list):
                words += [f"--{name}", *map(str, value)]
            else:
                words.append(f"--{name}={json.dumps(value) if isinstance(value, Mapping) else value}")
        try:
            return self._given(words)
        except ValueError as error:
            raise ValueError(f"{where}{error}") from None

    def make(self, values: Mapping[str, Any]) -> list[Any]:
        """Make the dataclasses of values by name; those that are not given have their defaults."""
        needed = [action.dest for action in self._actions if action.required]
        if missing := [f"--{name}" for name in needed if name not in values]:
            self.error(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} needed; see --help.")
        made = []
        for kind in self.dataclass_types:
            names = {field.name for field in dataclasses.fields(kind) if field.init}
            made.append(kind(**{name: value for name, value in values.items() if name in names}))
        return made

    def _given(self, words: Sequence[str]) -> dict[str, Any]:
        # Without defaults, what is parsed is what was given.
        names = Counter(word.partition("=")[0][2:].replace("-", "_") for word in words if re.match(r"--\w", word))
        if twice := [name for name, count in names.items() if count > 1]:
            self.error(f"--{twice[0]} is there twice: give it once, with all of its values behind it.")
        defaults = {action: (action.default, action.required) for action in self._actions}
        try:
            for action in defaults:
                action.default, action.required = argparse.SUPPRESS, False
            known, unknown = self.parse_known_args(list(words))
        finally:
            for action, (default, required) in defaults.items():
                action.default, action.required = default, required
        for word in unknown:
            known_names = [f"--{action.dest}" for action in self._actions]
            near = get_close_matches(word.partition("=")[0], known_names, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "see --help."
            self.error(f"there is no argument {word}; {hint}")
        return vars(known)

    def error(self, message: str) -> NoReturn:
        """Raise a `ValueError`; by default the process would end, with the usage of all arguments."""
        raise ValueError(message)

    def format_help(self) -> str:
        """Return the help in groups."""
        formatter = self._get_formatter()
        places = "".join(f" {name.upper()}" for name in self.positionals)
        formatter.add_usage(f"{self.prog}{places} [--name value ...]", [], [])
        formatter.add_text(self.description)
        own: list[tuple[str, set[str]]] = []
        inherited: list[tuple[str, set[str]]] = []
        for kind in self.dataclass_types:
            names = {field.name for field in dataclasses.fields(kind)}
            for parent in kind.__mro__:
                here = names & parent.__dict__.get("__annotations__", {}).keys()
                names -= here
                if here and not parent.__module__.startswith("transformers."):
                    doc = (parent.__doc__ or parent.__name__).strip().splitlines()[0]
                    own.append((re.sub(r"[\[\]`.]", "", doc), here))
                elif here:
                    inherited.append((f"As in {parent.__name__}", here))
        for title, names in [*own, *inherited, ("Other", {"help", *(["config"] if self.has_config else [])})]:
            formatter.start_section(title)
            # Not the `--no_x` of what is true by default: `--x false` says the same.
            shown = [action for action in self._actions if action.dest in names]
            formatter.add_arguments(action for action in shown if not isinstance(action, argparse._StoreFalseAction))
            formatter.end_section()
        return formatter.format_help()


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    def _format_action_invocation(self, action: argparse.Action) -> str:
        # `--output_dir` alone: `--output-dir` is the same.
        if action.dest == "help":
            return "--help"
        return f"{action.option_strings[0]} {self._format_args(action, action.dest.upper())}"

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.required:
            return f"{action.help} Needed."
        if action.default in (None, "", []) or action.default is dataclasses.MISSING:
            return action.help
        return super()._get_help_string(action)

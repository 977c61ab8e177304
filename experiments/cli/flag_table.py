"""Flags that describe a configuration: one table, from which both a command's options and its configuration come."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Annotated, Any, NamedTuple

import typer

from experiments.config_file import key_path


class Flag(NamedTuple):
    """One option: the configuration key that it sets, and how its text becomes the key's value."""

    name: str
    key: str
    type: type
    help: str
    metavar: str | None = None
    parse: Callable[[str], Any] | None = None

    @property
    def parameter(self) -> str:
        """The option's Python name."""
        return self.name.split("/")[0].removeprefix("--").replace("-", "_")


def takes(
    options: Sequence[inspect.Parameter], resolve: Callable[[Mapping[str, Any]], Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the ``options``; what ``resolve`` makes of them is its first argument."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

        @wraps(command)
        def wrapper(**given: Any) -> None:
            described = {option.name: given.pop(option.name) for option in options}
            command(resolve(described), **given)

        parameters = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in (*options, *own)]
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads these two
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return wrapper

    return decorate


def parameter(name: str, type_: type, option: Any) -> inspect.Parameter:
    """An option as typer wants it: annotated, None where it is not given."""
    annotation: Any = Annotated[type_ | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def options(
    flags: Iterable[Flag], panels: Mapping[str, str], defaults: Mapping[str, Any]
) -> Iterable[inspect.Parameter]:
    """An option for each flag, under the panel of its key's first part; ``defaults`` are what --help shows."""
    for flag in flags:
        panel = panels[flag.key.split(".")[0]]
        option = typer.Option(
            flag.name,
            help=flag.help,
            metavar=flag.metavar,
            rich_help_panel=panel,
            show_default=_default(defaults, flag.key),
        )
        yield parameter(flag.parameter, flag.type, option)


def overlay(content: dict[str, Any], flags: Iterable[Flag], given: Mapping[str, Any]) -> None:
    """Put the values of the given flags into ``content``; None means that a flag was not given."""
    for flag in flags:
        value = given[flag.parameter]
        if value is not None:
            _set(content, flag.key, flag.parse(value) if flag.parse else value)


def flag_names(flags: Sequence[Flag]) -> Callable[[Sequence[str | int]], str]:
    """How errors call a key path: by the flag that sets it, where one does."""

    def name(location: Sequence[str | int]) -> str:
        path = key_path(location)
        fitting = [flag for flag in flags if path == flag.key or path.startswith((f"{flag.key}.", f"{flag.key}["))]
        return fitting[0].name.split("/")[0] if fitting else path

    return name


def _default(defaults: Any, key: str) -> str | bool:
    """The default as --help shows it; False where there is none worth showing."""
    value = defaults
    for part in key.split("."):
        value = value[part] if value is not None else None
    return str(value) if isinstance(value, (str, int, float)) else False


def _set(content: dict[str, Any], key: str, value: Any) -> None:
    *groups, last = key.split(".")
    for group in groups:
        content = content[group]
    content[last] = value

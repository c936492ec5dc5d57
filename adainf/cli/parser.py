"""The parser of one command: its errors, and the options that every command has."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable
from typing import Any, NoReturn

from adainf.errors import BadInput
from adainf.pipeline.progress import Verbosity


class Parser(argparse.ArgumentParser):
    """Errors are `BadInput`, refer to the help of the command that was typed, and suggest the nearest name. Every command has
    -q and -v."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # No default: that of a subcommand would replace what was given before it, as in `adainf -q run`.
        how_much = self.add_mutually_exclusive_group()
        how_much.add_argument(
            "-q", "--quiet", action="store_const", const=Verbosity.QUIET, dest="verbosity", default=argparse.SUPPRESS,
            help="print errors and tables only",
        )  # fmt: skip
        how_much.add_argument(
            "-v", "--verbose", action="store_const", const=Verbosity.VERBOSE, dest="verbosity", default=argparse.SUPPRESS,
            help="also print timings and other events to standard error, and the traceback of an error",
        )  # fmt: skip

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:  # here and not in the top parser, so that the help is that of this command
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._nearest(unknown[0], self._option_string_actions)}")
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"^argument (\S+): invalid value ", r"invalid \1 ", message)
        if choice := re.fullmatch(r"argument \S+: invalid choice: '(.*)' \(choose from (.*)\)", message, re.DOTALL):
            known = re.findall(r"[\w.-]+", choice[2])
            message = f"invalid choice: '{choice[1]}'" + (
                self._nearest(choice[1], known) or f" (choose from {', '.join(known)})"
            )
        raise BadInput(f"{self.prog}: {message}; see `{self.prog} --help`")

    @staticmethod
    def _nearest(typed: str, known: Iterable[str]) -> str:
        near = difflib.get_close_matches(typed.partition("=")[0], list(known), n=1, cutoff=0.5)
        return f"; did you mean {near[0]}?" if near else ""

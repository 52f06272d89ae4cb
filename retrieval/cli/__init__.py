"""The command line: parses, calls and prints; what a command does is in the modules that it calls.

Hits and figures go to stdout; progress and notices to stderr. A usage error exits 2, any other error 1 with one line.
"""

import os

import click

from retrieval.cli.building import build
from retrieval.cli.managing import delete, export, info, serve
from retrieval.cli.models import model
from retrieval.cli.searching import search
from retrieval.cli.shared import fail
from retrieval.cli.training import adopt, demo, evaluate, train
from retrieval.errors import RetrievalError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="crossmodal-retrieval")
def commands() -> None:
    """Search pictures by text, and texts by picture."""


for command in (build, search, train, adopt, evaluate, delete, export, serve, model, info, demo):
    commands.add_command(command)


def main() -> None:
    """Run the command line; turn every error into one line and an exit code."""
    # torch's threads spin while they wait, against the threads that decode: encoding took 3 times longer on busy cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        commands(prog_name="retrieval")
    except RetrievalError as error:
        fail(str(error))
    except (OSError, MemoryError) as error:
        fail(str(error) or type(error).__name__)
    except Exception as error:
        from index.errors import IndexingError

        if isinstance(error, IndexingError):
            fail(str(error))
        if os.environ.get("RETRIEVAL_DEBUG"):
            raise
        fail(f"Unexpected {type(error).__name__}: {error}. Set RETRIEVAL_DEBUG=1 to see the traceback.")

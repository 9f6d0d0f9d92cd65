"""The `keepfit` command: look at a run, check it, draw it.

Only what a subcommand needs is imported when it runs, so that each answers at
once; none but ``demo`` imports Keras or a backend.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from keepfit.errors import KeepfitError

# Exit statuses: 0 all is well, 1 damage was found, 2 the command could not do its work.
FAILED = 2

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


def _print_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    from importlib.metadata import version

    click.echo(f"keepfit {version('keepfit')}")
    context.exit()


class _Commands(click.Group):
    """A group whose deliberate errors are messages, not tracebacks."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        # ImportError: an optional library is missing, and the message says how to get it.
        except (KeepfitError, ImportError) as error:
            click.echo(f"keepfit: {error}", err=True)
            ctx.exit(FAILED)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Print the version."
)
def command() -> None:
    """Look at the run folders of keepfit, check them and draw them."""


@command.command("show", short_help="Print what is in a run folder.")
@click.argument("directory", metavar="DIR", type=_FOLDER)
def show_run(directory: Path) -> None:
    """Print what is in the run folder DIR: fits, metrics, checkpoints, events.

    Works while another process trains in it.
    """
    from keepfit.cli.folder import read_folder
    from keepfit.cli.page import page
    from keepfit.cli.show import show_folder

    show_folder(read_folder(directory), page())


@command.command("verify", short_help="Check a run folder for damage.")
@click.argument("directory", metavar="DIR", type=_FOLDER)
def verify_run(directory: Path) -> None:
    """Check every object in DIR against its hash, and every row against its objects.

    The exit status is 1 where something is damaged.
    """
    from keepfit.cli.verify import verify_folder

    report = verify_folder(directory)
    for line in report.lines():
        click.echo(line)
    sys.exit(1 if report.damages else 0)


@command.command("plot", short_help="Draw the history of a run.")
@click.argument("directory", metavar="DIR", type=_FOLDER)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write the picture; its ending tells the format. Default: DIR-history.png, here.",
)
@click.option("--over", type=click.Choice(["epochs", "steps"]), default="epochs", help="What the axis counts.")
def plot_run(directory: Path, output: Path | None, over: str) -> None:
    """Draw the history of the run folder DIR into a picture."""
    from keepfit.cli.folder import read_folder
    from keepfit.cli.picture import write_picture

    click.echo(write_picture(read_folder(directory).history, directory, output, over=over))


@command.command("demo", short_help="Kill a training run and see it go on, bit for bit.")
@click.option(
    "--directory",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the demo makes a folder with its runs and its picture, which stay there. Default: .demo",
)
def run_demo(directory: Path | None) -> None:
    """Train on real digits, kill it, start it again, and compare every bit."""
    from keepfit import demo

    raise SystemExit(demo.run_demo(directory))


def main() -> None:
    """Run the command; the entry point of the package."""
    # A name that the terminal's encoding lacks is no reason to fail.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    command(prog_name="keepfit")

"""The process ``genaug``, also by ``python -m genaug``: Ctrl-C ends it with one line from the very beginning."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from genaug.cli import main as run
    except KeyboardInterrupt:
        sys.stderr.write("\ngenaug: interrupted. The same command starts over.\n")
        sys.exit(130)  # as `genaug.cli.INTERRUPTED`, which is not there yet
    run()


if __name__ == "__main__":
    main()

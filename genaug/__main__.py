"""``python -m genaug``: the command line where no console script is installed."""

from genaug.cli import main

main()

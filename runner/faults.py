"""The edges of a replica's life: what is left to be read after a crash, and an orderly end that cannot hang."""

import atexit
import faulthandler


def show():
    """A crash in native code leaves the Python line it came from on the raw standard error."""
    faulthandler.enable(file=2, all_threads=False)


def run_exit_functions():
    """What the app registered with `atexit`.

    A plain `sys.exit` would first wait for every thread that the app left running, for ever if need be.
    """
    atexit._run_exitfuncs()

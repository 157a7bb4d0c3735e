"""`python <this folder>` starts a replica.

The folder's modules are loaded as the package `postback_runner`, and the folder leaves `sys.path`: an app may have a
`logs.py` or a `frames.py` of its own.
"""

import importlib.util
import os
import sys


def load():
    folder = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or os.curdir) != folder]
    spec = importlib.util.spec_from_file_location(
        "postback_runner", os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
    )
    package = importlib.util.module_from_spec(spec)
    sys.modules["postback_runner"] = package
    spec.loader.exec_module(package)


# `multiprocessing` imports this file again in the processes that it spawns; those are no replicas.
if __name__ == "__main__":
    load()
    from postback_runner import loop

    loop.main()

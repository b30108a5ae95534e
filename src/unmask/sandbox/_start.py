"""Starts the server, by path, without the library around it.

`unmask` and `unmask.sandbox` become empty packages, so that nothing but the server's own modules
and the standard library is loaded.
"""

import os
import sys
import types


def _start() -> None:
    folder = sys.path.pop(0)  # this one; programs import the standard library only
    for name, path in (("unmask", os.path.dirname(folder)), ("unmask.sandbox", folder)):
        package = types.ModuleType(name)
        package.__path__ = [path]
        sys.modules[name] = package
    from unmask.sandbox._zygote import main

    for name in [name for name in sys.modules if name.partition(".")[0] == "unmask"]:
        del sys.modules[name]
    main()


_start()

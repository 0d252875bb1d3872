"""Read by the interpreter where this folder is on its path: garbage is counted when asked for.

At SIGRTMIN+3 the process says in a record on stderr what only the garbage collector can free,
`{"event": "garbage", "types": {NAME: COUNT}}`, since the signal before; from the first on the
collector does not run by itself.
"""

import collections
import gc
import json
import signal
import sys


def _tell(*_: object) -> None:
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    types = collections.Counter(type(found).__name__ for found in gc.garbage)
    gc.garbage.clear()
    # Or the next collection would find the same cycles again.
    gc.set_debug(0)
    gc.collect()
    print(json.dumps({"event": "garbage", "types": types}), file=sys.stderr, flush=True)


signal.signal(signal.SIGRTMIN + 3, _tell)

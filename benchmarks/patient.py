"""The bridge as `python -m mcpbridge` starts it, with time limits that suit an instrument.

Under an instrument a call takes fifty times as long, and on a busy machine longer still, while
timers go on by the clock. So a head on the fast path waits for its body however late that is, and
the process table is not looked at. Neither changes what is done for a call.
"""

from __future__ import annotations

import sys
from pathlib import Path

# Run as a file, the folder on the path is this one; the package is found from the one above.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mcpbridge.cli.main import main
from mcpbridge.http.server import connection
from mcpbridge.process import process_tree

_PATIENCE_S = 3600.0

if __name__ == "__main__":
    connection._HOLD_S = _PATIENCE_S
    process_tree.LOOK_EVERY_S = _PATIENCE_S
    main()

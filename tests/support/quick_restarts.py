"""The bridge, with hardly a pause before a server that has ended is started again.

Run as `python quick_restarts.py ...`. What is decided is what the rule decides; only the delays are
bounded by 20 ms in place of 30 s.
"""

import sys
from typing import Any

import msgspec

from mcpbridge.bridge.children import supervisor
from mcpbridge.cli import main as cli
from mcpbridge.rules.supervision.restart import RestartDecision, RestartPolicy, after_exit

LONGEST_S = 0.02


def decide_soon(policy: RestartPolicy, *facts: Any, **more: Any) -> RestartDecision:
    """As before, but for the delays."""
    quick = msgspec.structs.replace(policy, first_delay_s=LONGEST_S, max_delay_s=LONGEST_S)
    return after_exit(quick, *facts, **more)


setattr(supervisor, "after_exit", decide_soon)  # noqa: B010 - it exports only what is its own
# What runs it puts the words of the usual command line behind it: an interpreter, -m, the package.
cli.main(sys.argv[4:])

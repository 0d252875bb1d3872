"""What each framework is asked to do, and how it says what it saw: one line of JSON on stdout."""

import json
import sys

URL, TRANSPORT = sys.argv[1:3]
TOOL = "echo"
ARGUMENTS = {"text": "h\u00e9llo \u2028 \U0001f98a"}


def write(tools: list[str], said: str) -> None:
    """Report the names of all tools, and the text that the call was answered with."""
    print(json.dumps({"tools": sorted(tools), "said": said}))

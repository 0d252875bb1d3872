"""Run by the tree's interpreter before the bridge: a server's environment is not the tree's.

The tree's loader makes the dynamic linker look into the tree first, by a variable that every
process below inherits: a server would find our libraries in place of its own. The linker has read
it by now, so it is put back to what it was. The loader's own variables go as well, or a second
mcpbridge below this one would take itself for a part of it.

Source: PyInstaller, Run-time Information, LD_LIBRARY_PATH considerations.
"""

import os

_SEARCHED = "LD_LIBRARY_PATH"

_before = os.environ.pop(_SEARCHED + "_ORIG", None)
os.environ.pop(_SEARCHED, None)
if _before is not None:
    os.environ[_SEARCHED] = _before
for _name in [name for name in os.environ if name.startswith("_PYI_")]:
    del os.environ[_name]

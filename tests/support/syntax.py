"""Python source as a tree of nodes."""

from __future__ import annotations

import ast
import gc


def parsed(source: str | bytes) -> ast.Module:
    """Return the tree of a module.

    CPython 3.11 counts depth in one place for all parses: if the garbage collector runs in the
    middle and what it ends logs a traceback, which is parsed as well, `ast.parse` raises
    `SystemError: AST constructor recursion depth mismatch`. What earlier tests left behind may do
    so, hence no collection during a parse.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(source)
    finally:
        if collects:
            gc.enable()

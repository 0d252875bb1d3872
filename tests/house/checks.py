"""What the house rules ask of source text, as functions from text to findings.

A finding is one line, `line: what`, so that a failing test says where to go. Each function is
pure; test_checks.py shows each of them a sample that it must refuse and one that it must pass.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.syntax import parsed

FUNCTION_LINES = 50
"""Without the docstring: explaining more is never punished."""

LOWER = frozenset({">", ">=", "==", "~=", "==="})
UPPER = frozenset({"<", "<=", "==", "~=", "==="})

# In pieces, so that the pattern does not find itself.
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:{})/".format("|".join(("work", "farm", "root"))))

BROAD = frozenset({"Exception", "BaseException"})

STARTS_PROCESS = frozenset(
    {
        "Popen",
        "create_subprocess_exec",
        "create_subprocess_shell",
        "fork",
        "forkpty",
        "open_process",
        "popen",
        "posix_spawn",
        "posix_spawnp",
        "run_process",
        "subprocess_exec",
        "subprocess_shell",
    }
)
"""Callables of os, asyncio, anyio and subprocess that make a process."""

TAKES_SIGNAL = frozenset(
    {"add_signal_handler", "open_signal_receiver", "set_wakeup_fd", "siginterrupt", "sigwait"}
)
"""Callables that take a signal; `signal.signal` is looked for apart, its name is too common."""

READS_ENVIRONMENT = frozenset({"environ", "environb", "getenv", "getenvb"})

TIME_OF_DAY = frozenset({"now", "utcnow", "today"})
"""Methods of datetime and date; what they make of a given time does not matter here."""

AVOIDED = re.compile(
    r"\b(?:besides|meanwhile|anew|as far as|so (?:many|much|long)|(?:tells?|told) of"
    r"|(?:hears?|heard) of|sees to|(?:is|are) to be|for ever|of (?:its|their|his) own"
    r"|(?:no|some|every|any)body|who(?:m|ever)|in vain|shall|none where"
    r"|(?:is|are|was|be) found out|in the same words|passed over|for its own sake|of use"
    r"|(?:is|are) answered an?"
    r"|(?<!there )(?:is|are) (?:none|no(?! longer| more))(?= [a-z\"'`(]|[;:.,]))\b",
    re.IGNORECASE,
)
"""Phrases that name no actor, give no number, or are not how the field's pages are written."""
_CODE_SPAN = re.compile(r"`[^`\n]*`")

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = Function | ast.ClassDef


def overlong_functions(text: str) -> list[str]:
    """Functions of more than `FUNCTION_LINES` lines, from `def` to end less the docstring."""
    found = []
    for node in ast.walk(parsed(text)):
        if not isinstance(node, Function):
            continue
        lines = _extent(node)
        if ast.get_docstring(node, clean=False) is not None:
            lines -= _extent(node.body[0])
        if lines > FUNCTION_LINES:
            found.append(f"{node.lineno}: {node.name} of {lines} lines exceeds {FUNCTION_LINES}")
    return found


def undocumented(text: str) -> list[str]:
    """The module, public classes and public functions in them that have no docstring.

    What stands inside a function or under a private name is not public. An overload, a setter
    and what is marked as an override are described where the name is first given.
    """
    module = parsed(text)
    found = [] if ast.get_docstring(module) else ["1: module without a docstring"]
    found += [
        f"{node.lineno}: {node.name} without a docstring"
        for node in _public(module)
        if not ast.get_docstring(node)
    ]
    return found


def broad_excepts(text: str) -> list[str]:
    """Places that catch `Exception`, `BaseException` or everything, and keep it.

    A handler whose last line is a bare `raise` only tidies up; it catches nothing.
    """
    found = []
    for node in ast.walk(parsed(text)):
        match node:
            case ast.ExceptHandler(body=[*_, ast.Raise(exc=None)]):
                continue
            case ast.ExceptHandler(type=None):
                found.append(f"{node.lineno}: catches everything")
            case ast.ExceptHandler(type=ast.expr() as caught) if _names(caught) & BROAD:
                found.append(f"{node.lineno}: catches {ast.unparse(caught)}")
            case ast.Call() if _last_name(node.func) == "suppress":
                if any(_names(each) & BROAD for each in node.args):
                    found.append(f"{node.lineno}: {ast.unparse(node)}")
    return found


def process_starts(text: str) -> list[str]:
    """Places that start a process or import a module made for that."""
    return _imports_of(text, {"subprocess", "multiprocessing", "pty"}) + _uses(
        text, STARTS_PROCESS, {"os.system", "os.execv", "os.execve", "os.execvp", "os.execvpe"}
    )


def signal_handling(text: str) -> list[str]:
    """Places that take a signal; sending one does not matter here."""
    return _uses(text, TAKES_SIGNAL, {"signal.signal"})


def environment_reads(text: str) -> list[str]:
    """Places that read the process's environment."""
    return _uses(text, READS_ENVIRONMENT, set())


def wall_clock(text: str) -> list[str]:
    """Places that ask for the time of day, which may jump; intervals are of the monotonic clock."""
    return _uses(text, TIME_OF_DAY, {"time.time", "time.time_ns", "time.ctime", "time.localtime"})


def imports_beyond_the_standard_library(text: str) -> list[str]:
    """Imports that a bare interpreter cannot serve."""
    return [
        f"{line}: imports {name}"
        for line, name in _imports(parsed(text))
        if name.partition(".")[0] not in sys.stdlib_module_names
    ]


def unbounded(requirements: Iterable[str]) -> list[str]:
    """Requirements that lack a lower or an upper bound."""
    found = []
    for text in requirements:
        operators = {each.operator for each in Requirement(text).specifier}
        found += [
            f"{text}: no {side} bound"
            for side, wanted in (("lower", LOWER), ("upper", UPPER))
            if not operators & wanted
        ]
    return found


def loose_pins(lock: str) -> list[str]:
    """Lines of a lock that are neither comments nor one exact release from any index."""
    found = []
    for number, line in enumerate(lock.splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        if not re.fullmatch(r"[\w.-]+==[\w.!+]+(?: ; [\w.!<>='\" ()]+)?", line):
            found.append(f"{number}: {line}")
    return found


def unmet(requirements: Iterable[str], lock: str) -> list[str]:
    """Requirements for which a lock has no release, or one out of their bounds."""
    pinned = {
        canonicalize_name(pin.name): next(iter(pin.specifier)).version
        for line in lock.splitlines()
        if line and not line.startswith("#")
        for pin in [Requirement(line)]
    }
    found = []
    for text in requirements:
        wanted = Requirement(text)
        version = pinned.get(canonicalize_name(wanted.name))
        if version is None or version not in wanted.specifier:
            found.append(f"{text}: locked {version}")
    return found


def assignments_into_others(text: str) -> list[str]:
    """Assignments to an attribute of another object than `self` or `cls`."""
    found: list[str] = []
    for node in ast.walk(parsed(text)):
        targets: list[ast.expr]
        match node:
            case ast.Assign():
                targets = node.targets
            case ast.AugAssign() | ast.AnnAssign():
                targets = [node.target]
            case _:
                continue
        for target in targets:
            each = target.elts if isinstance(target, ast.Tuple | ast.List) else [target]
            found += [
                f"{one.lineno}: {ast.unparse(one)}"
                for one in each
                if isinstance(one, ast.Attribute) and ast.unparse(one.value) not in ("self", "cls")
            ]
    return found


def machine_paths(text: str) -> list[str]:
    """Lines that name a directory of the machine they were written on."""
    return [
        f"{number}: {line.strip()[:80]}"
        for number, line in enumerate(text.splitlines(), start=1)
        if MACHINE_PATH.search(line)
    ]


def avoided_phrases(text: str) -> list[str]:
    """Phrases of `AVOIDED` in the docstrings, comments and string literals of Python source."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(parsed(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found += _phrases(node.value, node.lineno)
    for line, comment in _comments(text):
        found += _phrases(comment, line)
    return [f"{line}: {phrase}" for line, phrase in sorted(found)]


def avoided_phrases_of_prose(text: str) -> list[str]:
    """Phrases of `AVOIDED` in the docstrings and comments of Python source, not in its data."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(parsed(text)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(prose))):
                found += _phrases(prose, node.lineno)
    for line, comment in _comments(text):
        found += _phrases(comment, line)
    return [f"{line}: {phrase}" for line, phrase in sorted(found)]


def avoided_phrases_of_a_page(text: str) -> list[str]:
    """Phrases of `AVOIDED` in Markdown, apart from its code spans."""
    return [f"{line}: {phrase}" for line, phrase in _phrases(text, 1)]


def _phrases(text: str, first_line: int) -> list[tuple[int, str]]:
    """Return each phrase with its line, also where a line end stands between its words."""
    plain = _CODE_SPAN.sub(lambda span: "x" * len(span[0]), text)
    flat = re.sub(r"\n\s*", lambda gap: " ".ljust(len(gap[0]), "\0"), plain)
    words = re.sub("\0", "", flat)
    # Positions move where indentation is dropped, so lines are counted over the dropped text.
    offsets = [at for at, sign in enumerate(flat) if sign != "\0"]
    return [
        (first_line + text.count("\n", 0, offsets[each.start()]), each[0])
        for each in AVOIDED.finditer(words)
    ]


def _comments(text: str) -> Iterator[tuple[int, str]]:
    """Yield blocks of comments on successive lines, each with its first line."""
    block: list[str] = []
    first = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        if block and token.start[0] != first + len(block):
            yield first, "\n".join(block)
            block = []
        if not block:
            first = token.start[0]
        block.append(token.string.lstrip("# "))
    if block:
        yield first, "\n".join(block)


def _extent(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _public(scope: ast.Module | ast.ClassDef) -> Iterator[Documented]:
    for node in scope.body:
        if not isinstance(node, Documented) or node.name.startswith("_"):
            continue
        if {_last_name(each) for each in node.decorator_list} & {"overload", "override", "setter"}:
            continue
        yield node
        if isinstance(node, ast.ClassDef):
            yield from _public(node)


def _last_name(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Call(func=func):
            return _last_name(func)
        case _:
            return ""


def _names(node: ast.expr) -> set[str]:
    """The last names of an expression or of each member of a tuple."""
    members = node.elts if isinstance(node, ast.Tuple) else [node]
    return {_last_name(member) for member in members}


def _imports(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything a module imports, at any depth of nesting."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def _imports_of(text: str, packages: set[str]) -> list[str]:
    return [
        f"{line}: imports {name}"
        for line, name in _imports(parsed(text))
        if name.partition(".")[0] in packages
    ]


def _uses(text: str, names: frozenset[str], dotted: set[str]) -> list[str]:
    """Uses of last names or of whole dotted names, and imports that would hide them.

    Only attributes and imported names count: a local variable named `environ` reads nothing.
    """
    module = parsed(text)
    found = [
        f"{line}: imports {name}"
        for line, name in _imports(module)
        if name.rpartition(".")[2] in names or name in dotted
    ]
    found += [
        f"{node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(module)
        if isinstance(node, ast.Attribute) and (node.attr in names or ast.unparse(node) in dotted)
    ]
    return found

"""What the Dockerfile builds on: from the engine, from its registry, or made here.

Where no registry answers, a stand-in of the same name is made of Debian's packages, of the suite
that this machine runs, with the interpreter of this machine in the place where the official image
has it. It differs in what else is in it; what the tests look at, it has.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

from tests.images.engine import Engine

_RECIPE = (Path(__file__).parents[2] / "Dockerfile").read_text("utf-8")
_NAMED = {stage: image for image, stage in re.findall(r"^FROM (\S+:\S+) AS (\S+)$", _RECIPE, re.M)}
PYTHON, PYTHON_OF_TREE, NODE = (_NAMED[each] for each in ("python", "python-of-tree", "nodejs"))
BARE = "mcpbridge-test-bare"
"""glibc and nothing else, as in distroless/base: no shell, no libz, no Python."""

PULL_S = 300.0
MAKE_S = 600.0
_DEBIAN = "mcpbridge-test-debian"
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_UNUSED = ("test", "tests", "idlelib", "turtledemo", "tkinter", "__pycache__", "site-packages")
_GLIBC = re.compile(r"/(?:ld-linux[\w-]*|lib(?:c|dl|m|pthread|resolv|rt|util))\.so[.\d]*$")


class NoBase(Exception):
    """An image can neither be had nor made; says what is missing."""


def provide(engine: Engine, folder: Path) -> list[str]:
    """Have every base in the engine.

    Returns:
        Those that were made here.

    Raises:
        NoBase: One is neither there, nor in a registry, nor can it be made.
    """
    wanted = [image for image in (PYTHON, PYTHON_OF_TREE, NODE) if not _had(engine, image)]
    makes = {PYTHON: _python, PYTHON_OF_TREE: _python, NODE: _node}
    if wanted or not engine.has(BARE):
        _debian(engine, folder)
        _bare(engine, folder)
    for image in wanted:
        makes[image](engine, folder, image)
    return wanted


def _had(engine: Engine, image: str) -> bool:
    return engine.has(image) or engine.tried("pull", image, within_s=PULL_S)[0] == 0


def _debian(engine: Engine, folder: Path) -> None:
    """The packages that every base has, and the libraries of this machine's interpreter."""
    if engine.has(_DEBIAN):
        return
    if shutil.which("mmdebstrap") is None:
        raise NoBase(
            "no registry answers, and mmdebstrap is missing (Debian: apt-get install mmdebstrap)"
        )
    suite = _said("sh", "-c", ". /etc/os-release && echo $VERSION_CODENAME")
    packages = ["ca-certificates", "netbase", "tzdata", *_packages_of(_python_home())]
    tree = folder / "debian.tar"
    _said(
        *("mmdebstrap", "--variant=minbase", f"--include={','.join(packages)}"),
        *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man")),
        *(suite, str(tree)),
    )
    engine("import", "--change", f"ENV {_PATH}", tree, _DEBIAN, within_s=MAKE_S)


def _bare(engine: Engine, folder: Path) -> None:
    """Of these packages only the dynamic linker and the libraries of glibc."""
    with tarfile.open(folder / "debian.tar") as packed:
        taken = [
            member
            for member in packed.getmembers()
            if _GLIBC.search(member.name) or member.name.lstrip("./") in ("lib", "lib64", "usr/lib")
        ]
        with tarfile.open(folder / "bare.tar", "w") as bare:
            for member in taken:
                bare.addfile(member, packed.extractfile(member) if member.isreg() else None)
    engine("import", folder / "bare.tar", BARE)


def _python(engine: Engine, folder: Path, image: str) -> None:
    """Python below /usr/local, with its shared library, as the official image has it."""
    home = _python_home()
    name = next((home / "bin").glob("python3.*[0-9]")).name
    rootfs = folder / "python"
    if not rootfs.exists():
        local = rootfs / "usr/local"
        (local / "bin").mkdir(parents=True)
        shutil.copy2(home / "bin" / name, local / "bin")
        for link in ("python3", "python"):
            (local / "bin" / link).symlink_to(name)
        (local / "lib" / name / "site-packages").mkdir(parents=True)
        ignored = shutil.ignore_patterns(*_UNUSED, "config-*", "_tkinter*", "_test*")
        source = home / "lib" / name
        shutil.copytree(source, local / "lib" / name, ignore=ignored, dirs_exist_ok=True)
        for library in (home / "lib").glob("libpython*.so*"):
            shutil.copy2(library, local / "lib", follow_symlinks=False)
        _add_trust(rootfs)
    # pip as the interpreter brings it, so nothing is fetched.
    after = "RUN ldconfig && python -m ensurepip && ln -sf pip3 /usr/local/bin/pip"
    _build(engine, rootfs, image, after)


def _node(engine: Engine, folder: Path, image: str) -> None:
    """This machine's Node.js with npm below /usr/local."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise NoBase(f"no registry answers, and {image} cannot be made without node and npm here")
    rootfs = folder / "node"
    local = rootfs / "usr/local"
    modules = local / "lib/node_modules"
    (local / "bin").mkdir(parents=True)
    shutil.copy2(_said("node", "-p", "process.execPath"), local / "bin/node")
    npm = Path(os.path.realpath(shutil.which("npm") or "")).parents[1]
    shutil.copytree(npm, modules / "npm", symlinks=True)
    for name in ("npm", "npx"):
        (local / "bin" / name).symlink_to(f"../lib/node_modules/npm/bin/{name}-cli.js")
    _add_trust(rootfs)
    _build(engine, rootfs, image, "RUN node --version && npm --version")


def _python_home() -> Path:
    """Where a Python 3.12 with a shared library is installed: it is what freezes the tree."""
    ask = "import sys, sysconfig as s; print(s.get_config_var('Py_ENABLE_SHARED'), sys.base_prefix)"
    candidates = ["python3.12", *sorted(map(str, _pyenv().glob("versions/3.12*/bin/python3.12")))]
    for candidate in candidates:
        done = (
            subprocess.run([candidate, "-c", ask], capture_output=True, text=True, check=False)
            if shutil.which(candidate)
            else None
        )
        if done is not None and done.returncode == 0:
            shared, home = done.stdout.split()
            if shared == "1" and home != "/usr":
                return Path(home)
    raise NoBase(
        "no registry answers, and no Python 3.12 with a shared library is here to make"
        f" {PYTHON} of (pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install 3.12)"
    )


def _pyenv() -> Path:
    return Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")


def _packages_of(home: Path) -> list[str]:
    """Debian's packages with the libraries that an interpreter and its modules are linked to."""
    modules = [*home.glob("lib/python3.*/lib-dynload/*.so"), *home.glob("lib/libpython*.so.*")]
    linked = subprocess.run(
        ["ldd", *map(str, modules)], capture_output=True, text=True, check=True
    ).stdout
    files = set(re.findall(r"=> (/\S+)", linked))
    found = set()
    for file in files:
        # Which of the two paths of a merged /usr the package names, it alone knows.
        for path in (file, f"/usr{file}", os.path.realpath(file)):
            owner = subprocess.run(
                ["dpkg-query", "--search", path], capture_output=True, text=True, check=False
            ).stdout
            if owner:
                found.add(owner.partition(":")[0])
                break
    # Tk brings a window system; nothing here draws.
    return sorted(name for name in found if not re.match(r"tk|tcl|libx|libtk|libtcl", name))


def _add_trust(rootfs: Path) -> None:
    """What the builds trust is what this machine trusts; a build cannot mount it."""
    if _CERTIFICATES.is_file():
        to = rootfs / _CERTIFICATES.relative_to("/")
        to.parent.mkdir(parents=True)
        shutil.copy(_CERTIFICATES, to)
        to = rootfs / "etc/pip.conf"
        to.write_text(f"[global]\ncert = {_CERTIFICATES}\n", "utf-8")


def _build(engine: Engine, rootfs: Path, image: str, after: str) -> None:
    recipe = rootfs / "Dockerfile"
    entries = sorted(path.name for path in rootfs.iterdir() if path != recipe)
    lines = [f"FROM {_DEBIAN}", *(f"COPY {name} /{name}" for name in entries), after]
    recipe.write_text("\n".join(lines) + "\n", "utf-8")
    engine("build", "--quiet", "--tag", image, rootfs, within_s=MAKE_S)


def _said(*words: str) -> str:
    done: Sequence[str] | subprocess.CompletedProcess[str]
    done = subprocess.run(words, capture_output=True, text=True, timeout=MAKE_S, check=False)
    if done.returncode:
        raise NoBase(f"{words[0]}: status {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout.strip()

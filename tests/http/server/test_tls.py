"""Which files TLS takes, and when it takes others."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from mcpbridge.errors import ConfigError
from mcpbridge.http.server import tls
from mcpbridge.http.server.tls import Certificates, TlsSettings, check_tls
from tests.support.certificates import Authority, Pair

FROM = {"cert": "a", "key": "b", "client_ca": "c"}


def named(pair: Pair, client_ca: Path | None = None) -> TlsSettings:
    """The settings that name these files."""
    return TlsSettings(str(pair.cert), str(pair.key), str(client_ca) if client_ca else None)


def problem_of(cert: object, key: object = None, client_ca: object = None) -> str:
    """What is wrong with these files."""
    texts = [str(file) if file is not None else None for file in (cert, key, client_ca)]
    with pytest.raises(ConfigError) as caught:
        check_tls(TlsSettings(*texts), FROM)
    return str(caught.value)


def test_each_problem_is_told_with_its_flag_and_file(tmp_path: Path) -> None:
    """And where the file was named; OpenSSL's own errors name neither."""
    authority = Authority(tmp_path)
    good, other = authority.pair("good"), authority.pair("other")
    locked = authority.pair("locked", password=b"secret")
    (rubbish := tmp_path / "rubbish").write_text("no PEM")
    none = tmp_path / "none"
    assert (
        problem_of(None, good.key) == "--tls-key (from b): is given without --tls-cert; give both"
    )
    assert problem_of(None, None, rubbish).startswith("--tls-client-ca (from c): is given without")
    for found in (problem_of(none, good.key), problem_of(none)):
        assert (
            found == f"--tls-cert (from a): {str(none)!r} cannot be read: No such file or directory"
        )
    assert problem_of(good.cert, none).startswith(f"--tls-key (from b): {str(none)!r} cannot be")
    assert problem_of(good.cert, other.key) == (
        f"--tls-key (from b): {str(other.key)!r} is not the key of the certificate"
    )
    assert "--tls-cert (from a): " in problem_of(good.cert)
    assert "and its key cannot be used" in problem_of(good.cert)
    assert "and its key cannot be used" in problem_of(rubbish, good.key)
    assert problem_of(*locked).endswith("is encrypted: keys with a password are not supported")
    found = problem_of(*good, rubbish)
    assert found.startswith(f"--tls-client-ca (from c): {str(rubbish)!r} holds no certificates")


def test_good_files_and_none_are_no_problem(tmp_path: Path) -> None:
    """A certificate with its key in one file needs no other."""
    authority = Authority(tmp_path)
    pair = authority.pair("good")
    (both := tmp_path / "both").write_bytes(pair.cert.read_bytes() + pair.key.read_bytes())
    for settings in (TlsSettings(), named(pair, authority.cert), TlsSettings(str(both))):
        check_tls(settings, {})


def test_files_are_looked_at_once_a_second_and_when_told(tmp_path: Path) -> None:
    """However many connections come; what cannot be used changes nothing."""
    authority = Authority(tmp_path)
    now = Pair(tmp_path / "tls.crt", tmp_path / "tls.key")
    now.replace_with(authority.pair("first"))
    clock = [0.0]
    certificates = Certificates(named(now), lambda: clock[0])
    first = certificates.newest()

    now.replace_with(authority.pair("second"))
    clock[0] = 0.9
    assert certificates.newest() is first
    clock[0] = 1.0
    second = certificates.newest()
    assert second is not first
    clock[0] = 2.0
    assert certificates.newest() is second

    now.replace_with(authority.pair("third"))
    certificates.reread()
    third = certificates.newest()
    assert third is not second

    now.cert.unlink()
    clock[0] = 3.0
    assert certificates.newest() is third
    certificates.reread()
    assert certificates.newest() is third


@pytest.mark.parametrize("gone", ["cert", "key", "ca"])
def test_a_file_that_goes_while_it_is_read_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, gone: str
) -> None:
    """Between the look at whether it can be read and OpenSSL's own: connections go on."""
    authority = Authority(tmp_path)
    pair = authority.pair("bridge")
    (ca := tmp_path / "ca").write_bytes(authority.cert.read_bytes())
    clock = [0.0]
    certificates = Certificates(named(pair, ca), lambda: clock[0])
    before = certificates.newest()
    file = {"cert": pair.cert, "key": pair.key, "ca": ca}[gone]
    check = tls._check_readable

    def check_and_lose(flag: str, name: str) -> None:
        check(flag, name)
        if name == str(file):
            file.unlink()

    file.write_bytes(file.read_bytes() + b"\n")
    monkeypatch.setattr(tls, "_check_readable", check_and_lose)
    clock[0] = 1.0
    certificates.context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
    assert not file.exists()
    assert certificates.newest() is before
    (record,) = [each for each in caplog.records if each.message == "tls.reload_failed"]
    assert "cannot be read: No such file or directory" in str(vars(record)["problem"])


def test_what_a_listener_has_begins_each_connection_with_the_newest_files(tmp_path: Path) -> None:
    """Clients are asked for a certificate from the moment when it is so."""
    authority = Authority(tmp_path)
    pair = authority.pair("bridge")
    certificates = Certificates(named(pair, authority.cert))
    begun = certificates.context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
    assert begun.context is certificates.newest()
    assert begun.context.verify_mode is ssl.CERT_REQUIRED
    assert begun.context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert begun.context.num_tickets == 0

"""The file that a recording is: written whole, read again, bounded."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpbridge.errors import ConfigError
from mcpbridge.tape.frame import Direction, Frame, bytes_of, message_bytes, shortened
from mcpbridge.tape.recording import LEAST_BYTES, Recorder, line_of, read_recording, time_of
from mcpbridge.tape.redaction import Redactor
from mcpbridge.wire.messages import Notification, Request, Result, encode

COMMAND = ("server", "--api-key=abc")


def frame(seq: int, message: object = None, text: str | None = None) -> Frame:
    """A frame of one session."""
    return Frame("s-1", "demo", seq, 10**18, Direction.FROM_SERVER, message, text)  # type: ignore[arg-type]


def recorded(
    path: Path, *frames: Frame, most: int = 1 << 20, redactor: Redactor | None = None
) -> None:
    """Record some frames."""
    recorder = Recorder(path, most, COMMAND)
    with recorder.open():
        for each in frames:
            recorder.put(each, redactor)


def test_messages_come_back_as_they_passed(tmp_path: Path) -> None:
    """Numbers keep their spelling; a line of stderr is text."""
    path = tmp_path / "tape.jsonl"
    frames = [
        frame(1, Request(b'"a"', "tools/call", b'{"n":1.50, "big":12345678901234567890}')),
        frame(2, Result(b'"a"', b'{"x": "\xc3\xb6"}', b',"more":1')),
        frame(3, text="plain"),
    ]
    recorded(path, *frames)
    found = read_recording(path)
    assert found.frames[1:] == frames
    assert not found.torn
    assert found.facts["command"] == "server '--api-key=***'"
    assert found.facts["format"] == 1
    lines = path.read_text("utf-8").splitlines()
    assert json.loads(lines[1])["raw"]["params"]["big"] == 12345678901234567890
    assert json.loads(lines[0])["direction"] == "meta"


def test_a_raw_recording_keeps_the_secrets(tmp_path: Path) -> None:
    """And says so in its first line."""
    path = tmp_path / "tape.jsonl"
    recorder = Recorder(path, 1 << 20, COMMAND, is_redacted=False)
    with recorder.open():
        recorder.put(frame(1, text="it is sesame"), Redactor(["sesame"]))
    found = read_recording(path)
    assert found.frames[-1].text == "it is sesame"
    assert found.facts["redacted"] is False


def test_what_else_is_known_of_a_frame_is_redacted_too(tmp_path: Path) -> None:
    """Of a client's name and id; an id keeps its spelling."""
    path = tmp_path / "tape.jsonl"
    facts = {"client": "sesame 1#ab", "client_id": msgspec.Raw(b'"\\u0061 sesame"')}
    asked = msgspec.structs.replace(frame(1, Request(b"1", "ping")), facts=facts)
    recorded(path, asked, redactor=Redactor(["sesame"]))
    found = read_recording(path).frames[-1]
    assert found.facts == {"client": "*** 1#ab", "client_id": "a ***"}
    assert found.message == Request(b"1", "ping")
    assert bytes_of(asked) > bytes_of(frame(1, Request(b"1", "ping")))


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    """Whatever the umask is."""
    path, before = tmp_path / "tape.jsonl", os.umask(0)
    try:
        recorded(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_secrets_are_removed_before_they_are_written(tmp_path: Path) -> None:
    """In messages and lines."""
    path = tmp_path / "tape.jsonl"
    frames = [frame(1, Result(b"1", b'{"a":"sesame-1"}')), frame(2, text="it is sesame-1")]
    recorded(path, *frames, redactor=Redactor(["sesame-1"]))
    assert "sesame" not in path.read_text("utf-8")
    assert read_recording(path).frames[2].text == "it is ***"


def test_a_frame_is_on_disk_while_the_recording_goes_on(tmp_path: Path) -> None:
    """A kill loses no more than the last moment."""
    path, written = tmp_path / "tape.jsonl", threading.Event()

    class Watching(Redactor):
        def text(self, text: str) -> str:
            if text == "second":
                written.set()
            return text

    recorder = Recorder(path, 1 << 20, COMMAND)
    with recorder.open():
        recorder.put(frame(1, text="first"), None)
        recorder.put(frame(2, text="second"), Watching())
        assert written.wait(10)
        assert read_recording(path).frames[1].text == "first"


@given(st.data())
def test_a_torn_last_line_is_no_obstacle(data: st.DataObject) -> None:
    """However much of it is there."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tape.jsonl"
        recorded(path, frame(1, text="first"), frame(2, Notification("notifications/x", b"{}")))
        whole = path.read_bytes()
        last = len(whole.splitlines(keepends=True)[-1])
        cut = data.draw(st.integers(1, last - 1))
        path.write_bytes(whole[:-cut])
        found = read_recording(path)
        assert found.torn
        assert [each.text for each in found.frames[1:]] == ["first"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1.*empty"),
        ("hello\n", "line 1.*not a recording"),
        ('{"session_id":"","seq":0,"ts":"2026-01-01T00:00:00Z","direction":"s2c"}\n', "line 1"),
    ],
)
def test_another_file_is_named_as_such(tmp_path: Path, text: str, problem: str) -> None:
    """With the line and what would be right."""
    path = tmp_path / "other"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=problem) as raised:
        read_recording(path)
    assert "docs/recording.md" in str(raised.value)


def test_a_bad_line_before_the_last_is_an_error(tmp_path: Path) -> None:
    """It is not a torn one."""
    path = tmp_path / "tape.jsonl"
    recorded(path, frame(1, text="first"))
    path.write_bytes(path.read_bytes() + b"{}\n" + line_of(frame(2, text="x")))
    with pytest.raises(ConfigError, match="line 3"):
        read_recording(path)
    with pytest.raises(ConfigError, match="No such file"):
        read_recording(tmp_path / "none")


def test_an_earlier_recording_is_kept_and_another_file_is_not_replaced(tmp_path: Path) -> None:
    """`--record server.py` must not cost the server."""
    path = tmp_path / "tape.jsonl"
    recorded(path, frame(1, text="first"))
    recorded(path, frame(1, text="second"))
    assert read_recording(tmp_path / "tape.jsonl.1").frames[1].text == "first"
    assert read_recording(path).frames[1].text == "second"
    other = tmp_path / "server.py"
    other.write_text("print()\n", "utf-8")
    with pytest.raises(ConfigError, match="not a recording"):
        recorded(other)
    assert other.read_text("utf-8") == "print()\n"
    with pytest.raises(ConfigError, match="not a regular file"):
        recorded(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot write \S+: No such file or directory$"):
        recorded(tmp_path / "none" / "tape.jsonl")


def test_a_full_file_is_followed_by_another(tmp_path: Path) -> None:
    """Two files at most, each readable alone, each within the limit."""
    path = tmp_path / "tape.jsonl"
    text = "x" * 1000
    recorded(path, *(frame(seq, text=text) for seq in range(200)), most=LEAST_BYTES)
    older = tmp_path / "tape.jsonl.1"
    assert sorted(tmp_path.iterdir()) == [path, older]
    assert max(path.stat().st_size, older.stat().st_size) <= LEAST_BYTES
    both = [*read_recording(older).frames[1:], *read_recording(path).frames[1:]]
    assert [each.seq for each in both] == list(range(200 - len(both), 200))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    joined = tmp_path / "both"
    joined.write_bytes(older.read_bytes() + path.read_bytes())
    assert [each for each in read_recording(joined).frames if each.text == text] == both


def test_a_message_longer_than_a_file_keeps_its_beginning(tmp_path: Path) -> None:
    """And its size."""
    path = tmp_path / "tape.jsonl"
    message = Result(b"1", b'"' + b"y" * LEAST_BYTES + b'"')
    recorded(path, frame(1, message), most=LEAST_BYTES)
    (found,) = read_recording(path).frames[1:]
    assert found.message is None
    assert found.size == len(encode(message))
    assert found.text is not None
    assert encode(message).decode().startswith(found.text)


def test_what_cannot_be_written_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file says how many frames are missing, once there is room again."""
    path = tmp_path / "tape.jsonl"
    recorder = Recorder(path, 1 << 20, COMMAND)
    write, failed = os.write, threading.Event()

    def full(fd: int, data: bytes) -> int:
        if b"lose me" in bytes(data):
            failed.set()
            raise OSError(28, "No space left on device")
        return write(fd, data)

    monkeypatch.setattr(os, "write", full)
    with recorder.open():
        recorder.put(frame(1, text="lose me"), None)
        assert failed.wait(10)
        recorder.put(frame(2, text="keep me"), None)
    found = read_recording(path).frames[1:]
    assert [each.text for each in found] == ["frames_lost", "keep me"]
    assert json.loads(path.read_text("utf-8").splitlines()[1])["mcpbridge"] == {"frames": 1}


def test_frames_know_their_size() -> None:
    """Of the text, without making it."""
    message = Request(b"1", "tools/call", b'{"a":1}', b',"x":2')
    assert message_bytes(message) == len(encode(message))
    assert bytes_of(frame(1, message)) > len(encode(message))
    assert shortened(frame(1, message), 10**3, 5).message is message
    assert shortened(frame(1, message), 10, 5).text == encode(message)[:5].decode()
    assert time_of(10**18 + 1500) == "2001-09-09T01:46:40.000001Z"

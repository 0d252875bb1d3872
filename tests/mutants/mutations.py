"""Mistakes that a contributor could make, each in one place, and the tests that must fail for it.

An anchor stands exactly once in its file; a change of that code moves the mutation
with it. The mistakes are those that would matter: a message read in two ways, an answer to the
wrong client, a child that is not replaced, a limit that does not hold, a caller let in.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """One mistake."""

    file: str
    """Below `mcpbridge`."""
    old: str
    """What stands there, once."""
    new: str
    """What stands there by mistake."""
    suite: str
    """Tests that must fail, below `tests`: a folder or modules, separated by blanks."""


def _in(file: str, suite: str, *changes: tuple[str, str]) -> list[Mutation]:
    return [Mutation(file, old, new, suite) for old, new in changes]


_FRAMING = [
    *_in(
        "http/server/framing.py",
        "http/server/test_framing.py",
        ('    b"origin",\n', ""),
        ('    b"host",\n', ""),
        ('    b"mcp-session-id",\n', ""),
        ("every.count(name) > 1", "every.count(name) > 2"),
        ('method == b"CONNECT" or ', ""),
        ('version == "1.1" and b"host" not in names', "False"),
        ('(codings != [b"chunked"] or version == "1.0")', 'codings[-1] != b"chunked"'),
        ("found[1].lower() == host.lower()", "True"),
        ('if version not in ("1.0", "1.1"):', 'if version == "0.9":'),
    ),
    *_in(
        "http/server/fast_path.py",
        "http/server/test_fast_path.py",
        ("return (body, missing) if missing >= 0 else None", "return body, max(missing, 0)"),
        ("return (body, missing) if missing >= 0", "return (body, missing) if missing == 0"),
        ("if missing < 0:\n            return None\n        return (data", "return (data"),
        ("if self._missing < 0:", "if False:"),
        ("        self._missing -= size\n", "        self._fresh = None\n"),
    ),
    *_in(
        "http/server/connection.py",
        "http/server/test_fast_path.py",
        ("data, between = self._held + data, True", "between = True"),
        ("data, between = self._held + data, True", "data, between = self._held + data, False"),
        ('        self._held = b""\n        if self._charged:', "        if self._charged:"),
        (
            "        if not self._keep(len(data)):\n            self._unhold()",
            "        if False:\n            pass",
        ),
        ("wait_s = min(_HOLD_S, self._limits.body_s)", "wait_s = 100.0"),
        ("True, self.loop.time() - self._held_since)", "True)"),
        ("        self._unhold()\n        super().shutdown()", "        super().shutdown()"),
        (
            "            self._unhold()\n            if self._refused",
            "            if self._refused",
        ),
        (
            "len(body) + missing > self._fast_path.max_bytes",
            "len(body) > self._fast_path.max_bytes",
        ),
        (
            "            self._await(_NOTHING)\n        return",
            "            pass\n        return",
        ),
        ("self.cycle.response_started and not self._held", "self.cycle.response_started"),
    ),
    *_in(
        "wire/lines.py",
        "wire/test_lines.py",
        ("if len(raw) > self._max:", "if len(raw) >= self._max:"),
        ("return raw.removeprefix(BOM).strip(", "return raw.strip("),
        ("last = chunk.rfind", "last = chunk.find"),
        ("self._hold(chunk[last + 1 :])", "self._hold(chunk[last:])"),
        ("self._skipped += self._held", "self._skipped = self._held"),
        ('return message + b"\\n"', "return message"),
    ),
    *_in(
        "channels/pipes.py",
        "channels/test_forwarding.py",
        ("return len(lines[0]) >= LONG_BYTES", "return False"),
    ),
    *_in(
        "wire/reply_id.py",
        "wire/test_reply_id.py",
        ('or any(name == "method" for name, _ in members)', ""),
        ("if len(ids) != 1 or", "if not ids or"),
    ),
]

_CORRELATION = [
    *_in(
        "rules/mcp/correlator.py",
        "rules/mcp/test_correlator.py",
        (
            "call = self._calls.get(number)\n        if call is None:\n"
            "            return Dropped.UNKNOWN_ANSWER",
            "call = self._calls.get(number) or next(iter(self._calls.values()), None)\n"
            "        if call is None:\n            return Dropped.UNKNOWN_ANSWER",
        ),
        (
            "call = self._calls.get(number)\n        if call is None:\n"
            "            return Dropped.UNKNOWN_ANSWER",
            "call = self._calls.get(next(iter(self._calls), 0))\n"
            "        if call is None:\n            return Dropped.UNKNOWN_ANSWER",
        ),
        ("        del self._calls[number]\n", ""),
        ("Result(call.client_id, result, reply.extra)", "Result(reply.id, result, reply.extra)"),
        ("Failure(call.client_id, reply.error", "Failure(reply.id, reply.error"),
        ("own = replaced(params, [(span, call.token)])", "own = params"),
        (
            "if call is None or call.token is None or span is None:",
            "if call is None or span is None:",
        ),
        ("if len(self._tasks) > _LATE_TOKENS:", "if False:"),
        ("self.last += 1\n", "self.last = len(self._calls) + 1\n"),
        ("return spliced(params, absolute, number), meta", "return params, meta"),
        ("if params is not None and may_hold_meta(params, b'\"_'):", "if False:"),
        (
            "own = replaced(params, [(span, call.client_id)])\n        return Tagged",
            "own = params\n        return Tagged",
        ),
        ("and len(digits) <= 15 else None", "else None"),
    ),
    *_in(
        "bridge/children/mux.py",
        "bridge/children/test_mux.py bridge/children/test_mux_taken_over.py",
        (
            "self.call_limiter.release(heard.number)\n            heard.owner",
            "heard.owner",
        ),
        (
            "self.call_limiter.release(number)\n            sink.receive(CallFailed(fault))",
            "sink.receive(CallFailed(fault))",
        ),
        (
            "self._correlator.forget(number)\n            self.call_limiter.release(number)\n",
            "self.call_limiter.release(number)\n",
        ),
        ("if len(callers) == 1:", "if callers:"),
        ("elif self.shared or not self._listeners:", "elif not self._listeners:"),
        ("if audience is Audience.UNKNOWN:", "if False:"),
        (
            "        self.timeouts = 0\n        self._heard_after = self._correlator.last\n",
            "        self._heard_after = self._correlator.last\n",
        ),
        ("self.timeouts += overdue and number > self._heard_after\n", ""),
        ("overdue and number > self._heard_after\n", "overdue\n"),
        ("        for sink in self._correlator.end_all():\n", "        for sink in ():\n"),
        ("        self.call_limiter.linger(number)\n", ""),
        ("if number >= self._limit_at:", "if number > self._limit_at:"),
    ),
    *_in(
        "rules/event_log.py",
        "rules/test_event_log.py",
        (
            "return count > self._window.entries or",
            "return count > self._window.entries + 1 or",
        ),
        ("return count > self._window.entries or", "return count >= self._window.entries or"),
        ("size - self._firm > self._window.max_bytes", "size > self._window.max_bytes"),
        ("if entry.sheddable and entry.number != self._last:", "if entry.sheddable:"),
        ("if entry.sheddable and entry", "if entry"),
        ("if entry.number > cursor:", "if entry.number >= cursor:"),
        ("if strict and len(found) != self._last - cursor:", "if False:"),
    ),
]

_ISOLATION = [
    *_in(
        "bridge/modern/request_state.py",
        "bridge/modern/test_request_state.py",
        ('from now on."""\n        self._owner = owner\n', 'from now on."""\n        pass\n'),
        ("content if content is not None and now < content.expires_at else None", "content"),
        ("!= text:", "!= text.strip():"),
        ("return RequestStateCodec(self._keys, self._home, owner)", "return self"),
    ),
    *_in(
        "rules/supervision/isolation.py",
        "rules/supervision/test_isolation.py",
        ("return bool(asked_abilities(", "return False and bool(asked_abilities("),
        ("return isolation is Isolation.SESSION", "return False"),
    ),
    *_in(
        "rules/access/principals.py",
        "rules/access/test_principals.py",
        ('b"%d:%b" % (len(data), data)', "data"),
        ("key=lambda pair: -len(pair[1])", "key=lambda pair: len(pair[1])"),
    ),
    *_in(
        "rules/access/header_env.py",
        "rules/access/test_header_env.py",
        ('key=key_of("header-env", principal.key, *parts)', 'key=key_of("header-env", *parts)'),
        ("if len(found) != 1:", "if not found:"),
        ("else principal.quota_key,", "else None,"),
        ("upper in _NEVER or ", ""),
    ),
]

_SUPERVISION = [
    *_in(
        "rules/supervision/restart.py",
        "rules/supervision/test_restart.py",
        ("failed_starts) >= policy.give_up_after", "failed_starts) > policy.give_up_after"),
        ("failures = 1 if stable else", "failures ="),
        ("if now - end < policy.window_s", "if True"),
        ("min(policy.max_delay_s, policy", "(policy"),
    ),
    *_in(
        "rules/supervision/liveness.py",
        "rules/supervision/test_liveness.py",
        (
            "(Health.MISSED_TWO, Sign.SILENT): Health.UNRESPONSIVE",
            "(Health.MISSED_TWO, Sign.SILENT): Health.MISSED_TWO",
        ),
        ("if sample.stopped:\n", "if False:\n"),
        ("Sign.EXCUSED if sample.calls or unknown", "Sign.EXCUSED if unknown"),
        ("sample.timeouts >= policy.max_timeouts", "sample.timeouts > policy.max_timeouts"),
        ("now if takes else child_health.taken_at", "now"),
        ("sample.requests >= policy.max_requests", "sample.requests > policy.max_requests"),
    ),
    *_in(
        "rules/supervision/lifecycle.py",
        "rules/supervision/test_lifecycle.py",
        (
            "(DrainState.LAME_DUCK, DrainEvent.SIGNAL): DrainState.CUTOFF",
            "(DrainState.LAME_DUCK, DrainEvent.SIGNAL): DrainState.DRAINING",
        ),
    ),
]

_LIMITS = [
    *_in(
        "bridge/children/call_limiter.py",
        "bridge/children/test_call_limiter.py",
        ("if len(self._taken) >= self.most:", "if len(self._taken) > self.most:"),
        ("len(self._waiting) >= limits.queue_length", "len(self._waiting) > limits.queue_length"),
        ("        self._size += entry.size\n", ""),
        (
            "        if number in self._taken:\n            asyncio",
            "        if True:\n            asyncio",
        ),
        ("number = next(iter(numbers))", "number = next(reversed(numbers))"),
        (
            "                self._turns[caller] = self._turns.pop(caller)\n",
            "                pass\n",
        ),
        ("            if entry.until > loop.time():", "            if False:"),
        ("self._taken.discard(number)", "self._taken and self._taken.pop()"),
    ),
    *_in(
        "rules/access/rate_limit.py",
        "rules/access/test_rate_limit.py",
        ("taken = count if level >= 1 else 0", "taken = count"),
        ("min(self.limit.burst, bucket.level", "(bucket.level"),
        ("_Bucket(level - taken, now)", "_Bucket(level - min(taken, 1), now)"),
    ),
    *_in(
        "rules/supervision/fd_budget.py",
        "rules/supervision/test_fd_budget.py",
        ("if limit < least_needed(band):", "if limit <= least_needed(band):"),
        ("room = limit - OWN - band", "room = limit - OWN"),
    ),
]

_AUTH = [
    *_in(
        "rules/access/jwt.py",
        "rules/access/test_jwt.py http/auth/test_oauth.py",
        ('claims.get("iss") != demands.issuer', "False"),
        ("if demands.audiences.isdisjoint(_audiences(claims)):", "if False:"),
        ("if now >= ends + leeway_s:", "if now > ends + leeway_s:"),
        ('if "cnf" in claims:', "if False:"),
        ("if len(found) != len(pairs):", "if False:"),
        ("if any(name in header for name in _FORBIDDEN):", "if False:"),
        ("or algorithm not in algorithms:", "or False:"),
        ("now < begins - leeway_s", "now < begins"),
    ),
    *_in(
        "rules/access/hosts.py",
        "rules/access/test_hosts.py",
        ("return re.fullmatch(_OWN_HOST, name) is not None", "return True"),
        ('return site != "cross-site" or', "return True or"),
        ("name.endswith(pattern[1:])", "name.endswith(pattern[2:])"),
        ("return rules.loopback and wanted[0]", "return wanted[0]"),
        ("ipaddress.IPv6Network((int(found), 64)", "ipaddress.IPv6Network((int(found), 128)"),
    ),
    *_in(
        "rules/access/static_tokens.py",
        "rules/access/test_static_tokens.py",
        ("if len(token) < MIN_CHARACTERS:", "if len(token) < 1:"),
        ("and found[digest].key != principal.key", "and False"),
    ),
    *_in(
        "rules/access/tool_policy.py",
        "rules/access/test_tool_policy.py",
        ("return not self.allowed or any", "return any"),
        ("        if meant != method:\n", "        if False:\n"),
        (
            "kept = [tools[start:end] for start, end in found if self._shows(tools[start:end])]",
            "kept = [tools[start:end] for start, end in found]",
        ),
        ("raise ToolDenied(name[:_SHOWN])", "return"),
    ),
    *_in(
        "http/origin_check.py",
        "http/test_origin_check.py",
        ("        if not origin_allowed(origin, rules):\n", "        if False:\n"),
        ("and not host_allowed(", "and False and not host_allowed("),
        ("int(announced) > limit", "int(announced) > limit + 1"),
        ("        if gathered.size > limit:\n", "        if False:\n"),
    ),
    *_in(
        "channels/sockets.py",
        "channels/test_sockets.py",
        (
            "os.chmod(path, mode)\n        listener.listen(_BACKLOG)",
            "pass\n        listener.listen(_BACKLOG)\n        if path is not None:\n"
            "            os.chmod(path, mode)",
        ),
    ),
]

_SHARES = [
    *_in(
        "rules/access/shares.py",
        "rules/access/test_shares.py",
        ("            self._above.charge(change)\n", "            self._above.held += change\n"),
        ("self._above.charge(-self.held)", "pass"),
        ("    if held > limit:\n", "    if held >= limit:\n"),
        ("if held > limit * REFUSE_AT:", "if held >= limit * REFUSE_AT:"),
        ("if held > limit * SHED_AT", "if held >= limit * SHED_AT"),
        ("if -negative > own]", "if -negative >= own]"),
        ("return [*found, newcomer] if own else found", "return [*found, newcomer]"),
        ("max(total / len(group), LEAST_CUT_BYTES)", "LEAST_CUT_BYTES"),
        ("max(total / len(group), LEAST_CUT_BYTES)", "total / len(group)"),
        ("sums.index(max(sums))", "sums.index(min(sums))"),
        ("        sums[place] -= size\n", ""),
        ("        excess -= size\n", "        excess -= 1\n"),
        ("key=lambda pair: pair[1],", "key=lambda pair: -pair[1],"),
        ("return most // 16", "return most // 16 + 1"),
        ("< most // (clients + 1)", "<= most // (clients + 1)"),
        ("sum(count > 0 for holder", "sum(True for holder"),
        ("if holder != newcomer) + 1", ") + 1"),
    ),
    *_in(
        "bridge/budget.py",
        "bridge/test_budget.py",
        ("self.full = self.held > self._refuse_at", "self.full = self.held >= self._refuse_at"),
        ("if self.full or self.held > self._alarm_at:", "if self.held > self._alarm_at:"),
        ("self._was_full = self._was_full or self.full", "self._was_full = self.full"),
        ("self._was_full, self.full\n", "self._was_full, False\n"),
        ("            self.charge(-size)\n", "            pass\n"),
        ("else int(limit * SHED_AT)", "else limit"),
        ("        self._pressed.clear()\n", ""),
        ("self._held_connections.pop(connection, None)", "pass"),
    ),
    *_in(
        "bridge/relief.py",
        "bridge/test_relief.py",
        ("            if number % _AT_ONCE == 0:", "            if False:"),
        (" and now >= next_cut:", ":"),
        ("if now - last > _FULL_S:", "if False:"),
        ("lasts = now - began > _FULL_S", "lasts = True"),
        ("            if budget.full:\n", "            if False:\n"),
        ("            await self._shed()\n", ""),
        ("for holder in heaviest(groups, self._budget.excess):", "for holder in groups[0]:"),
        ("            holder.cut()\n", ""),
    ),
    *_in(
        "bridge/modern/parking.py",
        "bridge/modern/test_parking.py",
        ("if self.taken >= self._most and", "if self.taken > self._most and"),
        ("        counts[newcomer] += 1\n", ""),
        ("if own and holder != newcomer:", "if own:"),
        ("self._coming[caller] += 1", "self._coming[caller] += 0"),
        ("_, longest = min(own,", "_, longest = max(own,"),
        ("if (at := call.parked_at) is not None]", "if (at := call.parked_at or 0.0) is not None]"),
        ("key=lambda each: each[:2]", "key=lambda each: each[1]"),
    ),
    *_in(
        "bridge/calls/shedding.py",
        "bridge/calls/test_shedding.py",
        ("if now - self._counted_at <= _COUNTED_S:", "if self._counts:"),
        ("        self._counts[newcomer] += 1\n        return None", "        return None"),
        (
            "if exchange.queued and exchange.reply is None:\n                    ",
            "if True:\n                    ",
        ),
        ("                    self._counts[holder] -= 1\n", ""),
        ("while waiting and holder != newcomer:", "while waiting:"),
    ),
    *_in(
        "bridge/calls/context.py",
        "bridge/calls/test_context.py",
        ("calls < self.undivided_calls and", "calls < self.max_calls and"),
        ("self.undivided_calls <= calls < self.max_calls:", "self.undivided_calls <= calls:"),
        ("        if pause_s:\n", "        if False:\n"),
        ("        if budget.full:\n", "        if False:\n"),
        ("if calls >= self.max_calls and not", "if calls > self.max_calls and not"),
        ("if streams >= self.max_streams else", "if streams > self.max_streams else"),
    ),
    *_in(
        "bridge/children/warm_pool.py",
        "bridge/children/test_warm_pool.py",
        ("            if entry[0] == fingerprint:\n", "            if True:\n"),
        ("return None if entry[2].mux.shut else entry[2]", "return entry[2]"),
        ("            if renewals != self._renewals:\n", "            if False:\n"),
        ("            lease.recycle()\n\n    def expire", "            pass\n\n    def expire"),
        ("        elif not lease.mux.lost:\n", "        else:\n"),
    ),
    *_in(
        "bridge/legacy/send_queue.py",
        "bridge/legacy/test_send_queue.py",
        ("if len(self._waiting) >= MAX_WAITING:", "if len(self._waiting) > MAX_WAITING:"),
        (
            "if self._waiting and self._size + _size(item) > most:",
            "if self._size + _size(item) > most:",
        ),
        ("                    self._size -= _size(item)\n", ""),
        ("        self._size = sum(map(_size, self._waiting))\n", ""),
        ("and not mux.channel.congested and not mux.shut:", "and not mux.shut:"),
    ),
    *_in(
        "bridge/children/child_pool.py",
        "bridge/children/test_child_pool.py",
        ("        held[caller] += strict\n", ""),
        ("            ranks.pop(caller, None)\n", "            pass\n"),
        (
            "            self._holders[lease] = caller\n\n    def idle",
            "            pass\n\n    def idle",
        ),
    ),
    *_in(
        "rules/access/client_address.py",
        "rules/access/test_client_address.py",
        ("    if not found.prefixlen:\n", "    if False:\n"),
        ("            return self._unix\n", "            return True\n"),
        ("                if _address(entry) is None:\n", "                if False:\n"),
        ("                if not self.trusts(entry):\n", "                if True:\n"),
        ("hops = hops[-MAX_HOPS:][::-1]", "hops = hops[-MAX_HOPS:]"),
        ("or named[:1] == hops[:1] else ()", "or named else ()"),
        ("        if self.trusts(peer):\n", "        if True:\n"),
        ('        if end != ";":\n', "        if True:\n"),
    ),
    *_in(
        "http/server/giving_way.py",
        "http/server/test_giving_way.py",
        ("if each is newcomer or standing is Standing.BUSY:", "if each is newcomer:"),
        ("if each is newcomer or standing", "if standing"),
        ("if before is None or standing < before[0]:", "if before is None:"),
        ("if peer != own or standing in _TO_ITS_OWN:", "if True:"),
    ),
    *_in(
        "rules/supervision/crashes.py",
        "rules/supervision/test_crashes.py",
        ("[each for each in callers if each]", "list(callers)"),
        ("if now - end < WINDOW_S)", "if now - end <= WINDOW_S)"),
        ("_, _, caller = max(ranks)", "_, _, caller = min(ranks)"),
        ("        if len(ends) > 1:\n", "        if len(ends) > 0:\n"),
        ("2.0 ** (len(ends) - 2)", "2.0 ** (len(ends) - 1)"),
        ("min(MAX_PAUSE_S, FIRST_PAUSE_S *", "(FIRST_PAUSE_S *"),
        ("        if until <= now:\n", "        if until < now:\n"),
        ("del self._ends[next(iter(self._ends))]", "self._ends.popitem()"),
        ("        self._ends.pop(caller, None)\n", ""),
    ),
]

MUTATIONS = (*_FRAMING, *_CORRELATION, *_ISOLATION, *_SUPERVISION, *_LIMITS, *_SHARES, *_AUTH)

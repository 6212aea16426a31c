"""A group coordinator: who is a member, which generation it is, what was committed.

Owns: join, sync, heartbeat, leave; fencing commits by generation. Must not know: connections, what is consumed.
The protocol is Kafka's classic one (KIP-62); names and rules follow `GroupCoordinator.scala`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Group"]

_ILLEGAL_GENERATION, _UNKNOWN_MEMBER, _REBALANCING = 22, 25, 27
_FIRST_JOIN_DELAY_S = 0.05

Respond = Callable[..., None]


@dataclass
class _Member:
    member_id: str
    session_s: float
    rebalance_s: float
    protocols: list[tuple[str, bytes]]
    join: Respond | None = None
    sync: Respond | None = None
    timer: asyncio.TimerHandle | None = None
    assignment: bytes = b""


@dataclass
class Group:
    """One consumer group. Every method answers through `respond`, at once or later."""

    loop: asyncio.AbstractEventLoop
    on_commit: Callable[[str, int, int], None]
    committed: dict[tuple[str, int], int] = field(default_factory=dict)
    generation: int = 0
    _state: str = "stable"
    _members: dict[str, _Member] = field(default_factory=dict)
    _leader: str = ""
    _numbers: int = 0
    _timer: asyncio.TimerHandle | None = None

    def join(self, request: Any, respond: Respond) -> None:
        """JoinGroup: answered when all members have come, or too much time has passed."""
        protocols = list(request.group_protocols)
        member = self._members.get(request.member_id)
        if member is None:
            if request.member_id:
                respond(0, _UNKNOWN_MEMBER, -1, "", "", request.member_id, [])
                return
            self._numbers += 1
            member = _Member(f"member-{self._numbers}", 0, 0, protocols)
            self._members[member.member_id] = member
        elif self._state == "stable" and member.protocols == protocols and member.member_id != self._leader:
            self._answer_join(member, respond)
            return
        member.protocols = protocols
        member.session_s, member.rebalance_s = (
            request.session_timeout / 1000,
            request.rebalance_timeout / 1000,
        )
        member.join = respond
        self._alive(member)
        self._rebalance()

    def sync(self, request: Any, respond: Respond) -> None:
        """SyncGroup: answered when the leader has said who gets what."""
        member, code = self._check(request.member_id, request.generation_id)
        if member is None or code:
            respond(0, code, b"")
        elif self._state == "joining":
            respond(0, _REBALANCING, b"")
        elif self._state == "stable":
            self._alive(member)
            respond(0, 0, member.assignment)
        else:
            self._alive(member)
            member.sync = respond
            if member.member_id == self._leader:
                for name, assignment in request.group_assignment:
                    self._members[name].assignment = bytes(assignment)
                self._state = "stable"
                for other in self._members.values():
                    if other.sync is not None:
                        answer, other.sync = other.sync, None
                        answer(0, 0, other.assignment)

    def heartbeat(self, request: Any, respond: Respond) -> None:
        """Heartbeat: says whether to join again."""
        member, code = self._check(request.member_id, request.generation_id)
        if member is not None and not code:
            self._alive(member)
            code = _REBALANCING if self._state == "joining" else 0
        respond(0, code)

    def leave(self, request: Any, respond: Respond) -> None:
        """LeaveGroup."""
        if request.member_id in self._members:
            self._remove(request.member_id)
            respond(0, 0)
        else:
            respond(0, _UNKNOWN_MEMBER)

    def commit(self, request: Any, respond: Respond) -> None:
        """OffsetCommit, fenced by generation."""
        member, code = self._check(request.consumer_id, request.consumer_group_generation_id)
        if member is not None and not code:
            self._alive(member)
            code = _REBALANCING if self._state == "syncing" else 0
        topics = []
        for topic, partitions in request.topics:
            if not code:
                for partition, offset, _ in partitions:
                    self.committed[topic, partition] = offset
                    self.on_commit(topic, partition, offset)
            topics.append((topic, [(partition, code) for partition, _, _ in partitions]))
        respond(0, topics)

    def fetch(self, request: Any, respond: Respond) -> None:
        """OffsetFetch."""
        topics = [
            (
                topic,
                [(partition, self.committed.get((topic, partition), -1), "", 0) for partition in partitions],
            )
            for topic, partitions in request.topics or ()
        ]
        respond(0, topics, 0)

    def _check(self, member_id: str, generation: int) -> tuple[_Member | None, int]:
        member = self._members.get(member_id)
        if member is None:
            return None, _UNKNOWN_MEMBER
        return member, _ILLEGAL_GENERATION if generation != self.generation else 0

    def _alive(self, member: _Member) -> None:
        if member.timer is not None:
            member.timer.cancel()
        member.timer = self.loop.call_later(member.session_s, self._expired, member)

    def _expired(self, member: _Member) -> None:
        if member.join is not None:  # whoever waits for an answer is there
            self._alive(member)
        else:
            self._remove(member.member_id)

    def _remove(self, member_id: str) -> None:
        member = self._members.pop(member_id, None)
        if member is not None:
            if member.timer is not None:
                member.timer.cancel()
            self._rebalance()

    def _rebalance(self) -> None:
        if self._state != "joining":
            self._state = "joining"
            for member in self._members.values():
                if member.sync is not None:
                    answer, member.sync = member.sync, None
                    answer(0, _REBALANCING, b"")
            if self._timer is not None:
                self._timer.cancel()
            longest = max((member.rebalance_s for member in self._members.values()), default=0.0)
            self._timer = self.loop.call_later(longest, self._everybody_came)
            self.loop.call_later(_FIRST_JOIN_DELAY_S, self._look)
        else:
            self._look()

    def _look(self) -> None:
        if self._state == "joining" and all(member.join is not None for member in self._members.values()):
            self._everybody_came()

    def _everybody_came(self) -> None:
        if self._state != "joining":
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for member in [member for member in self._members.values() if member.join is None]:
            if member.timer is not None:
                member.timer.cancel()
            del self._members[member.member_id]
        self.generation += 1
        self._state = "syncing" if self._members else "stable"
        if self._leader not in self._members:
            self._leader = next(iter(self._members), "")
        for member in self._members.values():
            answer, member.join = member.join, None
            member.assignment = b""
            self._alive(member)
            assert answer is not None
            self._answer_join(member, answer)

    def _answer_join(self, member: _Member, respond: Respond) -> None:
        protocol = member.protocols[0][0]
        members = (
            [(other.member_id, dict(other.protocols)[protocol]) for other in self._members.values()]
            if member.member_id == self._leader
            else []
        )
        respond(0, 0, self.generation, protocol, self._leader, member.member_id, members)

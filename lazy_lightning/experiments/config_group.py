"""ConfigGroup: a configuration of a sweep without its alpha and seeds, with the members that are wanted of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lazy_lightning.runs import configuration

Member = tuple[float, int]
"""(alpha, seed)"""


@dataclass(frozen=True)
class ConfigGroup:
    """A configuration without its alpha and seeds, whose members can share a batch."""

    config: Mapping[str, Any] = field(repr=False)
    """The content of ``config.yaml``."""
    setting: Mapping[str, Any]
    """The keys and values that distinguish the group within the sweep, for display."""
    key: str
    """The hash of the configuration, see :func:`configuration.family`."""
    members: tuple[Member, ...]
    """The members of the sweep in this group."""

    @classmethod
    def of(
        cls,
        config: Mapping[str, Any],
        setting: Mapping[str, Any],
        members: Iterable[Member],
        source: str | None = None,
    ) -> ConfigGroup:
        """Returns the group of a configuration; for ``source`` see :func:`configuration.family`."""
        return cls(config, setting, configuration.family(config, source), tuple(members))

    def member_id(self, member: Member) -> str:
        """Returns the identity of a member, see :func:`configuration.member`."""
        return configuration.member(configuration.point(self.key, member[0]), member[1])

    def with_members(self, members: Iterable[Member]) -> ConfigGroup:
        """Returns a copy of the group with other members."""
        return ConfigGroup(self.config, self.setting, self.key, tuple(members))

"""A sweep: its requested members, those that the run store holds already, and those still to be trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lazy_lightning.errors import ConfigError
from lazy_lightning.experiments.batching import Batch, MemberCost, kernel_group, plan_batches
from lazy_lightning.experiments.bisect import Search, search
from lazy_lightning.experiments.config_group import ConfigGroup, Member
from lazy_lightning.experiments.data_seed_axis import parts_of
from lazy_lightning.experiments.sweep_folder import SweepFolder
from lazy_lightning.experiments.sweep_spec import SweepSpec
from lazy_lightning.runs import configuration
from lazy_lightning.runs.index import scan
from lazy_lightning.runs.run_files import CHECKPOINT
from lazy_lightning.runs.run_folder import Status

Rows = Sequence[Mapping[str, Any]]
"""Rows of the run store's index, one for each member."""


@dataclass(frozen=True)
class BatchLimits:
    """Limits on the size of a batch and on the number of parallel batches."""

    bytes: float
    """Memory of a batch."""
    workers: int = 1
    """Number of batches that are trained in parallel."""
    members: int | None = None
    """Number of members of a batch; None for no limit."""
    even: bool = False
    """Whether batches are so short that the workers end at about the same time."""


@dataclass(frozen=True)
class Sweep:
    """The specification of a sweep with its configuration groups and its folder.

    ``networks`` contain the members of the grid. In a bisection they contain one member for each seed, with the
    configuration's alpha, and the scales are chosen from the results.
    """

    spec: SweepSpec
    networks: tuple[ConfigGroup, ...]
    folder: SweepFolder
    joins: Callable[[Sequence[ConfigGroup]], bool] | None = None
    """Function that returns whether groups that differ in one seed of their data can be trained as one run; None keeps
    them apart."""

    def rows(self) -> Rows:
        """Reads the index of the runs in the sweep's folder."""
        return scan(self.folder.path) if self.folder.path.is_dir() else []

    # ------------------------------------------------------------------ requested members

    def wanted(self, rows: Rows) -> list[ConfigGroup]:
        """Returns the groups of networks and of kernels at initialisation with all their members."""
        networks = [self._with_scales(group, rows) for group in self.networks]
        if "init" not in self.spec.kernels:
            return networks
        return networks + [kernel_group(f, "init", None, _without_alpha(f)) for f in networks]

    def kernels_at_end(self, rows: Rows) -> list[ConfigGroup]:
        """Returns the groups of kernels of trained networks: for each ended run, one with its finished members."""
        if "end" not in self.spec.kernels:
            return []
        by_group = {group.key: group for group in self.networks}
        runs: dict[str, list[Mapping[str, Any]]] = {}
        for row in rows:
            if row["family"] in by_group:
                runs.setdefault(str(row["run"]), []).append(row)
        found: list[ConfigGroup] = []
        seen: set[str] = set()  # a member may have been trained twice by separate commands
        for run, members in runs.items():
            network, checkpoint = by_group[str(members[0]["family"])], self.folder.checkpoint(run)
            if all(row["status"] != Status.UNFINISHED for row in members) and checkpoint.is_file():
                good = [row for row in members if row["status"] == Status.FINISHED and row["id"] not in seen]
                seen.update(str(row["id"]) for row in good)
                chosen = [(float(row["alpha"]), int(row["seed"])) for row in good]
                found.append(kernel_group(network, "end", str(checkpoint), chosen))
        return found

    def search(self, group: ConfigGroup, rows: Rows) -> Search | None:
        """Returns the state of a group's bisection, or None if the sweep is a grid."""
        bisection = self.spec.bisect
        if bisection is None:
            return None
        scale_of, seeds = self._scale_of(group), {seed for _, seed in group.members}
        measured: dict[float, dict[int, float]] = {}
        ended = [row for row in rows if row["family"] == group.key and row["status"] != Status.UNFINISHED]
        for row in sorted(ended, key=lambda row: row["status"] == Status.FINISHED):  # finished rows replace failed ones
            if row["seed"] in seeds:
                measured.setdefault(scale_of(float(row["alpha"])), {})[row["seed"]] = _value(row, bisection.column)
        whole = {scale: list(values.values()) for scale, values in measured.items() if len(values) == len(seeds)}
        return search(bisection, whole)

    def _with_scales(self, group: ConfigGroup, rows: Rows) -> ConfigGroup:
        found = self.search(group, rows)
        if found is None:
            return group
        seeds = dict.fromkeys(seed for _, seed in group.members)
        alphas = [self.alpha_of(group, scale) for scale in found.scales]
        return group.with_members((alpha, seed) for alpha in alphas for seed in seeds)

    def alpha_of(self, group: ConfigGroup, scale: float) -> float:
        """Returns the alpha of a value on the bisection's axis."""
        assert self.spec.bisect is not None  # called only in a bisection
        return alpha_of(group.config, self.spec.bisect.axis, scale)

    def _scale_of(self, group: ConfigGroup) -> Callable[[float], float]:
        assert self.spec.bisect is not None  # called only in a bisection
        root = 1.0 if self.spec.bisect.axis == "alpha" else width_of(group.config) ** 0.5
        return lambda alpha: configuration.significant(alpha * root, 10)

    # ------------------------------------------------------------------ pending members and batches

    def pending(self, groups: Iterable[ConfigGroup], rows: Rows, retry_failed: bool) -> list[ConfigGroup]:
        """Returns the groups with only their untrained members, which include failed ones if ``retry_failed``."""
        done = completed_ids(rows, retry_failed)
        left = [f.with_members(m for m in f.members if f.member_id(m) not in done) for f in groups]
        return [group for group in left if group.members]

    def batches(
        self, rows: Rows, cost: Callable[[ConfigGroup], MemberCost], limits: BatchLimits, retry_failed: bool = False
    ) -> list[Batch]:
        """Returns the batches to train now by decreasing time; batches of an earlier plan are kept."""
        pending = self.pending([*self.wanted(rows), *self.kernels_at_end(rows)], rows, retry_failed)
        kept: list[Batch] = []
        by_key = {group.key: group for group in pending}
        left = {(group.key, member) for group in pending for member in group.members}
        planned = [_planned(by_key, key, config, cost) for key, config in self.folder.planned().items()]
        for batch in planned:
            # plans of different commands may overlap
            if batch is not None and self._is_valid(batch, limits) and batch.places <= left:
                kept.append(batch)
                left -= batch.places
        rest = [group.with_members(m for m in group.members if (group.key, m) in left) for group in pending]
        joins = None if "end" in self.spec.kernels else self.joins  # a kernel has one data set for all members
        wanted = [group for group in rest if group.members]
        new = plan_batches(wanted, cost, limits.bytes, limits.workers, limits.members, joins, limits.even)
        return sorted([*kept, *new], key=lambda batch: -batch.seconds)

    def _is_valid(self, batch: Batch, limits: BatchLimits) -> bool:
        """Returns whether a batch of an earlier plan is kept: it has a checkpoint, or is within the present limits."""
        begun = self.folder.checkpoint(batch.key).is_file()
        return begun or limits.members is None or len(batch.members) <= limits.members

    # ------------------------------------------------------------------ status

    def status(self, rows: Rows, retry_failed: bool = False) -> SweepStatus:
        """Returns the requested members, those finished and those failed (none if they are trained again)."""
        wanted = {group.member_id(member) for group in self.wanted(rows) for member in group.members}
        wanted |= {group.member_id(member) for group in self.kernels_at_end(rows) for member in group.members}
        wanted |= {str(row["id"]) for row in rows if row["model"] == "kernel at end" and "end" in self.spec.kernels}
        finished = {str(row["id"]) for row in rows if row["status"] == Status.FINISHED} & wanted
        failed = {str(row["id"]): str(row["reason"]) for row in rows if row["status"] == Status.FAILED}
        left = {one: reason for one, reason in failed.items() if one in wanted - finished}
        return SweepStatus(frozenset(wanted), frozenset(finished), {} if retry_failed else left)

    def runs_without_checkpoint(self, rows: Rows) -> list[str]:
        """Returns the runs without a checkpoint, although the flow on their final kernels has not been trained yet."""
        if "end" not in self.spec.kernels:
            return []
        followed = {str(row["id"]) for row in rows if row["model"] == "kernel at end"}
        by_group = {group.key: group for group in self.networks}
        ended = [r for r in rows if r["family"] in by_group and r["status"] == Status.FINISHED]
        lost = [str(r["run"]) for r in ended if _id_of_kernel(by_group[str(r["family"])], r) not in followed]
        return [run for run in dict.fromkeys(lost) if not self.folder.checkpoint(run).is_file()]

    def drop_checkpoints(self, sweep_status: SweepStatus) -> None:
        """Removes the checkpoints of this sweep's ended runs, because they hold several copies of all weights.

        Only runs that were planned by this sweep and whose members it requests lose their checkpoint, not those of
        separate commands in the same folder or of a sweep of other members. All checkpoints are kept while failed
        flows on kernels at the end of training can still be trained again.
        """
        if self.spec.keep_checkpoints or ("end" in self.spec.kernels and sweep_status.failed):
            return
        by_run: dict[str, list[Mapping[str, Any]]] = {}
        for row in self.rows():
            by_run.setdefault(str(row["run"]), []).append(row)
        for run, members in by_run.items():
            ended = all(row["status"] != Status.UNFINISHED for row in members)
            if ended and {str(row["id"]) for row in members} <= sweep_status.wanted and self.folder.is_own(run):
                self.folder.checkpoint(run).unlink(missing_ok=True)


@dataclass(frozen=True)
class SweepStatus:
    """The identities of the members of a sweep by their status."""

    wanted: frozenset[str]
    """All requested members."""
    finished: frozenset[str]
    """The members that have finished."""
    failed: Mapping[str, str]
    """The members that have failed, each with its reason."""

    def __str__(self) -> str:
        return f"{len(self.finished)} of {len(self.wanted)} members are done, {len(self.failed)} failed"


_ABSENT = object()


def _value(row: Mapping[str, Any], column: str) -> float:
    """Returns the last value of a column for a member, NaN if the member has failed."""
    if row["status"] != Status.FINISHED:
        return float("nan")
    value = row.get(column, _ABSENT)
    if value is _ABSENT:
        raise ConfigError(
            f"bisect uses the column {column}, which these runs have not observed: add the observer's preset, such as "
            "--config callbacks/ntk.yaml, or choose another column"
        )
    return float("nan") if value is None else float(value)


def completed_ids(rows: Rows, retry_failed: bool = False) -> set[str]:
    """Returns the identities of members that need no training."""
    finished = {str(row["id"]) for row in rows if row["status"] == Status.FINISHED}
    return finished if retry_failed else finished | {str(r["id"]) for r in rows if r["status"] == Status.FAILED}


def alpha_of(config: Mapping[str, Any], axis: str, scale: float) -> float:
    """Returns the alpha of a value on an axis: the value itself, or the value divided by sqrt(h).

    Raises:
        ConfigError: the axis is sqrt_h_alpha and the network has no width.
    """
    return configuration.significant(scale if axis == "alpha" else scale / width_of(config) ** 0.5)


def width_of(config: Mapping[str, Any]) -> float:
    """Returns the width h of a configuration's network.

    Raises:
        ConfigError: the network has no argument ``width``.
    """
    width = configuration.flatten(config).get("model.network.width")
    if isinstance(width, bool) or not isinstance(width, (int, float)):
        raise ConfigError(
            f"sqrt_h_alpha needs the network's width, but {configuration.flatten(config).get('model.network')} has no "
            "argument of that name: give the axis alpha instead"
        )
    return float(width)


def _id_of_kernel(network: ConfigGroup, row: Mapping[str, Any]) -> str:
    """Returns the identity of the flow on a member's kernel at the end of training, for any path of its checkpoint."""
    member = (float(row["alpha"]), int(row["seed"]))
    return kernel_group(network, "end", CHECKPOINT, [member]).member_id(member)


def _without_alpha(group: ConfigGroup) -> list[Member]:
    """Returns one member for each seed if the outputs are centred, because a frozen kernel then needs no alpha."""
    arguments = group.config["model"].get("init_args") or {}
    if not arguments.get("centering", True):
        return list(group.members)
    return [(1.0, seed) for seed in dict.fromkeys(seed for _, seed in group.members)]


def _planned(
    groups: Mapping[str, ConfigGroup], key: str, config: Mapping[str, Any], cost: Callable[[ConfigGroup], MemberCost]
) -> Batch | None:
    """Returns the batch of an earlier plan if all of its members belong to these groups, else None."""
    alphas, seeds = (tuple(dict.fromkeys(values)) for values in zip(*configuration.members(config), strict=True))
    parts = parts_of(config, groups)
    # the key of a kernel's group does not follow from its configuration alone
    alone = [[group] for group in groups.values() if configuration.run(group.key, alphas, seeds) == key]
    for chosen in alone if parts is None else [parts]:
        batch = Batch.of(chosen, alphas, seeds, cost(chosen[0]))
        if batch.key == key:
            return batch
    return None

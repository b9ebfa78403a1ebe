"""Stub of SLURM: ``sbatch`` runs the jobs of an array as processes of this machine, in another folder and session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_SBATCH = """#!/bin/bash
script=$1; id=$$; last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
cp "$script" STATES/../$id.sh
job() {
    echo RUNNING > STATES/$1
    bash STATES/../$id.sh && echo COMPLETED > STATES/$1 || echo FAILED > STATES/$1
}
cd /
export SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_JOB_ID=$id
if [ -z "$last" ]; then
    (job $id) > /dev/null 2>&1 &
else
    export SLURM_ARRAY_JOB_ID=$id
    for task in $(seq 0 $last); do (export SLURM_ARRAY_TASK_ID=$task; job ${id}_$task) > /dev/null 2>&1 & done
fi
echo "Submitted batch job $id"
"""
_SRUN = """#!/bin/bash
while [ "${1:0:2}" = -- ]; do case $1 in --output|--error) shift 2;; *) shift;; esac; done
exec "$@" >> STATES/../log.txt 2>&1
"""
_SACCT = """#!/bin/bash
echo 'JobID|State|NodeList'
for path in STATES/*; do echo "$(basename $path)|$(cat $path)|node1"; done
"""
_SCANCEL = """#!/bin/bash
echo 'CANCELLED by 1000' > STATES/$1
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Puts the stubs first on the path, and returns the folder with one file a job, which holds its state."""
    states = folder / "states"
    states.mkdir(parents=True)
    commands = folder / "bin"
    commands.mkdir()
    for name, text in {"sbatch": _SBATCH, "srun": _SRUN, "sacct": _SACCT, "scancel": _SCANCEL}.items():
        (commands / name).write_text(text.replace("STATES", str(states)))
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    return states

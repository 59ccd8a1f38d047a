"""A SLURM of its own on this machine, from Debian's packages slurm-wlm and munge: for tests, as root."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "squeue", "scontrol", "scancel")
CONF = """\
ClusterName=bpgen
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={slurmd}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
SwitchType=switch/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
KillWait=10
MinJobAge=600
SchedulerParameters=sched_interval=5,batch_sched_delay=1
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO PriorityTier=1 GraceTime=30
PartitionName=urgent Nodes={host} MaxTime=INFINITE State=UP OverSubscribe=NO PriorityTier=9
"""


def missing() -> str:
    """Why SLURM cannot be started here; empty if it can."""
    absent = [name for name in PROGRAMS if _program(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)} (Debian: slurm-wlm, munge)"
    return "" if os.geteuid() == 0 else "SLURM is started as root"


@contextlib.contextmanager
def cluster(folder: Path, cpus: int = 2):
    """Start munged, slurmctld and slurmd; yields the environment that its commands need, and ends them after."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    host = socket.gethostname().split(".")[0]
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(host=host, folder=folder, cpus=cpus, port=_port(), slurmd=_port()))
    environment = {**os.environ, "SLURM_CONF": str(conf)}
    munge = [f"--{k}={folder}/munge.{k.split('-')[0]}" for k in ("key-file", "socket", "pid-file", "seed-file")]
    commands = [
        [_program("munged"), "--foreground", "--force", *munge, f"--log-file={folder}/munge.log"],
        [_program("slurmctld"), "-D", "-c"],
        [_program("slurmd"), "-D", "-N", host],
    ]
    started = []
    try:
        for command in commands:
            with (folder / f"{Path(command[0]).name}.out").open("w") as log:
                started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            time.sleep(1)
        _wait_for(environment)
        yield environment
    finally:  # what a failed test left running ends with its cluster
        subprocess.run(["scancel", "--signal=KILL", "--full", "--user=root"], env=environment, capture_output=True)
        time.sleep(2)
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
        for process in started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for(environment: dict[str, str], seconds: int = 60) -> None:
    shown = ""
    for _ in range(seconds):
        done = subprocess.run(["sinfo", "-h", "-o", "%t"], env=environment, capture_output=True, text=True)
        shown = done.stdout + done.stderr
        if shown.strip() in ("idle", "mix", "alloc"):
            return
        time.sleep(1)
    raise RuntimeError(f"SLURM did not come up: {shown}")


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

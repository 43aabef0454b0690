"""A Slurm for tests: munge, a controller and two nodes, in namespaces of their own.

The script that enters is their first process: when it ends, however that comes, the kernel ends the daemons and takes
away their network, host names and files. Another Slurm on this machine is neither seen nor disturbed."""

import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time

# Empty in the new namespaces, and with no checkout in it.
ROOT = pathlib.Path("/var/spool")
PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scancel", "scontrol", "ip", "unshare", "mount")
NODES = {"n1": "10.99.0.2", "n2": "10.99.0.3"}
MARK = "TESKD_IN_NAMESPACES"
NAMESPACES = ("--net", "--uts", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child")

# More cores and GPUs than there are: the batch scripts ask for what a real host has. cred_expire is also how long a
# requeued job waits.
CONFIGURATION = f"""
ClusterName=teskdtest
SlurmctldHost=boss(10.99.0.1)
SlurmUser=root
AuthInfo=socket={ROOT}/munge.sock,cred_expire=5
SlurmctldPidFile={ROOT}/boss.pid
SlurmctldLogFile={ROOT}/boss.log
StateSaveLocation={ROOT}/state
SlurmdPidFile={ROOT}/%n.pid
SlurmdLogFile={ROOT}/%n.log
SlurmdSpoolDir={ROOT}/%n
TmpFS={ROOT}/%n
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,sched_min_interval=0
GresTypes=gpu
PartitionName=all Nodes=ALL Default=YES
"""


def missing():
    """What keeps Slurm from being started here, or None."""
    if os.geteuid() != 0:
        return "only root starts its daemons"
    absent = [program for program in PROGRAMS if not shutil.which(program)]
    if absent:
        return f"{', '.join(absent)} not installed (launch/packages.sh --tests), or not in PATH"
    if subprocess.run(["unshare", *NAMESPACES, "true"], check=False, capture_output=True).returncode != 0:
        return "no namespaces of its own here (a container without CAP_SYS_ADMIN?)"
    return None


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(77)


def enter():
    """Runs the script once more, in the namespaces and with Slurm running; exit code 77 where that cannot be."""
    if os.environ.get(MARK):
        start()
        return
    reason = missing()
    if reason:
        skip(reason)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_", "PMI"))}
    os.execvpe("unshare", ["unshare", *NAMESPACES, sys.executable, *sys.argv],
               {**kept, MARK: "1", "TMPDIR": str(ROOT), "SLURM_CONF": str(ROOT / "slurm.conf")})


def command(*words, **keywords):
    """Output of a command that succeeds."""
    done = subprocess.run([str(word) for word in words], text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=60, **keywords)
    if done.returncode != 0:
        raise AssertionError(f"{done.args}: exit code {done.returncode}\n{done.stdout}")
    return done.stdout


def wait_for(condition, what, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(0.02)


def lay_network():
    """One network for all: its addresses lie on one end of a cable, since Open MPI passes over the loopback."""
    command("ip", "link", "set", "lo", "up")
    command("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
    for end in ("eth0", "eth1"):
        command("ip", "link", "set", end, "up")
    hosts = "127.0.0.1 localhost\n"
    for name, address in {"boss": "10.99.0.1", **NODES}.items():
        command("ip", "address", "add", f"{address}/24", "dev", "eth0")
        hosts += f"{address} {name}\n"
    (ROOT / "hosts").write_text(hosts)
    command("mount", "--bind", ROOT / "hosts", "/etc/hosts")
    command("hostname", "boss")


def start_munge():
    key = ROOT / "munge.key"
    key.write_bytes(os.urandom(64))
    key.chmod(0o600)
    command("munged", "--force", f"--socket={ROOT}/munge.sock", f"--key-file={key}", f"--pid-file={ROOT}/munge.pid",
            f"--seed-file={ROOT}/munge.seed", f"--log-file={ROOT}/munge.log")


def configure():
    text = CONFIGURATION
    for number, (name, address) in enumerate(NODES.items()):
        text += f"NodeName={name} NodeAddr={address} Port={6830 + number} CPUs=64 RealMemory=1000 Gres=gpu:8\n"
        (ROOT / name).mkdir()
    for gpu in range(8):  # /dev/null's numbers
        os.mknod(ROOT / f"gpu{gpu}", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    (ROOT / "slurm.conf").write_text(text)
    (ROOT / "gres.conf").write_text(f"Name=gpu File={ROOT}/gpu[0-7]\n")
    (ROOT / "state").mkdir()


def start():
    """All daemons, within a second or two."""
    command("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", ROOT)
    tempfile.tempdir = str(ROOT)
    lay_network()
    start_munge()
    configure()
    command("slurmctld", "-c")
    for name in NODES:
        command("unshare", "--uts", "sh", "-c", f"hostname {name} && exec slurmd")
    wait_for(lambda: command("sinfo", "-h", "-t", "idle", "-o", "%D").strip() == str(len(NODES)), "idle nodes", 30)
    if "pmix" not in command("srun", "--mpi=list"):
        skip("this Slurm has no PMIx")


class Job:
    """A job of the batch queue, or a task of an array (NUMBER_TASK)."""

    def __init__(self, number, log):
        self.number, self.log = number, pathlib.Path(log)

    def field(self, name):
        return re.search(rf"\b{name}=(\S+)", command("scontrol", "show", "job", self.number))[1]

    def wait(self, *states):
        wait_for(lambda: self.field("JobState") in states, self)

    def output(self):
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    def __str__(self):
        return f"{command('scontrol', 'show', 'job', self.number)}\n{self.output()[-4000:]}"


def submit(folder, *words, **keywords):
    """A job whose log is in that folder."""
    number = command("sbatch", "--parsable", f"--output={folder}/%j.log", *words, cwd=folder, **keywords).split()[-1]
    return Job(number, f"{folder}/{number}.log")

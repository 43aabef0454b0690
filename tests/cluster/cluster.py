"""A cluster on one machine: hosts with names, addresses, processes and links of their own, which can be cut off and
switched off.

A script calls inside() first and goes on in namespaces of its own (network, mounts, processes). All that a cluster
consists of is in them, files too, so nothing is left behind, however the script ends. A host is a network namespace with
a link to a bridge, and in it a namespace of processes whose first one is host.py."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys

FOLDER = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent / "program"))

from program import TESKD  # noqa: E402

NETWORK = "10.77.0"
SCRATCH = pathlib.Path("/run")  # in memory
NAMESPACES = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
VARIABLES = {"OMPI_MCA_plm_rsh_agent": str(FOLDER / "agent.py"), "OMPI_MCA_btl": "tcp,self",
             "OMPI_MCA_btl_tcp_if_include": f"{NETWORK}.0/24", "OMPI_MCA_oob_tcp_if_include": f"{NETWORK}.0/24",
             "OMPI_MCA_hwloc_base_binding_policy": "none", "OMPI_ALLOW_RUN_AS_ROOT": "1",
             "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "GOMP_SPINCOUNT": "2000", "TMPDIR": str(SCRATCH)}


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(77)


def check_rights():
    for tool in ("ip", "unshare", "nsenter", "setpriv", "mpirun"):
        if not shutil.which(tool):
            skip(f"no {tool} here (packages iproute2, util-linux, openmpi-bin)")
    if os.geteuid() != 0:
        skip("only root can make hosts of namespaces")
    tried = subprocess.run([*NAMESPACES, "ip", "link", "add", "bridge", "type", "bridge"], text=True,
                           stderr=subprocess.PIPE, check=False)
    if tried.returncode != 0:
        skip(f"no namespaces or no bridge here: {tried.stderr.strip()}")


def inside():
    """Returns in the namespaces, as their first process. Outside it ends, with the exit code of the script inside."""
    if os.environ.get("TESKD_CLUSTER"):
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", SCRATCH], check=True)
        os.environ.update(VARIABLES)
        return
    check_rights()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # subprocess.run then kills what is inside
    command = ["setpriv", "--pdeathsig", "KILL", *NAMESPACES, sys.executable, *sys.argv]
    sys.exit(subprocess.run(command, env={**os.environ, "TESKD_CLUSTER": "1"}, check=False).returncode)


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


def children(pid):
    return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ranks():
    """{rank: process id} of all processes on all hosts that run the program as a rank."""
    found = {}
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if os.path.samefile(entry / "exe", TESKD):
                variables = (entry / "environ").read_bytes().split(b"\0")
                rank = dict(v.split(b"=", 1) for v in variables if b"=" in v)[b"OMPI_COMM_WORLD_RANK"]
                found[int(rank)] = int(entry.name)
        except (OSError, KeyError):
            pass
    return found


class Cluster:
    """Hosts of these names on one network."""

    def __init__(self, names):
        self.names, self.first = names, {}  # process id of each host's first process, seen from here
        ip("link", "set", "lo", "up")
        ip("link", "add", "bridge", "type", "bridge")
        ip("link", "set", "bridge", "up")
        self.name_addresses()
        for name in names:
            self.connect(name)
            self.switch_on(name)

    def address(self, name):
        return f"{NETWORK}.{self.names.index(name) + 1}"

    def name_addresses(self):
        hosts = SCRATCH / "hosts"
        hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{self.address(name)} {name}\n" for name in self.names))
        subprocess.run(["mount", "--bind", hosts, "/etc/hosts"], check=True)

    def connect(self, name):
        ip("netns", "add", name)
        ip("link", "add", f"to_{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", f"to_{name}", "master", "bridge", "up")
        ip("-n", name, "address", "add", f"{self.address(name)}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "link", "set", "lo", "up")

    def switch_on(self, name):
        first = f'hostname {name}; exec "{sys.executable}" "{FOLDER}/host.py" {self.address(name)}'
        host = subprocess.Popen(["ip", "netns", "exec", name, "unshare", "--uts", "--pid", "--mount", "--fork",
                                 "--kill-child", "--mount-proc", "sh", "-c", first], stdout=subprocess.PIPE)
        host.stdout.readline()  # it is ready
        self.first[name] = children(host.pid)[0]

    def switch_off(self, name):
        """As when its power fails: no connection is closed."""
        self.cut(name)
        os.kill(self.first.pop(name), signal.SIGKILL)

    @staticmethod
    def cut(name):
        ip("link", "set", f"to_{name}", "down")

    @staticmethod
    def join(name):
        """The link that was cut is there again."""
        ip("link", "set", f"to_{name}", "up")

    def command(self, name, *command):
        """The command as it is started from here on a host."""
        return ["nsenter", "--all", "--target", str(self.first[name]), *map(str, command)]

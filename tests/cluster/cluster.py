"""A cluster on one machine: hosts with names, addresses, processes and network links of their own, that can be cut off
and switched off.

A script calls inside() first: it goes on in namespaces of its own (network, mounts, processes). All that a cluster is
made of is in them, files included, so nothing is left behind, however the script ends. A host is a network namespace
with a link to a bridge, and in it a namespace of processes whose first one is host.py."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

FOLDER = pathlib.Path(__file__).resolve().parent
NETWORK = "10.77.0.0/24"
AGENT = str(FOLDER / "agent.py")
SCRATCH = pathlib.Path("/run")  # its files are in memory, and gone with the namespaces

NAMESPACES = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
# What mpirun needs to be told about this network; ssh is the agent.
VARIABLES = {"OMPI_MCA_plm_rsh_agent": AGENT, "OMPI_MCA_btl": "tcp,self", "OMPI_MCA_btl_tcp_if_include": NETWORK,
             "OMPI_MCA_oob_tcp_if_include": NETWORK, "OMPI_MCA_hwloc_base_binding_policy": "none",
             "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "GOMP_SPINCOUNT": "2000",
             "TMPDIR": str(SCRATCH)}


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(77)


def check_rights():
    for tool in ("ip", "unshare", "nsenter", "setpriv", "mpirun"):
        if not shutil.which(tool):
            skip(f"no {tool} here (packages iproute2, util-linux, openmpi-bin)")
    if os.geteuid() != 0:
        skip("only root can make namespaces of hosts")
    tried = subprocess.run([*NAMESPACES, "ip", "link", "add", "bridge", "type", "bridge"], stderr=subprocess.PIPE, text=True)
    if tried.returncode != 0:
        skip(f"no namespaces or no bridge here: {tried.stderr.strip()}")


def inside():
    """Returns in the namespaces, of which this process is then the first one. Outside, exits as the script inside does."""
    if os.environ.get("TESKD_CLUSTER"):
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", SCRATCH], check=True)
        os.environ.update(VARIABLES)
        return
    check_rights()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # subprocess.run then kills what is inside
    command = ["setpriv", "--pdeathsig", "KILL", *NAMESPACES, sys.executable, *sys.argv]
    sys.exit(subprocess.run(command, env={**os.environ, "TESKD_CLUSTER": "1"}).returncode)


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


class Cluster:
    """Hosts of these names on one network. Made in the namespaces of inside(), one at a time."""

    def __init__(self, names):
        self.names = names
        self.first = {}  # process id of each host's first process, as seen from here
        hosts = SCRATCH / "hosts"
        hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{self.address(n)} {n}\n" for n in names))
        subprocess.run(["mount", "--bind", hosts, "/etc/hosts"], check=True)
        ip("link", "set", "lo", "up")
        ip("link", "add", "bridge", "type", "bridge")
        ip("link", "set", "bridge", "up")
        for name in names:
            ip("netns", "add", name)
            ip("link", "add", f"to_{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", f"to_{name}", "master", "bridge", "up")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "addr", "add", f"{self.address(name)}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            self.switch_on(name)

    def address(self, name):
        return f"10.77.0.{self.names.index(name) + 1}"

    def switch_on(self, name):
        process = subprocess.Popen(["ip", "netns", "exec", name, "unshare", "--uts", "--pid", "--mount", "--fork", "--kill-child",
                          "--mount-proc", "sh", "-c", f"hostname {name}; exec {sys.executable} {FOLDER}/host.py {self.address(name)}"])
        children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while not children.read_text():
            time.sleep(0.01)
        self.first[name] = int(children.read_text())

    def switch_off(self, name):
        """As when its power fails: nobody hears of it."""
        self.cut(name)
        os.kill(self.first.pop(name), signal.SIGKILL)

    def cut(self, name):
        ip("link", "set", f"to_{name}", "down")

    def join(self, name):
        """Puts a link that was cut together again."""
        ip("link", "set", f"to_{name}", "up")

    def command(self, name, *command):
        """That command on a host, for subprocess."""
        return ["nsenter", "--all", "--target", str(self.first[name]), *map(str, command)]

"""host.py ADDRESS: the first process of a host of cluster.py. Starts commands that come over the network, as sshd would,
and takes in what is left of them. The shell's output goes back, at its end with a zero byte and its exit code."""

import os
import signal
import socket
import subprocess
import sys

PORT = 22


def serve(connection):
    command = b"".join(iter(lambda: connection.recv(65536), b""))
    code = subprocess.call(["sh", "-c", command], stdin=subprocess.DEVNULL, stdout=connection, stderr=connection,
                           start_new_session=True)
    connection.sendall(b"\0%d" % code)


def main():
    listener = socket.create_server((sys.argv[1], PORT))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # what has ended is not kept for anybody
    print("ready", flush=True)
    while True:
        connection = listener.accept()[0]
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            serve(connection)
            os._exit(0)
        connection.close()


if __name__ == "__main__":
    main()

#!/usr/bin/env -S python3 -S -E
"""agent.py HOST COMMAND...: what ssh would be, between the hosts of cluster.py."""

import socket
import sys

from host import PORT

with socket.create_connection((sys.argv[1], PORT), timeout=5) as server:
    server.settimeout(None)
    server.sendall(" ".join(sys.argv[2:]).encode())
    server.shutdown(socket.SHUT_WR)
    output, _, code = b"".join(iter(lambda: server.recv(65536), b"")).rpartition(b"\0")
sys.stdout.buffer.write(output)
sys.exit(int(code or 255))

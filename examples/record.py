"""Records from Python with the standard library alone: PIPEROLL_SOCKET is the node's socket.

Everything here is the HTTP contract of docs/recording.md; there is no package to install.
"""

import http.client
import json
import os
import socket
import uuid


class NodeConnection(http.client.HTTPConnection):
    """HTTP over the node's Unix socket."""

    def __init__(self, path):
        super().__init__("node", timeout=2)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def record(**entry):
    """Returns the receipt of an entry that is on disk; raises if it is not."""
    entry.setdefault("id", str(uuid.uuid4()))
    node = NodeConnection(os.environ["PIPEROLL_SOCKET"])
    node.request("POST", "/v1/entries", json.dumps(entry), {"content-type": "application/json"})
    answer = node.getresponse()
    body = json.loads(answer.read())
    if answer.status not in (200, 201):
        raise RuntimeError(f"not recorded: {body['detail']}")
    return body


if __name__ == "__main__":
    receipt = record(category="user", action="user.create", user="alice", outcome="success",
                     entity_type="user", entity_id="bob", details={"password": "is masked by the node"})
    print(json.dumps(receipt))

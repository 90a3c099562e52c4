"""A relay in front of an app that writes down what the app gets, byte for byte.

It knows nothing of HTTP. One file holds what all connections sent, each as a whole once it ends and what there is of it before.
"""

import socket
import threading


class Recorder:
    def __init__(self, app_port, file):
        self.file = file
        self.file.write_bytes(b"")
        self.app_port = app_port
        self.lock = threading.Lock()
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            near, _ = self.server.accept()
            try:
                far = socket.create_connection(("127.0.0.1", self.app_port))
            except OSError:
                near.close()
                continue
            threading.Thread(target=self.pump, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self.pump, args=(far, near, False), daemon=True).start()

    def pump(self, source, sink, to_app):
        try:
            while data := source.recv(65536):
                if to_app:
                    with self.lock, self.file.open("ab") as out:
                        out.write(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            for end in (source, sink):
                end.close()

#!/usr/bin/env python3
"""Asks Docker's client what it makes of the templates in cases.json, and writes its answers back.

The client talks to a daemon that this script plays: it answers `inspect` with the document in cases.json, which has a
key that Docker's own types lack (`Data`), so that the client falls back to the document as it is.
"""

import http.server
import json
import pathlib
import subprocess
import threading

PLACE = pathlib.Path(__file__).with_name("cases.json")
recorded = json.loads(PLACE.read_text())


class Daemon(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(recorded["document"]).encode() if "/images/" in self.path else b"OK"
        self.send_response(200)
        self.send_header("API-Version", "1.49")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Daemon)
threading.Thread(target=server.serve_forever, daemon=True).start()
for case in recorded["cases"]:
    command = ["docker", "-H", f"tcp://127.0.0.1:{server.server_port}", "image", "inspect", "-f", case["template"], "x"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    case.pop("output", None), case.pop("error", None)
    if done.returncode == 0:
        case["output"] = done.stdout.removesuffix("\n")
    else:
        case["error"] = done.stderr.strip()
        case["code"] = done.returncode
PLACE.write_text(json.dumps(recorded, indent=1, ensure_ascii=False) + "\n")

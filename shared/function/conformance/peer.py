"""The public Python SDK as a peer over HTTP.

serve            answers every event with that event, in the mode that the header "mode" asks for; prints its port
send URL MODE    posts the JSON documents on standard input (one a line); prints what the answers carry, as documents
"""

import json
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cloudevents.core.bindings import http
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

FORMAT = JSONFormat()
WRITERS = {"binary": http.to_binary, "structured": http.to_structured}


class Mirror(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        try:
            event = http.from_http(http.HTTPMessage(dict(self.headers.items()), body), FORMAT, CloudEvent)
            message = WRITERS[self.headers["mode"]](event, FORMAT)
            status, headers, answer = 200, message.headers, message.body
        except Exception as error:
            status, headers, answer = 400, {"content-type": "text/plain"}, repr(error).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def serve():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    print(server.server_address[1], flush=True)
    server.serve_forever()


def send(url, mode):
    for line in sys.stdin:
        message = WRITERS[mode](FORMAT.read(CloudEvent, line.encode()), FORMAT)
        request = urllib.request.Request(url, message.body, message.headers, method="POST")
        with urllib.request.urlopen(request) as response:
            answer = http.HTTPMessage(dict(response.headers.items()), response.read())
        print(FORMAT.write(http.from_http(answer, FORMAT, CloudEvent)).decode(), flush=True)


if __name__ == "__main__":
    serve() if sys.argv[1] == "serve" else send(sys.argv[2], sys.argv[3])

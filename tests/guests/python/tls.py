"""TLS 1.3 on the guest's own loopback, by asyncio and by blocking calls; wrong names and issuers are refused."""

import asyncio
import http.client
import http.server
import socket
import ssl
import sys

CERTIFICATE, KEY = sys.argv[1:]


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(CERTIFICATE, KEY)
    return server, ssl.create_default_context(cafile=CERTIFICATE)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"you said " + await reader.readline())
    writer.close()


async def by_asyncio() -> None:
    server_side, client_side = contexts()
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # refusals, seen from the server
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=server_side)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_side, server_hostname="localhost")
    print(writer.get_extra_info("ssl_object").version(), writer.get_extra_info("cipher")[0])
    writer.write(b"hello\n")
    assert await reader.read() == b"you said hello\n"
    writer.close()
    for context, name in ((client_side, "elsewhere"), (ssl.create_default_context(), "localhost")):
        try:
            await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
        except ssl.SSLCertVerificationError as error:
            print(error.verify_message)
    server.close()


def by_blocking_calls() -> None:
    """Both ends in one thread: the handshake goes on by turns."""
    server_side, client_side = contexts()
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    client = client_side.wrap_socket(near, server_hostname="localhost", do_handshake_on_connect=False)
    server = server_side.wrap_socket(far, server_side=True, do_handshake_on_connect=False)
    waiting = {client, server}
    while waiting:
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass
    server.setblocking(True)
    client.setblocking(True)
    client.sendall(b"x" * 100_000)
    assert len(server.recv(1 << 20)) > 0
    assert len(client.getpeercert()["subject"]) == 1


class Silent(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"hi")

    def log_message(self, *_args) -> None:
        pass


def by_http() -> None:
    """http.server and http.client, which take turns: requests lie in the socket until they are handled."""
    with http.server.HTTPServer(("127.0.0.1", 0), Silent) as server:
        client = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
        client.request("GET", "/")
        server.handle_request()
        answer = client.getresponse()
        print(answer.status, answer.read())


asyncio.run(by_asyncio())
by_blocking_calls()
by_http()
print("ok")

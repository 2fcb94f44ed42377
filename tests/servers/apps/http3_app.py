"""The facts over QUIC: one stream, one answer."""

import asyncio
import sys

from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import StreamDataReceived
from facts import body


class Facts(QuicConnectionProtocol):
    def quic_event_received(self, event):
        if isinstance(event, StreamDataReceived) and event.end_stream:
            self._quic.send_stream_data(event.stream_id, body(), end_stream=True)
            self.transmit()


async def main():
    configuration = QuicConfiguration(is_client=False, alpn_protocols=["facts"])
    configuration.load_cert_chain("cert.pem", "key.pem")
    await serve("127.0.0.1", int(sys.argv[1]), configuration=configuration, create_protocol=Facts)
    await asyncio.Event().wait()


asyncio.run(main())

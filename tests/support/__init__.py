"""What tests stand on: a real gateway process, scripted upstreams, and plain clients.

Everything listens on loopback. Nothing here sleeps for a fixed time: conditions are waited for,
each with a deadline, and upstreams stop at gates that a test opens.
"""

from support.client import Answered, Client, Raw
from support.gateway import GatewayProcess, digest, serving
from support.grpc_upstream import GrpcAnswer, GrpcUpstream, GrpcWaits, ServingClient
from support.http_upstream import (
    CLOSE,
    RESET,
    SILENCE,
    Flood,
    Gate,
    HttpUpstream,
    Recorded,
    chunked,
    events,
    sized,
    until_close,
)
from support.relay import Relay
from support.waiting import DEADLINE, LoopThread, free_port, until

__all__ = [
    "CLOSE",
    "DEADLINE",
    "RESET",
    "SILENCE",
    "Answered",
    "Client",
    "Flood",
    "Gate",
    "GatewayProcess",
    "GrpcAnswer",
    "GrpcUpstream",
    "GrpcWaits",
    "HttpUpstream",
    "LoopThread",
    "Raw",
    "Recorded",
    "Relay",
    "ServingClient",
    "chunked",
    "digest",
    "events",
    "free_port",
    "serving",
    "sized",
    "until",
    "until_close",
]

"""A bare grpc.aio server in a process of its own: answers each request with its bytes, and stalls when it is told to.

`echo_server.py AFTER_S FOR_S WORK_S`: from its first request on it answers at once for AFTER_S, nothing for FOR_S.
A Score takes WORK_S and is empty. Prints its port.
"""

from __future__ import annotations

import asyncio
import sys
import time

import grpc


class Echo(grpc.GenericRpcHandler):
    def __init__(self, after_s: float, for_s: float, work_s: float) -> None:
        self._after_s, self._for_s, self._work_s = after_s, for_s, work_s
        self._first_s: float | None = None

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        if details.method.endswith("/Refuse"):
            return grpc.unary_unary_rpc_method_handler(self.refuse)
        if details.method.endswith("/Score"):
            return grpc.unary_unary_rpc_method_handler(self.score)
        return grpc.unary_unary_rpc_method_handler(self.answer)

    async def answer(self, request: bytes, _: grpc.aio.ServicerContext) -> bytes:
        now_s = time.monotonic()
        self._first_s = self._first_s or now_s
        if self._for_s and now_s - self._first_s >= self._after_s:
            stall_s, self._for_s = self._for_s, 0.0
            time.sleep(stall_s)  # noqa: ASYNC251 - the whole event loop: nobody is answered
        return request

    async def score(self, _: bytes, context: grpc.aio.ServicerContext) -> bytes:
        await asyncio.sleep(self._work_s)
        return b""

    async def refuse(self, _: bytes, context: grpc.aio.ServicerContext) -> bytes:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no")
        raise AssertionError


async def main() -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Echo(*map(float, sys.argv[1:4])),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


asyncio.run(main())

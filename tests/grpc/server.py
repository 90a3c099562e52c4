"""A gRPC server in the clear whose messages are plain bytes: what an app in a gitspace may be."""

import asyncio
import sys

import grpc

cancelled = 0


async def unary(request, context):
    await context.send_initial_metadata((("x-head", "first"),))
    context.set_trailing_metadata((("x-seen", dict(context.invocation_metadata()).get("x-app", "")), ("x-raw-bin", b"\x00\x01")))
    return request


async def server_stream(request, context):
    for number in range(int(request)):
        yield b"%d" % number


async def client_stream(requests, context):
    size = 0
    async for request in requests:
        size += len(request)
    return b"%d" % size


async def bidi(requests, context):
    async for request in requests:
        yield request[::-1]
    context.set_trailing_metadata((("x-end", "bidi"),))


async def fail(request, context):
    context.set_trailing_metadata((("x-why", "because"),))
    await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today: 100 % sure, ü")


async def fail_late(request, context):
    yield b"one"
    await context.abort(grpc.StatusCode.DATA_LOSS, "behind a message")


async def remaining(request, context):
    return b"%f" % (context.time_remaining() or -1)


async def slow(request, context):
    global cancelled
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        cancelled += 1
        raise
    return b""


async def slow_stream(request, context):
    global cancelled
    try:
        yield b"one"
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        cancelled += 1
        raise


async def count_cancelled(request, context):
    for _ in range(100):
        if cancelled >= int(request):
            break
        await asyncio.sleep(0.02)
    return b"%d" % cancelled


async def main():
    kinds = {
        grpc.unary_unary_rpc_method_handler: [unary, fail, remaining, slow, count_cancelled],
        grpc.unary_stream_rpc_method_handler: [server_stream, fail_late, slow_stream],
        grpc.stream_unary_rpc_method_handler: [client_stream],
        grpc.stream_stream_rpc_method_handler: [bidi],
    }
    handlers = {method.__name__: kind(method) for kind, methods in kinds.items() for method in methods}
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


sys.exit(asyncio.run(main()))

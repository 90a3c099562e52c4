"""Calls the server through the gateway: client.py HOST PORT CA TOKEN OTHER_TOKEN. Every check prints a line; the first that fails ends it."""

import asyncio
import sys
import time

import grpc

host, port, ca, token, other = sys.argv[1:]
credentials = grpc.ssl_channel_credentials(open(ca, "rb").read())
options = [
    ("grpc.ssl_target_name_override", host),
    ("grpc.default_authority", host),
    ("grpc.max_receive_message_length", -1),
]
ours = (("x-gitspace-token", token),)


def check(what, held, *seen):
    print(("ok    " if held else "FAIL  ") + what, *seen if not held else ())
    if not held:
        sys.exit(1)


async def status_of(call):
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error
    return None


async def unary(channel):
    call = channel.unary_unary("/test.Echo/unary")(b"hello", metadata=ours + (("x-app", "kept"), ("x-user-id", "1")), timeout=10)
    check("a unary call has its answer", await call == b"hello")
    head, tail = dict(await call.initial_metadata()), dict(await call.trailing_metadata())
    check("leading metadata passes", head.get("x-head") == "first", head)
    check("trailing metadata passes, binary too", tail.get("x-seen") == "kept" and tail.get("x-raw-bin") == b"\x00\x01", tail)
    large = bytes(5_000_000)
    check("a message of 5 MB passes", await channel.unary_unary("/test.Echo/unary")(large, metadata=ours, timeout=30) == large)
    calls = [channel.unary_unary("/test.Echo/unary")(b"%d" % n, metadata=ours, timeout=30) for n in range(300)]
    check("300 calls at once have their own answers", await asyncio.gather(*calls) == [b"%d" % n for n in range(300)])


async def streams(channel):
    got = [message async for message in channel.unary_stream("/test.Echo/server_stream")(b"1000", metadata=ours, timeout=30)]
    check("a server's stream comes whole and in order", got == [b"%d" % n for n in range(1000)], len(got))

    async def pieces():
        for _ in range(1000):
            yield bytes(1000)

    size = await channel.stream_unary("/test.Echo/client_stream")(pieces(), metadata=ours, timeout=30)
    check("a client's stream arrives whole", size == b"1000000", size)
    call = channel.stream_stream("/test.Echo/bidi")(metadata=ours, timeout=30)
    for number in range(50):
        text = b"message %d" % number
        await call.write(text)
        answer = await call.read()
        if answer != text[::-1]:
            check("both streams pass one by one", False, answer)
    await call.done_writing()
    end = await call.read()
    check("both streams pass one by one", end is grpc.aio.EOF, end)
    check("the status comes behind them", await call.code() == grpc.StatusCode.OK, await call.code())
    check("with trailing metadata", dict(await call.trailing_metadata()).get("x-end") == "bidi")


async def failures(channel):
    error = await status_of(channel.unary_unary("/test.Echo/fail")(b"", metadata=ours, timeout=10))
    check("a status without a message passes", error.code() == grpc.StatusCode.FAILED_PRECONDITION, error)
    check("with its text", error.details() == "not today: 100 % sure, ü", error.details())
    check("and its metadata", dict(error.trailing_metadata()).get("x-why") == "because", error)
    call = channel.unary_stream("/test.Echo/fail_late")(b"", metadata=ours, timeout=10)
    check("a message before a failure passes", await call.read() == b"one")
    check("and the failure behind it", await call.code() == grpc.StatusCode.DATA_LOSS, await call.code())
    error = await status_of(channel.unary_unary("/test.Echo/no_such_method")(b"", metadata=ours, timeout=10))
    check("an unknown method is the server's to refuse", error.code() == grpc.StatusCode.UNIMPLEMENTED, error)
    error = await status_of(channel.unary_unary("/test.Echo/unary")(b"", timeout=10))
    check("without a token: UNAUTHENTICATED", error.code() == grpc.StatusCode.UNAUTHENTICATED, error)
    error = await status_of(channel.unary_unary("/test.Echo/unary")(b"", metadata=(("x-gitspace-token", other),), timeout=10))
    check("another user: no such gitspace", error.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND), error)


async def deadlines(channel):
    left = float(await channel.unary_unary("/test.Echo/remaining")(b"", metadata=ours, timeout=7))
    # The client rounds what it says of it up.
    check("the deadline reaches the server", 0 < left < 7.1, left)
    start = time.monotonic()
    error = await status_of(channel.unary_unary("/test.Echo/slow")(b"", metadata=ours, timeout=0.5))
    check("a deadline ends a call", error.code() == grpc.StatusCode.DEADLINE_EXCEEDED and time.monotonic() - start < 5, error)
    call = channel.unary_unary("/test.Echo/slow")(b"", metadata=ours)
    await asyncio.sleep(0.2)
    call.cancel()
    call = channel.unary_stream("/test.Echo/slow_stream")(b"", metadata=ours)
    await call.read()
    call.cancel()
    count = await channel.unary_unary("/test.Echo/count_cancelled")(b"3", metadata=ours, timeout=10)
    check("cancelled calls are cancelled at the server", count == b"3", count)


async def main():
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        for part in (unary, streams, failures, deadlines):
            await part(channel)
    print("all passed")


asyncio.run(main())

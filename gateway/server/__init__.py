"""The two listeners: ASGI applications, authentication, the client's dialects, and the processes that serve them.

The public listener is raw ASGI: a middleware stack costs more than everything else the gateway does with a request
(performance notes in docs/decisions/0001-the-house.md). The operations listener is Starlette.
"""

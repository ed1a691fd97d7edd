"""Says whether the gateway in this container is ready: exit 0, else 1 and why. The image's HEALTHCHECK; stdlib only.

`/readyz` of the operations listener means that configuration and stores are up; it does not depend on upstreams, so a
model that is down makes no container unhealthy. Another address than the image's goes as an argument: HOST:PORT.
"""

from __future__ import annotations

import http.client
import sys

ADDRESS = "127.0.0.1:9464"
SECONDS = 4.0  # below the HEALTHCHECK's own limit, so that it is this that tells what is wrong


def main(address: str) -> int:
    connection = http.client.HTTPConnection(address, timeout=SECONDS)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        body = answer.read(1000).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        print(f"{address}: {error}")
        return 1
    print(body)
    return 0 if answer.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:] or [ADDRESS]))

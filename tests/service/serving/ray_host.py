"""Ray on this machine, with a deployment: python ray_host.py PORT KEY=VALUE ...; it ends when its input does."""

from __future__ import annotations

import os
import sys

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}

import ray
from ray import serve

from lowerbound.service.serving.on_ray import application


def main() -> None:
    port, *settings = sys.argv[1:]
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80 * 2**20, log_to_driver=True)
    serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
    serve.run(application(dict(item.split("=", 1) for item in settings)), route_prefix="/")
    print(f"serving {settings} on http://127.0.0.1:{port}", flush=True)  # noqa: T201
    sys.stdin.read()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()

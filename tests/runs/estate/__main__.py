"""By hand: `PYTHONPATH=tests:. python -m runs.estate FOLDER MACHINE...` sets an estate up, says how `failback` reaches
its bucket, and shows what the client and the watcher see until Ctrl-C."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from servers import run_minio

from runs.estate.estate import Estate


def main() -> None:
    root, machines = Path(sys.argv[1]).absolute(), sys.argv[2:] or ["db", "web-1", "web-2"]
    with run_minio(root / "minio") as bucket:
        os.environ |= bucket.environ
        with Estate(root, bucket, machines) as estate:
            lines = [f"export {k}='{estate.environ[k]}'" for k in estate.environ if k.startswith(("FAILBACK_", "AWS_"))]
            (root / "environment").write_text("\n".join(lines) + "\n")
            print(f"source {root / 'environment'}; plan {estate.plan()}", flush=True)
            while True:
                time.sleep(5)
                alive = {name: [boot[:8] for boot in estate.watcher.alive(name)] for name in machines}
                boots = {name: [boot[:8] for boot in estate.watcher.boots(name)] for name in machines}
                side = estate.gate.read_text().strip()
                now = f"{time.strftime('%H:%M:%S')} acknowledged {estate.client.newest} (gate: {side}) alive {alive}"
                print(f"{now} boots so far {boots} overlaps {estate.watcher.overlaps()}", flush=True)


if __name__ == "__main__":
    main()

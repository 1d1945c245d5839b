"""`python -m bench.growth.several N COMMAND...` runs the command N times at once; SIGTERM ends all of them."""

from __future__ import annotations

import signal
import subprocess
import sys


def main() -> None:
    """Run them until they end."""
    count, *command = sys.argv[1:]
    processes = [subprocess.Popen(command) for _ in range(int(count))]

    def end(*_: object) -> None:
        for process in processes:
            process.terminate()

    signal.signal(signal.SIGTERM, end)
    for process in processes:
        process.wait()


if __name__ == "__main__":
    main()

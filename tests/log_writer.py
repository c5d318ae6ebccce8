"""A process that appends to a log and says on its standard output what has been acknowledged; run by the log's tests.

Arguments: path, durability, number of threads, entries of each. An entry is printed, in one line, once it is
acknowledged, and so is the error of one that is not.
"""

from __future__ import annotations

import os
import random
import string
import sys
import threading
from pathlib import Path

from telflow.delivery.log import Durability, Entry, Log, LogError
from telflow.schema import Signal


def write(log: Log, thread: int, limit: int) -> None:
    random_ = random.Random(thread)
    for _ in range(limit):
        text = "".join(random_.choices(string.ascii_letters, k=24))
        try:
            position = log.append(f"part-{thread % 2}", Entry(Signal.LOGS, text.encode(), 1))
        except LogError as error:
            os.write(1, f"failed {error}\n".encode())
            continue
        os.write(1, f"part-{thread % 2} {position} {text}\n".encode())


def main() -> None:
    path, durability, threads, limit = sys.argv[1:]
    with Log(Path(path), durability=Durability(durability), min_free_bytes=0) as log:
        workers = [threading.Thread(target=write, args=(log, n, int(limit))) for n in range(int(threads))]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()


if __name__ == "__main__":
    main()

"""Runs one command and prints what it took: {"wall_s", "cpu_s", "peak_mib"}. Its output goes to /dev/null.

A process of its own, started with `python -I -S`, because Linux counts what the parent held at the time of the start
among a child's peak memory: only a small parent measures small children. This one holds about 8 MiB, so no peak
below that can be told.
"""

import os
import sys
import time

command = sys.argv[1:]
silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
began = time.perf_counter()
child = os.posix_spawnp(command[0], command, os.environ, file_actions=silent)
_, status, usage = os.wait4(child, 0)
wall = time.perf_counter() - began
peak = usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)  # macOS counts bytes, Linux KiB
print(f'{{"wall_s": {wall:.4f}, "cpu_s": {usage.ru_utime + usage.ru_stime:.4f}, "peak_mib": {peak:.1f}}}')
sys.exit(os.waitstatus_to_exitcode(status) and 1)

"""Several processes of one application on one machine, behind one port: `headrace run --workers N`.

```
headrace run --workers 3                      listens, serves nothing itself
  ├─ pages.py: the management port of all     /metrics, /health/... of each process, put together
  └─ group.py ─┬─ process 0 ─┐
               ├─ process 1 ─┼─ `headrace run` as ever, on listeners that they inherit (child.py)
               └─ process 2 ─┘
```
A process of the group is what `headrace run` without `--workers` is, with a management port of its own that only this
machine sees. Between the parent and each process is a socket: the process says on it that it is up, and on which
management port; if it is closed the parent is gone, and the process drains. So no process outlives a parent that was
killed.

**The first process starts alone**, so that a mistake in the set-up is told once, and migrations run once. If it ends
before it is up, the group ends with its exit code. From then on a process that ends by itself is replaced, after a
pause that grows while they do not stay up. A stop asks all of them to drain, and waits; a second one ends them at once.

The kernel gives each new connection to one of the processes that accept. One that still starts accepts none, so the
group is ready as long as one process is.

Rejected: `fork` after the import (threads and clients of the team's modules do not survive it); metrics that are added
up (a gauge is no sum): each sample has the label `process`, and a query adds up what can be.
"""

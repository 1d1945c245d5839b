"""The chart on a real Kubernetes, exact through everything that happens to pods: `make cluster-test`.

```
k8s/, chart ──▶ namespace of its own ──▶ helm test ──▶ for each step:   load with known ids ──┐
                                                       the step ▶ settle ▶ stop the load ▶ check ▶ a row of the table
```
A pod of its own (`inside/`) sends events over HTTP, in an open loop, keeps the order of each customer, and afterwards
compares every wallet and every emitted alert with the sequential result. Any cluster that kubectl reaches will do; the
images have to be there. Everything ends with the namespace.
"""

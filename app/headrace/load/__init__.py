"""Load from outside, on a fixed schedule, and proof at the end that nothing was lost or applied twice.

```
plan ─▶ target (what it declares) ─▶ steps: schedule ─▶ pacing ─▶ sender (HTTP or Kafka) ─▶ the deployment
                                       ▲                   │                                      │
                                       └── judge: held? ◀──┴── watching, probes (GET only) ◀──────┘
after the last step: what is in doubt is sent again, the lag drains, every state is compared ─▶ report
```
* **Open loop.** When each send is due is fixed before the step begins, and its latency counts from that moment, also
  when it went out late or waited for a connection. A target that stalls therefore shows the stall in full (a closed
  loop would stop asking meanwhile: coordinated omission). If more than 1 % of the sends begin late, the generator is
  the bottleneck: the step is void, and says so.
* **The end point is a visible effect.** Probes are events with keys of their own, whose state is read over HTTP until
  it is there. How much was applied in all is read from the claims' positions.
* **Exactness.** Every event has an id and a known effect that does not depend on the order of arrival. One whose
  outcome is in doubt (no answer, 503) is sent again under the same id until it is accepted; the platform recognises
  the copy. A result of a run that was not exact is no result: exit code 1.
* **Latencies are kept as they are**, 8 bytes each, since a run is bounded in count. A histogram would save memory that
  nobody needs and round what it keeps; of the library `hdrhistogram` there is no wheel for Linux on ARM, on which the
  image is built from wheels alone.
* The HTTP client is a protocol over `httptools`, which the platform serves with: at some thousand requests a second on
  the machine of the target, a client of more features would measure itself.
"""

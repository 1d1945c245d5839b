"""A real Kafka for tests: one KRaft node from its Maven artifacts, on free ports, gone with the test run.

    kafka = KafkaServer()
    await kafka.start()
    kafka.bootstrap                          # "127.0.0.1:41234"
    kafka.url                                # "kafka://127.0.0.1:41234"
    await kafka.create_topic("t", partitions=6)
    await kafka.kill(); await kafka.start()  # same ports, same data
    await kafka.stop()                       # the data go, too

`HEADRACE_TEST_KAFKA=host:port` names a running one instead; a test that needs to stop it makes its own `KafkaServer()`.
"""

from tests.support.kafka.server import PASSWORD, USER, KafkaServer

__all__ = ["PASSWORD", "USER", "KafkaServer"]

"""Dashboards and alerts in front of a service in trouble: a real Prometheus scrapes it, and every panel is asked.

```
stage.py       two processes on Kafka and Postgres
scenario.py    steady load, and one trouble after the other
prometheus.py  a Prometheus of its own, with the chart's rules
panels.py      the queries of the dashboards, as Grafana would send them, and what came back
drawing.py     a picture of each dashboard, for the pages
```
"""

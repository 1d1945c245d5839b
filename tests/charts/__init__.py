"""The chart as `helm template` renders it, and the files that belong to it. Tools come from `make chart-tools`."""

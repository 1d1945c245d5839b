"""kubectl and helm, as a person would call them, in one namespace of one context."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "build" / "tools"
STEP_SECONDS = 300


class ClusterError(Exception):
    """A sentence for a person: what did not work on the cluster."""


class Kube:
    """Runs both programs; what they refuse is an error in their own words."""

    def __init__(self, context: str | None, namespace: str) -> None:
        self.namespace = namespace
        self._kubectl = [_program("kubectl"), *(["--context", context] if context else []), "--namespace", namespace]
        self._helm = [_program("helm"), *(["--kube-context", context] if context else []), "--namespace", namespace]

    def reach(self) -> None:
        """Raises: ClusterError that says what is missing, if no cluster answers."""
        answer = self._run([*self._kubectl, "get", "--raw", "/readyz", "--request-timeout=5s"], 20, check=False)
        if answer.returncode != 0:
            raise ClusterError(
                "no Kubernetes cluster answers: name one by KUBECONFIG or --context (docs/kubernetes.md has the "
                "commands for kind and minikube)."
            )

    def kubectl(self, *arguments: str, stdin: str | None = None, seconds: float = STEP_SECONDS) -> str:
        """Return what kubectl prints. Raises: ClusterError."""
        return self._run([*self._kubectl, *arguments], seconds, stdin=stdin).stdout

    def helm(self, *arguments: str, seconds: float = STEP_SECONDS) -> str:
        """Return what helm prints. Raises: ClusterError."""
        return self._run([*self._helm, *arguments], seconds).stdout

    def get(self, *arguments: str) -> Any:
        """Return objects as values."""
        return json.loads(self.kubectl("get", *arguments, "--output=json"))

    def pods(self, selector: str) -> list[dict[str, Any]]:
        """Return the pods that are not on their way out."""
        found = self.get("pods", f"--selector={selector}")["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def exec(self, pod: str, *command: str, seconds: float = STEP_SECONDS) -> str:
        """Return what a command in a pod prints."""
        return self.kubectl("exec", pod, "--", *command, seconds=seconds)

    def start_exec(self, pod: str, *command: str) -> subprocess.Popen[str]:
        """Start a command in a pod whose output is wanted later."""
        return subprocess.Popen(
            [*self._kubectl, "exec", pod, "--", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def wait_rollout(self, *deployments: str, seconds: int = STEP_SECONDS) -> None:
        """Return when every pod of the Deployments is new and ready."""
        for deployment in deployments:
            self.kubectl("rollout", "status", f"deployment/{deployment}", f"--timeout={seconds}s", seconds=seconds + 10)

    @staticmethod
    def _run(
        command: Sequence[str], seconds: float, *, stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        try:
            done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired as late:
            raise ClusterError(f"{' '.join(command[:12])} did not end within {seconds:g} s.") from late
        if check and done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise ClusterError(f"{' '.join(command[:12])}: {' '.join(said[-3:])}")
        return done


def _program(name: str) -> str:
    path = shutil.which(name) or (str(TOOLS / name) if (TOOLS / name).exists() else None)
    if path is None:
        sys.exit(f"{name} is missing: put it on the PATH (make chart-tools installs helm).")
    return path

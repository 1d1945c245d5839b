"""The events of a run, known before it begins, and what they come to when each is applied once and in order."""

import random

CUSTOMERS = 96
LANES = 24
"""Customers of one lane are sent by one sender, in order; lanes do not wait for each other."""


def events(run, count):
    """Yield lane, id, customer, amount and whether it is a credit, for each event of a run."""
    randomness = random.Random(run)
    for number in range(count):
        customer = randomness.randrange(CUSTOMERS)
        amount, is_credit = randomness.randint(1, 100), randomness.random() < 0.5
        yield customer % LANES, f"run-{run}-{number}", f"customer-{customer}", amount, is_credit


class Model:
    """The wallets, and the alerts of each customer in order, after some runs."""

    def __init__(self, runs):
        """Apply runs, as pairs of name and number of events, one after the other."""
        self.wallets = {}
        self.alerts = {}
        self.applied = 0
        for run, count in runs:
            for _, _, customer, amount, is_credit in events(run, count):
                self._apply(customer, amount, is_credit)

    def _apply(self, customer, amount, is_credit):
        wallet = self.wallets.setdefault(customer, {"balance": 0, "credits": 0, "debits": 0, "applied": 0})
        self.applied += 1
        wallet["applied"] += 1
        wallet["credits" if is_credit else "debits"] += 1
        wallet["balance"] += amount if is_credit else -amount
        if not is_credit and wallet["balance"] < 0:
            self.alerts.setdefault(customer, []).append(wallet["balance"])

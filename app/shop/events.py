"""What happens in the shop."""

from pydantic import PositiveInt

from headrace import Event


class WalletCredited(Event, type="wallet.credited", topic="wallets", key="customer"):
    """Money came into a customer's wallet."""

    customer: str
    amount: PositiveInt


class WalletDebited(Event, type="wallet.debited", topic="wallets", key="customer"):
    """Money left a customer's wallet."""

    customer: str
    amount: PositiveInt


class WalletOverdrawn(Event, type="wallet.overdrawn", topic="alerts", key="customer"):
    """A debit took a wallet below zero."""

    customer: str
    balance: int

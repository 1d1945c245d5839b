"""`headrace describe MODULE:APP`: what an application declares, and what is done about its handlers when they fail."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from headrace.cli.loading import Target
from headrace.cli.output import harmless, stdout, table
from headrace.engine.policies import Policies
from headrace.handlers.policy import KINDS, Policy
from headrace.handlers.subscription import Handler, Subscription
from headrace.loading import find_platform, load_app
from headrace.order.declared import shown_order
from headrace.registry import Decoder, Registry
from headrace.schema_registry.decoder import SchemaDecoder, name_of
from headrace.settings import EngineSettings, load_settings


def describe(
    target: Target,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Print an application's event types, topics, keys, handlers and states, and the policy of each handler.

    A policy is shown as it is with the settings of this shell's environment.
    """
    registry = find_platform(load_app(target)).registry
    registry.complete()
    described = describe_registry(registry, load_settings().engine)
    if as_json:
        typer.echo(json.dumps(described, indent=2))
        return
    stdout.print(f"service {described['service']}\n")
    types = table("TYPE", "TOPIC", "KEY", "VERSION", "CLASS")
    for each in described["types"]:
        key = each["key"] or "subject, or id"
        types.add_row(*map(harmless, (each["type"], each["topic"], key, each["version"], each["class"])))
    handlers = table("SUBSCRIPTION", "HANDLER", "TAKES", "STATES", "RUNS")
    policies = table("SUBSCRIPTION", "HANDLER", "ATTEMPTS", "WAITS", "LIMIT", "AT THE END", *map(str.upper, KINDS))
    for each in described["handlers"]:
        names = (harmless(each["subscription"]), harmless(each["handler"]))
        handlers.add_row(*names, ", ".join(each["types"]), ", ".join(each["states"]) or "-", each["kind"])
        policy = each["policy"]
        waits = f"{policy['first_seconds']:g} s to {policy['max_seconds']:g} s, less up to {policy['jitter']:.0%}"
        end = "dead letter" if policy["at_end"] == "dead_letter" else "key is held"
        errors = (", ".join(policy[kind]) or "-" for kind in KINDS)
        policies.add_row(*names, str(policy["attempts"]), waits, f"{policy['timeout_seconds']:g} s", end, *errors)
    decoders = table("TOPIC", "DECODER", "SCHEMA", "BECOMES")
    for each in described["decoders"]:
        schemas = each["schemas"] or {"-": "what the function returns"}
        for name, becomes in schemas.items():
            decoders.add_row(*map(harmless, (each["topic"], each["decoder"], name, becomes or "skipped")))
    orders = [f"{each.name}: {shown_order(each.order)}" for each in registry.subscriptions.values() if each.order]
    last = ["", decoders] if described["decoders"] else []
    last += ["", *(harmless(f"order of {each}") for each in orders)] if orders else []
    stdout.print(types, "", handlers, "", policies, *last, sep="\n")


def describe_registry(registry: Registry, settings: EngineSettings) -> dict[str, Any]:
    """Return what is declared, as JSON has it."""
    types = [registry.types[name] for name in sorted(registry.types)]
    return {
        "service": registry.service,
        "types": [
            {
                "type": each.type,
                "topic": each.topic,
                "key": each.key_field,
                "version": each.version,
                "class": each.model.__qualname__,
            }
            for each in types
        ],
        "decoders": [_decoder(topic, decoder) for topic, decoder in sorted(registry.decoders.items())],
        "handlers": [
            _handler(subscription, handler, Policies(subscription, settings))
            for subscription in registry.subscriptions.values()
            for handler in subscription.functions
        ],
    }


def _decoder(topic: str, decoder: Decoder) -> dict[str, Any]:
    if isinstance(decoder, SchemaDecoder):
        return {"topic": topic, "decoder": "schema registry", "schemas": decoder.described}
    return {"topic": topic, "decoder": name_of(decoder), "schemas": None}


def _handler(subscription: Subscription, handler: Handler, policies: Policies) -> dict[str, Any]:
    return {
        "subscription": subscription.name,
        "start": subscription.start,
        "order": shown_order(subscription.order),
        "handler": handler.name,
        "types": sorted(subscription.types_of(handler)),
        "states": list(handler.state_names),
        "kind": _kind(subscription, handler),
        "policy": _policy(policies.of(handler)),
    }


def _kind(subscription: Subscription, handler: Handler) -> str:
    if any(effect.handler is handler for effect in subscription.effects.values()):
        return "effect"
    kind = "async" if handler.is_async else "sync"
    return f"{kind}, batch" if handler.is_batch else kind


def _policy(policy: Policy) -> dict[str, Any]:
    shown = policy._asdict()
    return shown | {kind: [each.__name__ for each in shown[kind]] for kind in KINDS}

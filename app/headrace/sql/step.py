"""Queries on `headrace.step`: what the outside answered to the steps of effects."""

REMEMBER = """
insert into headrace.step (subscription, identity, name, answer)
select $1, new.* from unnest($2::bytea[], $3::text[], $4::text[]) as new
on conflict (subscription, identity, name) do nothing
"""
"""Keeps answers; the first one of a step stays."""

READ = "select identity, name, answer from headrace.step where subscription = $1 and identity = any($2::bytea[])"
"""Reads the answers that some events' steps have had."""

FORGET = "delete from headrace.step where subscription = $1 and identity = any($2::bytea[])"
"""Removes the answers of effects that are done."""

EXPIRE = """
delete from headrace.step where answered_at < now() - make_interval(days => $1) and not exists (
    select from headrace.effect
    where effect.subscription = step.subscription and effect.identity = step.identity
)
"""
"""Removes old answers whose effects were given up on."""

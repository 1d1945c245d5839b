"""Queries on `headrace.state_change`: what people have done to states."""

NOTE = """
insert into headrace.state_change (subscription, state, key, action, before, after, by, why)
values ($1, $2, $3, $4, $5::text::jsonb, $6::text::jsonb, $7, $8)
"""
"""Keeps who changed a state, what it was and is, and why."""

LIST = """
select action, before::text as before, after::text as after, by, why, changed_at from headrace.state_change
where subscription = $1 and state = $2 and key = $3 order by changed_at desc, id desc limit $4
"""
"""Lists what people have done to a state, the latest first."""

COUNT = "select count(distinct (state, key)) from headrace.state_change where subscription = $1"
"""Counts the states of a subscription that people have changed."""

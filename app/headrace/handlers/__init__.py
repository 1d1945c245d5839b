"""A team's code: what a handler may ask for and return, and how its signature becomes a call.

A signature is read once, when the module is imported. A mistake is a ConfigurationError there, in a sentence that says
what to write; what works but gives up a promise is a HeadraceWarning. For each event only one generated lambda runs.

A function of `list[E]` is a batch handler: one call for events that follow each other in a partition, with `States[T]`
in place of `State[T]`. Lists are never gathered across an event of another handler: a run that ends early has done all
that comes before the first event that it has not come to, and that is what the claim's next offset can say.
"""

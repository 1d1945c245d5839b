"""A team's code: what a handler may ask for, and how its signature becomes a call.

A signature is read once, when the module is imported; a mistake is a ConfigurationError there, in a sentence that
says what to write. Per event only one generated lambda runs. A state belongs to the key of the event at hand.
"""

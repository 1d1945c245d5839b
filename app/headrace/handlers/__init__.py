"""A team's code: what a handler may ask for and return, and how its signature becomes a call.

A signature is read once, when the module is imported. A mistake is a ConfigurationError there, in a sentence that says
what to write; what works but gives up a promise is a HeadraceWarning. For each event only one generated lambda runs.
"""

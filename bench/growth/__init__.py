"""How cost grows: one service of Headrace whose load is changed in one thing at a time, a curve for each.

`service.py` is what runs, `curves.py` what is changed, `soak.py` the same load for as long as you like.
"""

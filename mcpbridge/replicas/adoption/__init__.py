"""What becomes of a session whose home is lost, or which has two: what each replica knows and does.

Reading order: `host`, `known_homes`, `out_of_reach`, `revivable`, `adoptions`, `yield_orders`,
`copies`, `adopter`, `taker`, `checks`.
"""

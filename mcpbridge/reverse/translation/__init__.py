"""A client of one era at a server of the other: `either_era` finds out, `bridged_client` serves."""

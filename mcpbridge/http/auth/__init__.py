"""Who may call: static tokens, OAuth access tokens, and the principal a request acts for."""

"""Who may ask what, and over which connection: TLS, client certificates, bearer tokens, a role for each method."""

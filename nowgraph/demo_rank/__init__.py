"""A visitor's session on one machine: shop data -> training -> a server -> clicks, each of them in the next list."""

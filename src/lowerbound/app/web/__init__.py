"""The dashboard and the latent explorer: pages of a server, and a page of a file."""

"""One digital patient's body, heart, vessels and calcium."""

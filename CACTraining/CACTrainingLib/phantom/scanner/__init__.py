"""The simulated CT."""

"""Scoring of coronary artery calcium, without Qt: a room per capability. A package imports only those below it."""

"""Reading and scoring chest radiographs."""

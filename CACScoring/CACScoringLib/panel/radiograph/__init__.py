"""The panel's page of radiographs."""

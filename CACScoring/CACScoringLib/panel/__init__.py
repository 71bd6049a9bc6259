"""The sections of the scoring panel; the only place of the library that knows Qt."""

"""Other people's annotations as a project's."""

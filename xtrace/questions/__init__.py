"""Questions asked of the tables of episodes."""

"""From question vectors to passages and contexts. Nothing here loads torch or depends on models."""

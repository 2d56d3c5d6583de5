"""The whole history under another key, or in another database; purging what was replaced."""

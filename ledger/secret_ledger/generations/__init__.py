"""Copies the whole history under another key or into another database; purges old generations."""

"""Where keys and settings come from: the environment, files, a provider."""

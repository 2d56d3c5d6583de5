"""How secrets are read: the newest version, older ones, lists, from memory."""

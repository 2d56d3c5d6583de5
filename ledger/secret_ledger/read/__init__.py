"""How secrets are read: the newest version, older versions, lists, and from memory."""

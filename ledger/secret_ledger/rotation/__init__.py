"""Keys over time: another key takes over, the newest events follow, a key ends."""

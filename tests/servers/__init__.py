"""Small local servers that speak the real protocols, for tests of the real clients."""

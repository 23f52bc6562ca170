"""The app: fast tests on stub models, and one walk through it in a real browser."""

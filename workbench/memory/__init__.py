"""Where a model fits: devices, file headers, plans and the meter. Loads nothing."""
